// Package sealed is the file that the cloud gets: masked weights and the plan,
// public by design. It is a safetensors file with numbered U32 tensors ("0",
// "1", ...) and the plan as JSON under the metadata key "securenets.plan".
// A model is named by the SHA-256 of its bytes. See docs/spec.md, section 7.
package sealed

import (
	"encoding/hex"
	"errors"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
)

// ErrInvalid reports bytes that are not a sealed model.
var ErrInvalid = errors.New("sealed: invalid model")

// Digest names a sealed model: the SHA-256 of its bytes.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Model is a sealed model: one masked weight matrix an operator.
type Model struct {
	Plan    plan.Plan
	Weights []ring.Matrix // Plan.Ops[i].Rows() x Plan.Ops[i].Terms(), canonical
}

// Marshal returns the model's bytes. They are a function of the model alone.
func (m *Model) Marshal() ([]byte, error) { return nil, errors.New("sealed: not written yet") }

// Parse reads a model from bytes from outside. Every error wraps ErrInvalid.
func Parse(b []byte) (*Model, error) { return nil, errors.New("sealed: not written yet") }

// Sum returns the digest of a model's bytes.
func Sum(b []byte) Digest { return Digest{} }
