package transform

import "github.com/securenets/securenets/ring"

// ToRing sets dst to the words of x, which has the same length and is at most Max(r) in
// magnitude. It is the input of masking, for products that no cloud sees.
func ToRing(r ring.Ring, dst []uint32, x []int32) {
	clear(dst)
	pass.add(r.Modulus(), dst, x)
}

// FromRing sets dst to the signed lifts of v, which holds canonical words and has the
// same length.
func FromRing(r ring.Ring, dst []int32, v []uint32) { pass.lift(r.Modulus(), dst, v) }
