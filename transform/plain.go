package transform

import "github.com/securenets/securenets/internal/ring"

// ToRing sets dst to the words of x, at most Max(r) in magnitude and of the same
// length: what masking starts from, for products that no cloud sees.
func ToRing(r ring.Ring, dst []uint32, x []int32) {
	clear(dst)
	pass.add(r.Modulus(), dst, x)
}

// FromRing sets dst to the signed lift of v, canonical words of the same length.
func FromRing(r ring.Ring, dst []int32, v []uint32) { pass.lift(r.Modulus(), dst, v) }
