//go:build !purego

#include "textflag.h"

// The loops take 16 lanes a turn, round 8, those with near tables 32, and n must
// be a multiple of that.
//
//	CX  lanes left    Z31  M, or another constant    K7  even lanes
//	DX  bytes done    Z30  Max, or another constant

// MULTIPLY sets t to x·a mod M, canonical, for any x and a's factor (high, low):
// high halves of x·high less those of (x·low mod 2^32)·M. It needs M in Z31 and
// K7, and clobbers x, high, m, p and K2.
#define MULTIPLY(x, high, low, m, p, t) \
	VPMULLD low, x, m        \
	VMOVSHDUP x, t           \
	VPMULUDQ high, x, p      \
	VMOVSHDUP high, high     \
	VPMULUDQ high, t, t      \
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
// clobbers x and Z2 to Z7.
#define TAKE(x) \
	VMOVDQU32 (R8)(DX*1), Z2          \
	VMOVDQU32 (R9)(DX*1), Z3          \
	CANONICAL(x)                      \
	MULTIPLY(x, Z2, Z3, Z5, Z6, Z7)   \
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
// holds less what BX holds. It clobbers Z0 and Z2 to Z6.
#define LIFTED(t) \
	VMOVDQU32 (BX)(DX*1), Z4          \
	VMOVDQU32 (SI)(DX*1), Z0          \
	VMOVDQU32 (R8)(DX*1), Z2          \
	VMOVDQU32 (R9)(DX*1), Z3          \
	SUBTRACT(Z4, Z0)                  \
	MULTIPLY(Z0, Z2, Z3, Z5, Z6, t)   \
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
	MULTIPLY(Z0, Z2, Z3, Z5, Z6, Z7)
	VMOVDQU32 Z7, (DI)(DX*1)
	ADDQ $64, DX
	SUBQ $16, CX
	JNZ loop
	VZEROUPPER
	RET

// func roundAVX512(n int, dst *int32, v *float32, inverse float64)
TEXT ·roundAVX512(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ v+16(FP), SI
	VBROADCASTSD inverse+24(FP), Z31
	XORL DX, DX
	PCALIGN $32
loop:
	VCVTPS2PD (SI)(DX*1), Z0
	VMULPD Z31, Z0, Z0
	VCVTPD2DQ.RN_SAE Z0, Y0
	VMOVDQU32 Y0, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET
