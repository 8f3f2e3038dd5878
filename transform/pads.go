package transform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// ErrPads reports pads that are missing, of another layer, too few, or used before.
var ErrPads = errors.New("transform: pads")

// Pads are one-time pads for some samples of one layer: a fresh seed, from which r is
// expanded, and u = What·r. They print redacted. They may be used by several goroutines at
// once, and copies of the value are the same pads. The zero value is empty.
type Pads struct{ s *sheet }

// held returns the sheet of p: an empty one for the zero value.
func (p *Pads) held() *sheet {
	if p.s == nil {
		return &sheet{}
	}
	return p.s
}

// sheet holds pads: sample i has r = PRG(seed, first+i) and u[i]. Take and Mask remove pads
// from it.
type sheet struct {
	layer *Layer
	key   prg.Seed
	seed  *prg.Expander // of key

	mu    sync.Mutex
	first uint64
	u     [][]uint32 // the remaining ones, one per sample
}

const redactedPads = "transform.Pads(redacted)"

// Format prints p redacted, whatever the verb.
func (Pads) Format(f fmt.State, _ rune) { io.WriteString(f, redactedPads) }

// NewPads draws the pads of n samples and computes u with product, which must hold the
// layer's What and be the host's own: whoever computes u learns r. It is offline work:
// n·CloudOp().MulAdds().
func (l *Layer) NewPads(ctx context.Context, product plan.Product, n int) (*Pads, error) {
	if l.scheme.Inputs != InputPad {
		return nil, fmt.Errorf("%w: scheme %v uses none", ErrPads, l.scheme)
	}
	if n < 1 {
		return nil, fmt.Errorf("%w: pads of %d samples", ErrShape, n)
	}
	key := prg.NewSeed()
	s := &sheet{layer: l, key: key, seed: prg.New(key)} // u grows: n may be more than ctx lets be made
	in, out := l.cloud.InLen(), l.cloud.OutLen()
	const words = 1 << 20 // of a matrix at a time, about
	r := ring.NewMatrix(min(n, max(1, words/max(in, out))), in)
	for len(s.u) < n {
		r = r.RowRange(0, min(r.Rows, n-len(s.u)))
		for i := range r.Rows {
			s.seed.Fill(l.ring, r.Row(i), uint64(len(s.u)+i))
		}
		u := ring.NewMatrix(r.Rows, out)
		if err := product.Evaluate(ctx, u, r); err != nil {
			return nil, fmt.Errorf("pads: %w", err)
		}
		for i := range u.Rows {
			s.u = append(s.u, u.Row(i))
		}
	}
	return &Pads{s}, nil
}

// PadsState is the content of Pads, for a durable stock's encrypted file alone.
// It prints redacted.
type PadsState struct {
	Seed  Seed
	First uint64     // the r of sample i is PRG(Seed, First+i)
	U     [][]uint32 // What·r, one per sample
}

// Format prints st redacted, whatever the verb.
func (PadsState) Format(f fmt.State, _ rune) { io.WriteString(f, redactedPads) }

// MarshalText keeps st out of JSON and structured logs.
func (PadsState) MarshalText() ([]byte, error) { return []byte(redactedPads), nil }

// State moves the remaining pads out of p, which is empty from then on. Only the state can
// restore them. The state's owner must make sure that this happens at most once.
func (p *Pads) State() PadsState {
	s := p.held()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.take(len(s.u))
	return PadsState{Seed: t.key, First: t.first, U: t.u}
}

// RestorePads restores pads of the layer from their state. Its errors wrap ErrPads: the
// scheme has no pads, or U is not rows of CloudOp().OutLen() canonical words. It cannot
// tell whether U is What·r; with a wrong U the check of products fails.
func (l *Layer) RestorePads(st PadsState) (*Pads, error) {
	if l.scheme.Inputs != InputPad {
		return nil, fmt.Errorf("%w: scheme %v uses none", ErrPads, l.scheme)
	}
	if len(st.U) == 0 || st.First+uint64(len(st.U)) < st.First {
		return nil, fmt.Errorf("%w: the state has %d samples", ErrPads, len(st.U))
	}
	for i, u := range st.U {
		if len(u) != l.cloud.OutLen() || l.ring.CheckCanonical(u) != nil {
			return nil, fmt.Errorf("%w: sample %d of the state does not fit the layer", ErrPads, i)
		}
	}
	return &Pads{&sheet{layer: l, key: st.Seed, seed: prg.New(st.Seed), first: st.First, u: slices.Clone(st.U)}}, nil
}

// Len returns the number of samples left.
func (p *Pads) Len() int {
	s := p.held()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.u)
}

// Take splits off the pads of the first n samples. p no longer has them, so none can
// serve twice. The error wraps ErrPads: n is below 1, or more than are left.
func (p *Pads) Take(n int) (*Pads, error) {
	s := p.held()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 1 || n > len(s.u) {
		return nil, fmt.Errorf("%w: %d samples of %d left", ErrPads, n, len(s.u))
	}
	return &Pads{s.take(n)}, nil
}

// take moves the first n samples to a sheet of their own. The caller holds mu.
func (s *sheet) take(n int) *sheet {
	t := &sheet{layer: s.layer, key: s.key, seed: s.seed, first: s.first, u: slices.Clone(s.u[:n])}
	clear(s.u[:n]) // so that they are freed with t
	s.first, s.u = s.first+uint64(n), s.u[n:]
	return t
}

// claim takes all pads for a call of n samples of layer l, for good.
func (p *Pads) claim(l *Layer, n int) (*sheet, error) {
	if p == nil || p.s == nil {
		return nil, fmt.Errorf("%w: none given", ErrPads)
	}
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.layer != l:
		return nil, fmt.Errorf("%w of another layer", ErrPads)
	case len(s.u) == 0:
		return nil, fmt.Errorf("%w used before", ErrPads)
	case len(s.u) != n:
		return nil, fmt.Errorf("%w of %d samples for %d", ErrPads, len(s.u), n)
	}
	return s.take(n), nil
}
