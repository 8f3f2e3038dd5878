//go:build !purego

#include "textflag.h"

// AHEAD has the bytes that are soon used at p fetched: they come from the last cache,
// or from memory, and the processor by itself stops at the end of a page.
#define AHEAD(p) PREFETCHT0 1024(p)(DX*1)

// The loops take 16 lanes a turn, roundPairs 8, those with near tables 32, and n must
// be a multiple of that.
//
//	CX  lanes left    Z31  M, or another constant    K7  even lanes
//	DX  bytes done    Z30  Max, or another constant

// MULTIPLY sets t to x·a mod M, canonical, for any x and a's factor (high, low):
// high halves of x·high less those of (x·low mod 2^32)·M. Odd has high's odd lanes
// in the even ones. It needs M in Z31 and K7, and clobbers x, m, p and K2.
#define MULTIPLY(x, high, odd, low, m, p, t) \
	VPMULLD low, x, m        \
	VMOVSHDUP x, t           \
	VPMULUDQ high, x, p      \
	VPMULUDQ odd, t, t       \
	VMOVSHDUP p, K7, t       \
	VMOVSHDUP m, x           \
	VPMULUDQ Z31, m, p       \
	VPMULUDQ Z31, x, x       \
	VMOVSHDUP p, K7, x       \
	SUBTRACT(x, t)

// SUBTRACT sets t to t - x mod M. It clobbers K2.
#define SUBTRACT(x, t) \
	VPCMPUD $1, x, t, K2 \
	VPSUBD x, t, t       \
	VPADDD Z31, t, K2, t

// CANONICAL adds M to the negative ones of x. It clobbers K2.
#define CANONICAL(x) \
	VPMOVD2M x, K2       \
	VPADDD Z31, x, K2, x

// LIFT takes M off the ones of x above Max, in Z30. It clobbers K2.
#define LIFT(x) \
	VPCMPUD $6, Z30, x, K2 \
	VPSUBD Z31, x, K2, x

// MODULUS sets Z31 to M, Z30 to Max, K7 and DX.
#define MODULUS(m) \
	MOVL m, AX           \
	VPBROADCASTD AX, Z31 \
	SHRL $1, AX          \
	VPBROADCASTD AX, Z30 \
	MOVL $0x5555, AX     \
	KMOVW AX, K7         \
	XORL DX, DX

// NEAR moves 32 words of a and b, to the places among themselves that are at R11. It
// clobbers Z8 and Z9.
#define NEAR(a, b) \
	VMOVDQA64 a, Z8                  \
	VMOVDQA64 b, Z9                  \
	VMOVDQU32 -128(R11)(DX*1), a     \
	VMOVDQU32 -64(R11)(DX*1), b      \
	VPERMI2D Z9, Z8, a               \
	VPERMI2D Z9, Z8, b

// NEXT sets a and b to the next 32 words at SI, moved.
#define NEXT(a, b) \
	VMOVDQU32 (SI)(DX*1), Z8         \
	VMOVDQU32 64(SI)(DX*1), Z9       \
	VMOVDQU32 (R11)(DX*1), a         \
	VMOVDQU32 64(R11)(DX*1), b       \
	VPERMI2D Z9, Z8, a               \
	VPERMI2D Z9, Z8, b

// TAKE takes the product of the factors at R8 and R9 and x off what DI holds. It
// clobbers x and Z1 to Z7.
#define TAKE(x) \
	VMOVDQU32 (R8)(DX*1), Z2          \
	VMOVDQU32 (R9)(DX*1), Z3          \
	VMOVSHDUP Z2, Z1                  \
	CANONICAL(x)                      \
	MULTIPLY(x, Z2, Z1, Z3, Z5, Z6, Z7) \
	VMOVDQU32 (DI)(DX*1), Z4          \
	SUBTRACT(Z7, Z4)                  \
	VMOVDQU32 Z4, (DI)(DX*1)          \
	ADDQ $64, DX

// TAKE_SMALL is TAKE for small x, units at R8 and ratios at R9. It clobbers x and Z4
// to Z6.
#define TAKE_SMALL(x) \
	VCVTDQ2PS x, Z5              \
	VMULPS (R9)(DX*1), Z5, Z5    \
	VCVTPS2DQ Z5, Z5             \
	VPMULLD (R8)(DX*1), x, x     \
	VPMULLD Z31, Z5, Z5          \
	VPSUBD Z5, x, x              \
	CANONICAL(x)                 \
	VMOVDQU32 (DI)(DX*1), Z4     \
	SUBTRACT(x, Z4)              \
	VMOVDQU32 Z4, (DI)(DX*1)     \
	ADDQ $64, DX

// LIFTED sets t to the lift of the product of the factors at R8 and R9 and what SI
// holds less what BX holds. It clobbers Z0 to Z6.
#define LIFTED(t) \
	AHEAD(BX)                         \
	AHEAD(SI)                         \
	VMOVDQU32 (BX)(DX*1), Z4          \
	VMOVDQU32 (SI)(DX*1), Z0          \
	VMOVDQU32 (R8)(DX*1), Z2          \
	VMOVDQU32 (R9)(DX*1), Z3          \
	VMOVSHDUP Z2, Z1                  \
	SUBTRACT(Z4, Z0)                  \
	MULTIPLY(Z0, Z2, Z1, Z3, Z5, Z6, t) \
	LIFT(t)                           \
	ADDQ $64, DX

// func topAVX512(v *uint32, n int, bias, mask uint32) uint32
TEXT ·topAVX512(SB), NOSPLIT, $0-28
	MOVQ v+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL bias+16(FP), AX
	VPBROADCASTD AX, Z31
	MOVL mask+20(FP), AX
	VPBROADCASTD AX, Z30
	VPXORD Z0, Z0, Z0
	XORL DX, DX
	PCALIGN $32
loop:
	AHEAD(SI)
	VPADDD (SI)(DX*1), Z31, Z1
	VPANDD Z30, Z1, Z1
	VPMAXUD Z1, Z0, Z0
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VEXTRACTI64X4 $1, Z0, Y1
	VPMAXUD Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0x4e, X0, X1
	VPMAXUD X1, X0, X0
	VPSHUFD $0xb1, X0, X1
	VPMAXUD X1, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+24(FP)
	VZEROUPPER
	RET

// func addAVX512(m uint32, n int, dst *uint32, x *int32)
TEXT ·addAVX512(SB), NOSPLIT, $0-32
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*1), Z0
	VMOVDQU32 (DI)(DX*1), Z4
	CANONICAL(Z0)
	VPSUBD Z0, Z31, Z0
	SUBTRACT(Z0, Z4)
	VMOVDQU32 Z4, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func subAVX512(m uint32, n int, dst, a, b *uint32)
TEXT ·subAVX512(SB), NOSPLIT, $0-40
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ a+24(FP), SI
	MOVQ b+32(FP), R8
	PCALIGN $32
loop:
	VMOVDQU32 (R8)(DX*1), Z0
	VMOVDQU32 (SI)(DX*1), Z4
	SUBTRACT(Z0, Z4)
	VMOVDQU32 Z4, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftAVX512(m uint32, n int, dst *int32, v *uint32)
TEXT ·liftAVX512(SB), NOSPLIT, $0-32
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*1), Z0
	LIFT(Z0)
	VMOVDQU32 Z0, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func subScaledAVX512(m uint32, n int, dst *uint32, x *int32, high, low *uint32)
TEXT ·subScaledAVX512(SB), NOSPLIT, $0-48
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ high+32(FP), R8
	MOVQ low+40(FP), R9
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*1), Z0
	TAKE(Z0)
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func subNearAVX512(m uint32, n int, dst *uint32, x *int32, from *int32, high, low *uint32)
TEXT ·subNearAVX512(SB), NOSPLIT, $0-56
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ from+32(FP), R11
	MOVQ high+40(FP), R8
	MOVQ low+48(FP), R9
	PCALIGN $32
loop:
	NEXT(Z0, Z10)
	TAKE(Z0)
	TAKE(Z10)
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func subSmallAVX512(m uint32, n int, dst *uint32, x *int32, unit *uint32, ratio *float32)
TEXT ·subSmallAVX512(SB), NOSPLIT, $0-48
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ unit+32(FP), R8
	MOVQ ratio+40(FP), R9
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*1), Z0
	TAKE_SMALL(Z0)
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func subSmallNearAVX512(m uint32, n int, dst *uint32, x, from *int32, unit *uint32, ratio *float32)
TEXT ·subSmallNearAVX512(SB), NOSPLIT, $0-56
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ from+32(FP), R11
	MOVQ unit+40(FP), R8
	MOVQ ratio+48(FP), R9
	PCALIGN $32
loop:
	NEXT(Z0, Z10)
	TAKE_SMALL(Z0)
	TAKE_SMALL(Z10)
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftScaledAVX512(m uint32, n int, dst *int32, v, w, high, low *uint32)
TEXT ·liftScaledAVX512(SB), NOSPLIT, $0-56
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	MOVQ w+32(FP), BX
	MOVQ high+40(FP), R8
	MOVQ low+48(FP), R9
	PCALIGN $32
loop:
	LIFTED(Z7)
	VMOVDQU32 Z7, -64(DI)(DX*1)
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftNearAVX512(m uint32, n int, dst *int32, v, w *uint32, from *int32, high, low *uint32)
TEXT ·liftNearAVX512(SB), NOSPLIT, $0-64
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	MOVQ w+32(FP), BX
	MOVQ from+40(FP), R11
	MOVQ high+48(FP), R8
	MOVQ low+56(FP), R9
	PCALIGN $32
loop:
	LIFTED(Z7)
	LIFTED(Z10)
	NEAR(Z7, Z10)
	VMOVDQU32 Z7, -128(DI)(DX*1)
	VMOVDQU32 Z10, -64(DI)(DX*1)
	SUBQ $32, CX
	JNZ loop
	VZEROUPPER
	RET

// func scaleAVX512(m uint32, n int, dst, v *uint32, high, low uint32)
TEXT ·scaleAVX512(SB), NOSPLIT, $0-40
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	MOVL high+32(FP), AX
	VPBROADCASTD AX, Z2
	MOVL low+36(FP), AX
	VPBROADCASTD AX, Z3
	PCALIGN $32
loop:
	VMOVDQU32 (SI)(DX*1), Z0
	MULTIPLY(Z0, Z2, Z2, Z3, Z5, Z6, Z7)
	VMOVDQU32 Z7, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

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

// Of two vectors of 16, the places of the first 8 of each by turns; the others are 8 on.
DATA turns<>+0(SB)/8, $0x0000001000000000
DATA turns<>+8(SB)/8, $0x0000001100000001
DATA turns<>+16(SB)/8, $0x0000001200000002
DATA turns<>+24(SB)/8, $0x0000001300000003
DATA turns<>+32(SB)/8, $0x0000001400000004
DATA turns<>+40(SB)/8, $0x0000001500000005
DATA turns<>+48(SB)/8, $0x0000001600000006
DATA turns<>+56(SB)/8, $0x0000001700000007
GLOBL turns<>(SB), RODATA, $64

// SHIFTED sets b to the places of a, by so many on. It clobbers AX.
#define SHIFTED(by, a, b) \
	MOVL $by, AX         \
	VPBROADCASTD AX, b   \
	VPADDD a, b, b

// func roundAVX512(n int, dst *int32, v *float32, inverse float64)
//
// It rounds as generic does, and takes the low halves: of 16 at a time, that takes less than
// conversions, whose results come 8 at a time.
TEXT ·roundAVX512(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ v+16(FP), SI
	VBROADCASTSD inverse+24(FP), Z31
	MOVQ $0x4338000000000000, AX // 1.5·2^52
	VPBROADCASTQ AX, Z30
	VMOVDQU32 firsts<>(SB), Z29
	XORL DX, DX
	PCALIGN $32
loop:
	AHEAD(SI)
	VCVTPS2PD (SI)(DX*1), Z0
	VCVTPS2PD 32(SI)(DX*1), Z1
	VMULPD Z31, Z0, Z0
	VMULPD Z31, Z1, Z1
	VADDPD Z30, Z0, Z0
	VADDPD Z30, Z1, Z1
	VPERMT2D Z1, Z29, Z0
	VMOVDQU32 Z0, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func roundPairsAVX512(n int, dst *int32, v0, v1 *float32, inverse0, inverse1 float64)
//
// It rounds as generic does, and takes the low halves.
TEXT ·roundPairsAVX512(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ v0+16(FP), SI
	MOVQ v1+24(FP), BX
	VBROADCASTSD inverse0+32(FP), Z31
	VBROADCASTSD inverse1+40(FP), Z30
	MOVQ $0x4338000000000000, AX // 1.5·2^52
	VPBROADCASTQ AX, Z29
	MOVL $0xaaaa, AX
	KMOVW AX, K1
	XORL DX, DX
	PCALIGN $32
loop:
	AHEAD(SI)
	AHEAD(BX)
	VCVTPS2PD (SI)(DX*1), Z0
	VCVTPS2PD (BX)(DX*1), Z1
	VMULPD Z31, Z0, Z0
	VMULPD Z30, Z1, Z1
	VADDPD Z29, Z0, Z0
	VADDPD Z29, Z1, Z1
	VMOVSLDUP Z1, K1, Z0
	VMOVDQU32 Z0, (DI)(DX*2)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// TAKE_FROM takes the product of the units in Z2, whose ratios are in Z3, and small x
// off what dst holds. It clobbers x, Z4 and Z5.
#define TAKE_FROM(x, dst) \
	VCVTDQ2PS x, Z5              \
	VMULPS Z3, Z5, Z5            \
	VCVTPS2DQ Z5, Z5             \
	VPMULLD Z2, x, x             \
	VPMULLD Z31, Z5, Z5          \
	VPSUBD Z5, x, x              \
	CANONICAL(x)                 \
	VMOVDQU32 (dst)(DX*1), Z4    \
	SUBTRACT(x, Z4)              \
	VMOVDQU32 Z4, (dst)(DX*1)

// MOVE_TWO moves the pairs at two places that are at bytes from R11 and DX on, and
// MOVE_BLOCK those at 16. They clobber AX and R12.
#define MOVE_TWO(at) \
	MOVQ at(R11)(DX*1), AX           \
	MOVL AX, R12                     \
	SHRQ $32, AX                     \
	MOVQ (SI)(R12*8), R12            \
	MOVQ (SI)(AX*8), AX              \
	MOVQ R12, (2*(at))(R10)(DX*2)    \
	MOVQ AX, (2*(at)+8)(R10)(DX*2)

#define MOVE_BLOCK(at) \
	MOVE_TWO(at)        \
	MOVE_TWO(at+8)      \
	MOVE_TWO(at+16)     \
	MOVE_TWO(at+24)     \
	MOVE_TWO(at+32)     \
	MOVE_TWO(at+40)     \
	MOVE_TWO(at+48)     \
	MOVE_TWO(at+56)

// TAKE_PAIRS takes 16 pairs that were moved.
#define TAKE_PAIRS \
	VMOVDQU32 (R10)(DX*2), Z0    \
	VMOVDQU32 64(R10)(DX*2), Z6  \
	VMOVDQA64 Z0, Z1             \
	VPERMT2D Z6, Z29, Z0         \
	VPERMT2D Z6, Z28, Z1         \
	VMOVDQU32 (R8)(DX*1), Z2     \
	VMOVUPS (R9)(DX*1), Z3       \
	TAKE_FROM(Z0, DI)            \
	TAKE_FROM(Z1, BX)

// func subPairsAVX512(m uint32, n int, dst0, dst1 *uint32, x, from *int32, unit *uint32, ratio *float32, moved *int32)
//
// Pairs are moved 4 blocks ahead: that takes other parts of the processor than products
// do, and what was just written in pieces cannot be read as a whole yet.
TEXT ·subPairsAVX512(SB), NOSPLIT, $0-72
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst0+16(FP), DI
	MOVQ dst1+24(FP), BX
	MOVQ x+32(FP), SI
	MOVQ from+40(FP), R11
	MOVQ unit+48(FP), R8
	MOVQ ratio+56(FP), R9
	MOVQ moved+64(FP), R10
	VMOVDQU32 firsts<>(SB), Z29
	SHIFTED(1, Z29, Z28)
	MOVQ $64, R13
	CMPQ CX, R13
	CMOVQLT CX, R13
	SUBQ R13, CX
	MOVQ R13, DX
	SHLQ $2, DX
first:
	SUBQ $64, DX
	MOVE_BLOCK(0)
	TESTQ DX, DX
	JNZ first
	TESTQ CX, CX
	JZ last
	PCALIGN $32
both:
	MOVE_BLOCK(256)
	TAKE_PAIRS
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ both
last:
	TAKE_PAIRS
	ADDQ $64, DX
	SUBQ $16, R13
	JNZ last
	VZEROUPPER
	RET

// func liftPairsAVX512(m uint32, n int, dst *int32, v0, w0, v1, w1, high, low *uint32)
TEXT ·liftPairsAVX512(SB), NOSPLIT, $0-72
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v0+24(FP), SI
	MOVQ w0+32(FP), BX
	MOVQ v1+40(FP), R10
	MOVQ w1+48(FP), R11
	MOVQ high+56(FP), R8
	MOVQ low+64(FP), R9
	VMOVDQU32 turns<>(SB), Z29
	SHIFTED(8, Z29, Z28)
	PCALIGN $32
loop:
	VMOVDQU32 (R8)(DX*1), Z2
	VMOVDQU32 (R9)(DX*1), Z3
	VMOVSHDUP Z2, Z1
	VMOVDQU32 (SI)(DX*1), Z0
	VMOVDQU32 (BX)(DX*1), Z4
	VMOVDQU32 (R10)(DX*1), Z10
	VMOVDQU32 (R11)(DX*1), Z11
	AHEAD(SI)
	AHEAD(BX)
	AHEAD(R10)
	AHEAD(R11)
	SUBTRACT(Z4, Z0)
	SUBTRACT(Z11, Z10)
	MULTIPLY(Z0, Z2, Z1, Z3, Z5, Z6, Z7)
	MULTIPLY(Z10, Z2, Z1, Z3, Z12, Z13, Z14)
	LIFT(Z7)
	LIFT(Z14)
	VMOVDQA64 Z7, Z8
	VPERMT2D Z14, Z29, Z7
	VPERMT2D Z14, Z28, Z8
	VMOVDQU32 Z7, (DI)(DX*2)
	VMOVDQU32 Z8, 64(DI)(DX*2)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET
