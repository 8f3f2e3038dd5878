package transform

import (
	"math"
	"unsafe"

	"github.com/securenets/securenets/ring"
)

// passes are one tier's loops over words for masking and unmasking. All tiers give the same
// words. M is odd; words are canonical, integers are at most Max in magnitude, and slices
// have the length of dst. dst may be a slice that is read at the same places.
type passes struct {
	name string
	// top returns max((v + bias mod 2^32) & mask), 0 for no words.
	top func(v []uint32, bias, mask uint32) uint32
	// add sets dst += x, sub dst = a - b and lift dst = the signed lift of v.
	add  func(m uint32, dst []uint32, x []int32)
	sub  func(m uint32, dst, a, b []uint32)
	lift func(m uint32, dst []int32, v []uint32)
	// subMasked sets dst[i] -= a[i]·x[from[i]], with the table's a and from. subSmall does
	// the same for x of at most small in magnitude. They may use moved, which has moves
	// elements.
	subMasked func(m uint32, dst []uint32, x []int32, t table, moved []int32)
	subSmall  func(m uint32, dst []uint32, x []int32, t table, moved []int32)
	// liftMasked sets dst[i] to the signed lift of a[j]·(v[j] - w[j]), where j = from[i].
	// It may use moved, which is as long as dst. dst may be v or w.
	liftMasked func(m uint32, dst []int32, v, w []uint32, t table, moved []int32)
	// scale sets dst = a·v, where (high, low) is the factor of a.
	scale func(m uint32, dst, v []uint32, high, low uint32)
	// round sets dst = v·inverse, rounded to float64 and then to the nearest integer, ties
	// to even. It is below 2^31 - 1 in magnitude.
	round func(dst []int32, v []float32, inverse float64)

	// These are round, subSmall and liftMasked for two samples at once, with interleaved
	// integers: element i of the first at 2i, of the second at 2i+1. The table is read once
	// for both.
	roundPairs func(dst []int32, v0, v1 []float32, inverse [2]float64)
	subPairs   func(m uint32, dst0, dst1 []uint32, x []int32, t table, moved []int32)
	liftPairs  func(m uint32, dst []int32, v0, w0, v1, w1 []uint32, t table, moved []int32)
	pairs      bool // the three are faster than passes over one sample after the other
	near       bool // except with near tables
}

// moves is the number of words, or pairs of words, that are moved before they are multiplied:
// few enough to stay in the first-level cache.
const moves = 1024

// pass is the tier in use.
var pass = tiers[0]

// table is a sequence of places to read from and of elements a to multiply by.
//
// Factors have Montgomery's form: high = a·2^32 mod M and low = high·M^-1 mod 2^32. For any
// x < 2^32, x·high and (x·low mod 2^32)·M agree modulo 2^32, so that the difference of their
// high halves is x·a modulo M, and lies between -M and M (Montgomery 1985; the precomputed
// second factor is Shoup's).
//
// For x of at most small in magnitude there is a shorter way. Let q be x·ratio in float32,
// rounded, where ratio is a/M. Then x·a - q·M is congruent to x·a and at most
// (1/2 + 2^-23·small)·M in magnitude: an int32, so that the low halves of the products
// suffice.
type table struct {
	from      []int32
	high, low []uint32
	unit      []uint32 // a
	ratio     []float32
	near      bool // from[i] is in the same block of 32 as i, for all i
}

// small is the largest magnitude of integers that subSmall takes: the error of x·ratio, from
// two roundings to 24 bits, is then below 1/8, and (1/2 + 1/8)·M is below 2^31.
const small = 1 << 20

func newTable(r ring.Ring, from []int32, a []uint32) table {
	n := len(a)
	t := table{from: from, high: make([]uint32, n), low: make([]uint32, n), unit: a, ratio: make([]float32, n), near: true}
	k := newMontgomery(r)
	for i, e := range a {
		t.high[i], t.low[i] = k.factor(e)
		t.ratio[i] = float32(float64(e) / float64(r.Modulus()))
		t.near = t.near && from[i]/32 == int32(i/32)
	}
	return t
}

// after returns t without its first n elements.
func (t table) after(n int) table {
	return table{from: t.from[n:], high: t.high[n:], low: t.low[n:], unit: t.unit[n:], ratio: t.ratio[n:]}
}

// montgomery computes factors for a modulus.
type montgomery struct {
	r       ring.Ring
	two32   uint32 // 2^32 mod M
	inverse uint32 // M^-1 mod 2^32
}

func newMontgomery(r ring.Ring) montgomery {
	m := r.Modulus()
	inverse := m // correct in 3 bits, as M is odd; each Newton step doubles them
	for range 4 {
		inverse *= 2 - m*inverse
	}
	return montgomery{r, r.Reduce(1 << 32), inverse}
}

// factor returns the factor of canonical a.
func (k montgomery) factor(a uint32) (high, low uint32) {
	high = k.r.Mul(a, k.two32)
	return high, high * k.inverse
}

// multiply returns x·a mod M, canonical, for any x and the factor of a.
func multiply(m, x, high, low uint32) uint32 {
	t := uint64(x)*uint64(high)>>32 - uint64(x*low)*uint64(m)>>32
	return uint32(min(t, t+uint64(m))) // t wraps to above 2^63 when it is negative
}

// generic is the twin that others are compared with.
var generic = passes{
	name: "generic",
	top: func(v []uint32, bias, mask uint32) uint32 {
		var a, b, c, d uint32 // one maximum would wait for itself
		for ; len(v) >= 4; v = v[4:] {
			a, b = max(a, (v[0]+bias)&mask), max(b, (v[1]+bias)&mask)
			c, d = max(c, (v[2]+bias)&mask), max(d, (v[3]+bias)&mask)
		}
		for _, e := range v {
			a = max(a, (e+bias)&mask)
		}
		return max(a, b, c, d)
	},
	add: func(m uint32, dst []uint32, x []int32) {
		x = x[:len(dst)]
		for i, d := range dst {
			dst[i] = sum(m, d, canonical(m, x[i]))
		}
	},
	sub: func(m uint32, dst, a, b []uint32) {
		a, b = a[:len(dst)], b[:len(dst)]
		for i := range dst {
			dst[i] = difference(m, a[i], b[i])
		}
	},
	lift: func(m uint32, dst []int32, v []uint32) {
		v = v[:len(dst)]
		for i := range dst {
			dst[i] = lift(m, v[i])
		}
	},
	subMasked: subMasked,
	subSmall:  subMasked,
	liftMasked: func(m uint32, dst []int32, v, w []uint32, t table, moved []int32) {
		liftScaled(m, moved[:len(dst)], v, w, t)
		for i, j := range t.from[:len(dst)] {
			dst[i] = moved[j]
		}
	},
	scale: func(m uint32, dst, v []uint32, high, low uint32) {
		v = v[:len(dst)]
		for i := range dst {
			dst[i] = multiply(m, v[i], high, low)
		}
	},
	round: func(dst []int32, v []float32, inverse float64) {
		v = v[:len(dst)]
		for i := range dst {
			dst[i] = rounded(v[i], inverse)
		}
	},
	roundPairs: func(dst []int32, v0, v1 []float32, inverse [2]float64) {
		v1, dst = v1[:len(v0)], dst[:2*len(v0)]
		for i := range v0 {
			dst[2*i], dst[2*i+1] = rounded(v0[i], inverse[0]), rounded(v1[i], inverse[1])
		}
	},
	subPairs: func(m uint32, dst0, dst1 []uint32, x []int32, t table, _ []int32) {
		dst1, high, low := dst1[:len(dst0)], t.high[:len(dst0)], t.low[:len(dst0)]
		for i, j := range t.from[:len(dst0)] {
			dst0[i] = difference(m, dst0[i], multiply(m, canonical(m, x[2*j]), high[i], low[i]))
			dst1[i] = difference(m, dst1[i], multiply(m, canonical(m, x[2*j+1]), high[i], low[i]))
		}
	},
	liftPairs: func(m uint32, dst []int32, v0, w0, v1, w1 []uint32, t table, moved []int32) {
		liftScaledPairs(m, moved[:len(dst)], v0, w0, v1, w1, t)
		for i, j := range t.from[:len(v0)] {
			dst[2*i], dst[2*i+1] = moved[2*j], moved[2*j+1]
		}
	},
}

// rounded returns v·inverse, rounded.
//
// Around 1.5·2^52 floats are integers: the addition rounds, and leaves the result in the low
// bits. The conversion rounds the product to float64 first on every machine, without a fused
// multiply-add.
func rounded(v float32, inverse float64) int32 {
	return int32(math.Float64bits(float64(float64(v)*inverse) + 0x1.8p52))
}

func subMasked(m uint32, dst []uint32, x []int32, t table, _ []int32) {
	from, high, low := t.from[:len(dst)], t.high[:len(dst)], t.low[:len(dst)]
	for i, a := range dst {
		dst[i] = difference(m, a, multiply(m, canonical(m, x[from[i]]), high[i], low[i]))
	}
}

// liftScaled sets dst to the signed lift of a·(v - w), with the table's a.
func liftScaled(m uint32, dst []int32, v, w []uint32, t table) {
	v, w, high, low := v[:len(dst)], w[:len(dst)], t.high[:len(dst)], t.low[:len(dst)]
	for i := range dst {
		dst[i] = lift(m, multiply(m, difference(m, v[i], w[i]), high[i], low[i]))
	}
}

// liftScaledPairs is liftScaled for two samples, interleaved in dst.
func liftScaledPairs(m uint32, dst []int32, v0, w0, v1, w1 []uint32, t table) {
	n := len(v0)
	dst, w0, v1, w1, high, low := dst[:2*n], w0[:n], v1[:n], w1[:n], t.high[:n], t.low[:n]
	for i := range n {
		dst[2*i] = lift(m, multiply(m, difference(m, v0[i], w0[i]), high[i], low[i]))
		dst[2*i+1] = lift(m, multiply(m, difference(m, v1[i], w1[i]), high[i], low[i]))
	}
}

// sum, difference, canonical and lift are Add, Sub, FromSigned and Lift of package ring, with
// the modulus in a register.

func sum(m, a, b uint32) uint32 {
	s := uint64(a) + uint64(b)         // < 2M < 2^33
	return uint32(min(s, s-uint64(m))) // wraps to above s when s < M
}

func difference(m, a, b uint32) uint32 {
	d := uint64(a) - uint64(b)
	return uint32(min(d, d+uint64(m))) // d wraps to above 2^63 when a < b
}

func canonical(m uint32, x int32) uint32 { return uint32(x) + m&uint32(x>>31) }

func lift(m, a uint32) int32 {
	over := uint32(int64(uint64(m/2)-uint64(a)) >> 63) // all ones where a > Max
	return int32(a - m&over)
}

// bits32 returns the memory of v as words.
func bits32[T int32 | float32](v []T) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}

// ints returns the memory of v as integers.
func ints(v []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}
