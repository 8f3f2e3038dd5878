package kernels

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// ErrClosed reports the use of a product or backend after Close, or the Close
// of a backend with products open.
var ErrClosed = errors.New("kernels: closed")

// Loaded is one weight matrix on a device, as a backend's loader returns it.
type Loaded struct {
	Bytes int64 // device memory that it holds
	// Evaluate is plan.Product.Evaluate, for checked arguments of one row or more.
	Evaluate func(ctx context.Context, y, x ring.Matrix) error
	// Free releases that memory; nil if the garbage collector does.
	Free func() error
}

// A Loader prepares products with a checked weight matrix. It keeps no reference to w.
type Loader func(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (Loaded, error)

// Base makes a Backend from a Loader: it checks arguments and keeps the counters.
// Backends embed it.
type Base struct {
	name string
	load Loader

	mu     sync.Mutex
	closed bool
	held   int // products that are open, being loaded or being freed

	products, bytes, calls, samples, mulAdds, computeNS atomic.Int64
}

// Init names the backend and sets its loader, before any other use.
func (b *Base) Init(name string, load Loader) { b.name, b.load = name, load }

// Name implements Backend.
func (b *Base) Name() string { return b.name }

// Load implements Backend.
func (b *Base) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	if !b.hold() {
		return nil, fmt.Errorf("%w: backend %s", ErrClosed, b.name)
	}
	p, err := b.open(ctx, r, op, w)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// hold keeps the backend open for another product, unless it is closed.
func (b *Base) hold() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.held++
	}
	return !b.closed
}

func (b *Base) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
}

// open is Load of a backend that is held, which it releases if there is no product.
func (b *Base) open(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (p *product, err error) {
	defer func() {
		if p == nil {
			b.release()
		}
	}()
	if !r.Valid() {
		return nil, fmt.Errorf("kernels: load: %w: not a ring", ring.ErrParameters)
	}
	if err := op.Validate(); err != nil {
		return nil, fmt.Errorf("kernels: load: %w", err)
	}
	if err := w.Want("weights", op.Rows(), op.Terms()); err != nil {
		return nil, fmt.Errorf("kernels: load %v: %w", op, err)
	}
	if err := r.CheckCanonical(w.Data); err != nil {
		return nil, fmt.Errorf("kernels: load %v: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := b.load(ctx, r, op, w)
	if err != nil {
		return nil, err
	}
	b.products.Add(1)
	b.bytes.Add(l.Bytes)
	return &product{base: b, op: op, loaded: l}, nil
}

// Stats implements Backend.
func (b *Base) Stats() Stats {
	return Stats{
		Loaded:    int(b.products.Load()),
		Bytes:     b.bytes.Load(),
		Calls:     b.calls.Load(),
		Samples:   b.samples.Load(),
		MulAdds:   b.mulAdds.Load(),
		ComputeNS: b.computeNS.Load(),
	}
}

// Close implements Backend. While products are open, or being loaded or freed, it closes nothing
// and returns an error wrapping ErrClosed.
func (b *Base) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != 0 {
		return fmt.Errorf("%w too early: backend %s has %d products open", ErrClosed, b.name, b.held)
	}
	b.closed = true
	return nil
}

type product struct {
	base   *Base
	op     plan.Op
	loaded Loaded
	closed atomic.Bool
}

// Evaluate implements plan.Product. It does not check that x is canonical.
func (p *product) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	if p.closed.Load() {
		return fmt.Errorf("%w: product", ErrClosed)
	}
	if err := x.Want("inputs", x.Rows, p.op.InLen()); err != nil {
		return fmt.Errorf("kernels: evaluate %v: %w", p.op, err)
	}
	if err := y.Want("outputs", x.Rows, p.op.OutLen()); err != nil {
		return fmt.Errorf("kernels: evaluate %v: %w", p.op, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	start := time.Now()
	if x.Rows > 0 {
		if err := p.loaded.Evaluate(ctx, y, x); err != nil {
			return err
		}
	}
	p.base.calls.Add(1)
	p.base.samples.Add(int64(x.Rows))
	p.base.mulAdds.Add(int64(x.Rows) * p.op.MulAdds())
	p.base.computeNS.Add(time.Since(start).Nanoseconds())
	return nil
}

// Bytes implements Sized.
func (p *product) Bytes() int64 { return p.loaded.Bytes }

// Close implements plan.Product. Closing again does nothing.
func (p *product) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	defer p.base.release() // once the memory is free
	p.base.products.Add(-1)
	p.base.bytes.Add(-p.loaded.Bytes)
	free := p.loaded.Free
	p.loaded = Loaded{}
	if free == nil {
		return nil
	}
	return free()
}
