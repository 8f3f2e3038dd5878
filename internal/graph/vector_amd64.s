//go:build !purego

#include "textflag.h"

// func maximumAVX2(dst, a, b *float32, n, strideA, strideB, runs int)
//
//	DI, SI, BX  dst, a and b of a run        DX  bytes done of a run
//	R8          bytes of a run               CX  runs left
//	R9, R10     bytes from run to run
//
// VMAXPS takes its second source where one is NaN, or both are zero, whatever their signs.
// Of both orders, zeros are ANDed, and what is NaN is set to all ones.
TEXT ·maximumAVX2(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), BX
	MOVQ n+24(FP), R8
	MOVQ strideA+32(FP), R9
	MOVQ strideB+40(FP), R10
	MOVQ runs+48(FP), CX
	SHLQ $2, R8
	SHLQ $2, R9
	SHLQ $2, R10
run:
	XORL DX, DX
	PCALIGN $32
loop:
	VMOVUPS (SI)(DX*1), Y0
	VMOVUPS (BX)(DX*1), Y1
	VMAXPS Y1, Y0, Y2
	VMAXPS Y0, Y1, Y3
	VCMPPS $3, Y1, Y0, Y4 // unordered
	VANDPS Y3, Y2, Y2
	VORPS Y4, Y2, Y2
	VMOVUPS Y2, (DI)(DX*1)
	ADDQ $32, DX
	CMPQ DX, R8
	JLT loop
	ADDQ R8, DI
	ADDQ R9, SI
	ADDQ R10, BX
	DECQ CX
	JNZ run
	VZEROUPPER
	RET

// func rectifyAVX2(dst, v *float32, n int)
//
// Of a zero or a NaN VMAXPS takes v, and a zero that is added makes -0 into 0.
TEXT ·rectifyAVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ v+8(FP), SI
	MOVQ n+16(FP), CX
	VXORPS Y15, Y15, Y15
	XORL DX, DX
	PCALIGN $32
loop:
	VMAXPS (SI)(DX*1), Y15, Y0
	VADDPS Y15, Y0, Y0
	VMOVUPS Y0, (DI)(DX*1)
	ADDQ $32, DX
	SUBQ $8, CX
	JNZ loop
	VZEROUPPER
	RET

// func accumulateAVX2(dst, h, m *float32, n int)
//
//	Y0 to Y3  sums    SI, BX  the next element of h and row of m    CX  rows left
TEXT ·accumulateAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ h+8(FP), SI
	MOVQ m+16(FP), BX
	MOVQ n+24(FP), CX
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	PCALIGN $32
row:
	VBROADCASTSS (SI), Y8
	VMULPS (BX), Y8, Y4
	VMULPS 32(BX), Y8, Y5
	VMULPS 64(BX), Y8, Y6
	VMULPS 96(BX), Y8, Y7
	VADDPS Y4, Y0, Y0
	VADDPS Y5, Y1, Y1
	VADDPS Y6, Y2, Y2
	VADDPS Y7, Y3, Y3
	ADDQ $4, SI
	ADDQ $128, BX
	DECQ CX
	JNZ row
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	VZEROUPPER
	RET
