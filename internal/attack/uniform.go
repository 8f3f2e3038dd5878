package attack

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/securenets/securenets/ring"
)

// Statistic is a test of whether words are uniform and independent. P is its two-sided
// p-value: words that are too even fail, too.
type Statistic struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	P     float64 `json:"p"`
}

const (
	cells    = 16 // for each word of a pair
	expected = 16 // least expected count of a cell, for chi-squared to hold in its tails
)

// Statistics tests two or more successive calls of the same samples, of one shape: whether
// words are uniform modulo each prime and in their high bits, and independent of their
// neighbours, of the sample before, of the call before and of the input. zero marks the words
// of inputs that are zero.
//
// Most tests are chi-squared tests of counts. The correlation of two calls' words is tested
// as normal, and the number of equal words as Poisson. Tests with too few words are left out.
func Statistics(r ring.Ring, calls []ring.Matrix, zero []bool) []Statistic {
	var all []Statistic
	m := r.Modulus()
	high := func(n uint64) func(uint32) int {
		return func(a uint32) int { return int(uint64(a) * n / uint64(m)) }
	}
	equal := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = 1 / float64(n)
		}
		return v
	}

	for _, p := range r.Primes() {
		all = append(all, single(fmt.Sprintf("words mod %d", p), calls, equal(int(p)), func(a uint32) int { return int(a % p) }))
	}
	all = append(all, single("high bits", calls, equal(256), high(256)))

	// A place maps words to few cells, which are counted for single words and for pairs.
	type place struct {
		name  string
		cell  func(uint32) int
		share []float64
	}
	places := []place{{"high bits", high(cells), equal(cells)}}
	for _, p := range r.Primes() {
		share := make([]float64, cells)
		for a := range p {
			share[a*cells/p] += 1 / float64(p)
		}
		places = append(places, place{fmt.Sprintf("mod %d", p), func(a uint32) int { return int(a % p * cells / p) }, share})
	}
	for _, at := range places {
		joint := make([]float64, cells*cells)
		for i := range joint {
			joint[i] = at.share[i/cells] * at.share[i%cells]
		}
		neighbours, samples, between := make([]int, len(joint)), make([]int, len(joint)), make([]int, len(joint))
		byInput := [2][]int{make([]int, cells), make([]int, cells)}
		count := func(n []int, a, b uint32) { n[at.cell(a)*cells+at.cell(b)]++ }
		for c, call := range calls {
			for i := range call.Rows {
				row := call.Row(i)
				for j := 0; j+1 < len(row); j += 2 { // no word is in two pairs
					count(neighbours, row[j], row[j+1])
				}
				for j, a := range row {
					if i%2 == 1 {
						count(samples, call.At(i-1, j), a)
					}
					if c%2 == 1 {
						count(between, calls[c-1].At(i, j), a)
					}
					input := 0
					if zero[i*call.Cols+j] {
						input = 1
					}
					byInput[input][at.cell(a)]++
				}
			}
		}
		all = append(all,
			chiSquared("neighbours, "+at.name, neighbours, joint),
			chiSquared("samples, "+at.name, samples, joint),
			chiSquared("calls, "+at.name, between, joint),
			chiSquared("inputs of zero, "+at.name, byInput[1], at.share),
			chiSquared("other inputs, "+at.name, byInput[0], at.share))
	}
	all = slices.DeleteFunc(all, func(s Statistic) bool { return math.IsNaN(s.P) })
	return append(all, correlation(r, calls), equalWords(r, calls))
}

func single(name string, calls []ring.Matrix, share []float64, cell func(uint32) int) Statistic {
	counts := make([]int, len(share))
	for _, call := range calls {
		for _, a := range call.Data {
			counts[cell(a)]++
		}
	}
	return chiSquared(name, counts, share)
}

// chiSquared tests the counts of cells with the given probabilities. P is NaN for too few.
func chiSquared(name string, counts []int, share []float64) Statistic {
	total := 0
	for _, n := range counts {
		total += n
	}
	if slices.Min(share)*float64(total) < expected {
		return Statistic{name, 0, math.NaN()}
	}
	var sum float64
	for i, n := range counts {
		want := share[i] * float64(total)
		sum += (float64(n) - want) * (float64(n) - want) / want
	}
	d := distuv.ChiSquared{K: float64(len(counts) - 1)}
	return Statistic{name, sum, twoSided(d.CDF(sum), d.Survival(sum))}
}

// correlation tests the correlation of words with those of the call before.
func correlation(r ring.Ring, calls []ring.Matrix) Statistic {
	// Uniform words have a mean of (M-1)/2 and a variance of (M²-1)/12.
	mean, variance := float64(r.Modulus()-1)/2, (math.Pow(float64(r.Modulus()), 2)-1)/12
	var sum, n float64
	for c := 1; c < len(calls); c += 2 {
		for i, a := range calls[c].Data {
			sum += (float64(a) - mean) * (float64(calls[c-1].Data[i]) - mean)
			n++
		}
	}
	z := sum / variance / math.Sqrt(n)
	return Statistic{"correlation of calls", z, math.Erfc(math.Abs(z) / math.Sqrt2)}
}

// equalWords tests how many words equal the word at the same place in the call before.
func equalWords(r ring.Ring, calls []ring.Matrix) Statistic {
	equal, n := 0, 0
	for c := 1; c < len(calls); c++ {
		for i, a := range calls[c].Data {
			if n++; a == calls[c-1].Data[i] {
				equal++
			}
		}
	}
	lambda, above := float64(n)/float64(r.Modulus()), 1.0
	if equal > 0 {
		above = mathext.GammaIncReg(float64(equal), lambda)
	}
	below := mathext.GammaIncRegComp(float64(equal+1), lambda)
	return Statistic{"equal words of calls", float64(equal), twoSided(below, above)}
}
