// Package cpu is the backend that multiplies on the processor.
//
// A product is cut into tiles: some rows of x (for a convolution: patches of
// it, unrolled tile by tile) by some panels, which are bands of weight rows
// packed once at Load for the inner loop. How panels are laid out and multiplied
// is a tier's business; tiles, patches and goroutines are the same for all tiers.
//
// No branch and no address depends on the words that are multiplied.
package cpu

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels"
)

// Options of a Backend.
type Options struct {
	// Threads is the most goroutines that compute at a time, over all products
	// of the backend. 0 stands for GOMAXPROCS.
	Threads int
}

// Backend implements kernels.Backend.
type Backend struct {
	kernels.Base
	tier  tier
	slots chan struct{} // one a goroutine that computes
}

var _ kernels.Backend = (*Backend)(nil)

// New opens the backend.
func New(o Options) *Backend {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	b := &Backend{tier: portable, slots: make(chan struct{}, o.Threads)}
	b.Init("cpu", b.load)
	return b
}

// A tier is one instruction set's way to multiply.
type tier struct {
	lanes int // weight rows in a panel
	// pack lays the weights of one group, row-major, out in panels of lanes
	// rows, the last one filled up. It keeps no reference to w.
	pack func(r ring.Ring, w ring.Matrix) weights
}

// weights are those of one group, packed.
type weights interface {
	bytes() int64
	// multiply sets y[i·stride + j] = Σ_k w[from·lanes + j, k]·x[i, k] mod M,
	// for every row i of x, at most tileRows, and every weight row of the panels
	// [from, to).
	multiply(y []uint32, stride int, x ring.Matrix, from, to int)
}

// Tile sizes. x is read again for every panel and should stay in a cache of
// 256 KiB; a tile of 2^20 multiply-adds takes below a millisecond, which is
// also how soon a call notices that it is cancelled.
const (
	tileWords   = 1 << 15 // of x
	tileRows    = 64      // of x
	tileMulAdds = 1 << 20
)

// matrix is a loaded weight matrix.
type matrix struct {
	backend *Backend
	op      plan.Op
	groups  []weights
	rows    int // weight rows of a group
	panels  int // of a group
	patches sync.Pool
}

func (b *Backend) load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
	groups := 1
	if op.Kind == plan.KindConv2D {
		groups = op.Conv.Groups
	}
	m := &matrix{backend: b, op: op, groups: make([]weights, groups), rows: op.Rows() / groups}
	m.panels = (m.rows + b.tier.lanes - 1) / b.tier.lanes
	m.patches.New = func() any { return new([]uint32) }
	var bytes int64
	for g := range m.groups {
		if err := ctx.Err(); err != nil {
			return kernels.Loaded{}, err
		}
		m.groups[g] = b.tier.pack(r, w.RowRange(g*m.rows, (g+1)*m.rows))
		bytes += m.groups[g].bytes()
	}
	return kernels.Loaded{Bytes: bytes, Evaluate: m.evaluate}, nil
}

// evaluate covers y with tiles: rows of the contraction (one a sample, or a
// position of a sample) by panels, those of all groups in one sequence.
func (m *matrix) evaluate(ctx context.Context, y, x ring.Matrix) error {
	terms := m.op.Terms()
	rows := x.Rows
	if m.op.Kind == plan.KindConv2D {
		rows *= m.op.Conv.Positions()
	}
	high := min(rows, tileRows, max(1, tileWords/terms))
	panels := len(m.groups) * m.panels
	wide := min(panels, max(1, tileMulAdds/(high*terms*m.backend.tier.lanes)))

	across := (panels + wide - 1) / wide
	down := (rows + high - 1) / high
	return m.backend.each(ctx, across*down, func(tile int) {
		i, p := tile/across*high, tile%across*wide
		m.tile(y.Data, x, i, min(i+high, rows), p, min(p+wide, panels))
	})
}

// tile computes rows [i0, i1) of the contraction for panels [p0, p1).
func (m *matrix) tile(y []uint32, x ring.Matrix, i0, i1, p0, p1 int) {
	if m.op.Kind == plan.KindDense {
		m.groups[0].multiply(y[i0*m.rows+p0*m.backend.tier.lanes:], m.rows, x.RowRange(i0, i1), p0, p1)
		return
	}
	c := &m.op.Conv
	terms, outW, positions := c.Patch(), c.OutW(), c.Positions()

	buf := m.patches.Get().(*[]uint32)
	defer m.patches.Put(buf)
	if n := (i1 - i0) * terms; cap(*buf) < n {
		*buf = make([]uint32, n)
	}
	patches := ring.Matrix{Rows: i1 - i0, Cols: terms, Data: (*buf)[:(i1-i0)*terms]}

	for p := p0; p < p1; {
		g := p / m.panels
		from, to := p-g*m.panels, min(p1-g*m.panels, m.panels)
		for i := i0; i < i1; i++ {
			at := i % positions
			kernels.Patch(patches.Row(i-i0), c, x.Row(i/positions), at/outW, at%outW, g)
		}
		col := g*m.rows + from*m.backend.tier.lanes
		m.groups[g].multiply(y[i0*c.OutC+col:], c.OutC, patches, from, to)
		p += to - from
	}
}

// each calls work for every tile, on the calling goroutine and as many more as
// there are free slots for, and returns when all have stopped. It stops early,
// between tiles, when ctx is done.
func (b *Backend) each(ctx context.Context, tiles int, work func(tile int)) error {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	var next atomic.Int64
	compute := func() {
		defer func() { <-b.slots }()
		for ctx.Err() == nil {
			tile := int(next.Add(1) - 1)
			if tile >= tiles {
				return
			}
			work(tile)
		}
	}
	var wg sync.WaitGroup
helpers:
	for range tiles - 1 {
		select {
		case b.slots <- struct{}{}:
			wg.Go(compute)
		default:
			break helpers
		}
	}
	compute()
	wg.Wait()
	return ctx.Err()
}
