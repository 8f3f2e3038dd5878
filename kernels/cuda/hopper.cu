// Products for compute capability 9.0. The tensor cores compute tiles of sums modulo one prime,
// which are reduced to one byte each. The bytes of all primes then make the tile's words. Sums
// never reach memory.
//
// fused computes large products: a block takes the primes in turn. A cluster of two blocks
// computes tiles of 256 positions by 192 weight rows, one tile after the other. In a block one
// warp makes the copy engine fill a ring of stages. A stage is 128 bytes of each of the block's
// 128 positions and of the 192 weight rows, half of which the other block copies. Two
// warpgroups multiply 64 positions each.
//
// parallel computes small ones: each of a cluster's four blocks takes a prime, so that there
// are four times as many blocks. They exchange their bytes. Here warpgroups multiply 64 weight
// rows each, by a number of positions that the variants differ in.
//
// Rows are read through tensor maps, which give zeros outside a matrix. Where the positions are
// those of a convolution, their map makes the copy engine gather patches from the residues
// of maps.

#include "ring.cuh"

struct alignas(64) Map { u64 opaque[16]; };

// Patches tells where the patches of a convolution lie. A row of the weights has perPlace
// chunks for each place of the kernel, each of that many bytes of channels.
struct Patches {
	u32 perPlace, chunk;      // perPlace 0: x is a matrix, and chunk BYTES
	u32 kw, dh, dw;           // width of the kernel, dilation
	u32 outW, positions;      // of one map
	int top, left;
	u32 sh, sw;
	u32 samples;              // of one image
};

struct Product {
	Map x, w;
	u32 *y;
	u32 rows, outs;      // of y
	u32 high, wide;      // tiles
	u32 steps;           // stages of one prime
	Patches p;
	Ring r;              // r.lift: the weights have one image
};

enum {
	BYTES = 128,                             // of each row in a stage
	ROWS = 128, OUTS = 192, STAGES = 5,      // of fused
	X_BYTES = ROWS * BYTES, W_BYTES = OUTS * BYTES, STAGE_BYTES = X_BYTES + W_BYTES,
	SUMS = OUTS / 2, // sums of a thread
	GROUP = 8,       // rows of tiles in a group, which is computed column by column
};

extern __attribute__((shared)) char memory[];

DEVICE u32 thread() { return __nvvm_read_ptx_sreg_tid_x(); }

DEVICE u32 rankInCluster()
{
	u32 r;
	asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
	return r;
}

DEVICE u32 clusterIndex()
{
	u32 r;
	asm("mov.u32 %0, %%clusterid.x;" : "=r"(r));
	return r;
}

DEVICE u32 clusters()
{
	u32 r;
	asm("mov.u32 %0, %%nclusterid.x;" : "=r"(r));
	return r;
}

// Barriers, by their addresses in shared memory.

DEVICE void init(u32 barrier, u32 count)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

DEVICE void expect(u32 barrier, u32 bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// arrive arrives at another block's barrier, at the address that it has in this block. It
// signals that memory was read. Nothing was written, so no wider release is needed.
DEVICE void arrive(u32 barrier, u32 block)
{
	asm volatile("{\n\t.reg .b32 remote;\n\t"
	             "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
	             "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}" ::"r"(barrier), "r"(block) : "memory");
}

DEVICE void wait(u32 barrier, u32 parity)
{
	asm volatile("{\n\t.reg .pred done;\n"
	             "again:\n\t"
	             "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
	             "@done bra out;\n\t"
	             "bra again;\n"
	             "out:\n\t}" ::"r"(barrier), "r"(parity) : "memory");
}

DEVICE void clusterSync()
{
	asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); // one of a warp's threads may have filled the ring
	asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

DEVICE void copy(u32 to, u64 map, u32 byte, u32 row, u32 image, u32 barrier)
{
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
	             ::"r"(to), "l"(map), "r"(byte), "r"(row), "r"(image), "r"(barrier) : "memory");
}

// copyBoth copies to both blocks of the cluster.
DEVICE void copyBoth(u32 to, u64 map, u32 byte, u32 row, u32 image, u32 barrier)
{
	unsigned short both = 3;
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;"
	             ::"r"(to), "l"(map), "r"(byte), "r"(row), "r"(image), "r"(barrier), "h"(both) : "memory");
}

DEVICE void copyPatches(u32 to, u64 map, u32 channel, int column, int row, u32 sample, u32 toRight, u32 down, u32 barrier)
{
	asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};"
	             ::"r"(to), "l"(map), "r"(channel), "r"(column), "r"(row), "r"(sample), "r"(barrier),
	             "h"((unsigned short)toRight), "h"((unsigned short)down) : "memory");
}

