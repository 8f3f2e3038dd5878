//go:build !purego

#include "textflag.h"

// Of each qword of two blocks, its bytes in reverse.
DATA reverse2<>+0(SB)/8, $0x0001020304050607
DATA reverse2<>+8(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse2<>+16(SB)/8, $0x0001020304050607
DATA reverse2<>+24(SB)/8, $0x08090a0b0c0d0e0f
GLOBL reverse2<>(SB), RODATA, $32

// What comes onto the qwords of the first two blocks, and then from one two to the next.
DATA first2<>+0(SB)/8, $0
DATA first2<>+8(SB)/8, $0
DATA first2<>+16(SB)/8, $0
DATA first2<>+24(SB)/8, $1
GLOBL first2<>(SB), RODATA, $32

DATA step2<>+0(SB)/8, $0
DATA step2<>+8(SB)/8, $2
DATA step2<>+16(SB)/8, $0
DATA step2<>+24(SB)/8, $2
GLOBL step2<>(SB), RODATA, $32

// COUNT sets y to the next 2 counter blocks, XORed with the first round key.
#define COUNT(y) \
	VPSHUFB Y12, Y14, y  \
	VPADDQ Y13, Y14, Y14 \
	VPXOR Y15, y, y

#define ROUND(instruction, at) \
	VBROADCASTI128 at(SI), Y15 \
	instruction Y15, Y0, Y0 \
	instruction Y15, Y1, Y1 \
	instruction Y15, Y2, Y2 \
	instruction Y15, Y3, Y3 \
	instruction Y15, Y4, Y4 \
	instruction Y15, Y5, Y5 \
	instruction Y15, Y6, Y6 \
	instruction Y15, Y7, Y7 \
	instruction Y15, Y8, Y8 \
	instruction Y15, Y9, Y9 \
	instruction Y15, Y10, Y10 \
	instruction Y15, Y11, Y11

// func encryptVAES(dst *byte, turns int, keys *roundKeys, i, block uint64)
//
//	DI, CX  dst, turns of 24 blocks left    Y0-Y11  blocks
//	SI      round keys                      Y14     counters: i and number of each block
//	Y12     big-endian order                Y15     a round key
//	Y13     what 2 blocks add to them
TEXT ·encryptVAES(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ turns+8(FP), CX
	MOVQ keys+16(FP), SI
	MOVQ i+24(FP), X14
	MOVQ block+32(FP), X13
	VPUNPCKLQDQ X13, X14, X14
	VINSERTI128 $1, X14, Y14, Y14
	VPADDQ first2<>(SB), Y14, Y14
	VMOVDQU step2<>(SB), Y13
	VMOVDQU reverse2<>(SB), Y12
	PCALIGN $32
turn:
	VBROADCASTI128 (SI), Y15
	COUNT(Y0)
	COUNT(Y1)
	COUNT(Y2)
	COUNT(Y3)
	COUNT(Y4)
	COUNT(Y5)
	COUNT(Y6)
	COUNT(Y7)
	COUNT(Y8)
	COUNT(Y9)
	COUNT(Y10)
	COUNT(Y11)
	ROUND(VAESENC, 16)
	ROUND(VAESENC, 32)
	ROUND(VAESENC, 48)
	ROUND(VAESENC, 64)
	ROUND(VAESENC, 80)
	ROUND(VAESENC, 96)
	ROUND(VAESENC, 112)
	ROUND(VAESENC, 128)
	ROUND(VAESENC, 144)
	ROUND(VAESENC, 160)
	ROUND(VAESENC, 176)
	ROUND(VAESENC, 192)
	ROUND(VAESENC, 208)
	ROUND(VAESENCLAST, 224)
	VMOVDQU Y0, (DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	VMOVDQU Y4, 128(DI)
	VMOVDQU Y5, 160(DI)
	VMOVDQU Y6, 192(DI)
	VMOVDQU Y7, 224(DI)
	VMOVDQU Y8, 256(DI)
	VMOVDQU Y9, 288(DI)
	VMOVDQU Y10, 320(DI)
	VMOVDQU Y11, 352(DI)
	ADDQ $384, DI
	DECQ CX
	JNZ turn
	VZEROUPPER
	RET
