// Shared by the kernels: a ring's constants, and arithmetic modulo its primes.
#pragma once

#define KERNEL extern "C" __attribute__((global)) void
#define DEVICE static inline __attribute__((device, always_inline))

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned u32;
typedef long long s64;
typedef unsigned long long u64;
typedef u32 quad __attribute__((ext_vector_type(4)));

// Ring has the constants of up to four primes. See ring.go.
struct Ring {
	u32 primes, modulus, half, lift;
	u32 powers[4];            // 256^j mod p, centred, one per byte
	float p[4], inverse[4];   // and 1/p
	u32 unitPowers[4];        // e·256^j mod p, centred, with e = (M/p)^-1 mod p
	u32 unitBias[4];          // -e·2^31 mod p, and MAGIC's bits
	u32 rest[4], correction;  // M/p; minus the sum of MAGIC's bits times M/p
	u32 modulus64[2], unused; // for float64: products of two primes, and
	u64 idempotent[2];        // 1 modulo one of them, 0 modulo the other
};

// A float32 between 2^23 and 2^24 holds an integer in its low bits: MAGIC + v has v
// there for |v| < 2^22, and adding MAGIC rounds to the nearest integer.
#define MAGIC 12582912.0f
#define MAGIC_BITS 0x4B400000u

// dot returns sum + Σ_j (byte j of a)·(signed byte j of b).
DEVICE u32 dot(u32 a, u32 b, u32 sum)
{
	u32 d;
	asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(sum));
	return d;
}

DEVICE float asFloat(u32 a) { return __builtin_bit_cast(float, a); }
DEVICE u32 asBits(float a) { return __builtin_bit_cast(u32, a); }

// centred returns MAGIC + (v mod p), in [-p/2, p/2], of MAGIC + v.
DEVICE float centred(float v, float p, float inverse)
{
	float q = __builtin_fmaf(v - MAGIC, inverse, MAGIC) - MAGIC;
	return __builtin_fmaf(-p, q, v);
}

// storeWords writes four words of a row of outs words, from column o on, as far as they exist.
DEVICE void storeWords(u32 *to, quad y, u32 o, u32 outs)
{
	if (outs % 4 == 0) {
		*(quad *)to = y;
		return;
	}
	to[0] = y.x;
	if (o + 1 < outs)
		to[1] = y.y;
	if (o + 2 < outs)
		to[2] = y.z;
	if (o + 3 < outs)
		to[3] = y.w;
}
