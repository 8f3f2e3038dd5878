//go:build !purego

#include "textflag.h"

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
