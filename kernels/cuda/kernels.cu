// The kernels around cuBLAS: words to residues, patches of maps to residues, and sums to
// words. product.go queues them. Each has a twin in plain C, in internal/fake/testdata.
//
// Indices: image b = prime·groups + group, row j of an image (a weight row or a
// position), column k of ld, which is terms padded with zeros. A thread takes four
// columns of one row at a time; 2^shift threads of a block share a row.

#include "ring.cuh"

struct alignas(16) place { int offset, row, column, unused; };

struct Split {
	const u32 *x;
	void *images;
	s64 rows, pad;           // rows of an image, and padded with zeros
	u32 terms, ld, groups, shift;
	Ring r;
};

struct Patch {
	const u32 *x;
	void *images;
	const place *places; // one per term
	s64 first, rows, pad;
	u32 terms, ld, groups, shift;
	int h, w, c, top, left, sh, sw;
	u32 outW, positions;
	int depth;
	Ring r;
};

struct Gather {
	const s8 *maps;      // images of bytes, step apart
	s8 *images;
	const place *places; // one per 16 terms
	s64 first, rows, pad, step;
	u32 terms, ld, groups, shift;
	int h, w, c, top, left, sh, sw;
	u32 outW, positions;
	int depth;
	u32 count, unused;
};

struct Combine {
	const void *sums;
	u32 *y;
	s64 rows, pad;
	u32 outs, ld, groups, shift; // outs: in a group
	Ring r;
};

DEVICE s64 firstRow(u32 shift)
{
	u32 thread = __nvvm_read_ptx_sreg_tid_x(), rows = __nvvm_read_ptx_sreg_ntid_x() >> shift;
	return (s64)__nvvm_read_ptx_sreg_ctaid_x() * rows + (thread >> shift);
}

DEVICE u32 firstColumn(u32 shift) { return 4 * (__nvvm_read_ptx_sreg_tid_x() & ((1u << shift) - 1)); }

// residue returns the low byte of word a modulo prime i, centred.
DEVICE u32 residue(const Ring &r, u32 a, int i)
{
	return asBits(centred(asFloat(dot(a, r.powers[i], MAGIC_BITS)), r.p[i], r.inverse[i])) & 0xff;
}

// store8 writes four columns of a row to each image: bytes modulo the primes, or with lift the
// words' signed values to one image.
DEVICE void store8(const Ring &r, s8 *images, s64 image, s64 at, const u32 a[4])
{
	if (r.lift) {
		u32 bytes = 0;
		for (int k = 0; k < 4; k++)
			bytes |= (a[k] > r.half ? a[k] - r.modulus : a[k]) << 24 >> (24 - 8 * k);
		*(u32 *)(images + at) = bytes;
		return;
	}
#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		if (i < r.primes) {
			u32 bytes = 0;
#pragma unroll
			for (int k = 0; k < 4; k++)
				bytes |= residue(r, a[k], i) << (8 * k);
			*(u32 *)(images + i * image + at) = bytes;
		}
	}
}

// store64 writes them modulo the products of two primes, as float64.
DEVICE void store64(const Ring &r, double *images, s64 image, s64 at, const u32 a[4])
{
	for (int i = 0; i < 2; i++)
		if (r.modulus64[i])
			for (int k = 0; k < 4; k++)
				images[i * image + at + k] = a[k] % r.modulus64[i];
}

template <bool wide> DEVICE void store(const Ring &r, void *images, s64 image, s64 at, const u32 a[4])
{
	if (wide)
		store64(r, (double *)images, image, at, a);
	else
		store8(r, (s8 *)images, image, at, a);
}

template <bool wide> DEVICE void split(const Split &s)
{
	s64 row = firstRow(s.shift);
	if (row >= s.groups * s.pad)
		return;
	u32 g = 0;
	s64 j = row;
	if (s.groups > 1) {
		g = (u32)(row / s.pad);
		j = row % s.pad;
	}
	const u32 *x = s.x + (g * s.rows + j) * s.terms;
	s64 image = s.groups * s.pad * s.ld;
	for (u32 k = firstColumn(s.shift); k < s.ld; k += 4u << s.shift) {
		u32 a[4] = {0, 0, 0, 0};
		if (j < s.rows) {
			if (s.terms % 4 == 0) {
				if (k < s.terms)
					*(quad *)a = *(const quad *)(x + k);
			} else {
#pragma unroll
				for (u32 i = 0; i < 4; i++)
					if (k + i < s.terms)
						a[i] = x[k + i];
			}
		}
		store<wide>(s.r, s.images, image, row * s.ld + k, a);
	}
}

KERNEL split8(Split s) { split<false>(s); }
KERNEL split64(Split s) { split<true>(s); }

template <bool wide> DEVICE void patch(const Patch &s)
{
	s64 row = firstRow(s.shift);
	if (row >= s.groups * s.pad)
		return;
	u32 g = 0;
	s64 j = row;
	if (s.groups > 1) {
		g = (u32)(row / s.pad);
		j = row % s.pad;
	}
	u32 position = (u32)(s.first + j), sample = position / s.positions, p = position % s.positions;
	int top = (int)(p / s.outW) * s.sh - s.top, left = (int)(p % s.outW) * s.sw - s.left;
	const u32 *x = s.x + (s64)sample * s.h * s.w * s.c + ((s64)top * s.w + left) * s.c + g * s.depth;
	s64 image = s.groups * s.pad * s.ld;
	for (u32 k = firstColumn(s.shift); k < s.ld; k += 4u << s.shift) {
		u32 a[4] = {0, 0, 0, 0};
		if (j < s.rows) {
#pragma unroll
			for (u32 i = 0; i < 4; i++) {
				if (k + i < s.terms) {
					place e = s.places[k + i];
					u32 h = top + e.row, w = left + e.column; // outside the map too large, also if negative
					if (h < (u32)s.h && w < (u32)s.w)
						a[i] = x[e.offset];
				}
			}
		}
		store<wide>(s.r, s.images, image, row * s.ld + k, a);
	}
}

