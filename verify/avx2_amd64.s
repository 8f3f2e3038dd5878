//go:build !purego

#include "textflag.h"

// TERMS adds the products of 4 elements' low and high halves of 26 bits and
// integers to lo and hi.
#define TERMS(at, lo, hi) \
	VPMOVZXDQ (at/2)(SI), Y9 \
	VMOVDQU at(DI), Y8       \
	VPXOR Y15, Y9, Y9        \
	VPAND Y13, Y8, Y10       \
	VPSRLQ $26, Y8, Y8       \
	VPMULUDQ Y9, Y10, Y10    \
	VPMULUDQ Y9, Y8, Y8      \
	VPADDQ Y10, lo, lo       \
	VPADDQ Y8, hi, hi

// FOLD adds the halves of acc to lo and hi, and sets acc to 0.
#define FOLD(acc, lo, hi) \
	VPAND Y14, acc, Y8   \
	VPSRLQ $32, acc, Y9  \
	VPADDQ Y8, lo, lo    \
	VPADDQ Y9, hi, hi    \
	VPXOR acc, acc, acc

// func dotAVX2(a *uint64, y *int32, n int, parts *[4][4]uint64)
//
//	DI, SI, CX  a, y, terms left        Y0, Y2  sums of low halves     Y13  2^26 - 1
//	BX          terms before a fold     Y1, Y3  sums of high halves    Y14  2^32 - 1
//	                                    Y4-Y7   parts                  Y15  2^31
//
// A product is below 2^26·2^32, and between folds a lane takes 64 of them.
TEXT ·dotAVX2(SB), NOSPLIT, $0-32
	MOVQ a+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL $0x3ffffff, AX
	VMOVQ AX, X13
	VPBROADCASTQ X13, Y13
	MOVL $0xffffffff, AX
	VMOVQ AX, X14
	VPBROADCASTQ X14, Y14
	MOVL $0x80000000, AX
	VMOVQ AX, X15
	VPBROADCASTQ X15, Y15
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y4, Y4, Y4
	VPXOR Y5, Y5, Y5
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
fold:
	MOVL $512, BX
	CMPQ CX, BX
	CMOVQLT CX, BX
	SUBQ BX, CX
	PCALIGN $32
loop:
	TERMS(0, Y0, Y1)
	TERMS(32, Y2, Y3)
	TERMS(64, Y0, Y1)
	TERMS(96, Y2, Y3)
	ADDQ $128, DI
	ADDQ $64, SI
	SUBQ $16, BX
	JNZ loop
	FOLD(Y0, Y4, Y5)
	FOLD(Y2, Y4, Y5)
	FOLD(Y1, Y6, Y7)
	FOLD(Y3, Y6, Y7)
	TESTQ CX, CX
	JNZ fold
	MOVQ parts+24(FP), DX
	VMOVDQU Y4, (DX)
	VMOVDQU Y5, 32(DX)
	VMOVDQU Y6, 64(DX)
	VMOVDQU Y7, 96(DX)
	VZEROUPPER
	RET

// func floatsAVX2(dst *float32, y *int32, row, bias *float32, n int, sample float32)
TEXT ·floatsAVX2(SB), NOSPLIT, $0-44
	MOVQ dst+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ row+16(FP), R8
	MOVQ bias+24(FP), R9
	MOVQ n+32(FP), CX
	VBROADCASTSS sample+40(FP), Y15
	XORL DX, DX
	PCALIGN $32
loop:
	VCVTDQ2PS (SI)(DX*1), Y0
	VMULPS (R8)(DX*1), Y15, Y1
	VMULPS Y1, Y0, Y0
	VADDPS (R9)(DX*1), Y0, Y0
	VMOVUPS Y0, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET
