//go:build !purego

package cpu

// avx2 multiplies with AVX2: 16 products of 16-bit words per instruction. The words are
// residues modulo products of two primes, as bytes would be multiplied as words, too.
var avx2 = vectorUnit{name: "avx2", width: 2, ahead: 64 << 10, split: split2, multiply: multiply2}

// split2 splits whole blocks of words, and the tail as one more block in memory of its own.
func split2(dst []uint8, plane int, src []uint32, c []splitting) {
	const block = 16
	n := len(src) &^ (block - 1)
	if n > 0 {
		_ = dst[(len(c)-1)*plane+2*n-1]
		splitAVX2(&dst[0], plane, &src[0], n, &c[0], len(c))
	}
	if n < len(src) {
		var words [block]uint32
		var tail [maxPairs][2 * block]uint8
		copy(words[:], src[n:])
		splitAVX2(&tail[0][0], 2*block, &words[0], block, &c[0], len(c))
		for i := range c {
			copy(dst[i*plane+2*n:], tail[i][:2*(len(src)-n)])
		}
	}
}

// sumsAVX2 are the loops for byte weights and 1 to 6 rows at a time, then for 16-bit weights
// and 1 to 3 rows.
var sumsAVX2 = [2][]func(t *tile, w *int8, x *uint8, sums *uint32, times int){
	{sums1AVX2, sums2AVX2, sums3AVX2, sums4AVX2, sums5AVX2, sums6AVX2},
	{wide1AVX2, wide2AVX2, wide3AVX2},
}

// multiply2 takes part after part of the runs, 16 lanes and some rows at a time.
func multiply2(t *tile) {
	const lanes = 16
	loops := sumsAVX2[t.weight-1]
	high := len(loops)
	step := 2 * t.weight // bytes of a lane's weights in a step
	most := (t.rows + high - 1) / high * (t.lanes / lanes)
	p := &t.part
	p.fetch, p.stride = t.ahead, (t.aheadStep+most-1)/most
	for prime := range t.primes {
		w := prime * t.image
		for run := 0; run < len(t.runs); run += p.count {
			p.runs, p.count, p.later = &t.runs[run], 1, run
			if t.steps < partSteps {
				p.count = min(len(t.runs)-run, partSteps/t.steps)
			}
			for from := 0; from < t.steps; from += partSteps {
				p.steps = min(partSteps, t.steps-from)
				x := prime*t.plane + 4*from
				for lane := 0; lane < t.lanes; lane += lanes {
					row := 0
					if times := t.rows / high; times > 0 {
						loops[high-1](t, &t.w[w+lane*step], &t.x[x], t.sum(prime, 0, lane), times)
						row = times * high
					}
					if row < t.rows {
						loops[t.rows-row-1](t, &t.w[w+lane*step], &t.x[x+row*t.stride], t.sum(prime, row, lane), 1)
					}
				}
				w += p.count * p.steps * t.lanes * step
				p.later = 1
			}
		}
	}
	if t.crt != nil {
		crtAVX2(t)
	}
}

// splitAVX2 takes n words, a positive multiple of 16.
//
//go:noescape
func splitAVX2(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)

// sumsNAVX2 adds a part to the sums of times·N rows and 16 lanes modulo one modulus.
// wideNAVX2 does the same for weights of 16 bits.
//
//go:noescape
func sums1AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func sums2AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func sums3AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func sums4AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func sums5AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func sums6AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func wide1AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func wide2AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func wide3AVX2(t *tile, w *int8, x *uint8, sums *uint32, times int)

//go:noescape
func crtAVX2(t *tile)
