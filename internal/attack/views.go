package attack

import (
	"context"
	"fmt"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// View makes a call of n samples of integers x and returns what one cloud receives: the
// words of the batch, expanded if it receives a seed.
type View func(x []int32, n int) (ring.Matrix, error)

// views returns the view of each role of l.
func views(r ring.Ring, s transform.Scheme, l *transform.Layer) []View {
	all := make([]View, s.Roles())
	for role := range all {
		all[role] = func(x []int32, n int) (ring.Matrix, error) {
			call, err := mask(s, l, x, n)
			if err != nil {
				return ring.Matrix{}, err
			}
			return words(r, call.Masked()[role])
		}
	}
	return all
}

func mask(s transform.Scheme, l *transform.Layer, x []int32, n int) (*transform.Call, error) {
	var pads *transform.Pads
	if s.Inputs == transform.InputPad {
		var err error
		if pads, err = l.NewPads(context.Background(), unanswered{}, n); err != nil {
			return nil, err
		}
	}
	return l.Mask(x, n, pads)
}

// words returns the words that a role receives, expanding a seed.
func words(r ring.Ring, m transform.Masked) (ring.Matrix, error) {
	if w, ok := m.Words(); ok {
		return w, nil
	}
	seed, ok := m.Seed()
	if !ok {
		return ring.Matrix{}, fmt.Errorf("attack: a role has neither words nor a seed")
	}
	w, expander := ring.NewMatrix(m.Rows(), m.Cols()), prg.New(seed)
	for i := range w.Rows {
		expander.Fill(r, w.Row(i), uint64(i))
	}
	return w, nil
}

// unanswered stands for What when pads are made: calls here are never answered, and what
// the cloud receives does not depend on u = What·r.
type unanswered struct{}

func (unanswered) Evaluate(context.Context, ring.Matrix, ring.Matrix) error { return nil }
func (unanswered) Close() error                                             { return nil }

var _ plan.Product = unanswered{}
