//go:build !purego

#include "textflag.h"

// AHEAD has the bytes that are soon used at p fetched: they come from the last cache,
// or from memory, and the processor by itself stops at the end of a page.
#define AHEAD(p) PREFETCHT0 1024(p)(DX*1)

// TERMS adds the products of 8 elements and integers to lo and hi.
#define TERMS(at, lo, hi, a, y) \
	VPMOVZXDQ (at/2)(SI), y   \
	VMOVDQU64 at(DI), a       \
	VPXORQ Z31, y, y          \
	VPMADD52LUQ y, a, lo      \
	VPMADD52HUQ y, a, hi

// func dotAVX512(a *uint64, y *int32, n int, lo, hi *[8]uint64)
//
//	DI, SI, CX  a, y, terms left    Z0-Z3  sums of low halves     Z8-Z15  a and y
//	Z31         2^31                Z4-Z7  sums of high halves
TEXT ·dotAVX512(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL $0x80000000, AX
	VPBROADCASTQ AX, Z31
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VPXORQ Z7, Z7, Z7
	PCALIGN $32
loop:
	TERMS(0, Z0, Z4, Z8, Z9)
	TERMS(64, Z1, Z5, Z10, Z11)
	TERMS(128, Z2, Z6, Z12, Z13)
	TERMS(192, Z3, Z7, Z14, Z15)
	ADDQ $256, DI
	ADDQ $128, SI
	SUBQ $32, CX
	JNZ loop
	VPADDQ Z1, Z0, Z0
	VPADDQ Z3, Z2, Z2
	VPADDQ Z2, Z0, Z0
	VPADDQ Z5, Z4, Z4
	VPADDQ Z7, Z6, Z6
	VPADDQ Z6, Z4, Z4
	MOVQ lo+24(FP), DX
	VMOVDQU64 Z0, (DX)
	MOVQ hi+32(FP), DX
	VMOVDQU64 Z4, (DX)
	VZEROUPPER
	RET

// func floatsAVX512(dst *float32, y *int32, row, bias *float32, n int, sample float32)
TEXT ·floatsAVX512(SB), NOSPLIT, $0-44
	MOVQ dst+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ row+16(FP), R8
	MOVQ bias+24(FP), R9
	MOVQ n+32(FP), CX
	VBROADCASTSS sample+40(FP), Z31
	XORL DX, DX
	PCALIGN $32
loop:
	AHEAD(DI)
	VCVTDQ2PS (SI)(DX*1), Z0
	VMULPS (R8)(DX*1), Z31, Z1
	VMULPS Z1, Z0, Z0
	VADDPS (R9)(DX*1), Z0, Z0
	VMOVUPS Z0, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// PAIRS adds the products of 8 elements and pairs to the sums of both: lo0 and hi0,
// lo1 and hi1. It clobbers a, y and z.
#define PAIRS(at, lo0, hi0, lo1, hi1, a, y, z) \
	VMOVDQU64 at(DI), a       \
	VPXORD at(SI), Z31, y     \
	VPSRLQ $32, y, z          \
	VPANDQ Z30, y, y          \
	VPMADD52LUQ y, a, lo0     \
	VPMADD52HUQ y, a, hi0     \
	VPMADD52LUQ z, a, lo1     \
	VPMADD52HUQ z, a, hi1

// func dotPairsAVX512(a *uint64, y *int32, n int, lanes *[4][8]uint64)
//
//	DI, SI, CX  a, y, terms left          Z0-Z3  sums, as in lanes    Z8-Z13  a and y
//	Z31, Z30    2^31 of 32; 2^32 - 1      Z4-Z7  the same, of others
TEXT ·dotPairsAVX512(SB), NOSPLIT, $0-32
	MOVQ a+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL $0x80000000, AX
	VPBROADCASTD AX, Z31
	MOVL $0xffffffff, AX
	VPBROADCASTQ AX, Z30
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VPXORQ Z7, Z7, Z7
	PCALIGN $32
loop:
	PAIRS(0, Z0, Z1, Z2, Z3, Z8, Z9, Z10)
	PAIRS(64, Z4, Z5, Z6, Z7, Z11, Z12, Z13)
	ADDQ $128, DI
	ADDQ $128, SI
	SUBQ $16, CX
	JNZ loop
	VPADDQ Z4, Z0, Z0
	VPADDQ Z5, Z1, Z1
	VPADDQ Z6, Z2, Z2
	VPADDQ Z7, Z3, Z3
	MOVQ lanes+24(FP), DX
	VMOVDQU64 Z0, (DX)
	VMOVDQU64 Z1, 64(DX)
	VMOVDQU64 Z2, 128(DX)
	VMOVDQU64 Z3, 192(DX)
	VZEROUPPER
	RET

// FLOATS writes the floats of the 16 integers of y, scale being its sample's. It needs
// scales of rows in Z8 and biases in Z9, and clobbers y and Z10.
#define FLOATS(y, scale, dst) \
	VMULPS Z8, scale, Z10     \
	VCVTDQ2PS y, y            \
	VMULPS Z10, y, y          \
	VADDPS Z9, y, y           \
	VMOVUPS y, (dst)(DX*1)

// Of 16 pairs, the places of the first of each; those of the second come after them.
DATA firsts<>+0(SB)/8, $0x0000000200000000
DATA firsts<>+8(SB)/8, $0x0000000600000004
DATA firsts<>+16(SB)/8, $0x0000000a00000008
DATA firsts<>+24(SB)/8, $0x0000000e0000000c
DATA firsts<>+32(SB)/8, $0x0000001200000010
DATA firsts<>+40(SB)/8, $0x0000001600000014
DATA firsts<>+48(SB)/8, $0x0000001a00000018
DATA firsts<>+56(SB)/8, $0x0000001e0000001c
GLOBL firsts<>(SB), RODATA, $64

// func floatsPairsAVX512(dst0, dst1 *float32, y *int32, row, bias *float32, n int, sample0, sample1 float32)
TEXT ·floatsPairsAVX512(SB), NOSPLIT, $0-56
	MOVQ dst0+0(FP), DI
	MOVQ dst1+8(FP), R10
	MOVQ y+16(FP), SI
	MOVQ row+24(FP), R8
	MOVQ bias+32(FP), R9
	MOVQ n+40(FP), CX
	VBROADCASTSS sample0+48(FP), Z31
	VBROADCASTSS sample1+52(FP), Z30
	VMOVDQU32 firsts<>(SB), Z29
	MOVL $1, AX
	VPBROADCASTD AX, Z28
	VPADDD Z28, Z29, Z28
	XORL DX, DX
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*2), Z0
	VMOVDQU32 64(SI)(DX*2), Z1
	VMOVUPS (R8)(DX*1), Z8
	VMOVUPS (R9)(DX*1), Z9
	VMOVDQA64 Z0, Z2
	VPERMT2D Z1, Z29, Z0
	VPERMT2D Z1, Z28, Z2
	AHEAD(DI)
	AHEAD(R10)
	FLOATS(Z0, Z31, DI)
	FLOATS(Z2, Z30, R10)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET
