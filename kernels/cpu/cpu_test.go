package cpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/internal/cpuid/tiertest"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opener returns a function that opens a backend of the given tier.
func opener(tier tier, threads int) func(testing.TB) kernels.Backend {
	return func(testing.TB) kernels.Backend { return newBackend(tier, threads) }
}

// TestConformance runs the suite on every tier that this machine has, and on the vector
// units' twins in Go.
func TestConformance(t *testing.T) {
	for _, tier := range tiers {
		for _, threads := range []int{1, 5} {
			t.Run(fmt.Sprintf("%s/threads=%d", tier.name, threads), func(t *testing.T) {
				kerneltest.Run(t, opener(tier, threads))
			})
		}
	}
	if !testing.Short() { // slow, above all under the race detector, which has nothing new to check here
		for _, twin := range twins {
			t.Run(twin.name, func(t *testing.T) {
				kerneltest.Run(t, opener(tier{twin.name, loadResidues(twin)}, 2))
			})
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for _, tier := range tiers {
		for _, threads := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("%s/threads=%d", tier.name, threads), func(b *testing.B) {
				kerneltest.Bench(b, opener(tier, threads))
			})
		}
	}
}

// TestTier: what is to test one tier must not pass on another.
func TestTier(t *testing.T) { tiertest.Fastest(t, tiers[0].name) }

func TestOpen(t *testing.T) {
	for _, name := range []string{"", "auto"} {
		b, err := Open(Options{Tier: name})
		if err != nil || b.Tier() != Tiers()[0] {
			t.Errorf("tier %q: %v, error %v", name, b, err)
		}
	}
	for _, name := range Tiers() {
		b, err := Open(Options{Tier: name})
		if err != nil || b.Tier() != name {
			t.Errorf("tier %q: %v, error %v", name, b, err)
		}
	}
	for _, name := range []string{"avx", "AVX512", " portable"} {
		if _, err := Open(Options{Tier: name}); !errors.Is(err, ErrTier) {
			t.Errorf("tier %q: error %v", name, err)
		}
	}
	if names := Tiers(); names[len(names)-1] != "portable" {
		t.Errorf("the last of %q is not the portable tier", names)
	}
}

// TestEach: every unit is worked on once, and concurrent calls together run at most as many
// goroutines as there are slots.
func TestEach(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		b := New(Options{Threads: threads})
		var running, most atomic.Int32
		var calls sync.WaitGroup
		for _, tiles := range []int{0, 1, 2, 7, 100} {
			calls.Go(func() {
				done := make([]atomic.Int32, tiles)
				err := b.each(t.Context(), tiles, func(_ *scratch, tile int) {
					now := running.Add(1)
					for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
					}
					time.Sleep(100 * time.Microsecond)
					done[tile].Add(1)
					running.Add(-1)
				})
				if err != nil {
					t.Error(err)
				}
				for i := range done {
					if n := done[i].Load(); n != 1 {
						t.Errorf("%d threads, tile %d of %d: worked on %d times", threads, i, tiles, n)
					}
				}
			})
		}
		calls.Wait()
		if n := int(most.Load()); n > threads {
			t.Errorf("%d goroutines compute with %d threads", n, threads)
		}
		if len(b.slots) != 0 {
			t.Errorf("%d slots are held after all calls", len(b.slots))
		}
	}
}

// TestCancelBetweenTiles: a call that is cancelled while it runs stops before its last unit
// and gives its slots back.
func TestCancelBetweenTiles(t *testing.T) {
	b := New(Options{Threads: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var worked atomic.Int32
	err := b.each(ctx, 1000, func(*scratch, int) {
		worked.Add(1)
		cancel()
	})
	if !errors.Is(err, context.Canceled) || worked.Load() > 2 {
		t.Errorf("error %v after %d tiles", err, worked.Load())
	}
	if len(b.slots) != 0 {
		t.Errorf("%d slots are held", len(b.slots))
	}
}

// TestCancelWaiting: a call that waits for a slot can be cancelled.
func TestCancelWaiting(t *testing.T) {
	b := New(Options{Threads: 1})
	op := plan.Dense(3, 2)
	p, err := b.Load(t.Context(), ring.Q4(), op, ring.NewMatrix(2, 3))
	if err != nil {
		t.Fatal(err)
	}
	b.slots <- struct{}{} // as if another call computed
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := p.Evaluate(ctx, ring.NewMatrix(1, 2), ring.NewMatrix(1, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-b.slots
	if err := p.Evaluate(t.Context(), ring.NewMatrix(1, 2), ring.NewMatrix(1, 3)); err != nil {
		t.Error(err)
	}
}

// TestPanic: a panic in a helping goroutine reaches the caller, once all have stopped.
func TestPanic(t *testing.T) {
	b := New(Options{Threads: 3})
	for range 20 {
		var both sync.WaitGroup
		both.Add(2)
		func() {
			defer func() {
				v := recover()
				if p, ok := v.(*kernels.Panic); !ok || p.Value != "unit" || !bytes.Contains(p.Stack, []byte("TestPanic")) {
					t.Errorf("panic of %v", v)
				}
			}()
			b.each(t.Context(), 2, func(*scratch, int) {
				both.Done()
				both.Wait() // until a helper runs, too
				panic("unit")
			})
		}()
		if n := len(b.slots); n != 0 {
			t.Fatalf("%d goroutines compute", n)
		}
	}
	if err := b.each(t.Context(), 2, func(*scratch, int) {}); err != nil {
		t.Error(err)
	}
}
