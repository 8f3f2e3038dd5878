package attack

import (
	"math"

	"github.com/securenets/securenets/ring"
)

// The integers of a quantised layer have 8 to 15 bits. A vector of them times a secret unit
// of Z_M generates a lattice in which the integers are a short vector. In two dimensions
// Euclid's algorithm finds it: rational reconstruction (Wang, "A p-adic algorithm for
// univariate partial fractions", 1981).

// small is the largest magnitude that counts as an integer of a layer. A uniform word
// lifts to one with probability 2^-15.6 over q4. The ratio of two determines its reduced
// fraction: 2·small² < M.
const small = 1 << 15

// log2 holds the logarithms of magnitudes that count as an integer.
var log2 = func() (of [small + 1]float64) {
	for e := range of {
		of[e] = math.Log2(float64(e))
	}
	return of
}()

// The cost in shrink of a word that is not small, in bits.
const (
	mixed = 5  // if units of words may differ by common factors of few integers
	exact = 20 // if all words have the same unit
)

// fraction returns the x and y > 0 of least max(|x|, y) with x = t·y mod m. If t has a
// fraction with 2·|x|·y < m, this is the only one.
func fraction(m, t uint32) (x, y int64) {
	r0, r1 := int64(m), int64(t)
	s0, s1 := int64(0), int64(1) // r = t·s mod m
	for r1 > max(s1, -s1) {
		q := r0 / r1
		r0, r1 = r1, r0-q*r1
		s0, s1 = s1, s0-q*s1
	}
	x, y = r1, s1
	if r0 < max(s1, -s1) {
		x, y = r0, s0
	}
	if y < 0 {
		x, y = -x, -y
	}
	return x, y
}

// isFraction reports whether t = x/y mod m for some |x|, |y| <= most, 2·most² < m.
func isFraction(m, t, most uint32) bool {
	r0, r1 := m, t
	s0, s1 := uint32(0), uint32(1) // magnitudes; signs alternate
	for r1 > most {
		q := r0 / r1
		r0, r1 = r1, r0-q*r1
		s0, s1 = s1, s0+q*s1 // at most m/r0
		if s1 > most {
			return false
		}
	}
	return true
}

// invert returns a^-1 mod m, or 0 if a is not a unit.
func invert(m, a uint32) uint32 {
	r0, r1 := int64(m), int64(a)
	s0, s1 := int64(0), int64(1)
	for r1 != 0 {
		q := r0 / r1
		r0, r1 = r1, r0-q*r1
		s0, s1 = s1, s0-q*s1
	}
	switch {
	case r0 != 1:
		return 0
	case s0 < 0:
		s0 += int64(m)
	}
	return uint32(s0)
}

// shrink returns the unit of the ring that makes the words of v shortest, or 0 if none makes
// three of them and more than half small. For a vector of integers times a unit it is that
// unit's inverse, up to sign and the integers' common factor, even if some words have
// another unit.
//
// The length is the mean number of bits of the small words, plus lost times the share of the
// others. Dividing by a factor of most words shortens these and loses the rest; multiplying
// by one gains words whose unit is a fraction of it, and lengthens all.
func shrink(r ring.Ring, v []uint32, lost float64) uint32 {
	// Each of the first pairs words that are units is tried with the few before it: one pair
	// whose integers share no factor is enough.
	const pairs, before, sample = 32, 3, 256
	m := r.Modulus()
	var units, some []uint32
	for _, a := range v {
		if a != 0 && len(some) < sample {
			some = append(some, a)
		}
		if len(units) < pairs && r.IsUnit(a) {
			units = append(units, a)
		}
	}
	if len(some) < 3 {
		return 0 // some unit makes any two words small
	}
	var best uint32
	least := math.Inf(1)
	for i, a := range units {
		inv := invert(m, a)
		for _, b := range units[max(0, i-before):i] {
			_, y := fraction(m, r.Mul(b, inv)) // b/a = x/y
			unit := r.Mul(uint32(y), inv)
			if !r.IsUnit(unit) {
				continue
			}
			n, bits := 0.0, 0.0
			for _, a := range some {
				e := r.Lift(r.Mul(unit, a))
				if e = max(e, -e); e <= small {
					n++
					bits += log2[e]
				}
			}
			all := float64(len(some))
			if length := bits/n + lost*(1-n/all); n >= 3 && 2*n > all && length < least {
				best, least = unit, length
			}
		}
	}
	return best
}

// gcd returns the greatest common divisor of a and b, not negative.
func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return max(a, -a)
}
