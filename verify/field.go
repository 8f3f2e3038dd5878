package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/bits"
)

// ErrField reports a number that is not an odd prime below 2^52, or the zero Field.
var ErrField = errors.New("verify: not a field")

// Field is the prime field F_P of the check. It is a comparable value.
type Field struct{ p uint64 }

// NewField returns F_p for an odd prime p < 2^52. A wrong answer over a ring of
// modulus M passes with probability at most 1/p if M < p. Small fields serve to measure
// that.
func NewField(p uint64) (Field, error) {
	// ProbablyPrime is exact below 2^64.
	if p < 3 || p >= 1<<52 || !new(big.Int).SetUint64(p).ProbablyPrime(0) {
		return Field{}, fmt.Errorf("%w: %d is not an odd prime below 2^52", ErrField, p)
	}
	return Field{p}, nil
}

// DefaultField returns F_P with P = 2^52 - 47.
func DefaultField() Field { return Field{1<<52 - 47} }

// P returns the field's prime.
func (f Field) P() uint64 { return f.p }

// add returns a+b mod P for a, b in [0, P).
func (f Field) add(a, b uint64) uint64 {
	s := a + b
	return min(s, s-f.p) // s-P wraps to above 2^63 when s < P
}

// sub returns a-b mod P for a, b in [0, P).
func (f Field) sub(a, b uint64) uint64 {
	d := a - b
	return min(d, d+f.p) // d wraps to above 2^63 when a < b
}

// uniform fills dst with uniform elements: it masks words of src to the bits of P, and skips
// words that are not below P.
func (f Field) uniform(dst []uint64, src io.Reader) error {
	mask := uint64(1)<<bits.Len64(f.p) - 1
	var buf [4096]byte
	for len(dst) > 0 {
		b := buf[:min(len(buf), 8*len(dst))]
		if _, err := io.ReadFull(src, b); err != nil {
			return err
		}
		for ; len(b) > 0; b = b[8:] {
			if s := binary.LittleEndian.Uint64(b) & mask; s < f.p {
				dst[0] = s
				dst = dst[1:]
			}
		}
	}
	return nil
}

// mul returns a·b mod P for a, b in [0, P).
func (f Field) mul(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return bits.Rem64(hi, lo, f.p)
}

// sum returns Σ a[i] mod P.
func (f Field) sum(a []uint64) uint64 {
	var s uint64
	for _, e := range a {
		s = f.add(s, e)
	}
	return s
}

// bias is added to integers to make them unsigned.
const bias = 1 << 31

// tier is one implementation of the loops over products. All give the same results.
type tier struct {
	name string
	// sum returns Σ a[i]·(y[i] + 2^31), in 128 bits, for elements a and any integers y of
	// the same length. Each product is below 2^52·2^32, so 2^44 of them fit.
	sum func(a []uint64, y []int32) (hi, lo uint64)
	// floats sets dst to y·(row·sample) + bias, each step rounded to float32. All
	// have the length of dst or more.
	floats func(dst []float32, y []int32, row, bias []float32, sample float32)
	// sumPairs and floatsPairs are sum and floats for two samples at once, with interleaved
	// integers: y[2i] is of the first, y[2i+1] of the second.
	sumPairs    func(a []uint64, y []int32) [2]sum
	floatsPairs func(dst0, dst1 []float32, y []int32, row, bias []float32, sample [2]float32)
}

// generic is the tier that others are compared with.
var generic = tier{"generic", sumGeneric, floatsGeneric, sumPairsGeneric, floatsPairsGeneric}

func sumGeneric(a []uint64, y []int32) (hi, lo uint64) {
	y = y[:len(a)]
	for i, e := range a {
		h, l := bits.Mul64(e, uint64(uint32(y[i])^bias)) // flipping the top bit adds 2^31
		var c uint64
		lo, c = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, c)
	}
	return hi, lo
}

func sumPairsGeneric(a []uint64, y []int32) (s [2]sum) {
	y = y[:2*len(a)]
	for i, e := range a {
		for k := range s {
			h, l := bits.Mul64(e, uint64(uint32(y[2*i+k])^bias))
			s[k].addWide(h, l)
		}
	}
	return s
}

// sum is Σ a[i]·(y[i] + 2^31) over the terms added to it. No term is reduced before
// the end.
type sum struct{ hi, lo uint64 }

// add adds the terms of elements a and any integers y of the same length.
func (s *sum) add(t tier, a []uint64, y []int32) {
	hi, lo := t.sum(a, y)
	s.addWide(hi, lo)
}

// addWide adds hi·2^64 + lo.
func (s *sum) addWide(hi, lo uint64) {
	var c uint64
	s.lo, c = bits.Add64(s.lo, lo, 0)
	s.hi += hi + c
}

// mod returns Σ a[i]·y[i] mod P. a is the sum of all a[i]: 2^31 times that is subtracted.
func (s sum) mod(f Field, a uint64) uint64 {
	return f.sub(bits.Rem64(s.hi, s.lo, f.p), f.mul(a, bias%f.p))
}

// wide is a vector of sums.
type wide struct{ hi, lo []uint64 }

func newWide(n int) wide { return wide{make([]uint64, n), make([]uint64, n)} }

// add adds hi·2^64 + lo to element i.
func (v wide) add(i int, hi, lo uint64) {
	var c uint64
	v.lo[i], c = bits.Add64(v.lo[i], lo, 0)
	v.hi[i] += hi + c
}

// addScaled adds s·(w[j] + 2^31) to element at+j, for an element s and any integers w.
func (v wide) addScaled(at int, s uint64, w []int32) {
	hi, lo := v.hi[at:at+len(w)], v.lo[at:at+len(w)]
	for j, e := range w {
		h, l := bits.Mul64(s, uint64(uint32(e)^bias))
		var c uint64
		lo[j], c = bits.Add64(lo[j], l, 0)
		hi[j] += h + c
	}
}

// reduce returns Σ a[i]·y[i] mod P for each element, given the sum of its a[i]. The result is
// in v's memory.
func (v wide) reduce(f Field, a func(i int) uint64) []uint64 {
	for i, hi := range v.hi {
		v.lo[i] = sum{hi, v.lo[i]}.mod(f, a(i))
	}
	return v.lo
}
