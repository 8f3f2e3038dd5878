// Package verify checks products that an untrusted cloud computed.
//
// At sealing the host draws, for every linear layer y = W x with integer W, a
// secret vector S, uniform in F_P with one entry an output element (every
// channel and position of a convolution), and keeps V = S·W mod P (the adjoint,
// one entry an input element). For every sample it then tests
//
//	S·y = V·x  (mod P),   P = 2^52 - 47
//
// on the unmasked integers. |y| <= (M-1)/2 < P/2 for right and wrong y alike, so
// a wrong y differs from the right one by less than P somewhere, and passes with
// probability at most 1/P < 2^-51, however many elements are wrong. Right
// answers always pass. (Freivalds 1977; docs/spec.md, section 6.)
//
// A Candidate is an unmasked product that has not been checked: its elements
// come out of Key.Open alone.
package verify

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/internal/plan"
)

// ErrRejected is what errors.Is finds in every rejection.
var ErrRejected = errors.New("verify: wrong answer rejected")

// RejectedError names the samples of a call whose product failed the check.
// Nothing of the call may be used.
type RejectedError struct {
	Samples []int // indices in the batch, in order
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("%v: %d samples, the first is %d", ErrRejected, len(e.Samples), e.Samples[0])
}
func (e *RejectedError) Unwrap() error { return ErrRejected }

// Field is the prime field F_P of the check. It is a comparable value.
type Field struct{ p uint64 }

// NewField returns F_p for an odd prime p < 2^52. A wrong answer over a ring of
// modulus M passes with probability at most 1/p if M < p, whatever p is: small
// fields are for measuring that.
func NewField(p uint64) (Field, error) { return Field{p}, nil }

// DefaultField returns F_P with P = 2^52 - 47.
func DefaultField() Field { return Field{1<<52 - 47} }

// P returns the field's prime.
func (f Field) P() uint64 { return f.p }

// Key is the secret of one layer's check. It prints redacted and never leaves the host.
type Key struct {
	op    plan.Op
	field Field
	s, v  []uint64 // op.OutLen() and op.InLen() elements of the field
}

// NewKey draws S from crypto/rand and computes V for the integer weights w,
// op.Rows() x op.Terms() row-major.
func NewKey(f Field, op plan.Op, w []int32) (*Key, error) {
	return nil, errors.New("verify: not written yet")
}

// RestoreKey puts a key together again from its vectors, after checking their
// lengths and ranges.
func RestoreKey(f Field, op plan.Op, s, v []uint64) (*Key, error) {
	return nil, errors.New("verify: not written yet")
}

// Vectors returns S and V, for the host's secret file alone. They are not copies.
func (k *Key) Vectors() (s, v []uint64) { return k.s, k.v }

func (*Key) String() string   { return "verify.Key(redacted)" }
func (*Key) GoString() string { return "verify.Key(redacted)" }

// Candidate holds unmasked products of a batch, not yet checked.
type Candidate struct {
	y []int32
	n int
}

// NewCandidate wraps y, n samples of signed integers with |y| <= (M-1)/2. It
// keeps y, which the caller gives up.
func NewCandidate(y []int32, n int) Candidate { return Candidate{y, n} }

// Open checks every sample of c against its input x (n samples of op.InLen()
// integers) and returns the products, n samples of op.OutLen() integers. If any
// sample fails it returns a *RejectedError naming all that do, and no value.
// All sums are finished before the first comparison, so the time taken does not
// depend on where an answer is wrong.
func (k *Key) Open(c Candidate, x []int32) ([]int32, error) {
	return nil, errors.New("verify: not written yet")
}
