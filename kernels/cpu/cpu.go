// Package cpu is the backend that multiplies on the processor.
//
// A product is cut into units: some positions of x (rows, or output positions of a
// convolution) by some panels. A panel is a band of weight rows, packed at Load for the inner
// loop. A goroutine stages positions for the inner loop, then multiplies them by its panels.
// The tier, which stands for an instruction set, decides how panels are packed, how positions
// are staged, and how both are multiplied.
//
// No branch and no address in Evaluate depends on the words that are multiplied.
package cpu

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

//go:generate go run ./internal/gen

// ErrTier reports a tier that does not exist or that this machine cannot run.
var ErrTier = errors.New("cpu: no such tier here")

// Options of a Backend.
type Options struct {
	// Threads is the maximum number of goroutines that compute at the same time, over all
	// products of the backend. 0 stands for GOMAXPROCS.
	Threads int
	// Tier forces the instruction set: "avx512", "avx2" or "portable". The zero
	// value and "auto" stand for the fastest one that the machine can run.
	Tier string
}

// Backend implements kernels.Backend.
type Backend struct {
	kernels.Base
	tier    tier
	slots   chan struct{} // holds one element per goroutine that computes
	scratch sync.Pool     // of *scratch
}

var _ kernels.Backend = (*Backend)(nil)

// Open opens the backend. It returns an error wrapping ErrTier if o forces a tier that is
// not one of Tiers.
func Open(o Options) (*Backend, error) {
	t := tiers[0]
	if o.Tier != "" && o.Tier != "auto" {
		i := slices.IndexFunc(tiers, func(t tier) bool { return t.name == o.Tier })
		if i < 0 {
			return nil, fmt.Errorf("%w: %.32q, there are %q", ErrTier, o.Tier, Tiers())
		}
		t = tiers[i]
	}
	return newBackend(t, o.Threads), nil
}

func newBackend(t tier, threads int) *Backend {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	b := &Backend{tier: t, slots: make(chan struct{}, threads)}
	b.scratch.New = func() any { return new(scratch) }
	b.Init("cpu", b.load)
	return b
}

// New is Open for options that force no tier, or one of Tiers. It panics on others.
func New(o Options) *Backend {
	b, err := Open(o)
	if err != nil {
		panic(err)
	}
	return b
}

// Tiers returns the names of the tiers that this machine can run, the fastest first.
func Tiers() (names []string) {
	for _, t := range tiers {
		names = append(names, t.name)
	}
	return names
}

// Tier returns the name of the backend's tier.
func (b *Backend) Tier() string { return b.tier.name }

// A tier is one instruction set's way to multiply.
type tier struct {
	name string
	// load packs the weights of an operator. It keeps no reference to w.
	load func(r ring.Ring, op plan.Op, w ring.Matrix) weights
}

// weights are the weights of one operator, packed in panels. Positions are numbered
// through a batch: sample by sample, line by line.
type weights interface {
	bytes() int64
	panels() int
	// high returns the maximum number of positions to stage at a time.
	high() int
	// take stages positions [i0, i1) of the batch x.
	take(s *scratch, x ring.Matrix, i0, i1 int)
	// multiply sets the outputs of the panels' [from, to) weight rows for the
	// positions last staged in s. y begins with the outputs of the first of them.
	// It stops early, between some panels, when ctx is done.
	multiply(ctx context.Context, s *scratch, y []uint32, from, to int)
}

// scratch is the working memory of one goroutine.
type scratch struct {
	block   int         // number of the staged block of positions, -1 for none
	stage   stage       // for tiers that multiply residues
	words   ring.Matrix // for the portable tier: one position per row
	patches []uint32    // memory for words
}

// unitMulAdds is the least work, in multiply-adds, that is worth another goroutine.
const unitMulAdds = 1 << 21

// matrix is a loaded weight matrix.
type matrix struct {
	backend *Backend
	op      plan.Op
	weights weights
}

func (b *Backend) load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
	m := &matrix{backend: b, op: op, weights: b.tier.load(r, op, w)}
	return kernels.Loaded{Bytes: m.weights.bytes(), Evaluate: m.evaluate}, ctx.Err()
}

// evaluate covers y with units: blocks of positions by shares of the panels.
func (m *matrix) evaluate(ctx context.Context, y, x ring.Matrix) error {
	rows := m.op.Rows()
	positions := x.Rows * (m.op.OutLen() / rows)
	panels, high := m.weights.panels(), min(positions, m.weights.high())

	// Two units per goroutine, so that a slow one delays the others less. Panels are
	// shared out first, as each should be read once.
	work := int64(x.Rows) * m.op.MulAdds()
	units := int(min(2*int64(cap(m.backend.slots)), 1+work/unitMulAdds))
	blocks := (positions + high - 1) / high
	if slots := cap(m.backend.slots); slots > 1 && blocks > 1 && blocks < 8*slots { // all goroutines get as many
		n := (blocks + slots - 1) / slots * slots
		high = (positions + n - 1) / n
		blocks = (positions + high - 1) / high
	}
	shares := min(panels, (units+blocks-1)/blocks)
	if n := (units + shares - 1) / shares; n > blocks {
		high = (positions + n - 1) / n
		blocks = (positions + high - 1) / high
	}
	return m.backend.each(ctx, blocks*shares, func(s *scratch, unit int) {
		block, share := unit/shares, unit%shares
		i0 := block * high
		if s.block != block {
			m.weights.take(s, x, i0, min(i0+high, positions))
			s.block = block
		}
		m.weights.multiply(ctx, s, y.Data[i0*rows:], share*panels/shares, (share+1)*panels/shares)
	})
}

// each calls work for every unit, on the calling goroutine and one more for each free slot,
// and returns when all have stopped. It stops early, between units, when ctx is done.
func (b *Backend) each(ctx context.Context, units int, work func(s *scratch, unit int)) error {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	var next atomic.Int64
	compute := func() {
		defer func() { <-b.slots }()
		s := b.scratch.Get().(*scratch)
		defer b.scratch.Put(s)
		s.block = -1
		for ctx.Err() == nil {
			unit := int(next.Add(1) - 1)
			if unit >= units {
				return
			}
			work(s, unit)
		}
	}
	var panicked atomic.Pointer[kernels.Panic]
	help := func() {
		defer func() {
			if v := recover(); v != nil {
				panicked.Store(&kernels.Panic{Value: v, Stack: debug.Stack()})
			}
		}()
		compute()
	}
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		if p := panicked.Load(); p != nil {
			panic(p)
		}
	}()
helpers:
	for range units - 1 {
		select {
		case b.slots <- struct{}{}:
			wg.Go(help)
		default:
			break helpers
		}
	}
	compute()
	wg.Wait()
	return ctx.Err()
}
