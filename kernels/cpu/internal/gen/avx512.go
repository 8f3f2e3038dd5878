package main

import "fmt"

// Shared with residues.go.
const (
	maxRows  = 12      // rows of x in a tile
	rowBytes = 4 * 32  // sums of one row
	bias     = 1 << 31 // initial value of a sum, which makes it an unsigned word
	maxPrime = 4       // primes in a ring
)

func avx512() string {
	a := file()
	split512(a)
	tile512(a)
	return a.String()
}

// split512 writes splitAVX512, 16 words at a time:
//
//	v = 510·p + Σ_j (byte j of the word)·(256^j mod p, centred)   0 <= v < 2^18
//	r = v - p·floor(v·down(1/p))                                  0 <= r <= p
//
// v/p is below 1021, so that a float32 tells it from the integer above.
//
//	SI, CX  words, words left     Z0  256^j mod p, one a byte    Z4  words
//	DI      plane                 Z1  510·p                      Z5  v, then r
//	R8      primes left           Z2  1/p, rounded down          Z6  quotient
//	R9      constants             Z3  -p, in the low half of each word
func split512(a *asm) {
	a.text("splitAVX512(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)", 0, 48)
	a.i("MOVQ dst+0(FP), R10")
	a.i("MOVQ plane+8(FP), R11")
	a.i("MOVQ c+32(FP), R9")
	a.i("MOVQ primes+40(FP), R8")
	a.label("prime")
	for i, field := range []string{"powers", "bias", "inverse", "minus"} {
		a.i("VPBROADCASTD splitting_%s(R9), Z%d", field, i)
	}
	a.i("MOVQ src+16(FP), SI")
	a.i("MOVQ n+24(FP), CX")
	a.i("MOVQ R10, DI")
	residue := func() {
		a.i("VMOVDQA64 Z1, Z5")
		a.i("VPDPBUSD Z0, Z4, Z5")
		a.i("VCVTDQ2PS Z5, Z6")
		a.i("VMULPS Z2, Z6, Z6")
		a.i("VCVTPS2DQ.RD_SAE Z6, Z6")
		a.i("VPDPWSSD Z3, Z6, Z5")
	}
	a.i("SUBQ $16, CX")
	a.i("JLT tail")
	a.label("words")
	a.i("VMOVDQU32 (SI), Z4")
	residue()
	a.i("VPMOVDB Z5, (DI)")
	a.i("ADDQ $64, SI")
	a.i("ADDQ $16, DI")
	a.i("SUBQ $16, CX")
	a.i("JGE words")
	a.label("tail")
	a.i("ADDQ $16, CX")
	a.i("JZ next")
	a.i("MOVL $1, AX")
	a.i("SHLL CX, AX")
	a.i("DECL AX")
	a.i("KMOVW AX, K1")
	a.i("VMOVDQU32.Z (SI), K1, Z4")
	residue()
	a.i("VPMOVDB Z5, K1, (DI)")
	a.label("next")
	a.i("ADDQ R11, R10")
	a.i("ADDQ $splitting__size, R9")
	a.i("DECQ R8")
	a.i("JNZ prime")
	a.i("VZEROUPPER")
	a.i("RET")
}

// tile512 writes tileAVX512: for each prime one of the loops of sums512, then
// the reconstruction of crt512. There is a loop for each width, of 16 or 32
// lanes, and each number of rows.
//
//	AX  tile                        R8, R9, R10  1, 3 and 5 strides of x
//	SI  weights                     R13          prefetched weights
//	DI  x, row 0; R11: row 6        R12          bytes prefetched a step
//	BX  offsets of runs, DX left    R14          sums of the prime
//	CX  steps left in a run         R15          x of the prime
func tile512(a *asm) {
	a.text("tileAVX512(t *tile)", 16, 8)
	a.i("MOVQ t+0(FP), AX")
	a.i("MOVQ tile_w(AX), SI")
	a.i("MOVQ SI, w-8(SP)")
	a.i("MOVQ tile_primes(AX), CX")
	a.i("MOVQ CX, primes-16(SP)")
	a.i("MOVQ tile_x(AX), R15")
	a.i("MOVQ tile_sums(AX), R14")
	a.i("MOVQ tile_prime(AX), DX")
	a.i("IMULQ tile_pitch(AX), DX")
	a.i("ADDQ DX, R14")
	a.i("MOVQ tile_stride(AX), R8")
	a.i("LEAQ (R8)(R8*2), R9")
	a.i("LEAQ (R8)(R8*4), R10")
	a.i("MOVQ tile_ahead(AX), R13")
	a.i("MOVQ tile_aheadStep(AX), R12")

	a.label("prime")
	a.i("CMPQ primes-16(SP), $1")
	a.i("JNE multiply")
	prefetchWords(a)
	a.label("multiply")
	a.i("MOVQ w-8(SP), SI")
	a.i("MOVQ tile_runs(AX), BX")
	a.i("MOVQ tile_runs+8(AX), DX") // its length
	a.i("MOVL $%d, CX", bias)
	a.i("VPBROADCASTD CX, Z31")
	a.i("MOVQ tile_rows(AX), CX")
	a.i("CMPQ tile_lanes(AX), $16")
	a.i("JEQ narrow")
	for rows := maxRows; rows > 1; rows-- {
		a.i("CMPQ CX, $%d", rows)
		a.i("JEQ sums2x%d", rows)
	}
	a.i("JMP sums2x1")
	a.label("narrow")
	for rows := maxRows; rows > 1; rows-- {
		a.i("CMPQ CX, $%d", rows)
		a.i("JEQ sums1x%d", rows)
	}
	a.i("JMP sums1x1")
	for vectors := 1; vectors <= 2; vectors++ {
		for rows := 1; rows <= maxRows; rows++ {
			sums512(a, vectors, rows)
		}
	}

	a.label("next")
	a.i("ADDQ tile_pitch(AX), R14")
	a.i("ADDQ tile_plane(AX), R15")
	a.i("MOVQ tile_image(AX), CX")
	a.i("ADDQ CX, w-8(SP)")
	a.i("DECQ primes-16(SP)")
	a.i("JNZ prime")
	crt512(a)
}

// prefetchWords prefetches the tile's words, which are about to be written, if it computes them:
// they mostly lie in no near cache.
func prefetchWords(a *asm) {
	a.i("CMPQ tile_crt(AX), $0")
	a.i("JEQ multiply")
	a.i("MOVQ tile_y(AX), DI")
	a.i("MOVQ tile_words(AX), CX")
	a.label("words")
	a.i("PREFETCHT0 (DI)")
	a.i("PREFETCHT0 64(DI)")
	a.i("PREFETCHT0 124(DI)") // of a row that begins within a line
	a.i("ADDQ tile_yStride(AX), DI")
	a.i("DECQ CX")
	a.i("JNZ words")
}

// sums512 writes the loop over k for vectors·16 weight rows by rows of x:
//
//	sum[i][lane] = 2^31 + Σ_k x[i, k]·w[lane, k]
//
// With |w| <= 128 and x <= 251 a sum of 2^16 terms is below 2^31 in magnitude.
//
// Accumulators come first, row by row, then the weights of a step, then words of
// x. VPDPBUSD takes 4 or 5 cycles and two start in each: with fewer than 10
// accumulators the steps take turns on several sets of them.
func sums512(a *asm, vectors, rows int) {
	n := vectors * rows
	sets := 1
	for sets < 4 && n*sets < 10 {
		sets *= 2
	}
	name := fmt.Sprintf("%dx%d", vectors, rows)
	weights := n * sets
	x, xs := weights+vectors, min(6, 32-weights-vectors)

	a.i("PCALIGN $64")
	a.label("sums%s", name)
	for i := range n * sets {
		if i < n {
			a.i("VMOVDQA64 Z31, Z%d", i)
		} else {
			a.i("VPXORD Z%d, Z%d, Z%d", i, i, i)
		}
	}
	step := func(at, set int) {
		for v := range vectors {
			a.i("VMOVDQU64 %d(SI), Z%d", 64*(vectors*at+v), weights+v)
		}
		for row := range rows {
			word := x + row%xs
			a.i("VPBROADCASTD %s, Z%d", rowAt(row, 4*at), word)
			for v := range vectors {
				a.i("VPDPBUSD Z%d, Z%d, Z%d", weights+v, word, set*n+row*vectors+v)
			}
		}
	}
	advance := func(steps int) {
		a.i("ADDQ $%d, SI", 64*vectors*steps)
		a.i("ADDQ $%d, DI", 4*steps)
		if rows > 6 {
			a.i("ADDQ $%d, R11", 4*steps)
		}
	}

	a.label("run%s", name)
	a.i("MOVQ R15, DI")
	a.i("ADDQ (BX), DI")
	a.i("ADDQ $8, BX")
	if rows > 6 {
		a.i("LEAQ (DI)(R9*2), R11")
	}
	a.i("MOVQ tile_steps(AX), CX")
	unroll := max(sets, 2)
	a.i("SUBQ $%d, CX", unroll)
	a.i("JLT tail%s", name)
	a.i("PCALIGN $32")
	a.label("steps%s", name)
	for at := range unroll {
		a.i("PREFETCHT1 (R13)")
		if vectors == 2 {
			a.i("PREFETCHT1 64(R13)")
		}
		a.i("ADDQ R12, R13")
		step(at, at%sets)
	}
	advance(unroll)
	a.i("SUBQ $%d, CX", unroll)
	a.i("JGE steps%s", name)
	a.label("tail%s", name)
	a.i("ADDQ $%d, CX", unroll)
	a.i("JZ end%s", name)
	a.label("step%s", name)
	step(0, 0)
	advance(1)
	a.i("DECQ CX")
	a.i("JNZ step%s", name)
	a.label("end%s", name)
	a.i("DECQ DX")
	a.i("JNZ run%s", name)
	for half := sets / 2; half > 0; half /= 2 {
		for i := range n * half {
			a.i("VPADDD Z%d, Z%d, Z%d", n*half+i, i, i)
		}
	}
	for i := range n {
		a.i("VMOVDQU64 Z%d, %d(R14)", i, rowBytes*(i/vectors)+64*(i%vectors))
	}
	a.i("JMP next")
}

