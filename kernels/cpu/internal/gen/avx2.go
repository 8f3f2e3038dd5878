package main

import "fmt"

func avx2() string {
	a := file()
	split256(a)
	for rows := 1; rows <= 6; rows++ {
		sums256(a, rows)
	}
	for rows := 1; rows <= 3; rows++ {
		wide256(a, rows)
	}
	crt256(a)
	return a.String()
}

// highSums is the distance of the high halves of sums from the low ones, in bytes.
const highSums = maxPrime / 2 * maxRows * rowBytes

// split256 writes splitAVX2, 16 words at a time, with every step in float32:
//
//	q = round((a - 2^31)·inverse + half)
//	r = a - m·q
//
//	SI, CX  words, words left     Y0, Y1  words, then residues
//	DI      plane                 Y2, Y3  quotients
//	R8      moduli left           Y12     2^31
//	R9      constants             Y13     1/m
//	R10, R11  planes and pitch    Y14     2^31/m
//	                              Y15     -m
func split256(a *asm) {
	a.text("splitAVX2(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)", 0, 48)
	a.i("MOVQ dst+0(FP), R10")
	a.i("MOVQ plane+8(FP), R11")
	a.i("MOVQ c+32(FP), R9")
	a.i("MOVQ primes+40(FP), R8")
	a.broadcast(uint32(bias), 12)
	a.label("prime")
	for i, field := range []string{"inverse", "half", "minus"} {
		a.i("VPBROADCASTD splitting_%s(R9), Y%d", field, 13+i)
	}
	a.i("MOVQ src+16(FP), SI")
	a.i("MOVQ n+24(FP), CX")
	a.i("MOVQ R10, DI")
	a.i("PCALIGN $32")
	a.label("words")
	for v := range 2 {
		a.i("VMOVDQU %d(SI), Y%d", 32*v, v)
		a.i("VPXOR Y12, Y%d, Y%d", v, 2+v)
		a.i("VCVTDQ2PS Y%d, Y%d", 2+v, 2+v)
		a.i("VMULPS Y13, Y%d, Y%d", 2+v, 2+v)
		a.i("VADDPS Y14, Y%d, Y%d", 2+v, 2+v)
		a.i("VCVTPS2DQ Y%d, Y%d", 2+v, 2+v)
		a.i("VPMULLD Y15, Y%d, Y%d", 2+v, 2+v)
		a.i("VPADDD Y%d, Y%d, Y%d", 2+v, v, v)
	}
	a.i("VPACKSSDW Y1, Y0, Y0")
	a.i("VPERMQ $0xd8, Y0, Y0")
	a.i("VMOVDQU Y0, (DI)")
	a.i("ADDQ $64, SI")
	a.i("ADDQ $32, DI")
	a.i("SUBQ $16, CX")
	a.i("JNZ words")
	a.i("ADDQ R11, R10")
	a.i("ADDQ $splitting__size, R9")
	a.i("DECQ R8")
	a.i("JNZ prime")
	a.i("VZEROUPPER")
	a.i("RET")
}

// broadcast sets all words of a register.
func (a *asm) broadcast(word uint32, y int) {
	a.i("MOVL $0x%08x, AX", word)
	a.i("VMOVD AX, X%d", y)
	a.i("VPBROADCASTD X%d, Y%d", y, y)
}

// loop256 writes a loop over the steps of a part's runs, for some rows, repeated times times.
// begin loads the sums of these rows, and end stores them:
//
//	AX  tile                        R8, R11  1 and 3 strides of x, and 5 in AX
//	SI  weights, R9 bytes a step    R10      times left
//	DI  x                           R12      prefetched weights
//	BX  offsets of runs, DX left    R13      bytes prefetched a step
//	CX  steps left in a run         R15      sums
func loop256(a *asm, name string, rows, weight int, begin, step, end func()) {
	a.text(fmt.Sprintf("%s%dAVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)", name, rows), 0, 40)
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ tile_stride(AX), R8")
	a.i("LEAQ (R8)(R8*2), R11")
	a.i("MOVQ tile_lanes(AX), R9")
	a.i("SHLQ $%d, R9", weight) // 2 or 4 bytes a lane
	a.i("MOVQ times+32(FP), R10")
	a.i("MOVQ sums+24(FP), R15")
	a.i("MOVQ (tile_part+part_fetch)(AX), R12")
	a.i("MOVQ (tile_part+part_stride)(AX), R13")
	a.label("rows")
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ w+8(FP), SI")
	a.i("MOVQ (tile_part+part_runs)(AX), BX")
	a.i("MOVQ (tile_part+part_count)(AX), DX")
	begin()
	if rows > 5 {
		a.i("LEAQ (R8)(R8*4), AX")
	}
	a.label("run")
	a.i("MOVQ x+16(FP), DI")
	a.i("ADDQ (BX), DI")
	a.i("ADDQ $8, BX")
	a.i("MOVQ t+0(FP), CX")
	a.i("MOVQ (tile_part+part_steps)(CX), CX")
	a.i("PCALIGN $32")
	a.label("step")
	a.i("PREFETCHT1 (R12)")
	a.i("ADDQ R13, R12")
	step()
	a.i("ADDQ R9, SI")
	a.i("ADDQ $4, DI")
	a.i("DECQ CX")
	a.i("JNZ step")
	a.i("DECQ DX")
	a.i("JNZ run")
	end()
	a.i("ADDQ $%d, R15", rows*rowBytes)
	a.i("MOVQ x+16(FP), DI")
	a.i("MOVQ R8, CX")
	a.i("IMULQ $%d, CX", rows)
	a.i("ADDQ CX, DI")
	a.i("MOVQ DI, x+16(FP)")
	a.i("DECQ R10")
	a.i("JNZ rows")
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ R12, (tile_part+part_fetch)(AX)")
	a.i("VZEROUPPER")
	a.i("RET")
}