// Source gives a block's rows of x, from row first of image on, stage by stage.
struct Source {
	u32 first, image;
	int column, row; // of the first patch
	u32 sample;
	u32 k;           // of a matrix
	u32 channel, kx, ky;
};

DEVICE Source source(const Patches &p, u32 first, u32 image)
{
	Source s = {first, image, 0, 0, 0, 0, 0, 0, 0};
	if (p.perPlace) {
		u32 at = first % p.positions;
		s.sample = image * p.samples + first / p.positions;
		s.column = (int)(at % p.outW * p.sw) - p.left;
		s.row = (int)(at / p.outW * p.sh) - p.top;
	}
	return s;
}

// next copies the next stage of the given number of rows. Behind the last place it copies bytes
// of no meaning, for which the weights are zeros.
DEVICE void next(Source &s, const Patches &p, u32 to, u32 rows, u64 map, u32 barrier)
{
	if (!p.perPlace) {
		copy(to, map, s.k, s.first, s.image, barrier);
		s.k += BYTES;
		return;
	}
	for (u32 done = 0; done < BYTES; done += p.chunk) {
		copyPatches(to + done * rows, map, s.channel * p.chunk, s.column, s.row, s.sample, s.kx * p.dw, s.ky * p.dh, barrier);
		if (++s.channel == p.perPlace) {
			s.channel = 0;
			if (++s.kx == p.kw) {
				s.kx = 0;
				s.ky++;
			}
		}
	}
}

// descriptor describes rows of 32, 64 or 128 bytes in shared memory: swizzled, in blocks of
// eight rows.
DEVICE u64 descriptor(u32 at, u32 bytes)
{
	u64 swizzle = bytes == 128 ? 1 : bytes == 64 ? 2 : 3;
	return (u64)(at >> 4 & 0x3fff) | (u64)1 << 16 | (u64)(8 * bytes >> 4) << 32 | swizzle << 62;
}

#define R4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define R16(d, i) R4(d, i), R4(d, i + 4), R4(d, i + 8), R4(d, i + 12)

#define R32(d, i) R16(d, i), R16(d, i + 16)

// The operands of sums in assembly.
#define O8(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define O0_31 O8(0, 1, 2, 3, 4, 5, 6, 7) ", " O8(8, 9, 10, 11, 12, 13, 14, 15) ", " \
	O8(16, 17, 18, 19, 20, 21, 22, 23) ", " O8(24, 25, 26, 27, 28, 29, 30, 31)
#define O32_63 ", " O8(32, 33, 34, 35, 36, 37, 38, 39) ", " O8(40, 41, 42, 43, 44, 45, 46, 47) ", " \
	O8(48, 49, 50, 51, 52, 53, 54, 55) ", " O8(56, 57, 58, 59, 60, 61, 62, 63)
#define O64_95 ", " O8(64, 65, 66, 67, 68, 69, 70, 71) ", " O8(72, 73, 74, 75, 76, 77, 78, 79) ", " \
	O8(80, 81, 82, 83, 84, 85, 86, 87) ", " O8(88, 89, 90, 91, 92, 93, 94, 95)
#define O96_127 ", " O8(96, 97, 98, 99, 100, 101, 102, 103) ", " O8(104, 105, 106, 107, 108, 109, 110, 111) ", " \
	O8(112, 113, 114, 115, 116, 117, 118, 119) ", " O8(120, 121, 122, 123, 124, 125, 126, 127)

// multiply adds a 64 x 32 by 32 x 2n product of bytes to the n sums of each of a warpgroup's
// threads, or sets them if add is 0.
#define MULTIPLY(n, columns, operands, a, b, p, ...)                                        \
	DEVICE void multiply(int (&d)[n], u64 rows, u64 cols, u32 add)                          \
	{                                                                                       \
		asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #p ", 0;\n\t"                 \
		             "wgmma.mma_async.sync.aligned.m64n" #columns "k32.s32.s8.s8 {" operands \
		             "}, %" #a ", %" #b ", p;\n\t}"                                         \
		             : __VA_ARGS__ : "l"(rows), "l"(cols), "r"(add));                       \
	}
MULTIPLY(32, 64, O0_31, 32, 33, 34, R32(d, 0))
MULTIPLY(64, 128, O0_31 O32_63, 64, 65, 66, R32(d, 0), R32(d, 32))
MULTIPLY(96, 192, O0_31 O32_63 O64_95, 96, 97, 98, R32(d, 0), R32(d, 32), R32(d, 64))
MULTIPLY(128, 256, O0_31 O32_63 O64_95 O96_127, 128, 129, 130, R32(d, 0), R32(d, 32), R32(d, 64), R32(d, 96))