KERNEL patch8(Patch s) { patch<false>(s); }
KERNEL patch64(Patch s) { patch<true>(s); }

// gather8 copies patches from the residues of maps, 16 channels of a place at a time: depth,
// and so terms, is a multiple of 16.
KERNEL gather8(Gather s)
{
	s64 row = firstRow(s.shift);
	if (row >= s.groups * s.pad)
		return;
	u32 g = 0;
	s64 j = row;
	if (s.groups > 1) {
		g = (u32)(row / s.pad);
		j = row % s.pad;
	}
	u32 position = (u32)(s.first + j), sample = position / s.positions, p = position % s.positions;
	int top = (int)(p / s.outW) * s.sh - s.top, left = (int)(p % s.outW) * s.sw - s.left;
	s64 corner = (s64)sample * s.h * s.w * s.c + ((s64)top * s.w + left) * s.c + g * s.depth;
	s64 image = s.groups * s.pad * s.ld;
	for (u32 k = 4 * firstColumn(s.shift); k < s.ld; k += 16u << s.shift) {
		place e = s.places[k / 16];
		u32 h = top + e.row, w = left + e.column; // outside the map too large, also if negative
		bool inside = j < s.rows && h < (u32)s.h && w < (u32)s.w;
		const s8 *from = s.maps + corner + e.offset;
		s8 *to = s.images + row * s.ld + k;
		// Issue all loads before the first store.
		quad a = 0, b = 0, c = 0, d = 0;
		if (inside) {
			a = *(const quad *)from;
			if (s.count > 1)
				b = *(const quad *)(from + s.step);
			if (s.count > 2)
				c = *(const quad *)(from + 2 * s.step);
			if (s.count > 3)
				d = *(const quad *)(from + 3 * s.step);
		}
		*(quad *)to = a;
		if (s.count > 1)
			*(quad *)(to + image) = b;
		if (s.count > 2)
			*(quad *)(to + 2 * image) = c;
		if (s.count > 3)
			*(quad *)(to + 3 * image) = d;
	}
}

// word returns the word of sums modulo each prime: with c = e·sum mod p, centred,
// Σ c·M/p = y + M·floor(Σ c/p). The quotient from float32 is short by at most one,
// and then only where y < M/2^9, so that y + M is below 2^32.
DEVICE u32 word(const Ring &r, const u32 sums[4])
{
	u32 y = r.correction;
	float quotient = -0.5f - 1.0f / 1024;
#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		if (i < r.primes) {
			float c = centred(asFloat(dot(sums[i] ^ 0x80000000u, r.unitPowers[i], r.unitBias[i])), r.p[i], r.inverse[i]);
			y += asBits(c) * r.rest[i];
			quotient = __builtin_fmaf(c - MAGIC, r.inverse[i], quotient);
		}
	}
	y -= (asBits(quotient + MAGIC) - MAGIC_BITS) * r.modulus;
	u32 down = y - r.modulus;
	return down < y ? down : y;
}

KERNEL combine8(Combine s)
{
	s64 j = firstRow(s.shift);
	if (j >= s.rows)
		return;
	s64 image = s.groups * s.pad * s.ld;
	u32 padded = (s.outs + 3) / 4 * 4;
	for (u32 at = firstColumn(s.shift); at < s.groups * padded; at += 4u << s.shift) {
		u32 g = s.groups > 1 ? at / padded : 0, o = at - g * padded;
		const u32 *sums = (const u32 *)s.sums + (g * s.pad + j) * s.ld + o;
		quad v[4] = {0, 0, 0, 0};
#pragma unroll
		for (u32 i = 0; i < 4; i++)
			if (i < s.r.primes)
				v[i] = *(const quad *)(sums + i * image);
		u32 a[4] = {v[0].x, v[1].x, v[2].x, v[3].x}, b[4] = {v[0].y, v[1].y, v[2].y, v[3].y};
		u32 c[4] = {v[0].z, v[1].z, v[2].z, v[3].z}, d[4] = {v[0].w, v[1].w, v[2].w, v[3].w};
		quad y = {word(s.r, a), word(s.r, b), word(s.r, c), word(s.r, d)};
		storeWords(s.y + (j * s.groups + g) * s.outs + o, y, o, s.outs);
	}
}

KERNEL combine64(Combine s)
{
	s64 j = firstRow(s.shift);
	if (j >= s.rows)
		return;
	s64 image = s.groups * s.pad * s.ld;
	for (u32 at = firstColumn(s.shift) / 4; at < s.groups * s.outs; at += 1u << s.shift) {
		u32 g = at / s.outs, o = at % s.outs;
		const double *sums = (const double *)s.sums + (g * s.pad + j) * s.ld + o;
		u64 y = 0;
		for (u32 i = 0; i < 2; i++)
			if (s.r.modulus64[i]) // a sum is an integer below 2^48
				y += (u64)sums[i * image] % s.r.modulus64[i] * s.r.idempotent[i] % s.r.modulus;
		s.y[(j * s.groups + g) * s.outs + o] = y % s.r.modulus;
	}
}