// row256 returns the address of a row of x.
func row256(row int) string {
	return [6]string{"(DI)", "(DI)(R8*1)", "(DI)(R8*2)", "(DI)(R11*1)", "(DI)(R8*4)", "(DI)(AX*1)"}[row]
}

// sums256 writes a loop for 16 lanes of signed bytes. A sum of partSteps times two
// products of bytes and residues is below 2^31 in magnitude: it is cut at the end.
//
//	Y0-Y11  sums, row by row     Y12, Y13  weights     Y14, Y15  x and products
func sums256(a *asm, rows int) {
	loop256(a, "sums", rows, 1, func() {
		for i := range 2 * rows {
			a.i("VPXOR Y%d, Y%d, Y%d", i, i, i)
		}
	}, func() {
		a.i("VPMOVSXBW (SI), Y12")
		a.i("VPMOVSXBW 16(SI), Y13")
		for row := range rows {
			a.i("VPBROADCASTD %s, Y14", row256(row))
			a.i("VPMADDWD Y12, Y14, Y15")
			a.i("VPADDD Y15, Y%d, Y%d", 2*row, 2*row)
			a.i("VPMADDWD Y13, Y14, Y14")
			a.i("VPADDD Y14, Y%d, Y%d", 2*row+1, 2*row+1)
		}
	}, func() {
		a.i("MOVQ t+0(FP), AX")
		a.i("CMPQ (tile_part+part_later)(AX), $0")
		a.i("JNE later")
		a.broadcast(uint32(bias), 12)
		for i := range 2 * rows {
			at := rowBytes*(i/2) + 32*(i%2)
			a.i("VMOVDQU Y%d, %d(R15)", i, at)
			a.i("VPSRAD $16, Y%d, Y%d", i, i)
			a.i("VPADDD Y12, Y%d, Y%d", i, i)
			a.i("VMOVDQU Y%d, %d(R15)", i, highSums+at)
		}
		a.i("JMP next")
		a.label("later")
		for i := range 2 * rows {
			at := rowBytes*(i/2) + 32*(i%2)
			a.i("VPADDD %d(R15), Y%d, Y12", at, i)
			a.i("VMOVDQU Y12, %d(R15)", at)
			a.i("VPSRAD $16, Y%d, Y%d", i, i)
			a.i("VPADDD %d(R15), Y%d, Y%d", highSums+at, i, i)
			a.i("VMOVDQU Y%d, %d(R15)", i, highSums+at)
		}
		a.label("next")
	})
}

// wide256 writes a loop for 16 lanes of words. Every sum of two products is cut.
//
//	Y0-Y11  sums, row by row: low, high, low, high     Y14, Y15  x and products
func wide256(a *asm, rows int) {
	sum := func(i int) int { return rowBytes*(i/4) + 32*(i/2%2) + highSums*(i%2) }
	loop256(a, "wide", rows, 2, func() {
		a.i("CMPQ (tile_part+part_later)(AX), $0")
		a.i("JNE later")
		a.broadcast(uint32(bias), 1)
		for i := range 4 * rows {
			if i%2 == 0 {
				a.i("VPXOR Y%d, Y%d, Y%d", i, i, i)
			} else if i > 1 {
				a.i("VMOVDQA Y1, Y%d", i)
			}
		}
		a.i("JMP run")
		a.label("later")
		for i := range 4 * rows {
			a.i("VMOVDQU %d(R15), Y%d", sum(i), i)
		}
	}, func() {
		for row := range rows {
			a.i("VPBROADCASTD %s, Y14", row256(row))
			for v := range 2 {
				i := 4*row + 2*v
				a.i("VPMADDWD %d(SI), Y14, Y15", 32*v)
				a.i("VPADDD Y15, Y%d, Y%d", i, i)
				a.i("VPSRAD $16, Y15, Y15")
				a.i("VPADDD Y15, Y%d, Y%d", i+1, i+1)
			}
		}
	}, func() {
		for i := range 4 * rows {
			a.i("VMOVDQU Y%d, %d(R15)", i, sum(i))
		}
	})
}

// crt256 writes crtAVX2, 8 lanes at a time: as crt512, but with
//
//	c_i ≡ e_i·(2^16·(high - 2^31) + (low - 2^16·high)) (mod m_i)    |c_i| <= 1021·m_i
//
//	DI  y                        Y0, Y1  halves of a sum, then c_i
//	R13 sums                     Y2, Y3  their bytes in even and odd places
//	R11 pitch                    Y4, Y5  y and q
//	BX  constants, CX rows left  Y13     M
//	DX  lanes of the row that exist   Y14     31 - lane, of 8
//	R9, R10  sums and y of 8 lanes    Y15     0x00ff00ff
func crt256(a *asm) {
	fmt.Fprint(a, "\nDATA ·signs<>+0(SB)/8, $0x0000001e0000001f\nDATA ·signs<>+8(SB)/8, $0x0000001c0000001d\n"+
		"DATA ·signs<>+16(SB)/8, $0x0000001a0000001b\nDATA ·signs<>+24(SB)/8, $0x0000001800000019\n"+
		"GLOBL ·signs<>(SB), RODATA|NOPTR, $32\n")
	a.text("crtAVX2(t *tile)", 0, 8)
	a.broadcast(0x00ff00ff, 15)
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ tile_crt(AX), BX")
	a.i("MOVQ tile_sums(AX), R13")
	a.i("MOVQ tile_y(AX), DI")
	a.i("MOVQ tile_yStride(AX), R8")
	a.i("MOVQ tile_pitch(AX), R11")
	a.i("MOVQ tile_words(AX), CX")
	a.i("VMOVDQU ·signs<>(SB), Y14")
	a.i("VPBROADCASTD reconstruction_modulus(BX), Y13")
	a.label("row")
	a.i("MOVQ tile_mask(AX), DX")
	a.i("MOVQ R13, R9")
	a.i("MOVQ DI, R10")
	a.label("lanes")
	a.i("VPBROADCASTD reconstruction_down(BX), Y5")
	a.i("VPXOR Y4, Y4, Y4")
	for i := range maxPrime / 2 {
		at := [2]string{"(R9)", "(R9)(R11*1)"}[i]
		a.i("VMOVDQU %d%s, Y1", highSums, at)
		a.i("VMOVDQU %s, Y0", at)
		a.i("VPSLLD $16, Y1, Y2")
		a.i("VPSUBD Y2, Y0, Y0")
		a.i("VPBROADCASTD reconstruction_bias+%d(BX), Y6", 4*i)
		for half := range 2 {
			a.i("VPAND Y15, Y%d, Y2", half)
			a.i("VPSRLW $8, Y%d, Y3", half)
			for odd := range 2 {
				a.i("VPBROADCASTD reconstruction_pairs+%d(BX), Y%d", 16*i+8*half+4*odd, 7+odd)
				a.i("VPMADDWD Y%d, Y%d, Y%d", 7+odd, 2+odd, 2+odd)
				a.i("VPADDD Y%d, Y6, Y6", 2+odd)
			}
		}
		a.i("VCVTDQ2PS Y6, Y1")
		a.i("VPBROADCASTD reconstruction_inverse+%d(BX), Y2", 4*i)
		a.i("VFMADD231PS Y2, Y1, Y5")
		a.i("VPBROADCASTD reconstruction_rest+%d(BX), Y2", 4*i)
		a.i("VPMULLD Y2, Y6, Y6")
		a.i("VPADDD Y6, Y4, Y4")
	}
	a.i("VROUNDPS $1, Y5, Y5")
	a.i("VCVTPS2DQ Y5, Y5")
	a.i("VPMULLD Y13, Y5, Y5")
	a.i("VPSUBD Y5, Y4, Y4")
	a.i("VPSUBD Y13, Y4, Y5")
	a.i("VPMINUD Y5, Y4, Y4")
	a.i("CMPB DL, $0xff")
	a.i("JNE masked") // which takes longer
	a.i("VMOVDQU Y4, (R10)")
	a.label("next")
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
	a.label("masked")
	a.i("VMOVD DX, X0")
	a.i("VPBROADCASTD X0, Y0")
	a.i("VPSLLVD Y14, Y0, Y0") // bit j of the lanes into the sign of lane j
	a.i("VPMASKMOVD Y4, Y0, (R10)")
	a.i("JMP next")
}
