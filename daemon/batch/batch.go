// Package batch merges what waits for one operator into one product: rows of
// many callers, one after the other, as a product's rows are independent. No row
// changes by it.
package batch

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/daemon/pool"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/wire"
)

// Timing says where a call's time went.
type Timing struct {
	Queue   time.Duration // from its arrival to the start of its product
	Compute time.Duration // of the product that it was part of
	// Batch is the rows of that product in one of its calls, 0 in the others.
	Batch int
}

// Batcher evaluates calls, several at once where it sees fit.
type Batcher interface {
	// Evaluate sets y = W x, as p.Evaluate does. It returns a *wire.Error where
	// it refuses the call, and ctx's error if that ends before the product has
	// begun. The caller keeps p open, and y and x to itself, until it returns.
	Evaluate(ctx context.Context, p plan.Product, y, x ring.Matrix) (Timing, error)
	// Copies reports whether it may copy the rows of a call for an operator, in
	// and out, while it evaluates it.
	Copies(op plan.Op, rows int) bool
}

// Options of a Queue.
type Options struct {
	MaxRows  int           // of a merged product, if maxWords is not less; a larger call goes alone
	MaxDelay time.Duration // that a call waits for company; see Queue
	MaxCalls int           // waiting for one product
	// Lender, where it is not nil, has memory for merged products.
	Lender pool.Source
}

// maxWords bounds the words of a merged product, in and out: with more, copying
// them costs what merging gains.
const maxWords = 2 << 20

// Queue is a Batcher with one first-in first-out line a product. The product's
// next batch is what stands at the front when the last one is done, up to MaxRows.
// While the Queue has other work, a batch that is not full waits until its first
// call has waited MaxDelay.
type Queue struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // a goroutine for each line
	words  pool.Words

	mu    sync.Mutex
	lines map[plan.Product]*line
	calls int // waiting or being evaluated, of all lines
}

// line is what waits for one product. It exists while something does or runs.
type line struct {
	waiting []*call
	changed chan struct{} // holds a token after waiting changed
}

type call struct {
	ctx     context.Context
	y, x    ring.Matrix
	arrived time.Time
	alone   bool // found the queue empty: nothing to wait for
	done    chan struct{}
	timing  Timing // set, as err is, before done is closed
	err     error
}

// New returns an empty queue. When ctx ends, what is left in it is cancelled.
func New(ctx context.Context, o Options) *Queue {
	ctx, cancel := context.WithCancel(ctx)
	q := &Queue{o: o, ctx: ctx, cancel: cancel, lines: map[plan.Product]*line{}}
	q.words.From = o.Lender
	return q
}

// Close cancels what is left and waits for it to end.
func (q *Queue) Close() {
	q.cancel()
	q.work.Wait()
}

// Evaluate implements Batcher.
func (q *Queue) Evaluate(ctx context.Context, p plan.Product, y, x ring.Matrix) (Timing, error) {
	c := &call{ctx: ctx, y: y, x: x, arrived: time.Now(), done: make(chan struct{})}
	l, err := q.join(p, c)
	if err != nil {
		return Timing{}, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if q.leave(l, c) {
			return Timing{Queue: time.Since(c.arrived)}, ctx.Err()
		}
		<-c.done // its product has begun and uses y and x
	}
	return c.timing, c.err
}

// Waiting returns how many calls wait for their product to begin.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, l := range q.lines {
		n += len(l.waiting)
	}
	return n
}

// Copies implements Batcher.
func (q *Queue) Copies(op plan.Op, rows int) bool { return rows < q.maxRows(op.InLen()+op.OutLen()) }

// maxRows returns the most rows of a merged product, given the words of one.
func (q *Queue) maxRows(words int) int { return min(q.o.MaxRows, maxWords/words) }

// join puts c at the end of p's line.
func (q *Queue) join(p plan.Product, c *call) (*line, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l, ok := q.lines[p]
	if !ok {
		l = &line{changed: make(chan struct{}, 1)}
		q.lines[p] = l
	} else if len(l.waiting) >= q.o.MaxCalls {
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded,
			Message: fmt.Sprintf("%d calls wait for this layer", len(l.waiting))}
	}
	c.alone = q.calls == 0
	q.calls++
	l.waiting = append(l.waiting, c)
	if !ok {
		q.work.Go(func() { q.serve(p, l) })
	}
	l.signal()
	return l, nil
}

// leave takes c out of its line, unless its product has begun.
func (q *Queue) leave(l *line, c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(l.waiting, c)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	q.calls--
	l.signal()
	return true
}

func (l *line) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// serve evaluates a line's batches until none is left.
func (q *Queue) serve(p plan.Product, l *line) {
	for {
		b := q.next(p, l)
		if b == nil {
			return
		}
		q.evaluate(p, b)
	}
}

// next waits until a batch is due and takes it out of the line. When the line is
// empty it closes it and returns nil.
func (q *Queue) next(p plan.Product, l *line) []*call {
	for {
		q.mu.Lock()
		if len(l.waiting) == 0 {
			delete(q.lines, p)
			q.mu.Unlock()
			return nil
		}
		n, full := q.front(l)
		first := l.waiting[0]
		wait := q.o.MaxDelay - time.Since(first.arrived)
		if full || first.alone || wait <= 0 || q.ctx.Err() != nil {
			b := slices.Clone(l.waiting[:n])
			l.waiting = slices.Delete(l.waiting, 0, n)
			q.mu.Unlock()
			return b
		}
		q.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-l.changed:
		case <-timer.C:
		case <-q.ctx.Done():
		}
		timer.Stop()
	}
}

// front returns how many calls the next batch has, and whether no more fit.
func (q *Queue) front(l *line) (n int, full bool) {
	rows, most := 0, q.maxRows(l.waiting[0].x.Cols+l.waiting[0].y.Cols)
	for _, c := range l.waiting {
		if n > 0 && c.x.Rows > most-rows {
			return n, true
		}
		rows += c.x.Rows
		n++
	}
	return n, rows >= most
}

// evaluate runs one product and gives each call of b its rows.
func (q *Queue) evaluate(p plan.Product, b []*call) {
	start := time.Now()
	err := q.product(p, b)
	compute := time.Since(start)
	q.mu.Lock()
	q.calls -= len(b)
	q.mu.Unlock()
	rows := 0
	for _, c := range b {
		rows += c.x.Rows
	}
	for _, c := range b {
		c.timing = Timing{Queue: start.Sub(c.arrived), Compute: compute, Batch: rows}
		c.err = err
		close(c.done)
		rows = 0
	}
}

// PanicError is a panic of a backend.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func (q *Queue) product(p plan.Product, b []*call) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	if len(b) == 1 {
		// Alone there is no copy, and the caller can cancel.
		ctx, cancel := context.WithCancel(b[0].ctx)
		defer cancel()
		defer context.AfterFunc(q.ctx, cancel)()
		return p.Evaluate(ctx, b[0].y, b[0].x)
	}
	rows := 0
	for _, c := range b {
		rows += c.x.Rows
	}
	x, y := q.matrix(rows, b[0].x.Cols), q.matrix(rows, b[0].y.Cols)
	defer q.words.Put(x.Data)
	defer q.words.Put(y.Data)
	at := 0
	for _, c := range b {
		at += copy(x.Data[at:], c.x.Data)
	}
	if err := p.Evaluate(q.ctx, y, x); err != nil {
		return err
	}
	at = 0
	for _, c := range b {
		at += copy(c.y.Data, y.Data[at:])
	}
	return nil
}

func (q *Queue) matrix(rows, cols int) ring.Matrix {
	return ring.Matrix{Rows: rows, Cols: cols, Data: q.words.Get(rows * cols)}
}
