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

// PAIRS adds the products of 4 elements' low and high halves of 26 bits and the integers
// of two samples to Y0 to Y3.
#define PAIRS(at, a, b, y, z, t) \
	VMOVDQU at(DI), b        \
	VPXOR at(SI), Y15, y     \
	VPAND Y13, b, a          \
	VPSRLQ $26, b, b         \
	VPSRLQ $32, y, z         \
	VPMULUDQ y, a, t         \
	VPMULUDQ y, b, y         \
	VPMULUDQ z, a, a         \
	VPMULUDQ z, b, b         \
	VPADDQ t, Y0, Y0         \
	VPADDQ y, Y1, Y1         \
	VPADDQ a, Y2, Y2         \
	VPADDQ b, Y3, Y3

// FOLD_PAIRS adds the halves of acc to two parts in memory, and sets acc to 0.
#define FOLD_PAIRS(acc, at) \
	VPAND Y14, acc, Y8        \
	VPSRLQ $32, acc, Y9       \
	VPADDQ at(DX), Y8, Y8     \
	VPADDQ (at+32)(DX), Y9, Y9 \
	VMOVDQU Y8, at(DX)        \
	VMOVDQU Y9, (at+32)(DX)   \
	VPXOR acc, acc, acc

// func dotPairsAVX2(a *uint64, y *int32, n int, parts *[2][4][4]uint64)
//
//	DI, SI, CX  a, y, terms left        Y0, Y1  sums of low and high halves    Y13  2^26 - 1
//	BX          terms before a fold     Y2, Y3  the same, of the second        Y14  2^32 - 1
//	DX          parts                   Y4-Y10  a and y, products              Y15  2^31 of 32
//
// A product is below 2^26·2^32, and between folds a lane takes 64 of them.
TEXT ·dotPairsAVX2(SB), NOSPLIT, $0-32
	MOVQ a+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ parts+24(FP), DX
	MOVL $0x3ffffff, AX
	VMOVQ AX, X13
	VPBROADCASTQ X13, Y13
	MOVL $0xffffffff, AX
	VMOVQ AX, X14
	VPBROADCASTQ X14, Y14
	MOVL $0x80000000, AX
	VMOVD AX, X15
	VPBROADCASTD X15, Y15
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
fold:
	MOVL $256, BX
	CMPQ CX, BX
	CMOVQLT CX, BX
	SUBQ BX, CX
	PCALIGN $32
loop:
	PAIRS(0, Y4, Y5, Y6, Y7, Y8)
	PAIRS(32, Y9, Y10, Y11, Y12, Y8)
	ADDQ $64, DI
	ADDQ $64, SI
	SUBQ $8, BX
	JNZ loop
	FOLD_PAIRS(Y0, 0)
	FOLD_PAIRS(Y1, 64)
	FOLD_PAIRS(Y2, 128)
	FOLD_PAIRS(Y3, 192)
	TESTQ CX, CX
	JNZ fold
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

// FLOATS writes the floats of the 8 integers of y, scale being its sample's. It needs
// biases in Y9 and scales of rows in Y8, and clobbers y and Y10.
#define FLOATS(y, scale, dst) \
	VMULPS Y8, scale, Y10   \
	VCVTDQ2PS y, y          \
	VMULPS Y10, y, y        \
	VADDPS Y9, y, y         \
	VMOVUPS y, (dst)(DX*1)

// func floatsPairsAVX2(dst0, dst1 *float32, y *int32, row, bias *float32, n int, sample0, sample1 float32)
TEXT ·floatsPairsAVX2(SB), NOSPLIT, $0-56
	MOVQ dst0+0(FP), DI
	MOVQ dst1+8(FP), BX
	MOVQ y+16(FP), SI
	MOVQ row+24(FP), R8
	MOVQ bias+32(FP), R9
	MOVQ n+40(FP), CX
	VBROADCASTSS sample0+48(FP), Y15
	VBROADCASTSS sample1+52(FP), Y14
	XORL DX, DX
	PCALIGN $32
loop:
	VMOVUPS (SI)(DX*2), Y0
	VMOVUPS 32(SI)(DX*2), Y1
	VSHUFPS $0x88, Y1, Y0, Y2
	VSHUFPS $0xdd, Y1, Y0, Y3
	VPERMQ $0xd8, Y2, Y2
	VPERMQ $0xd8, Y3, Y3
	VMOVUPS (R8)(DX*1), Y8
	VMOVUPS (R9)(DX*1), Y9
	FLOATS(Y2, Y15, DI)
	FLOATS(Y3, Y14, BX)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET
