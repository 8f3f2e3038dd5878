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

// TWO_PAIRS is TWO for pairs of words.
#define TWO_PAIRS(at, a, b) \
	MOVQ at(R11), a         \
	MOVL a, b               \
	SHRQ $32, a             \
	MOVQ (SI)(b*8), b       \
	MOVQ (SI)(a*8), a       \
	MOVQ b, (2*at)(DI)      \
	MOVQ a, (2*at+8)(DI)

// func movePairs(n int, dst, src, from *int32)
TEXT ·movePairs(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ from+24(FP), R11
	PCALIGN $32
loop:
	TWO_PAIRS(0, AX, BX)
	TWO_PAIRS(8, DX, R8)
	TWO_PAIRS(16, AX, BX)
	TWO_PAIRS(24, DX, R8)
	ADDQ $32, R11
	ADDQ $64, DI
	SUBQ $8, CX
	JNZ loop
	RET
