// Fused products for compute capability 9.0. For each prime in turn the tensor cores compute a
// tile of sums, which are reduced modulo the prime to one byte each; then follow the tile's
// words. Sums never reach memory.
//
// A cluster of two blocks computes tiles of 256 positions by 192 weight rows, one tile
// after the other. In a block one warp makes the copy engine fill a ring of stages. A stage is
// 128 bytes of each of the block's 128 positions and of the 192 weight rows, half of which the
// other block copies. Two warpgroups multiply 64 positions each.
//
// The images' rows are read through tensor maps, which give zeros outside an image.

#include "ring.cuh"

struct alignas(64) Map { u64 opaque[16]; };

struct Fused {
	Map x, w;
	u32 *y;
	u32 rows, outs;      // of y
	u32 high, wide;      // tiles
	u32 steps;           // stages of one prime
	Ring r;              // r.lift: the weights have one image
};

enum {
	ROWS = 128, OUTS = 192, BYTES = 128, // the size of a stage
	STAGES = 5,
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

// descriptor describes the layout of rows of 128 bytes in shared memory: swizzled, in blocks
// of eight rows.
DEVICE u64 descriptor(u32 at)
{
	return (u64)(at >> 4 & 0x3fff) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

#define R4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define R16(d, i) R4(d, i), R4(d, i + 4), R4(d, i + 8), R4(d, i + 12)

// multiply adds a 64 x 32 by 32 x 192 product of bytes to the warpgroup's sums, or sets
// them if add is 0.
DEVICE void multiply(int (&d)[SUMS], u64 x, u64 w, u32 add)
{
	asm volatile(
		"{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %98, 0;\n\t"
		"wgmma.mma_async.sync.aligned.m64n192k32.s32.s8.s8 "
		"{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
		"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
		"%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
		"%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
		"%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
		"%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
		"%96, %97, p;\n\t}"
		: R16(d, 0), R16(d, 16), R16(d, 32), R16(d, 48), R16(d, 64), R16(d, 80)
		: "l"(x), "l"(w), "r"(add));
}

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

DEVICE Tile tile(const Fused &s, u32 index)
{
	u32 perGroup = GROUP * s.wide, group = index / perGroup, in = index % perGroup;
	u32 high = s.high - group * GROUP < GROUP ? s.high - group * GROUP : GROUP;
	return {(group * GROUP + in % high) * 2 * ROWS, in / high * OUTS};
}

extern "C" __attribute__((global, launch_bounds(384, 1))) void fused(Fused s)
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
					for (u32 k = 0; k < steps; k++) {
						u32 x = stages + stage * STAGE_BYTES, w = x + X_BYTES + rank * (W_BYTES / 2);
						wait(empty + 8 * stage, phase ^ 1);
						expect(full + 8 * stage, STAGE_BYTES);
						copy(x, maps, k * BYTES, at.row + rank * ROWS, i, full + 8 * stage);
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
					u64 x = descriptor(stages + stage * STAGE_BYTES + group * 64 * BYTES);
					u64 w = descriptor(stages + stage * STAGE_BYTES + X_BYTES);
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
