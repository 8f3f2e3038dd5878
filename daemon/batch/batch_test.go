package batch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// product is a dense operator that records how many rows each evaluation had, and that waits
// at a gate if a test sets one.
type product struct {
	op   plan.Op
	w    ring.Matrix
	gate chan struct{} // if not nil: one token an evaluation
	err  error
	boom bool
	lag  time.Duration // between the end of its context and its return

	mu   sync.Mutex
	rows []int // of each evaluation that began
}

var r = ring.Q4()

func newProduct(seed uint64) *product {
	op := plan.Dense(3, 2)
	p := &product{op: op, w: ring.NewMatrix(op.Rows(), op.Terms())}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range p.w.Data {
		p.w.Data[i] = rnd.Uint32N(r.Modulus())
	}
	return p
}

func (p *product) Close() error { return nil }

func (p *product) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	p.mu.Lock()
	p.rows = append(p.rows, x.Rows)
	p.mu.Unlock()
	if p.gate != nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			time.Sleep(p.lag)
			return ctx.Err()
		}
	}
	if p.boom {
		panic("out of order")
	}
	if p.err != nil {
		return p.err
	}
	copy(y.Data, kernels.Direct(r, p.op, p.w, x).Data)
	return nil
}

func (p *product) began() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.rows)
}

// asked is the task of a call that is waited for.
type asked struct {
	fill func(x ring.Matrix) error
	done chan struct{}

	answer batch.Answer
	timing batch.Timing
	err    error
}

func (a *asked) Fill(x ring.Matrix) error { return a.fill(x) }

func (a *asked) Done(answer batch.Answer, t batch.Timing, err error) {
	a.answer, a.timing, a.err = answer, t, err
	close(a.done)
}

// evaluate makes a call and waits for its outcome.
func evaluate(s *batch.Stream, c batch.Call, fill func(x ring.Matrix) error) (batch.Answer, batch.Timing, error) {
	a := &asked{fill: fill, done: make(chan struct{})}
	c.Task = a
	s.Submit(c)
	<-a.done
	return a.answer, a.timing, a.err
}

// call evaluates n seeded rows and checks the result against the product itself.
func call(ctx context.Context, t *testing.T, q *batch.Queue, po batch.Policy, p *product, n int, seed uint64) (batch.Timing, error) {
	t.Helper()
	return callAs(ctx, t, q, po, p, n, seed, batch.Call{}, nil)
}

// callAs is call with all options. If fill is not nil, it sets the rows.
func callAs(ctx context.Context, t *testing.T, q *batch.Queue, po batch.Policy, p *product, n int, seed uint64, c batch.Call, fill func(ring.Matrix) error) (batch.Timing, error) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 2))
	x := ring.NewMatrix(n, p.op.InLen())
	for i := range x.Data {
		x.Data[i] = rnd.Uint32N(r.Modulus())
	}
	c.Op, c.Product, c.Policy, c.Rows = p.op, p, &po, n
	if fill == nil {
		fill = func(to ring.Matrix) error {
			if to.Rows != n || copy(to.Data, x.Data) != len(x.Data) {
				t.Errorf("%d rows of %d words for %d", to.Rows, len(to.Data), n)
			}
			return nil
		}
	}
	a, timing, err := evaluate(q.Stream(ctx, "c"), c, fill)
	if err == nil {
		if !slices.Equal(a.Y.Data, kernels.Direct(r, p.op, p.w, x).Data) {
			t.Errorf("wrong product for %d rows", n)
		}
		a.Read()
		a.Drop(func() {})
	}
	return timing, err
}

// TestRowsStayApart: batched results equal single ones, with many callers, sizes and products.
func TestRowsStayApart(t *testing.T) {
	for _, delay := range []time.Duration{0, 200 * time.Microsecond} {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 16, MaxDelay: delay, MaxCalls: 1000}
		products := []*product{newProduct(1), newProduct(2), newProduct(3)}
		var wg sync.WaitGroup
		for id := range uint64(12) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(id, 3))
				for i := range uint64(100) {
					ctx, cancel := context.WithCancel(t.Context())
					if rnd.IntN(8) == 0 { // some give up
						time.AfterFunc(time.Duration(rnd.IntN(100))*time.Microsecond, cancel)
					}
					_, err := call(ctx, t, q, po, products[rnd.IntN(3)], 1+rnd.IntN(19), id<<32|i)
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		q.Close()
		for _, p := range products {
			if most := slices.Max(p.began()); most > 19 { // one call of 19, or 16 of several
				t.Errorf("a product of %d rows", most)
			}
		}
	}
}

// TestMerge: calls that wait while a product runs become the next product, up to MaxRows.
func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 10, MaxCalls: 100}
		p := newProduct(1)
		p.gate = make(chan struct{})
		var wg sync.WaitGroup
		for i, n := range []int{1, 4, 5, 2, 30, 3, 3, 3, 2} {
			wg.Go(func() {
				timing, err := call(t.Context(), t, q, po, p, n, uint64(i))
				if err != nil {
					t.Error(err)
				}
				if i == 0 && timing != (batch.Timing{Compute: time.Second, Batch: 1}) {
					t.Errorf("first call: %+v", timing)
				}
				if i == 1 && timing != (batch.Timing{Queue: time.Second, Compute: time.Second, Batch: 9}) {
					t.Errorf("second call: %+v", timing)
				}
				if i == 2 && timing.Batch != 0 { // the call before it counted the product
					t.Errorf("third call: %+v", timing)
				}
			})
			synctest.Wait() // in this order
		}
		if n := q.Waiting(); n != 8 {
			t.Errorf("%d calls wait, want 8", n)
		}
		for range 6 {
			time.Sleep(time.Second)
			p.gate <- struct{}{}
		}
		wg.Wait()
		q.Close()
		if got, want := p.began(), []int{1, 9, 2, 30, 9, 2}; !slices.Equal(got, want) {
			t.Errorf("products of %v rows, want %v", got, want)
		}
	})
}

// TestTiming: filling inputs counts neither as queueing nor as computing.
func TestTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		defer q.Close()
		for _, most := range []int{100, 1} { // filled by the product, or beforehand
			fill := func(x ring.Matrix) error { clear(x.Data); time.Sleep(time.Second); return nil }
			p := newProduct(1)
			_, timing, err := evaluate(q.Stream(t.Context(), "c"), batch.Call{
				Op: p.op, Product: p, Policy: &batch.Policy{MaxRows: most, MaxCalls: 100}, Rows: 1}, fill)
			if err != nil || timing != (batch.Timing{Batch: 1}) {
				t.Errorf("%+v, %v", timing, err)
			}
		}
	})
}