// rowAt returns the address of a row of x, at bytes past the current step.
func rowAt(row, bytes int) string {
	base := "DI"
	if row >= 6 {
		base = "R11"
	}
	return fmt.Sprintf("%d(%s)", bytes, base) + [6]string{"", "(R8*1)", "(R8*2)", "(R9*1)", "(R8*4)", "(R10*1)"}[row%6]
}

// sumsOf completes the address of a row of the first prime's sums to that of each prime's.
var sumsOf = [maxPrime]string{"", "(R9*1)", "(R9*2)", "(R10*1)"}

// crt512 writes the reconstruction of the words from their sums s_i, a row at a
// time. With e_i the inverse of M/p_i modulo p_i, and each byte's factor centred:
//
//	c_i ≡ e_i·(s_i - 2^31) (mod p_i), from the bytes of s_i    |c_i| <= 511·p_i
//	q   = floor(Σ c_i/p_i - 2^-10), in float32
//	y   = Σ c_i·(M/p_i) - q·M, where it is below M, else less M
//
// Σ c_i/p_i is below 2^11: its float32 is off by less than 2^-10. So q is right
// or one too small, that only where the fraction is below 2^-9, and the
// difference stays below M·(1 + 2^-9) < 2^32: it is exact modulo 2^32.
//
//	DI       y                    Z14       M
//	R13      sums of the row      Z15       -2^-10
//	CX       rows left            Z16-Z19   bytes' factors of each prime
//	K1, K2   lanes that exist     Z20-Z23   e_i·(-2^31) mod p_i
//	R8       bytes to next row    Z24-Z27   1/p_i
//	R9, R10  1 and 3 pitches      Z28-Z31   M/p_i
//
// Absent primes have zeros there.
func crt512(a *asm) {
	a.i("MOVQ tile_crt(AX), BX")
	a.i("TESTQ BX, BX")
	a.i("JZ done")
	a.i("VPBROADCASTD reconstruction_modulus(BX), Z14")
	a.i("VPBROADCASTD reconstruction_down(BX), Z15")
	for i := range maxPrime {
		for j, field := range []string{"powers", "bias", "inverse", "rest"} {
			a.i("VPBROADCASTD reconstruction_%s+%d(BX), Z%d", field, 4*i, 16+4*j+i)
		}
	}
	a.i("MOVQ tile_sums(AX), R13")
	a.i("MOVQ tile_y(AX), DI")
	a.i("MOVQ tile_yStride(AX), R8")
	a.i("MOVQ tile_mask(AX), DX")
	a.i("KMOVW DX, K1")
	a.i("SHRQ $16, DX")
	a.i("KMOVW DX, K2")
	a.i("MOVQ tile_pitch(AX), R9")
	a.i("LEAQ (R9)(R9*2), R10")
	a.i("MOVQ tile_words(AX), CX")
	a.i("CMPQ tile_lanes(AX), $16")
	a.i("JEQ crt1")
	for _, vectors := range []int{2, 1} {
		a.i("PCALIGN $32")
		a.label("crt%d", vectors)
		for v := range vectors {
			s, c, f, q, y := 7*v, 7*v+1, 7*v+2, 7*v+3, 7*v+4
			a.i("VMOVDQA64 Z15, Z%d", q)
			for i := range maxPrime {
				word := c
				if i == 0 {
					word = y
				}
				a.i("VMOVDQU64 %d(R13)%s, Z%d", 64*v, sumsOf[i], s)
				a.i("VMOVDQA64 Z%d, Z%d", 20+i, word)
				a.i("VPDPBUSD Z%d, Z%d, Z%d", 16+i, s, word)
				a.i("VCVTDQ2PS Z%d, Z%d", word, f)
				a.i("VFMADD231PS Z%d, Z%d, Z%d", 24+i, f, q)
				a.i("VPMULLD Z%d, Z%d, Z%d", 28+i, word, word)
				if i > 0 {
					a.i("VPADDD Z%d, Z%d, Z%d", c, y, y)
				}
			}
			a.i("VCVTPS2DQ.RD_SAE Z%d, Z%d", q, q)
			a.i("VPMULLD Z14, Z%d, Z%d", q, q)
			a.i("VPSUBD Z%d, Z%d, Z%d", q, y, y)
			a.i("VPSUBD Z14, Z%d, Z%d", y, q)
			a.i("VPMINUD Z%d, Z%d, Z%d", q, y, y)
			a.i("VMOVDQU32 Z%d, K%d, %d(DI)", y, 1+v, 64*v)
		}
		a.i("ADDQ $%d, R13", rowBytes)
		a.i("ADDQ R8, DI")
		a.i("DECQ CX")
		a.i("JNZ crt%d", vectors)
		if vectors == 2 {
			a.i("JMP done")
		}
	}
	a.label("done")
	a.i("VZEROUPPER")
	a.i("RET")
}
