// Package transform turns a network's linear layers into products over Z_M that
// an untrusted cloud may compute, and its answers back: quantisation, masks,
// pads and roles. See docs/spec.md, sections 3 to 5.
//
//	host                                cloud (one a role)
//	Seal    W        ->  What           keeps What
//	Mask    x        ->  xhat           yhat = What·xhat
//	Unmask  yhat     ->  Candidate
//	verify.Key.Open  ->  y = W·x
package transform

import (
	"context"
	"errors"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/verify"
)

var errTODO = errors.New("transform: not written yet")

// WeightMask says how weights are masked, InputMask how inputs are.
type (
	WeightMask string
	InputMask  string
)

const (
	WeightNone    WeightMask = "none"    // What = W
	WeightPermute WeightMask = "permute" // What = E D W F U
	InputPermute  InputMask  = "permute" // xhat = U^-1 F^-1 X F_Y U_Y (needs WeightPermute)
	InputPad      InputMask  = "pad"     // xhat = x' + r, r used once
)

// Scheme is a pair of masks. Its text is "permute" for the paper's scheme
// (both permute), else "WEIGHT+INPUT", for example "permute+pad".
type Scheme struct {
	Weights WeightMask
	Inputs  InputMask
}

// DefaultScheme is permute+pad.
func DefaultScheme() Scheme { return Scheme{WeightPermute, InputPad} }

// Schemes lists every scheme, the default first.
func Schemes() []Scheme { return nil }

// ErrScheme reports a scheme that does not exist.
var ErrScheme = errors.New("transform: unknown scheme")

// ParseScheme reads a scheme's text.
func ParseScheme(s string) (Scheme, error) { return Scheme{}, errTODO }

func (s Scheme) String() string { return "" }

// Roles returns the number of clouds that the scheme needs, which must not collude.
func (s Scheme) Roles() int { return 1 }

// Guarantee is what a scheme promises, in plain sentences for people.
type Guarantee struct {
	Inputs    string // what protects inputs and results, under which assumption
	Weights   string
	Integrity string
	Leakage   string // what the cloud sees in every case
	Work      string // the host's work, against computing locally
}

// Guarantee returns what s promises, and no more.
func (s Scheme) Guarantee() Guarantee { return Guarantee{} }

// Quantized are the integer weights of a layer, with Σ_j |W[i,j]|·XMax <= Max(ring) for every row i.
type Quantized struct {
	W     []int32   // op.Rows() x op.Terms(), row-major
	Scale []float32 // one a row: w ≈ W·Scale
	XMax  int32     // largest magnitude of an input element
}

// QuantizeWeights returns the integer weights of a layer for inputs of at most
// xmax in magnitude. It refuses weights that are not finite.
func QuantizeWeights(r ring.Ring, op plan.Op, w []float32, xmax int32) (*Quantized, error) {
	return nil, errTODO
}

// QuantizeInputs sets dst to the integers of n samples of x, at most xmax in
// magnitude, with one scale a sample: x ≈ dst·scale. It refuses values that are
// not finite, naming the sample.
func QuantizeInputs(dst []int32, scale, x []float32, n int, xmax int32) error { return errTODO }

// Layer is the host's secret for one masked linear layer. It prints redacted.
// It may be used by several goroutines at once.
type Layer struct{}

// LayerState is a Layer's content, for the host's secret file alone.
type LayerState struct {
	Op   plan.Op  // the host's operator
	D, F []uint32 // units a row and an input (channel); nil for WeightNone
	E, U []uint32 // permutations; nil for WeightNone
}

// NewLayer draws the masks of a layer from crypto/rand.
func NewLayer(r ring.Ring, s Scheme, op plan.Op) (*Layer, error) { return nil, errTODO }

// RestoreLayer puts a layer together again, after checking that D and F are
// units and E and U permutations of the right lengths.
func RestoreLayer(r ring.Ring, s Scheme, st LayerState) (*Layer, error) { return nil, errTODO }

// State returns the layer's content.
func (l *Layer) State() LayerState { return LayerState{} }

// CloudOp returns the operator that the cloud evaluates. It is Op, but a
// convolution under InputPermute is unrolled by the host to a dense product
// with one vector a position.
func (l *Layer) CloudOp() plan.Op { return plan.Op{} }

// CloudRows returns the rows that n samples become in CloudOp's batch.
func (l *Layer) CloudRows(n int) int { return 0 }

// Seal returns the masked weight matrix of every role.
func (l *Layer) Seal(w []int32) ([]ring.Matrix, error) { return nil, errTODO }

// Unseal recovers the integer weights from a role's masked matrix.
func (l *Layer) Unseal(what ring.Matrix) ([]int32, error) { return nil, errTODO }

// ErrPads reports pads that are missing, of another layer, too few, or used before.
var ErrPads = errors.New("transform: pads")

// Pads are one-time pads for some samples of one layer: a fresh seed that r
// comes from, and u = What·r. They print redacted.
type Pads struct{}

// NewPads draws the pads of n samples and computes u with product, which must
// hold the layer's What. It is offline work: n·CloudOp().MulAdds().
func (l *Layer) NewPads(ctx context.Context, product plan.Product, n int) (*Pads, error) {
	return nil, errTODO
}

// Len returns the samples that are left.
func (p *Pads) Len() int { return 0 }

// Take splits off the pads of the first n samples. It is the only way to pads
// that Mask accepts twice from one Pads, so none can serve twice.
func (p *Pads) Take(n int) (*Pads, error) { return nil, errTODO }

// Masked is what one role's cloud receives for a call, and all that a transport
// accepts. It holds words, or a seed that the cloud expands to rows 0.. of a batch.
type Masked struct{}

// Rows returns the rows of the batch.
func (m Masked) Rows() int { return 0 }

// Words returns the masked rows, or false where the cloud expands a seed.
func (m Masked) Words() (ring.Matrix, bool) { return ring.Matrix{}, false }

// Seed returns the seed, or false where there are words.
func (m Masked) Seed() (prg.Seed, bool) { return prg.Seed{}, false }

// Call is the host's secret of one masked call. It prints redacted.
type Call struct{}

// Mask masks n samples of integers, at most XMax in magnitude. Under InputPad it
// uses up pads, which must be this layer's and hold exactly n samples, and which
// no other call may use (an error wrapping ErrPads); else pads is nil.
func (l *Layer) Mask(x []int32, n int, pads *Pads) (*Call, error) { return nil, errTODO }

// Masked returns what each role's cloud is to receive. A resend sends these same
// words: nothing is ever masked again under one pad.
func (c *Call) Masked() []Masked { return nil }

// Unmask takes one answer a role, canonical words, CloudRows(n) x CloudOp().Rows()
// or n x CloudOp().OutLen(), and returns the signed products. It may be called
// once; the answers' memory may be reused by it.
func (c *Call) Unmask(answers []ring.Matrix) (verify.Candidate, error) {
	return verify.Candidate{}, errTODO
}