// unit returns e·sum mod p, centred, in its low byte. See kernels.cu.
DEVICE u32 unit(u32 sum, u32 powers, u32 bias, float p, float inverse)
{
	return asBits(centred(asFloat(dot(sum ^ 0x80000000u, powers, bias)), p, inverse));
}

// word returns the word of four units, given as bytes plus 128.
DEVICE u32 word(const Ring &r, u32 correction, u32 units)
{
	u32 y = correction;
	float quotient = -0.5f - 1.0f / 1024;
#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		u32 c; // the bits of MAGIC + 128 + unit
		asm("prmt.b32 %0, %1, %2, 0x7650;" : "=r"(c) : "r"(units), "r"(MAGIC_BITS));
		y += c * r.rest[i];
		quotient = __builtin_fmaf(asFloat(c) - (MAGIC + 128), r.inverse[i], quotient);
		units >>= 8;
	}
	y -= (asBits(quotient + MAGIC) - MAGIC_BITS) * r.modulus;
	u32 down = y - r.modulus;
	return down < y ? down : y;
}

// A tile's place.
struct Tile { u32 row, out; };

DEVICE Tile tile(const Product &s, u32 index)
{
	u32 perGroup = GROUP * s.wide, group = index / perGroup, in = index % perGroup;
	u32 high = s.high - group * GROUP < GROUP ? s.high - group * GROUP : GROUP;
	return {(group * GROUP + in % high) * 2 * ROWS, in / high * OUTS};
}

