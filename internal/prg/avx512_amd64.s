//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Of each qword, its bytes in reverse.
DATA reverse<>+0(SB)/8, $0x0001020304050607
DATA reverse<>+8(SB)/8, $0x08090a0b0c0d0e0f
GLOBL reverse<>(SB), RODATA, $16

// Of each block, what comes onto its two qwords.
DATA first<>+0(SB)/8, $0
DATA first<>+8(SB)/8, $0
DATA first<>+16(SB)/8, $0
DATA first<>+24(SB)/8, $1
DATA first<>+32(SB)/8, $0
DATA first<>+40(SB)/8, $2
DATA first<>+48(SB)/8, $0
DATA first<>+56(SB)/8, $3
GLOBL first<>(SB), RODATA, $64

DATA step<>+0(SB)/8, $0
DATA step<>+8(SB)/8, $4 // blocks
GLOBL step<>(SB), RODATA, $16

// TO_PREFIXES sets each 32-bit word of k to the XOR of those up to it.
#define TO_PREFIXES(k, tmp) \
	MOVOU k, tmp    \
	PSLLDQ $4, tmp  \
	PXOR tmp, k     \
	PSLLDQ $4, tmp  \
	PXOR tmp, k     \
	PSLLDQ $4, tmp  \
	PXOR tmp, k

// EVEN and ODD make the next round key, of X0 and X1 by turns (FIPS 197, 5.2).
#define EVEN(rcon, at) \
	AESKEYGENASSIST $rcon, X1, X2 \
	PSHUFD $0xff, X2, X2          \
	TO_PREFIXES(X0, X3)           \
	PXOR X2, X0                   \
	MOVOU X0, at(DI)

#define ODD(at) \
	AESKEYGENASSIST $0, X0, X2 \
	PSHUFD $0xaa, X2, X2       \
	TO_PREFIXES(X1, X3)        \
	PXOR X2, X1                \
	MOVOU X1, at(DI)

// func expandKeyAES(keys *roundKeys, seed *Seed)
TEXT ·expandKeyAES(SB), NOSPLIT, $0-16
	MOVQ keys+0(FP), DI
	MOVQ seed+8(FP), SI
	MOVOU (SI), X0
	MOVOU 16(SI), X1
	MOVOU X0, (DI)
	MOVOU X1, 16(DI)
	EVEN(0x01, 32)
	ODD(48)
	EVEN(0x02, 64)
	ODD(80)
	EVEN(0x04, 96)
	ODD(112)
	EVEN(0x08, 128)
	ODD(144)
	EVEN(0x10, 160)
	ODD(176)
	EVEN(0x20, 192)
	ODD(208)
	EVEN(0x40, 224)
	PXOR X0, X0
	PXOR X1, X1
	PXOR X2, X2
	PXOR X3, X3
	RET

// COUNT sets z to the next 4 counter blocks, XORed with the first round key.
#define COUNT(z) \
	VPSHUFB Z17, Z15, z  \
	VPADDQ Z16, Z15, Z15 \
	VPXORQ Z0, z, z

#define ROUND(instruction, key) \
	instruction key, Z18, Z18 \
	instruction key, Z19, Z19 \
	instruction key, Z20, Z20 \
	instruction key, Z21, Z21 \
	instruction key, Z22, Z22 \
	instruction key, Z23, Z23

#define COUNT_ALL \
	COUNT(Z18) \
	COUNT(Z19) \
	COUNT(Z20) \
	COUNT(Z21) \
	COUNT(Z22) \
	COUNT(Z23)

// ENCRYPT sets Z18 to Z23 to the next 24 blocks.
#define ENCRYPT \
	COUNT_ALL               \
	ROUND(VAESENC, Z1)      \
	ROUND(VAESENC, Z2)      \
	ROUND(VAESENC, Z3)      \
	ROUND(VAESENC, Z4)      \
	ROUND(VAESENC, Z5)      \
	ROUND(VAESENC, Z6)      \
	ROUND(VAESENC, Z7)      \
	ROUND(VAESENC, Z8)      \
	ROUND(VAESENC, Z9)      \
	ROUND(VAESENC, Z10)     \
	ROUND(VAESENC, Z11)     \
	ROUND(VAESENC, Z12)     \
	ROUND(VAESENC, Z13)     \
	ROUND(VAESENCLAST, Z14)

// LAST does the last round, to Z24 to Z28 and Z30.
#define LAST \
	VAESENCLAST Z14, Z18, Z24 \
	VAESENCLAST Z14, Z19, Z25 \
	VAESENCLAST Z14, Z20, Z26 \
	VAESENCLAST Z14, Z21, Z27 \
	VAESENCLAST Z14, Z22, Z28 \
	VAESENCLAST Z14, Z23, Z30

// KEEP_FULL writes the 16 words of z that are below M. It clobbers z and those after
// them in memory, up to 16.
#define KEEP_FULL(z) \
	VPCMPUD $1, Z29, z, K2  \
	VPCOMPRESSD.Z z, K2, z  \
	VMOVDQU32 z, (DI)       \
	KMOVW K2, AX            \
	POPCNTL AX, AX          \
	LEAQ (DI)(AX*4), DI     \
	SUBQ AX, CX

// KEEP sets Z24 to the next 16 words, those below M first, and AX to their number.
#define KEEP \
	VMOVDQU8.Z (SI), K1, Z24   \
	ADDQ R8, SI                \
	VPERMB Z24, Z31, Z24       \
	VPANDD Z30, Z24, Z24       \
	VPCMPUD $1, Z29, Z24, K2   \
	VPCOMPRESSD.Z Z24, K2, Z24 \
	KMOVW K2, AX               \
	POPCNTL AX, AX

// func fillAVX512(dst *uint32, n int, keys *roundKeys, i uint64, w *words)
//
// Turn by turn it encrypts 24 blocks onto the stack, whole words of every width,
// and keeps words of them: one is done while the other waits. Words of 32 bits stay in
// registers, Z24 to Z28 and Z30, and those of one turn are kept between the rounds of
// the next.
//
//	DI, CX  dst, words left of it           Z0-Z14   round keys
//	SI, DX  blocks, 16 words each; left     Z15      counters: i and number of each block
//	R8      bytes of 16 words               Z16      what 4 blocks add to them
//	R9      blocks                          Z17      big-endian order
//	R10     all ones, of 16 words           Z18-Z23  blocks
//	R11     DX of a turn                    Z29      M
//	K1      bytes of 16 words               Z30      mask
//	                                        Z31      places of words' bytes
TEXT ·fillAVX512(SB), NOSPLIT, $448-40
	MOVQ dst+0(FP), DI
	MOVQ n+8(FP), CX
	MOVQ keys+16(FP), SI
	VBROADCASTI32X4 (SI), Z0
	VBROADCASTI32X4 16(SI), Z1
	VBROADCASTI32X4 32(SI), Z2
	VBROADCASTI32X4 48(SI), Z3
	VBROADCASTI32X4 64(SI), Z4
	VBROADCASTI32X4 80(SI), Z5
	VBROADCASTI32X4 96(SI), Z6
	VBROADCASTI32X4 112(SI), Z7
	VBROADCASTI32X4 128(SI), Z8
	VBROADCASTI32X4 144(SI), Z9
	VBROADCASTI32X4 160(SI), Z10
	VBROADCASTI32X4 176(SI), Z11
	VBROADCASTI32X4 192(SI), Z12
	VBROADCASTI32X4 208(SI), Z13
	VBROADCASTI32X4 224(SI), Z14
	VPBROADCASTQ i+24(FP), Z15
	MOVL $0x55, AX
	KMOVB AX, K1
	VMOVDQA64.Z Z15, K1, Z15
	VPADDQ first<>(SB), Z15, Z15
	VBROADCASTI32X4 step<>(SB), Z16
	VBROADCASTI32X4 reverse<>(SB), Z17
	MOVQ w+32(FP), BX
	VPBROADCASTD words_m(BX), Z29
	VPBROADCASTD words_mask(BX), Z30
	MOVQ words_width(BX), R8
	SHLQ $4, R8
	MOVQ $-1, AX
	BZHIQ R8, AX, AX // all ones for 64
	KMOVQ AX, K1
	MOVQ words_spread(BX), AX
	VMOVDQU64 (AX), Z31
	MOVQ words_turn(BX), R11
	MOVL $0xffff, R10
	LEAQ 63(SP), R9
	ANDQ $~63, R9
	SUBQ $16, CX

	// Words of 32 bits need no bytes put in place: of a whole turn that fits, they
	// are kept where they are, while the next turn is encrypted.
	CMPL words_mask(BX), $-1
	JNE turn
start:
	CMPQ CX, $80 // 96 words, of which 16 are taken off
	JLT turn
	COUNT_ALL
	ROUND(VAESENC, Z1)
	ROUND(VAESENC, Z2)
	ROUND(VAESENC, Z3)
	ROUND(VAESENC, Z4)
	ROUND(VAESENC, Z5)
	ROUND(VAESENC, Z6)
	ROUND(VAESENC, Z7)
	ROUND(VAESENC, Z8)
	ROUND(VAESENC, Z9)
	ROUND(VAESENC, Z10)
	ROUND(VAESENC, Z11)
	ROUND(VAESENC, Z12)
	ROUND(VAESENC, Z13)
	LAST
	JMP next
	PCALIGN $32
full:
	PREFETCHT0 1024(DI) // dst of a later turn, to be there when it is written
	PREFETCHT0 1088(DI)
	PREFETCHT0 1152(DI)
	PREFETCHT0 1216(DI)
	PREFETCHT0 1280(DI)
	COUNT_ALL
	ROUND(VAESENC, Z1)
	KEEP_FULL(Z24)
	ROUND(VAESENC, Z2)
	ROUND(VAESENC, Z3)
	KEEP_FULL(Z25)
	ROUND(VAESENC, Z4)
	ROUND(VAESENC, Z5)
	KEEP_FULL(Z26)
	ROUND(VAESENC, Z6)
	ROUND(VAESENC, Z7)
	KEEP_FULL(Z27)
	ROUND(VAESENC, Z8)
	ROUND(VAESENC, Z9)
	KEEP_FULL(Z28)
	ROUND(VAESENC, Z10)
	ROUND(VAESENC, Z11)
	KEEP_FULL(Z30)
	ROUND(VAESENC, Z12)
	ROUND(VAESENC, Z13)
	LAST
next:
	CMPQ CX, $176 // two turns fit
	JGE full
	KEEP_FULL(Z24)
	KEEP_FULL(Z25)
	KEEP_FULL(Z26)
	KEEP_FULL(Z27)
	KEEP_FULL(Z28)
	KEEP_FULL(Z30)
	VPTERNLOGD $0xff, Z30, Z30, Z30 // the mask, of all bits
	JMP start

	PCALIGN $32
turn:
	ENCRYPT
	VMOVDQA64 Z18, (R9)
	VMOVDQA64 Z19, 64(R9)
	VMOVDQA64 Z20, 128(R9)
	VMOVDQA64 Z21, 192(R9)
	VMOVDQA64 Z22, 256(R9)
	VMOVDQA64 Z23, 320(R9)
	MOVQ R9, SI
	MOVQ R11, DX
	TESTQ CX, CX
	JLT tail

	// 16 words fit, whatever is kept: the next overwrite what is not.
whole:
	KEEP
	VMOVDQU32 Z24, (DI)
	LEAQ (DI)(AX*4), DI
	SUBQ AX, CX
	JLT between
	DECQ DX
	JNZ whole
	JMP turn
between:
	DECQ DX
	JZ turn

tail:
	ADDQ $16, CX // 0 to 15 words are left
	JZ done
part:
	KEEP
	CMPQ AX, CX
	CMOVQGT CX, AX
	BZHIL AX, R10, BX
	KMOVW BX, K2
	VMOVDQU32 Z24, K2, (DI)
	LEAQ (DI)(AX*4), DI
	SUBQ AX, CX
	JZ done
	DECQ DX
	JNZ part
	SUBQ $16, CX
	JMP turn
done:
	VZEROUPPER
	RET