// TestReady: calls that are ready at the same time are merged, although none waits for others.
func TestReady(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that ready goroutines wait
	q := batch.New(t.Context(), batch.Options{Parallel: 4})
	defer q.Close()
	p := newProduct(1)
	var calls sync.WaitGroup
	for i := range 20 {
		calls.Go(func() {
			if _, err := call(t.Context(), t, q, batch.Policy{MaxRows: 100, MaxCalls: 100}, p, 1, uint64(i)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if began := p.began(); len(began) > 10 {
		t.Errorf("20 calls took products of %v rows", began)
	}
}

// TestWide: the words of a merged product are limited too.
func TestWide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 10, MaxCalls: 100}
		p := &product{op: plan.Dense(1<<19, 1), w: ring.NewMatrix(1, 1<<19), gate: make(chan struct{}, 9)}
		var wg sync.WaitGroup
		for i, n := range []int{1, 2, 2, 1, 3, 4, 1} {
			wg.Go(func() {
				if _, err := call(t.Context(), t, q, po, p, n, uint64(i)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for range cap(p.gate) {
			p.gate <- struct{}{}
		}
		wg.Wait()
		q.Close()
		if got, want := p.began(), []int{1, 2, 3, 3, 4, 1}; !slices.Equal(got, want) {
			t.Errorf("products of %v rows, want %v", got, want)
		}
	})
}

// TestDelay: a call that finds the queue empty runs at once; others wait until they fill a
// product or the first of them has waited MaxDelay.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 4, MaxDelay: time.Minute, MaxCalls: 100}
		defer q.Close()
		start := time.Now()
		slow, p := newProduct(1), newProduct(2)
		slow.gate = make(chan struct{})
		var wg sync.WaitGroup
		submit := func(p *product, n int) {
			wg.Go(func() {
				if _, err := call(t.Context(), t, q, po, p, n, 1); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		submit(p, 1)
		if got := p.began(); len(got) != 1 {
			t.Fatalf("the queue was empty and the call waited: %v", got)
		}
		submit(slow, 1) // from here on there is other work

		submit(p, 1)
		time.Sleep(30 * time.Second)
		submit(p, 2)
		if got := p.began(); len(got) != 1 {
			t.Fatalf("a batch that is not full went early: %v", got)
		}
		time.Sleep(30*time.Second + 1)
		synctest.Wait()
		if got := p.began(); !slices.Equal(got, []int{1, 3}) {
			t.Fatalf("after the delay: %v", got)
		}

		submit(p, 2)
		submit(p, 2) // full
		if got := p.began(); !slices.Equal(got, []int{1, 3, 4}) {
			t.Fatalf("a full batch waited: %v", got)
		}
		if d := time.Since(start); d != time.Minute+1 {
			t.Errorf("took %v", d)
		}
		slow.gate <- struct{}{}
		wg.Wait()
	})
}

// TestOverload: a full line refuses calls with a typed error, and has room again later.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 1, MaxCalls: 2}
		defer q.Close()
		p := newProduct(1)
		p.gate = make(chan struct{})
		var wg sync.WaitGroup
		for i := range uint64(3) { // one runs, two wait
			wg.Go(func() {
				if _, err := call(t.Context(), t, q, po, p, 1, i); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		var e *wire.Error
		if _, err := call(t.Context(), t, q, po, p, 1, 9); !errors.As(err, &e) || e.Reason != wire.ReasonOverloaded {
			t.Errorf("error %v", err)
		}
		if _, err := call(t.Context(), t, q, po, newProduct(2), 1, 9); err != nil {
			t.Errorf("another product: %v", err)
		}
		close(p.gate)
		wg.Wait()
		if _, err := call(t.Context(), t, q, po, p, 1, 9); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestCancel: when a stream ends, a waiting call leaves at once, and its rows are not evaluated;
// a call that runs alone is cancelled; one that runs merged with others is waited for.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 100, MaxCalls: 10}
		defer q.Close()
		p := newProduct(1)
		p.gate = make(chan struct{})
		var wg sync.WaitGroup
		submit := func(n int, want error) context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				if _, err := call(ctx, t, q, po, p, n, uint64(n)); !errors.Is(err, want) {
					t.Errorf("%d rows: error %v, want %v", n, err, want)
				}
			})
			synctest.Wait()
			return cancel
		}
		alone := submit(1, context.Canceled)
		waits := submit(2, context.Canceled)
		merged := submit(3, nil)
		other := submit(4, nil)
		waits()
		synctest.Wait()
		alone()
		synctest.Wait()
		merged()
		synctest.Wait()
		p.gate <- struct{}{}
		wg.Wait()
		other()
		ctx, cancel := context.WithCancel(t.Context())
		late := q.Stream(ctx, "c")
		cancel()
		synctest.Wait()
		if _, _, err := evaluate(late, batch.Call{Op: p.op, Product: p, Policy: &po, Rows: 6}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a stream that has ended: %v", err)
		}
		if got := p.began(); !slices.Equal(got, []int{1, 7}) {
			t.Errorf("products of %v rows", got)
		}
	})
}

// TestFailure: an error or panic of the backend reaches every call of the batch
// and no other.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 100, MaxCalls: 10}
		defer q.Close()
		lost := errors.New("device lost")
		for _, n := range []int{1, 3} {
			for _, boom := range []bool{false, true} {
				p := newProduct(1)
				p.err, p.boom = lost, boom
				p.gate = make(chan struct{})
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						_, err := call(t.Context(), t, q, po, p, 1, 1)
						var panicked *batch.PanicError
						if boom != errors.As(err, &panicked) || boom == errors.Is(err, lost) {
							t.Errorf("error %v", err)
						}
					})
				}
				synctest.Wait()
				close(p.gate)
				wg.Wait()
				if _, err := call(t.Context(), t, q, po, newProduct(2), 1, 1); err != nil {
					t.Errorf("another product: %v", err)
				}
			}
		}
	})
}