extern "C" __attribute__((global, launch_bounds(384, 1))) void fused(Product s)
{
	u64 maps; // the parameter's own address, as the copy engine does not accept that of a copy
	asm("{\n\t.reg .b64 at;\n\tmov.b64 at, fused_param_0;\n\tcvta.param.u64 %0, at;\n\t}" : "=l"(maps));
	u32 rank = rankInCluster();
	u32 base = (u32)(u64)(__attribute__((address_space(3))) char *)memory;
	u32 stages = (base + 1023) & ~1023u;
	u32 full = stages + STAGES * STAGE_BYTES, empty = full + 8 * STAGES;
	if (thread() == 0) {
		for (u32 i = 0; i < STAGES; i++) {
			init(full + 8 * i, 1);
			init(empty + 8 * i, 4); // two warpgroups of two blocks
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	}
	clusterSync();
	u32 primes = s.r.primes, tiles = s.high * s.wide, steps = s.steps;
	u32 stage = 0, phase = 0;
	if (thread() < 128) {
		asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
		if (thread() == 0) {
			for (u32 t = clusterIndex(); t < tiles; t += clusters()) {
				Tile at = tile(s, t);
				for (u32 i = 0; i < primes; i++) {
					Source from = source(s.p, at.row + rank * ROWS, i);
					for (u32 k = 0; k < steps; k++) {
						u32 x = stages + stage * STAGE_BYTES, w = x + X_BYTES + rank * (W_BYTES / 2);
						wait(empty + 8 * stage, phase ^ 1);
						expect(full + 8 * stage, STAGE_BYTES);
						next(from, s.p, x, ROWS, maps, full + 8 * stage);
						copyBoth(w, maps + sizeof(Map), k * BYTES, at.out + rank * (OUTS / 2), s.r.lift ? 0 : i, full + 8 * stage);
						if (++stage == STAGES) {
							stage = 0;
							phase ^= 1;
						}
					}
				}
			}
		}
	} else {
		asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
		u32 group = thread() / 128 - 1, lane = thread() % 32, warp = thread() % 128 / 32;
		u32 block = thread() % 128; // threads 0 and 1 signal the two blocks that a stage was read
		u32 correction = s.r.correction;
		for (u32 i = 0; i < primes; i++)
			correction -= 128 * s.r.rest[i];
		for (u32 t = clusterIndex(); t < tiles; t += clusters()) {
			u32 units[SUMS];
#pragma unroll
			for (u32 j = 0; j < SUMS; j++)
				units[j] = 0;
			for (u32 i = 0; i < primes; i++) {
				int d[SUMS];
#pragma unroll
				for (u32 j = 0; j < SUMS; j++)
					d[j] = 0;
				u32 last = 0;
				for (u32 k = 0; k < steps; k++) {
					wait(full + 8 * stage, phase);
					u64 x = descriptor(stages + stage * STAGE_BYTES + group * 64 * BYTES, BYTES);
					u64 w = descriptor(stages + stage * STAGE_BYTES + X_BYTES, BYTES);
					asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
					for (u32 j = 0; j < BYTES / 32; j++)
						multiply(d, x + 2 * j, w + 2 * j, k | j);
					asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 1;" ::: "memory");
					if (k > 0 && block < 2)
						arrive(empty + 8 * last, block);
					last = stage;
					if (++stage == STAGES) {
						stage = 0;
						phase ^= 1;
					}
				}
#pragma unroll
				for (u32 j = 0; j < SUMS; j++)
					asm volatile("" : "+r"(d[j])::"memory");
				asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
				for (u32 j = 0; j < SUMS; j++)
					asm volatile("" : "+r"(d[j])::"memory");
				if (block < 2)
					arrive(empty + 8 * last, block);
				u32 powers = s.r.unitPowers[i], bias = s.r.unitBias[i];
				float p = s.r.p[i], inverse = s.r.inverse[i];
#pragma unroll
				for (u32 j = 0; j < SUMS; j++) // shift in the new byte at the top
					asm("shf.r.wrap.b32 %0, %0, %1, 8;" : "+r"(units[j]) : "r"(unit(d[j], powers, bias, p, inverse)));
			}
			Tile at = tile(s, t);
			u32 row = at.row + rank * ROWS + group * 64 + warp * 16 + lane / 4, out = at.out + lane % 4 * 2;
			u32 down = 8 * (4 - primes);
#pragma unroll
			for (u32 j = 0; j < SUMS; j += 2) { // pairs of adjacent columns
				u32 r = row + j % 4 / 2 * 8, o = out + j / 4 * 8;
				if (r >= s.rows || o >= s.outs)
					continue;
				u32 a = word(s.r, correction, (units[j] >> down) ^ 0x80808080u);
				u32 b = word(s.r, correction, (units[j + 1] >> down) ^ 0x80808080u);
				u32 *y = s.y + (s64)r * s.outs + o;
				if (s.outs % 2 == 0) {
					*(u64 *)y = (u64)b << 32 | a;
				} else {
					y[0] = a;
					if (o + 1 < s.outs)
						y[1] = b;
				}
			}
		}
	}
	clusterSync(); // the other block may still arrive here
}

// fetch returns four bytes of a block's shared memory, at the address that they would have in
// this block's.
DEVICE u32 fetch(u32 at, u32 block)
{
	u32 v;
	asm volatile("{\n\t.reg .b32 remote;\n\t"
	             "mapa.shared::cluster.u32 remote, %1, %2;\n\t"
	             "ld.shared::cluster.u32 %0, [remote];\n\t}" : "=r"(v) : "r"(at), "r"(block) : "memory");
	return v;
}

DEVICE u32 permute(u32 a, u32 b, u32 selector)
{
	u32 d;
	asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
	return d;
}

template <u32 GROUPS, u32 COLUMNS, u32 RING> DEVICE void parallel(const Product &s, u64 maps)
{
	enum {
		CHANNELS = 64 * GROUPS, COUNT = COLUMNS / 2, THREADS = 128 * GROUPS,
		WEIGHTS = CHANNELS * BYTES, STAGE = WEIGHTS + COLUMNS * BYTES,
		PITCH = CHANNELS + 16, // of a position's units, so that a warp's bytes lie in different banks
	};
	u32 rank = rankInCluster(), primes = s.r.primes, steps = s.steps;
	u32 base = (u32)(u64)(__attribute__((address_space(3))) char *)memory;
	u32 stages = (base + 1023) & ~1023u;
	u32 full = stages + RING * STAGE, empty = full + 8 * RING;
	u32 firstRow = clusterIndex() / s.wide * COLUMNS, firstOut = clusterIndex() % s.wide * CHANNELS;
	if (thread() == 0) {
		for (u32 i = 0; i < RING; i++) {
			init(full + 8 * i, 1);
			init(empty + 8 * i, GROUPS);
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	}
	__nvvm_bar_sync(0);
	u32 stage = 0, phase = 0;
	if (thread() >= THREADS) { // the warp that fills the ring
		if (thread() == THREADS && rank < primes) {
			Source from = source(s.p, firstRow, rank);
			for (u32 k = 0; k < steps; k++) {
				u32 w = stages + stage * STAGE, done = full + 8 * stage;
				wait(empty + 8 * stage, phase ^ 1);
				expect(done, STAGE);
				for (u32 i = 0; i < GROUPS; i++)
					copy(w + i * 64 * BYTES, maps + sizeof(Map), k * BYTES, firstOut + i * 64, s.r.lift ? 0 : rank, done);
				next(from, s.p, w + WEIGHTS, COLUMNS, maps, done);
				if (++stage == RING) {
					stage = 0;
					phase ^= 1;
				}
			}
		}
		clusterSync();
	} else {
		u32 group = thread() / 128, lane = thread() % 32, warp = thread() % 128 / 32;
		if (rank < primes) {
			int d[COUNT];
#pragma unroll
			for (u32 j = 0; j < COUNT; j++)
				d[j] = 0;
			u32 chunk = s.p.chunk, last = 0, offset[BYTES / 32]; // offset: of 32 bytes of x in a stage, in 16 bytes
#pragma unroll
			for (u32 j = 0; j < BYTES / 32; j++)
				offset[j] = (32 * j / chunk * chunk * COLUMNS + 32 * j % chunk) / 16;
			for (u32 k = 0; k < steps; k++) {
				wait(full + 8 * stage, phase);
				u64 w = descriptor(stages + stage * STAGE + group * 64 * BYTES, BYTES);
				u64 x = descriptor(stages + stage * STAGE + WEIGHTS, chunk);
				asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
				for (u32 j = 0; j < BYTES / 32; j++)
					multiply(d, w + 2 * j, x + offset[j], k | j);
				asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 1;" ::: "memory");
				if (k > 0 && thread() % 128 == 0)
					arrive(empty + 8 * last, rank);
				last = stage;
				if (++stage == RING) {
					stage = 0;
					phase ^= 1;
				}
			}
#pragma unroll
			for (u32 j = 0; j < COUNT; j++)
				asm volatile("" : "+r"(d[j])::"memory");
			asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
			for (u32 j = 0; j < COUNT; j++)
				asm volatile("" : "+r"(d[j])::"memory");
			asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); // the units take the stages' place
			u32 powers = s.r.unitPowers[rank], bias = s.r.unitBias[rank];
			float p = s.r.p[rank], inverse = s.r.inverse[rank];
			u32 at = stages + lane % 4 * 2 * PITCH + group * 64 + warp * 16 + lane / 4;
#pragma unroll
			for (u32 j = 0; j < COUNT; j++) {
				u32 v = unit(d[j], powers, bias, p, inverse);
				asm volatile("st.shared.u8 [%0], %1;" ::"r"(at + (j / 4 * 8 + j % 2) * PITCH + j % 4 / 2 * 8), "r"(v) : "memory");
			}
		}
		clusterSync();
		u32 correction = s.r.correction;
		for (u32 i = 0; i < primes; i++)
			correction -= 128 * s.r.rest[i];
		for (u32 i = thread(); i < COLUMNS / 4 * (CHANNELS / 4); i += THREADS) { // each block a quarter of the positions
			u32 position = rank * (COLUMNS / 4) + i / (CHANNELS / 4), channel = i % (CHANNELS / 4) * 4;
			u32 row = firstRow + position, out = firstOut + channel;
			if (row >= s.rows || out >= s.outs)
				continue;
			u32 v[4] = {0, 0, 0, 0}; // of each prime, four channels
#pragma unroll
			for (u32 k = 0; k < 4; k++)
				if (k < primes)
					v[k] = fetch(stages + position * PITCH + channel, k) ^ 0x80808080u;
			u32 a = permute(v[0], v[1], 0x5140), b = permute(v[2], v[3], 0x5140); // of channels 0 and 1
			u32 c = permute(v[0], v[1], 0x7362), d = permute(v[2], v[3], 0x7362); // of 2 and 3
			quad words = {word(s.r, correction, permute(a, b, 0x5410)), word(s.r, correction, permute(a, b, 0x7632)),
			              word(s.r, correction, permute(c, d, 0x5410)), word(s.r, correction, permute(c, d, 0x7632))};
			storeWords(s.y + (s64)row * s.outs + out, words, out, s.outs);
		}
	}
	clusterSync(); // others may still fetch from here
}

#define PARALLEL(groups, columns, ring, blocks)                                                                           \
	extern "C" __attribute__((global, launch_bounds(128 * groups + 32, blocks))) void parallel##groups##x##columns(Product s) \
	{                                                                                                                     \
		u64 maps;                                                                                                         \
		asm("{\n\t.reg .b64 at;\n\tmov.b64 at, parallel" #groups "x" #columns "_param_0;\n\tcvta.param.u64 %0, at;\n\t}" : "=l"(maps)); \
		parallel<groups, columns, ring>(s, maps);                                                                         \
	}
PARALLEL(2, 64, 4, 2)
PARALLEL(2, 128, 3, 2)
PARALLEL(1, 256, 2, 2)
