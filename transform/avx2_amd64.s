//go:build !purego

#include "textflag.h"

// The loops take 8 lanes a turn, and n must be a multiple of that.
//
//	CX  lanes left    Y15  M, or another constant
//	DX  bytes done    Y14  Max + 1, or another constant
//
// There is no comparison of unsigned words: a is at least b where the larger of both
// is a.

// MULTIPLY sets t to x·a mod M, canonical, for any x and a's factor (high, low):
// high halves of x·high less those of (x·low mod 2^32)·M. It needs M in Y15, and
// clobbers x, high, m and p.
#define MULTIPLY(x, high, low, m, p, t) \
	VPMULLD low, x, m          \
	VMOVSHDUP x, t             \
	VPMULUDQ high, x, p        \
	VMOVSHDUP high, high       \
	VPMULUDQ high, t, t        \
	VMOVSHDUP p, p             \
	VPBLENDD $0xaa, t, p, t    \
	VMOVSHDUP m, x             \
	VPMULUDQ Y15, m, p         \
	VPMULUDQ Y15, x, x         \
	VMOVSHDUP p, p             \
	VPBLENDD $0xaa, x, p, x    \
	SUBTRACT(x, t, p)

// SUBTRACT sets t to t - x mod M. It clobbers tmp.
#define SUBTRACT(x, t, tmp) \
	VPMAXUD x, t, tmp    \
	VPCMPEQD tmp, t, tmp \
	VPSUBD x, t, t       \
	VPANDN Y15, tmp, tmp \
	VPADDD tmp, t, t

// CANONICAL adds M to the negative ones of x. It clobbers tmp.
#define CANONICAL(x, tmp) \
	VPSRAD $31, x, tmp   \
	VPAND Y15, tmp, tmp  \
	VPADDD tmp, x, x

// LIFT takes M off the ones of x above Max. It clobbers tmp.
#define LIFT(x, tmp) \
	VPMAXUD Y14, x, tmp  \
	VPCMPEQD tmp, x, tmp \
	VPAND Y15, tmp, tmp  \
	VPSUBD tmp, x, x

// MODULUS sets Y15 to M, Y14 to Max + 1, and DX.
#define MODULUS(m) \
	MOVL m, AX           \
	VMOVD AX, X15        \
	VPBROADCASTD X15, Y15 \
	SHRL $1, AX          \
	INCL AX              \
	VMOVD AX, X14        \
	VPBROADCASTD X14, Y14 \
	XORL DX, DX

// func topAVX2(v *uint32, n int, bias, mask uint32) uint32
TEXT ·topAVX2(SB), NOSPLIT, $0-28
	MOVQ v+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL bias+16(FP), AX
	VMOVD AX, X15
	VPBROADCASTD X15, Y15
	MOVL mask+20(FP), AX
	VMOVD AX, X14
	VPBROADCASTD X14, Y14
	VPXOR Y0, Y0, Y0
	XORL DX, DX
	PCALIGN $32
loop:
	VPADDD (SI)(DX*1), Y15, Y1
	VPAND Y14, Y1, Y1
	VPMAXUD Y1, Y0, Y0
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
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

// func addAVX2(m uint32, n int, dst *uint32, x *int32)
TEXT ·addAVX2(SB), NOSPLIT, $0-32
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	PCALIGN $32
loop:
	VMOVDQU (SI)(DX*1), Y0
	VMOVDQU (DI)(DX*1), Y4
	CANONICAL(Y0, Y1)
	VPSUBD Y0, Y15, Y0
	SUBTRACT(Y0, Y4, Y1)
	VMOVDQU Y4, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func subAVX2(m uint32, n int, dst, a, b *uint32)
TEXT ·subAVX2(SB), NOSPLIT, $0-40
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ a+24(FP), SI
	MOVQ b+32(FP), R8
	PCALIGN $32
loop:
	VMOVDQU (R8)(DX*1), Y0
	VMOVDQU (SI)(DX*1), Y4
	SUBTRACT(Y0, Y4, Y1)
	VMOVDQU Y4, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftAVX2(m uint32, n int, dst *int32, v *uint32)
TEXT ·liftAVX2(SB), NOSPLIT, $0-32
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	PCALIGN $32
loop:
	VMOVDQU (SI)(DX*1), Y0
	LIFT(Y0, Y1)
	VMOVDQU Y0, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func subScaledAVX2(m uint32, n int, dst *uint32, x *int32, high, low *uint32)
TEXT ·subScaledAVX2(SB), NOSPLIT, $0-48
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ high+32(FP), R8
	MOVQ low+40(FP), R9
	PCALIGN $32
loop:
	VMOVDQU (SI)(DX*1), Y0
	VMOVDQU (R8)(DX*1), Y2
	VMOVDQU (R9)(DX*1), Y3
	CANONICAL(Y0, Y1)
	MULTIPLY(Y0, Y2, Y3, Y5, Y6, Y7)
	VMOVDQU (DI)(DX*1), Y4
	SUBTRACT(Y7, Y4, Y1)
	VMOVDQU Y4, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// TAKE_FROM takes the product of units and ratios and small x off what dst holds. It
// clobbers x, p, d and tmp.
#define TAKE_FROM(x, dst, p, d, tmp) \
	VCVTDQ2PS x, p              \
	VMULPS (R9)(DX*1), p, p     \
	VCVTPS2DQ p, p              \
	VPMULLD (R8)(DX*1), x, x    \
	VPMULLD Y15, p, p           \
	VPSUBD p, x, x              \
	CANONICAL(x, tmp)           \
	VMOVDQU (dst)(DX*1), d      \
	SUBTRACT(x, d, tmp)         \
	VMOVDQU d, (dst)(DX*1)

// func subSmallAVX2(m uint32, n int, dst *uint32, x *int32, unit *uint32, ratio *float32)
TEXT ·subSmallAVX2(SB), NOSPLIT, $0-48
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ x+24(FP), SI
	MOVQ unit+32(FP), R8
	MOVQ ratio+40(FP), R9
	PCALIGN $32
loop:
	VMOVDQU (SI)(DX*1), Y0
	TAKE_FROM(Y0, DI, Y5, Y4, Y1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftScaledAVX2(m uint32, n int, dst *int32, v, w, high, low *uint32)
TEXT ·liftScaledAVX2(SB), NOSPLIT, $0-56
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	MOVQ w+32(FP), BX
	MOVQ high+40(FP), R8
	MOVQ low+48(FP), R9
	PCALIGN $32
loop:
	VMOVDQU (BX)(DX*1), Y4
	VMOVDQU (SI)(DX*1), Y0
	VMOVDQU (R8)(DX*1), Y2
	VMOVDQU (R9)(DX*1), Y3
	SUBTRACT(Y4, Y0, Y1)
	MULTIPLY(Y0, Y2, Y3, Y5, Y6, Y7)
	LIFT(Y7, Y1)
	VMOVDQU Y7, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func scaleAVX2(m uint32, n int, dst, v *uint32, high, low uint32)
TEXT ·scaleAVX2(SB), NOSPLIT, $0-40
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v+24(FP), SI
	MOVL high+32(FP), AX
	VMOVD AX, X2
	VPBROADCASTD X2, Y2
	MOVL low+36(FP), AX
	VMOVD AX, X3
	VPBROADCASTD X3, Y3
	PCALIGN $32
loop:
	VMOVDQU (SI)(DX*1), Y0
	MULTIPLY(Y0, Y2, Y3, Y5, Y6, Y7)
	VMOVDQU Y7, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func roundAVX2(n int, dst *int32, v *float32, inverse float64)
//
// Go rounds to nearest, even where two are, as all of a process does.
TEXT ·roundAVX2(SB), NOSPLIT, $0-32
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ v+16(FP), SI
	VBROADCASTSD inverse+24(FP), Y15
	XORL DX, DX
	PCALIGN $32
loop:
	VCVTPS2PD (SI)(DX*1), Y0
	VCVTPS2PD 16(SI)(DX*1), Y1
	VMULPD Y15, Y0, Y0
	VMULPD Y15, Y1, Y1
	VCVTPD2DQY Y0, X0
	VCVTPD2DQY Y1, X1
	VMOVDQU X0, (DI)(DX*1)
	VMOVDQU X1, 16(DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func roundPairsAVX2(n int, dst *int32, v0, v1 *float32, inverse0, inverse1 float64)
//
// It rounds as generic does, and takes the low halves.
TEXT ·roundPairsAVX2(SB), NOSPLIT, $0-48
	MOVQ n+0(FP), CX
	MOVQ dst+8(FP), DI
	MOVQ v0+16(FP), SI
	MOVQ v1+24(FP), BX
	VBROADCASTSD inverse0+32(FP), Y15
	VBROADCASTSD inverse1+40(FP), Y14
	MOVQ $0x4338000000000000, AX // 1.5·2^52
	VMOVQ AX, X13
	VPBROADCASTQ X13, Y13
	XORL DX, DX
	PCALIGN $32
loop:
	VCVTPS2PD (SI)(DX*1), Y0
	VCVTPS2PD (BX)(DX*1), Y1
	VCVTPS2PD 16(SI)(DX*1), Y2
	VCVTPS2PD 16(BX)(DX*1), Y3
	VMULPD Y15, Y0, Y0
	VMULPD Y14, Y1, Y1
	VMULPD Y15, Y2, Y2
	VMULPD Y14, Y3, Y3
	VADDPD Y13, Y0, Y0
	VADDPD Y13, Y1, Y1
	VADDPD Y13, Y2, Y2
	VADDPD Y13, Y3, Y3
	VMOVSLDUP Y1, Y1
	VMOVSLDUP Y3, Y3
	VPBLENDD $0xaa, Y1, Y0, Y0
	VPBLENDD $0xaa, Y3, Y2, Y2
	VMOVDQU Y0, (DI)(DX*2)
	VMOVDQU Y2, 32(DI)(DX*2)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func subPairsAVX2(m uint32, n int, dst0, dst1 *uint32, moved *int32, unit *uint32, ratio *float32)
TEXT ·subPairsAVX2(SB), NOSPLIT, $0-56
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst0+16(FP), DI
	MOVQ dst1+24(FP), BX
	MOVQ moved+32(FP), SI
	MOVQ unit+40(FP), R8
	MOVQ ratio+48(FP), R9
	PCALIGN $32
loop:
	VMOVUPS (SI)(DX*2), Y0
	VMOVUPS 32(SI)(DX*2), Y1
	VSHUFPS $0x88, Y1, Y0, Y2
	VSHUFPS $0xdd, Y1, Y0, Y3
	VPERMQ $0xd8, Y2, Y2
	VPERMQ $0xd8, Y3, Y3
	TAKE_FROM(Y2, DI, Y4, Y5, Y6)
	TAKE_FROM(Y3, BX, Y7, Y8, Y9)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func liftPairsAVX2(m uint32, n int, dst *int32, v0, w0, v1, w1, high, low *uint32)
TEXT ·liftPairsAVX2(SB), NOSPLIT, $0-72
	MODULUS(m+0(FP))
	MOVQ n+8(FP), CX
	MOVQ dst+16(FP), DI
	MOVQ v0+24(FP), SI
	MOVQ w0+32(FP), BX
	MOVQ v1+40(FP), R10
	MOVQ w1+48(FP), R11
	MOVQ high+56(FP), R8
	MOVQ low+64(FP), R9
	PCALIGN $32
loop:
	VMOVDQU (BX)(DX*1), Y4
	VMOVDQU (SI)(DX*1), Y0
	VMOVDQU (R8)(DX*1), Y2
	VMOVDQU (R9)(DX*1), Y3
	SUBTRACT(Y4, Y0, Y1)
	MULTIPLY(Y0, Y2, Y3, Y5, Y6, Y7)
	LIFT(Y7, Y1)
	VMOVDQU (R11)(DX*1), Y4
	VMOVDQU (R10)(DX*1), Y0
	VMOVDQU (R8)(DX*1), Y2
	SUBTRACT(Y4, Y0, Y1)
	MULTIPLY(Y0, Y2, Y3, Y5, Y6, Y8)
	LIFT(Y8, Y1)
	VPUNPCKLDQ Y8, Y7, Y0
	VPUNPCKHDQ Y8, Y7, Y1
	VPERM2I128 $0x20, Y1, Y0, Y2
	VPERM2I128 $0x31, Y1, Y0, Y3
	VMOVDQU Y2, (DI)(DX*2)
	VMOVDQU Y3, 32(DI)(DX*2)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET
