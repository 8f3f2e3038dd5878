package main

import "fmt"

func avx2() string {
	a := file()
	split256(a)
	for rows := 1; rows <= 4; rows++ {
		sums256(a, rows)
	}
	crt256(a)
	return a.String()
}

// Without VNNI bytes are multiplied as words of 16 bits, in two halves: those in
// even places (a masked with 0x00ff, or its bytes' signs extended) and in odd ones.
const lowBytes = 0x00ff00ff

// signed writes the even and the odd signed bytes of src, as words of 16 bits.
func (a *asm) signed(src, even, odd int) {
	a.i("VPSLLW $8, Y%d, Y%d", src, even)
	a.i("VPSRAW $8, Y%d, Y%d", even, even)
	a.i("VPSRAW $8, Y%d, Y%d", src, odd)
}

// unsigned writes the even and the odd bytes of src, with Y15 = lowBytes.
func (a *asm) unsigned(src, even, odd int) {
	a.i("VPAND Y15, Y%d, Y%d", src, even)
	a.i("VPSRLW $8, Y%d, Y%d", src, odd)
}

// split256 writes splitAVX2, that is split512, 32 words at a time.
//
//	SI, CX  words, words left     Y0-Y3   residues, then quotients in Y4-Y7
//	DI      plane                 Y8, Y9  256^j mod p, even and odd j
//	R8      primes left           Y10     510·p
//	R9      constants             Y11     1/p, rounded down
//	                              Y12     -p, in the low half of each word
//	                              Y13     order of 4 bytes after packing
func split256(a *asm) {
	fmt.Fprint(a, "\nDATA ·packed<>+0(SB)/8, $0x0000000400000000\nDATA ·packed<>+8(SB)/8, $0x0000000500000001\n"+
		"DATA ·packed<>+16(SB)/8, $0x0000000600000002\nDATA ·packed<>+24(SB)/8, $0x0000000700000003\n"+
		"GLOBL ·packed<>(SB), RODATA|NOPTR, $32\n")
	a.text("splitAVX2(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)", 0, 48)
	a.i("MOVQ dst+0(FP), R10")
	a.i("MOVQ plane+8(FP), R11")
	a.i("MOVQ c+32(FP), R9")
	a.i("MOVQ primes+40(FP), R8")
	a.i("MOVL $0x%08x, AX", lowBytes)
	a.i("VMOVD AX, X15")
	a.i("VPBROADCASTD X15, Y15")
	a.i("VMOVDQU ·packed<>(SB), Y13")
	a.label("prime")
	a.i("VPBROADCASTD splitting_powers(R9), Y0")
	a.signed(0, 8, 9)
	a.i("VPBROADCASTD splitting_bias(R9), Y10")
	a.i("VPBROADCASTD splitting_inverse(R9), Y11")
	a.i("VPBROADCASTD splitting_minus(R9), Y12")
	a.i("MOVQ src+16(FP), SI")
	a.i("MOVQ n+24(FP), CX")
	a.i("MOVQ R10, DI")
	a.label("words")
	for v := range 4 {
		a.i("VMOVDQU %d(SI), Y%d", 32*v, v)
		a.unsigned(v, 4+v, v)
		a.i("VPMADDWD Y8, Y%d, Y%d", 4+v, 4+v)
		a.i("VPMADDWD Y9, Y%d, Y%d", v, v)
		a.i("VPADDD Y10, Y%d, Y%d", v, v)
		a.i("VPADDD Y%d, Y%d, Y%d", 4+v, v, v)
		a.i("VCVTDQ2PS Y%d, Y%d", v, 4+v)
		a.i("VMULPS Y11, Y%d, Y%d", 4+v, 4+v)
		a.i("VCVTTPS2DQ Y%d, Y%d", 4+v, 4+v)
		a.i("VPMADDWD Y12, Y%d, Y%d", 4+v, 4+v)
		a.i("VPADDD Y%d, Y%d, Y%d", 4+v, v, v)
	}
	a.i("VPACKUSDW Y1, Y0, Y0")
	a.i("VPACKUSDW Y3, Y2, Y2")
	a.i("VPACKUSWB Y2, Y0, Y0")
	a.i("VPERMD Y0, Y13, Y0")
	a.i("VMOVDQU Y0, (DI)")
	a.i("ADDQ $128, SI")
	a.i("ADDQ $32, DI")
	a.i("SUBQ $32, CX")
	a.i("JNZ words")
	a.i("ADDQ R11, R10")
	a.i("ADDQ $splitting__size, R9")
	a.i("DECQ R8")
	a.i("JNZ prime")
	a.i("VZEROUPPER")
	a.i("RET")
}

// sums256 writes a loop over k for 16 lanes by rows of x, modulo one prime, that is
// sums512 with other registers:
//
//	AX  tile                     Y0-Y7    sums, row by row
//	SI  weights, R9 bytes a step  Y8-Y11   weights of a step: even, odd, even, odd
//	DI  x                        Y12, Y13 words of x
//	R8, R10  1 and 3 strides     Y14      products
//	BX  offsets of runs, DX left Y15      lowBytes
//	CX  steps left in a run
func sums256(a *asm, rows int) {
	a.text(fmt.Sprintf("sums%dAVX2(t *tile, w *int8, x *uint8, sums *uint32)", rows), 0, 32)
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ w+8(FP), SI")
	a.i("MOVQ tile_stride(AX), R8")
	a.i("LEAQ (R8)(R8*2), R10")
	a.i("MOVQ tile_lanes(AX), R9")
	a.i("SHLQ $2, R9")
	a.i("MOVQ tile_runs(AX), BX")
	a.i("MOVQ tile_runs+8(AX), DX") // its length
	a.i("MOVL $0x%08x, CX", uint32(bias))
	a.i("VMOVD CX, X0")
	a.i("VPBROADCASTD X0, Y0")
	for i := 1; i < 2*rows; i++ {
		a.i("VMOVDQA Y0, Y%d", i)
	}
	a.i("MOVL $0x%08x, CX", lowBytes)
	a.i("VMOVD CX, X15")
	a.i("VPBROADCASTD X15, Y15")
	a.label("run")
	a.i("MOVQ x+16(FP), DI")
	a.i("ADDQ (BX), DI")
	a.i("ADDQ $8, BX")
	a.i("MOVQ tile_steps(AX), CX")
	a.i("PCALIGN $32")
	a.label("step")
	for v := range 2 {
		a.i("VMOVDQU %d(SI), Y%d", 32*v, 9+2*v)
		a.signed(9+2*v, 8+2*v, 9+2*v)
	}
	for row := range rows {
		a.i("VPBROADCASTD %s, Y13", [4]string{"(DI)", "(DI)(R8*1)", "(DI)(R8*2)", "(DI)(R10*1)"}[row])
		a.unsigned(13, 12, 13)
		for v := range 2 {
			for half := range 2 {
				a.i("VPMADDWD Y%d, Y%d, Y14", 8+2*v+half, 12+half)
				a.i("VPADDD Y14, Y%d, Y%d", 2*row+v, 2*row+v)
			}
		}
	}
	a.i("ADDQ R9, SI")
	a.i("ADDQ $4, DI")
	a.i("DECQ CX")
	a.i("JNZ step")
	a.i("DECQ DX")
	a.i("JNZ run")
	a.i("MOVQ sums+24(FP), DI")
	for i := range 2 * rows {
		a.i("VMOVDQU Y%d, %d(DI)", i, rowBytes*(i/2)+32*(i%2))
	}
	a.i("VZEROUPPER")
	a.i("RET")
}

// crt256 writes crtAVX2, that is crt512, 8 lanes at a time.
//
//	DI  y        R8  bytes to the next row   Y0, Y1  c_i and its steps
//	R13 sums     R11, R12  1 and 3 pitches   Y4, Y5  y and q
//	BX  constants     CX   rows left         Y13     M
//	DX  lanes of the row that exist          Y14     31 - lane, of 8
//	R9, R10  sums and y of 8 lanes           Y15     lowBytes
func crt256(a *asm) {
	fmt.Fprint(a, "\nDATA ·signs<>+0(SB)/8, $0x0000001e0000001f\nDATA ·signs<>+8(SB)/8, $0x0000001c0000001d\n"+
		"DATA ·signs<>+16(SB)/8, $0x0000001a0000001b\nDATA ·signs<>+24(SB)/8, $0x0000001800000019\n"+
		"GLOBL ·signs<>(SB), RODATA|NOPTR, $32\n")
	a.text("crtAVX2(t *tile)", 0, 8)
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ tile_crt(AX), BX")
	a.i("MOVQ tile_sums(AX), R13")
	a.i("MOVQ tile_y(AX), DI")
	a.i("MOVQ tile_yStride(AX), R8")
	a.i("MOVQ tile_pitch(AX), R11")
	a.i("LEAQ (R11)(R11*2), R12")
	a.i("MOVQ tile_words(AX), CX")
	a.i("MOVL $0x%08x, DX", lowBytes)
	a.i("VMOVD DX, X15")
	a.i("VPBROADCASTD X15, Y15")
	a.i("VMOVDQU ·signs<>(SB), Y14")
	a.i("VPBROADCASTD reconstruction_modulus(BX), Y13")
	a.label("row")
	a.i("MOVQ tile_mask(AX), DX")
	a.i("MOVQ R13, R9")
	a.i("MOVQ DI, R10")
	a.label("lanes")
	a.i("VPBROADCASTD reconstruction_down(BX), Y5")
	a.i("VPXOR Y4, Y4, Y4")
	for i := range maxPrime {
		a.i("VPBROADCASTD reconstruction_powers+%d(BX), Y0", 4*i)
		a.signed(0, 1, 2)
		a.i("VMOVDQU (R9)%s, Y0", [maxPrime]string{"", "(R11*1)", "(R11*2)", "(R12*1)"}[i])
		a.unsigned(0, 3, 0)
		a.i("VPMADDWD Y1, Y3, Y3")
		a.i("VPMADDWD Y2, Y0, Y0")
		a.i("VPADDD Y3, Y0, Y0")
		a.i("VPBROADCASTD reconstruction_bias+%d(BX), Y1", 4*i)
		a.i("VPADDD Y1, Y0, Y0")
		a.i("VCVTDQ2PS Y0, Y1")
		a.i("VPBROADCASTD reconstruction_inverse+%d(BX), Y2", 4*i)
		a.i("VFMADD231PS Y2, Y1, Y5")
		a.i("VPBROADCASTD reconstruction_rest+%d(BX), Y2", 4*i)
		a.i("VPMULLD Y2, Y0, Y0")
		a.i("VPADDD Y0, Y4, Y4")
	}
	a.i("VROUNDPS $1, Y5, Y5")
	a.i("VCVTPS2DQ Y5, Y5")
	a.i("VPMULLD Y13, Y5, Y5")
	a.i("VPSUBD Y5, Y4, Y4")
	a.i("VPSUBD Y13, Y4, Y5")
	a.i("VPMINUD Y5, Y4, Y4")
	a.i("VMOVD DX, X0")
	a.i("VPBROADCASTD X0, Y0")
	a.i("VPSLLVD Y14, Y0, Y0") // bit j of the lanes into the sign of lane j
	a.i("VPMASKMOVD Y4, Y0, (R10)")
	a.i("ADDQ $32, R9")
	a.i("ADDQ $32, R10")
	a.i("SHRQ $8, DX")
	a.i("JNZ lanes")
	a.i("ADDQ $%d, R13", rowBytes)
	a.i("ADDQ R8, DI")
	a.i("DECQ CX")
	a.i("JNZ row")
	a.i("VZEROUPPER")
	a.i("RET")
}
