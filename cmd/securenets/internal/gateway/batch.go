package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/securenets/securenets/hostclient"
)

// maxRuns is how many batches of a model run at a time: while one waits for its clouds,
// the host has time for another.
const maxRuns = 2

// line has the requests for a model. What comes while maxRuns batches run waits, and is then
// run together: no result changes by it, as each sample is quantised and masked by itself.
type line struct {
	infer func(ctx context.Context, x []float32, n int) ([]float32, error)
	most  int // samples of a batch

	mu      sync.Mutex
	running int
	waiting []*request
}

// request is at most as many samples as a batch may have.
type request struct {
	ctx  context.Context
	x    []float32
	n    int
	y    []float32
	err  error
	done chan struct{} // closed once y or err is set
}

// run runs n samples, alone or with others'.
func (l *line) run(ctx context.Context, x []float32, n int) ([]float32, error) {
	r := &request{ctx: ctx, x: x, n: n, done: make(chan struct{})}
	l.mu.Lock()
	if l.running < maxRuns {
		l.running++
		l.mu.Unlock()
		defer l.next() // also where it panics
		l.batch([]*request{r})
	} else {
		l.waiting = append(l.waiting, r)
		l.mu.Unlock()
	}
	select {
	case <-r.done:
		return r.y, r.err
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.Index(l.waiting, r); i >= 0 {
			l.waiting = slices.Delete(l.waiting, i, i+1)
		}
		return nil, ctx.Err()
	}
}

// next is called when a batch has run: another goroutine runs the next one, so that this
// one's caller has its answer.
func (l *line) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, samples := 0, 0
	for k < len(l.waiting) && samples+l.waiting[k].n <= l.most {
		samples += l.waiting[k].n
		k++
	}
	if k == 0 {
		l.running--
		return
	}
	b := slices.Clone(l.waiting[:k])
	l.waiting = slices.Delete(l.waiting, 0, k)
	go func() {
		l.batch(b)
		l.next()
	}()
}

// batch runs requests together. Where one's inputs can be why it fails, or that there are
// too few pads for all, it runs each alone.
func (l *line) batch(b []*request) {
	if len(b) == 1 {
		r := b[0]
		r.y, r.err = l.infer(r.ctx, r.x, r.n)
		close(r.done)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var x []float32
	var left atomic.Int64 // whose callers have not given up
	left.Store(int64(len(b)))
	samples := 0
	for _, r := range b {
		x, samples = append(x, r.x...), samples+r.n
		defer context.AfterFunc(r.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})()
	}
	y, err := l.infer(ctx, x, samples)
	if errors.Is(err, hostclient.ErrInput) || errors.Is(err, hostclient.ErrNoPads) {
		for _, r := range b {
			l.batch([]*request{r})
		}
		return
	}
	for _, r := range b {
		if r.err = err; err == nil {
			k := len(y) / samples * r.n
			r.y, y = y[:k:k], y[k:]
			samples -= r.n
		}
		close(r.done)
	}
}
