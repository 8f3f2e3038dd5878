//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// func keep8AVX2(dst *uint32, src *byte, n int, w *words, squeezes *[256][8]byte) (kept int)
//
//	DI, SI, CX  dst, src, words left    Y13  places of 4 words' bytes
//	R8          bytes of 4 words        Y14  mask
//	R9          squeezes                Y15  M
//
// There is no comparison of unsigned words: one is at least M where the larger of both
// is the word.
TEXT ·keep8AVX2(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ w+24(FP), BX
	MOVQ squeezes+32(FP), R9
	VPBROADCASTD words_m(BX), Y15
	VPBROADCASTD words_mask(BX), Y14
	MOVQ words_spread(BX), AX
	VBROADCASTI128 (AX), Y13
	MOVQ words_width(BX), R8
	SHLQ $2, R8
	PCALIGN $32
loop:
	VMOVDQU (SI), X0
	VINSERTI128 $1, (SI)(R8*1), Y0, Y0
	LEAQ (SI)(R8*2), SI
	VPSHUFB Y13, Y0, Y0
	VPAND Y14, Y0, Y0
	VPMAXUD Y15, Y0, Y1
	VPCMPEQD Y0, Y1, Y1
	VMOVMSKPS Y1, AX
	VPMOVZXBD (R9)(AX*8), Y2
	VPERMD Y0, Y2, Y0
	VMOVDQU Y0, (DI)
	POPCNTL AX, AX
	SHLQ $2, AX
	ADDQ $32, DI
	SUBQ AX, DI
	SUBQ $8, CX
	JNZ loop
	SUBQ dst+0(FP), DI
	SHRQ $2, DI
	MOVQ DI, kept+40(FP)
	VZEROUPPER
	RET
