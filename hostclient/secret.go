package hostclient

import (
	"fmt"
	"io"

	"github.com/securenets/securenets/internal/padstock"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// Secret is what only the host knows of a sealed network: Seal makes one, and ReadSecret and
// DecryptSecret read it. Its zero value is of no use. It prints redacted.
type Secret struct {
	*content // also in fields of others that are not exported, where fmt calls no Format
}

// content is that of a Secret.
type content struct {
	scheme  transform.Scheme
	ring    ring.Ring
	digests []sealed.Digest // one a role
	net     *network        // without weights of linear operators
	layers  []layer         // one a linear operator
	sent    []int           // the layers that clouds evaluate, in the order of the sealed model
	links   []LinkCost      // the first is what layers were placed by; nil where none was measured
	stock   padstock.Key    // that durable stocks are encrypted under; schemes with pads only

	providers  [][]string // by role; nil where none has one yet, and for schemes of one role
	recipients []string   // public keys that its file is encrypted to; nil where they are not known
}

// layer is what the host knows of one linear operator, beside its shape and bias.
type layer struct {
	scale []float32 // one a row of the weight matrix
	xmax  int32     // largest magnitude of a quantised input

	// Of a layer that clouds evaluate.
	masks *transform.Layer
	key   *verify.Key
	at    int // its place in the sealed model

	weights *ring.Matrix // of a layer that the host keeps, W as words; else nil
	cost    *LayerCost   // nil where it was not measured
}

func (l *layer) kept() bool { return l.weights != nil }

// number numbers the layers that are sent, once every layer is placed.
func (s *Secret) number() {
	s.sent = nil
	for l := range s.layers {
		if layer := &s.layers[l]; !layer.kept() {
			layer.at = len(s.sent)
			s.sent = append(s.sent, l)
		}
	}
}

// Roles returns how many clouds the network needs, which is also how many sealed models
// it has: as many as its scheme has roles, or none if the host keeps every layer.
func (s *Secret) Roles() int {
	if len(s.sent) == 0 {
		return 0
	}
	return s.scheme.Roles()
}

// padded reports whether calls need pads.
func (s *Secret) padded() bool { return s.scheme.Inputs == transform.InputPad && len(s.sent) > 0 }

// Format prints the secret redacted, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "hostclient.Secret(redacted)") }

// checkSize returns ErrTooLarge for an operator of which one row of a batch does
// not fit a message.
func checkSize(r ring.Ring, op plan.Op) error {
	if rowsPerMessage(op.InLen()*r.WordBytes(), op.OutLen()*r.WordBytes()) == 0 {
		return fmt.Errorf("%w: %v", ErrTooLarge, op)
	}
	return nil
}
