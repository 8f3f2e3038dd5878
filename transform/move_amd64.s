//go:build !purego

#include "textflag.h"

// TWO moves the words at the places of from, two of them, that are at bytes from
// R11 on, to DI.
#define TWO(at, a, b) \
	MOVQ at(R11), a     \
	MOVL a, b           \
	SHRQ $32, a         \
	MOVL (SI)(b*4), b   \
	MOVL (SI)(a*4), a   \
	SHLQ $32, a         \
	ORQ b, a            \
	MOVQ a, at(DI)

// func move(n int, dst, src, from *int32)
TEXT ·move(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ from+24(FP), R11
	PCALIGN $32
loop:
	TWO(0, AX, BX)
	TWO(8, DX, R8)
	TWO(16, AX, BX)
	TWO(24, DX, R8)
	ADDQ $32, R11
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ loop
	RET