// TestGuard: a panic has the stack of where it began, even in a goroutine of a backend.
func TestGuard(t *testing.T) {
	for v, want := range map[any]string{"boom": "TestGuard", &kernels.Panic{Value: "boom", Stack: []byte("elsewhere")}: "elsewhere"} {
		var p *batch.PanicError
		if err := batch.Guard(func() error { panic(v) }); !errors.As(err, &p) || p.Value != "boom" || !bytes.Contains(p.Stack, []byte(want)) {
			t.Errorf("panic of %v: %v", v, err)
		}
	}
	if err := batch.Guard(func() error { return io.EOF }); err != io.EOF {
		t.Error(err)
	}
}

// TestBadWords: a call with bad words fails alone, and its rows are not multiplied. A panic of
// its Fill affects only it, too.
func TestBadWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		defer q.Close()
		bad := errors.New("bad words")
		var panicked *batch.PanicError
		for _, most := range []int{100, 2} { // merged, or filled beforehand
			po := batch.Policy{MaxRows: most, MaxCalls: 10}
			p := newProduct(1)
			p.gate = make(chan struct{})
			var wg sync.WaitGroup
			var told atomic.Int64 // rows
			submit := func(n int, fill func(ring.Matrix) error, good func(error) bool) {
				wg.Go(func() {
					timing, err := callAs(t.Context(), t, q, po, p, n, uint64(n), batch.Call{}, fill)
					if !good(err) || err != nil && timing.Batch != 0 {
						t.Errorf("%d rows: %+v, error %v", n, timing, err)
					}
					told.Add(int64(timing.Batch))
				})
				synctest.Wait()
			}
			fine := func(err error) bool { return err == nil }
			submit(1, nil, fine)
			submit(3, func(x ring.Matrix) error { x.Data[0] = r.Modulus(); return bad }, func(err error) bool { return errors.Is(err, bad) })
			submit(2, nil, fine)
			submit(4, nil, fine)
			submit(5, func(ring.Matrix) error { panic("words") }, func(err error) bool { return errors.As(err, &panicked) })
			close(p.gate)
			wg.Wait()
			want := []int{1, 6}
			if most == 2 {
				want = []int{1, 2, 4}
			}
			if got := p.began(); !slices.Equal(got, want) {
				t.Errorf("products of %v rows, want %v", got, want)
			}
			if got := told.Load(); got != 7 {
				t.Errorf("callers are told of %d rows, want 7", got)
			}
			only := newProduct(2)
			if _, err := callAs(t.Context(), t, q, po, only, 1, 1, batch.Call{}, func(ring.Matrix) error { return bad }); !errors.Is(err, bad) || len(only.began()) != 0 {
				t.Errorf("alone: %v, products of %v rows", err, only.began())
			}
		}
	})
}

// TestAnswers: answers of one product share its memory, without a copy. The memory is reused
// once all have been read, and its reservation ends once all are dropped.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		defer q.Close()
		po := batch.Policy{MaxRows: 100, MaxCalls: 10}
		p := newProduct(1)
		p.gate = make(chan struct{})
		answers := make([]batch.Answer, 4)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				answers[i], _, err = evaluate(q.Stream(t.Context(), "c"), batch.Call{Op: p.op, Product: p, Policy: &po, Rows: 1 + i},
					func(x ring.Matrix) error { clear(x.Data); return nil })
				if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(p.gate)
		wg.Wait()
		merged := answers[1:]
		if &merged[0].Y.Data[:4:4][3] == &merged[1].Y.Data[0] || cap(merged[0].Y.Data) != len(merged[0].Y.Data) {
			t.Error("an answer reaches into another")
		}
		dropped := 0
		for i, a := range merged {
			if dropped != 0 {
				t.Errorf("released after %d of %d answers", i, len(merged))
			}
			a.Read()
			a.Drop(func() { dropped++ })
		}
		if dropped != len(merged) {
			t.Errorf("%d of %d released", dropped, len(merged))
		}
	})
}

// TestTimeout: a call waits no longer than its policy and its own timeout allow, and fails with
// TIMEOUT.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		defer q.Close()
		p := newProduct(1)
		p.gate = make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := call(t.Context(), t, q, batch.Policy{MaxRows: 1, MaxCalls: 10, Timeout: time.Second}, p, 1, 0); err != nil {
				t.Errorf("what has begun: %v", err)
			}
		})
		synctest.Wait()
		for _, test := range []struct{ policy, own, want time.Duration }{
			{time.Minute, 0, time.Minute}, {time.Minute, time.Second, time.Second}, {time.Minute, time.Hour, time.Minute}, {0, time.Hour, time.Hour},
		} {
			po := batch.Policy{MaxRows: 1, MaxCalls: 10, Timeout: test.policy}
			var e *wire.Error
			timing, err := callAs(t.Context(), t, q, po, p, 1, 1, batch.Call{Timeout: test.own}, nil)
			if !errors.As(err, &e) || e.Reason != wire.ReasonTimeout || timing.Queue != test.want {
				t.Errorf("%+v: %v after %v", test, err, timing.Queue)
			}
		}
		close(p.gate)
		wg.Wait()
	})
}

// TestClose: Close cancels running and waiting calls, and waits for the running ones.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := batch.New(t.Context(), batch.Options{Parallel: 4})
		po := batch.Policy{MaxRows: 2, MaxDelay: time.Hour, MaxCalls: 10}
		p, other := newProduct(1), newProduct(2)
		p.gate = make(chan struct{})
		other.gate = p.gate
		p.lag, other.lag = time.Second, 2*time.Second
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				if _, err := call(t.Context(), t, q, po, []*product{p, other}[i%2], 1, 1); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
			})
			synctest.Wait()
		}
		begun := time.Now()
		q.Close()
		if d := time.Since(begun); d != other.lag || len(p.began()) != 1 || len(other.began()) != 1 {
			t.Errorf("closed after %v", d)
		}
		wg.Wait()
	})
}

// counted is a cheap product that yields to other goroutines and counts its evaluations.
type counted struct{ evaluations atomic.Int64 }

func (*counted) Close() error { return nil }

func (p *counted) Evaluate(_ context.Context, y, x ring.Matrix) error {
	p.evaluations.Add(1)
	runtime.Gosched()
	copy(y.Data, x.Data)
	return nil
}

// BenchmarkQueue: each caller makes calls of one row, one after the other.
func BenchmarkQueue(b *testing.B) {
	for _, test := range []struct{ callers, operators int }{{1, 1}, {64, 1}, {64, 3}} {
		b.Run(fmt.Sprintf("%d callers, %d operators", test.callers, test.operators), func(b *testing.B) {
			q := batch.New(b.Context(), batch.Options{Parallel: 2})
			defer q.Close()
			policy := &batch.Policy{MaxRows: 4096, MaxCalls: 256}
			products := make([]counted, test.operators)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range test.callers {
				wg.Go(func() {
					s := q.Stream(b.Context(), batch.Caller(fmt.Sprintf("uid 1000, connection %d", i)))
					for n := i; left.Add(-1) >= 0; n++ {
						a, _, err := evaluate(s, batch.Call{Op: plan.Dense(16, 16), Product: &products[n%len(products)], Policy: policy, Rows: 1},
							func(x ring.Matrix) error { clear(x.Data); return nil })
						if err != nil {
							b.Error(err)
							return
						}
						a.Read()
						a.Drop(func() {})
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			evaluations := int64(0)
			for i := range products {
				evaluations += products[i].evaluations.Load()
			}
			b.ReportMetric(float64(b.N)/float64(evaluations), "calls/product")
		})
	}
}
