package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/securenets/securenets/hostclient"
)

// network doubles numbers, once it is told to go on.
type network struct {
	goOn chan struct{}

	mu      sync.Mutex
	batches []int
	ended   int // contexts of batches that were cancelled
}

const bad = 13 // what the network does not take

func (w *network) infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	w.mu.Lock()
	w.batches = append(w.batches, n)
	w.mu.Unlock()
	select {
	case <-w.goOn:
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended++
		return nil, ctx.Err()
	}
	if slices.Contains(x, bad) {
		return nil, fmt.Errorf("%w: %d", hostclient.ErrInput, bad)
	}
	y := make([]float32, len(x))
	for i := range x {
		y[i] = 2 * x[i]
	}
	return y, nil
}

// TestLine: what waits while others run is run together, in its order, and each request has
// its own answer, or its own error.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &network{goOn: make(chan struct{})}
		l := &line{infer: w.infer, most: 4}
		type outcome struct {
			y   []float32
			err error
		}
		outcomes := make([]outcome, 10)
		cancels := make([]context.CancelFunc, len(outcomes))
		ask := func(i int, x ...float32) {
			ctx, cancel := context.WithCancel(t.Context())
			cancels[i] = cancel
			go func() {
				y, err := l.run(ctx, x, len(x))
				outcomes[i] = outcome{y, err}
			}()
			synctest.Wait()
		}
		ask(0, 1)
		ask(1, 2, 3)
		ask(2, 4)
		ask(3, bad)
		ask(4, 5, 6)
		ask(5, 7, 8, 9)
		ask(6, 10)
		ask(7, 11)
		ask(8, 12)
		ask(9, 14, 15, 16)
		if !slices.Equal(w.batches, []int{1, 2}) {
			t.Fatalf("batches of %v", w.batches)
		}
		cancels[7]() // before it runs
		synctest.Wait()
		w.goOn <- struct{}{}
		synctest.Wait()
		w.goOn <- struct{}{}
		synctest.Wait()
		if !slices.Equal(w.batches, []int{1, 2, 4, 4}) {
			t.Fatalf("batches of %v", w.batches)
		}
		cancels[2]() // while it runs, with others
		cancels[9]()
		synctest.Wait()
		if outcomes[2].err == nil || outcomes[9].err == nil || w.ended != 0 {
			t.Errorf("given up: %+v, %+v; %d batches cancelled", outcomes[2], outcomes[9], w.ended)
		}
		close(w.goOn)
		synctest.Wait()
		// The third batch has the bad one, and each of it runs alone.
		if want := []int{1, 2, 4, 4, 1, 1, 2, 1}; len(w.batches) != len(want) {
			t.Errorf("batches of %v, want %v in some order", w.batches, want)
		}
		for i, want := range map[int][]float32{0: {2}, 1: {4, 6}, 4: {10, 12}, 5: {14, 16, 18}, 6: {20}, 8: {24}} {
			if o := outcomes[i]; o.err != nil || !slices.Equal(o.y, want) {
				t.Errorf("request %d: %+v, want %v", i, o, want)
			}
		}
		if err := outcomes[3].err; !errors.Is(err, hostclient.ErrInput) {
			t.Errorf("bad input: %v", err)
		}
		for _, i := range []int{2, 7, 9} {
			if o := outcomes[i]; !errors.Is(o.err, context.Canceled) || o.y != nil {
				t.Errorf("request %d, given up: %+v", i, o)
			}
		}
		if l.running != 0 || len(l.waiting) != 0 {
			t.Errorf("%d run, %d wait", l.running, len(l.waiting))
		}
	})
}

// TestLineGivenUp: a batch ends once all of its callers have given up, and not before.
func TestLineGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &network{goOn: make(chan struct{})}
		l := &line{infer: w.infer, most: 4}
		var cancels []context.CancelFunc
		var ended atomic.Int32
		for i := range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			go func() {
				if _, err := l.run(ctx, []float32{float32(i)}, 1); errors.Is(err, context.Canceled) {
					ended.Add(1)
				}
			}()
			synctest.Wait()
		}
		w.goOn <- struct{}{}
		synctest.Wait() // the last three are a batch now
		for i := range cancels[2:] {
			if w.ended != 0 {
				t.Errorf("ended when %d had given up", i)
			}
			cancels[2+i]()
			synctest.Wait()
		}
		if w.ended != 1 || ended.Load() != 3 {
			t.Errorf("%d batches and %d requests have ended", w.ended, ended.Load())
		}
		close(w.goOn)
		synctest.Wait()
		if !slices.Equal(w.batches, []int{1, 1, 3}) || l.running != 0 {
			t.Errorf("batches of %v, %d run", w.batches, l.running)
		}
	})
}

// TestLineMost: no batch has more samples than one may, and none is passed over for a smaller one.
func TestLineMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &network{goOn: make(chan struct{})}
		l := &line{infer: w.infer, most: 4}
		for _, n := range []int{4, 4, 3, 2, 1, 2, 4} {
			go l.run(t.Context(), make([]float32, n), n)
			synctest.Wait()
		}
		for range 6 { // one at a time
			w.goOn <- struct{}{}
			synctest.Wait()
		}
		if want := []int{4, 4, 3, 3, 2, 4}; !slices.Equal(w.batches, want) {
			t.Errorf("batches of %v, want %v", w.batches, want)
		}
	})
}

// TestLineShort: a batch that the stock has too few pads for takes none from requests in it
// that there are enough for.
func TestLineShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pads := 6
		goOn := make(chan struct{})
		l := &line{most: 4, infer: func(_ context.Context, x []float32, n int) ([]float32, error) {
			<-goOn
			if n > pads {
				return nil, hostclient.ErrNoPads
			}
			pads -= n
			return x, nil
		}}
		var errs [6]error
		for i, n := range []int{1, 2, 1, 3, 1, 1} {
			go func() { _, errs[i] = l.run(t.Context(), make([]float32, n), n) }()
			synctest.Wait()
		}
		for range 20 { // one at a time: pads are taken in the order of requests
			select {
			case goOn <- struct{}{}:
			default:
			}
			synctest.Wait()
		}
		for i, err := range errs {
			if short := i == 3; errors.Is(err, hostclient.ErrNoPads) != short {
				t.Errorf("request %d: %v", i, err)
			}
		}
		if pads != 0 {
			t.Errorf("%d pads are left", pads)
		}
	})
}

// TestLinePanic: a request that panics, which the server of its caller may survive, keeps no
// place from others.
func TestLinePanic(t *testing.T) {
	l := &line{most: 4, infer: func(context.Context, []float32, int) ([]float32, error) { panic("infer") }}
	for range 2 * maxRuns {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			l.run(t.Context(), []float32{1}, 1)
		}()
	}
	if l.running != 0 || len(l.waiting) != 0 {
		t.Errorf("%d run, %d wait", l.running, len(l.waiting))
	}
}
