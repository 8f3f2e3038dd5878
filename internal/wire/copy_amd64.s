//go:build !purego

#include "textflag.h"

// COPY copies 4 words and adds to acc which of them are too large. It reads them once.
#define COPY(at, x, acc) \
	MOVOU at(SI), x \
	MOVOU x, at(DI) \
	PXOR X15, x     \
	PCMPGTL X14, x  \
	POR x, acc

// func copyBlocks(dst *uint32, src *byte, blocks int, most uint32) (large uint32)
//
//	DI, SI, CX  dst, src, blocks of 16 words left
//	X8, X9      ones where a word is too large
//	X14         the largest word, less 2^31    X15  2^31: words are compared signed
TEXT ·copyBlocks(SB), NOSPLIT, $0-36
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVL most+24(FP), AX
	XORL $0x80000000, AX
	MOVL AX, X14
	PSHUFD $0, X14, X14
	MOVL $0x80000000, AX
	MOVL AX, X15
	PSHUFD $0, X15, X15
	PXOR X8, X8
	PXOR X9, X9

block:
	TESTQ CX, CX
	JZ    done
	COPY(0, X0, X8)
	COPY(16, X1, X9)
	COPY(32, X2, X8)
	COPY(48, X3, X9)
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JMP  block

done:
	POR      X9, X8
	PMOVMSKB X8, AX
	MOVL     AX, large+32(FP)
	RET
