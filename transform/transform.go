// Package transform turns a network's linear layers into products over Z_M that
// an untrusted cloud may compute, and turns its answers back: quantisation, masks, pads and
// roles. See docs/spec.md, sections 3 to 5.
//
//	host                                cloud (one per role)
//	Seal    W        ->  What           keeps What
//	Mask    x        ->  xhat           yhat = What·xhat
//	Unmask  yhat     ->  Candidate
//	verify.Key.Open  ->  y = W·x
//
// MaskFloats, UnmaskDecoded and verify.Key.OpenFloats go from floats to floats: each tile of a
// sample goes through all steps while the first- or second-level cache holds it, and calls
// reuse memory.
//
// What holds secrets prints redacted, but not as a value in a field of another type that is not
// exported: package fmt calls no methods there.
//
// Everything random comes from crypto/rand. The time to draw and invert masks depends on
// them. The time of masking and unmasking depends on shapes and on how package prg takes its
// time (Mask's also on whether all of its integers are small, MaskFloats' on whether xmax
// is), but they read memory in the order of the secret permutations, and with AVX-512 by other
// code where one leaves all elements within blocks of 32. No such promise is made for
// quantisation: processors may take longer for some floats.
package transform

import (
	"errors"
	"fmt"
)

// ErrShape reports a slice, a batch or a number of roles that does not fit the layer.
var ErrShape = errors.New("transform: wrong shape")

// ErrRange reports an integer that the ring cannot hold.
var ErrRange = errors.New("transform: out of range")

// NotFiniteError reports a NaN or an infinity. It names the place and not the value.
type NotFiniteError struct {
	What  string // "weight row" or "sample"
	Index int
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("transform: %s %d is not finite", e.What, e.Index)
}

// wantLen returns an error wrapping ErrShape unless got is n·each, with n, each > 0.
func wantLen(what string, got, n, each int) error {
	if n > 0 && each > 0 && got%each == 0 && got/each == n { // n·each may overflow
		return nil
	}
	return fmt.Errorf("%w: %s of length %d, want %d times %d", ErrShape, what, got, n, each)
}
