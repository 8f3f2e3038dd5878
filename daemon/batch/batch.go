// Package batch merges calls that wait for the same operator into one product, with the
// rows of many callers one after the other. The rows of a product are independent, so
// merging changes no result. state decides what runs when; Queue adds the clock and the
// goroutines, and moves the words.
package batch

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/daemon/pool"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Caller identifies the caller of a call. Callers have equal shares of the daemon's
// multiply-adds.
type Caller string

// Policy says how calls for one operator are merged.
type Policy struct {
	MaxRows  int           // of a merged product, which maxWords limits too; a larger call runs alone
	MaxDelay time.Duration // a product waits at most this long for more rows, if the daemon has other work
	MaxCalls int           // waiting for one operator
	Timeout  time.Duration // a call waits at most this long; 0: no limit
	Levels   uint32        // number of priority levels, 1 first; 0: none
	Level    uint32        // of calls that name no valid level
}

// Call asks for a product. Product, Op and Policy belong together.
type Call struct {
	Op       plan.Op
	Product  plan.Product
	Policy   *Policy
	Rows     int           // at least 1
	Priority uint32        // a level; if the policy has no such level, Policy.Level counts
	Timeout  time.Duration // counts if it is shorter than the policy's; 0: none
	Task     Task
}

// Task is a call's input and what becomes of its outcome.
type Task interface {
	// Fill sets x, Rows x Op.InLen() canonical words. It is called at most once, before Done.
	// Its error fails this call alone. Calls of the same product wait for it.
	Fill(x ring.Matrix) error
	// Done is called once, with the answer W x or an error: a *wire.Error if the queue refuses
	// the call, an error of Fill or the backend, context.Canceled if the queue is closed, or the
	// error of the stream's context if it ends before the product has begun. The call's Product
	// must be open until then. Done must not wait, as other calls' answers wait for it. It may be
	// called before Submit returns.
	Done(a Answer, t Timing, err error)
}

// Timing is where a call spent its time.
type Timing struct {
	Queue   time.Duration // from its arrival until its product's inputs are being filled, or to its end without one
	Compute time.Duration // of its product
	// Batch is the product's number of rows in one of the product's calls, and 0 in the others.
	Batch int
}

// Options of a Queue.
type Options struct {
	// Parallel is how many products run at the same time, each of a different operator.
	Parallel int
	// Lender, if not nil, lends memory for inputs.
	Lender kernels.Lender
}

// maxWords limits the words of a merged product, in and out: larger products are no more
// efficient, and all other calls wait for them.
const maxWords = 2 << 20

// Queue evaluates calls, merging several into one product as their policy allows.
type Queue struct {
	o       Options
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup // products, goroutines that begin or finish them, and drop
	inputs  pool.Words
	outputs pool.Words // from the heap only, as gRPC may never free them when a connection breaks
	calls   sync.Pool  // of *call

	mu       sync.Mutex
	state    *state
	closed   bool
	starting bool        // a goroutine is about to look for products that are due
	ended    []*call     // without a product; unlock tells their tasks
	timer    *time.Timer // calls wake at the time at
	at       time.Time   // zero: the timer is stopped
}

// Stream is where calls of one caller come from. They are cancelled together.
type Stream struct {
	q      *Queue
	ctx    context.Context
	caller Caller

	waiting list // guarded by q.mu
}

// call is a Call in the queue.
type call struct {
	Call
	stream   *Stream
	work     int64 // multiply-adds
	level    uint32
	deadline time.Time // zero: none

	// Set by state.
	arrived time.Time
	share   *share // where it waits; nil: it does not wait
	links   [3]links
	place   int  // in the heap of deadlines
	alone   bool // arrived at an empty queue, so it need not wait for more rows

	x      ring.Matrix // filled before it is queued, if its product is its own anyway
	timing Timing
	answer Answer
	err    error
}

// New returns an empty queue. When ctx ends, the calls left in it are cancelled.
func New(ctx context.Context, o Options) *Queue {
	q := &Queue{o: o, state: newState(o.Parallel)}
	q.ctx, q.cancel = context.WithCancel(ctx)
	q.inputs.From = o.Lender
	q.timer = time.AfterFunc(time.Hour, q.wake)
	q.timer.Stop()
	q.work.Add(1)
	context.AfterFunc(q.ctx, q.drop)
	return q
}

// Close cancels all calls, and waits for products to end and for calls that waited to be told.
// A large call that is being filled meanwhile is cancelled afterwards.
func (q *Queue) Close() {
	q.cancel()
	q.work.Wait()
}

// Stream returns a stream of calls, which are cancelled when ctx ends, as it must. A product
// that has begun with several calls goes on.
func (q *Queue) Stream(ctx context.Context, caller Caller) *Stream {
	s := &Stream{q: q, ctx: ctx, caller: caller, waiting: list{by: byStream}}
	context.AfterFunc(ctx, s.leave)
	return s
}

// Submit queues a call.
func (s *Stream) Submit(c Call) {
	k := s.prepare(c)
	if k.Rows < mostRows(k.Policy, k.Op) {
		s.q.arrive(k)
		return
	}
	go func() { // its product has no other calls: filling it now delays nobody
		k.x = matrix(&s.q.inputs, k.Rows, k.Op.InLen())
		if k.err = Guard(func() error { return k.Task.Fill(k.x) }); k.err != nil {
			k.timing.Queue = time.Since(k.arrived)
			s.q.finish(k)
			return
		}
		s.q.arrive(k)
	}()
}

// arrive puts a call in the queue.
func (q *Queue) arrive(k *call) {
	q.mu.Lock()
	defer q.unlock()
	now := time.Now()
	k.arrived = now
	if q.closed {
		q.end(k, now, context.Canceled)
		return
	}
	if err := k.stream.ctx.Err(); err != nil {
		q.end(k, now, err)
		return
	}
	if refused := q.state.arrive(now, k); refused != nil {
		q.end(refused, now, q.overloaded(refused))
	}
	if q.state.running >= q.state.parallel || q.state.backlog >= light {
		q.start(q.pump(now))
	} else if !q.starting {
		q.starting = true
		q.work.Add(1)
		go q.begin()
	}
}

// begin evaluates the products that are due once ready goroutines have run, which may bring
// them more calls.
func (q *Queue) begin() {
	defer q.work.Done()
	q.mu.Lock()
	q.yield()
	q.starting = false
	b := q.due()
	q.unlock()
	q.run(b)
}

// prepare returns a call for the queue.
func (s *Stream) prepare(c Call) *call {
	k, ok := s.q.calls.Get().(*call)
	if !ok {
		k = new(call)
	}
	k.Call, k.stream, k.work, k.arrived = c, s, int64(c.Rows)*c.Op.MulAdds(), time.Now()
	if p := c.Policy; p.Levels > 0 {
		k.level = p.Level
		if c.Priority > 0 && c.Priority <= p.Levels {
			k.level = c.Priority
		}
	}
	timeout := c.Policy.Timeout
	if c.Timeout > 0 && (timeout == 0 || c.Timeout < timeout) {
		timeout = c.Timeout
	}
	if timeout > 0 {
		k.deadline = k.arrived.Add(timeout)
	}
	return k
}

// finish tells a call's task of its outcome, and recycles the call. q.mu must not be held.
func (q *Queue) finish(k *call) {
	if k.x.Data != nil {
		q.inputs.Put(k.x.Data)
	}
	task, answer, timing, err := k.Task, k.answer, k.timing, k.err
	*k = call{}
	q.calls.Put(k)
	task.Done(answer, timing, err)
}

// unlock unlocks q.mu, and finishes the calls that have ended without a product.
func (q *Queue) unlock() {
	ended := q.ended
	q.ended = nil
	q.mu.Unlock()
	for _, c := range ended {
		q.finish(c)
	}
}

// mostRows returns the most rows of a product with several calls.
func mostRows(p *Policy, op plan.Op) int { return min(p.MaxRows, maxWords/(op.InLen()+op.OutLen())) }

// Waiting returns the number of calls whose product has yet to begin.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, l := range q.state.lines {
		n += l.calls
	}
	return n
}

func (q *Queue) overloaded(c *call) error {
	return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: q.state.retry(),
		Message: fmt.Sprintf("%d requests wait for this layer already; retry later", c.Policy.MaxCalls)}
}

// leave ends the waiting calls of a stream.
func (s *Stream) leave() {
	q := s.q
	q.mu.Lock()
	defer q.unlock()
	now, err := time.Now(), s.ctx.Err()
	for _, c := range q.state.leave(s) {
		q.end(c, now, err)
	}
	q.start(q.due())
}

// drop ends all waiting calls when the queue is closed.
func (q *Queue) drop() {
	defer q.work.Done()
	q.mu.Lock()
	defer q.unlock()
	q.closed = true
	q.timer.Stop()
	now := time.Now()
	for _, l := range q.state.lines {
		for len(l.shares) > 0 {
			c := l.shares[0].order.first
			q.state.remove(c)
			q.end(c, now, context.Canceled)
		}
	}
}

// wake pumps when the timer runs out.
func (q *Queue) wake() {
	q.mu.Lock()
	q.at = time.Time{}
	b := q.due()
	q.unlock()
	q.run(b)
}

// pump ends the calls past their deadline and starts the products that are due, except one,
// which it returns for the caller to run. q.mu must be held.
func (q *Queue) pump(now time.Time) (own []*call) {
	for _, c := range q.state.expire(now) {
		q.end(c, now, &wire.Error{Code: codes.DeadlineExceeded, Reason: wire.ReasonTimeout, Message: "the request timed out before its product began"})
	}
	for {
		b := q.state.next(now)
		if b == nil {
			break
		}
		q.work.Add(1)
		if own == nil {
			own = b
		} else {
			q.start(b)
		}
	}
	at := q.state.wake()
	if at.Equal(q.at) {
		return own
	}
	if q.at = at; at.IsZero() {
		q.timer.Stop()
	} else {
		q.timer.Reset(max(at.Sub(now), 1)) // 1 ns if at has passed
	}
	return own
}

// start runs a product in a goroutine; b may be nil.
func (q *Queue) start(b []*call) {
	if b != nil {
		go q.run(b)
	}
}

// run evaluates a product, and then the products that are due when it ends, until none is;
// b may be nil.
func (q *Queue) run(b []*call) {
	for b != nil {
		b = q.evaluate(b)
	}
}

// end ends a call without a product, once q.mu, which must be held, is unlocked.
func (q *Queue) end(c *call, now time.Time, err error) {
	c.timing, c.err = Timing{Queue: now.Sub(c.arrived)}, err
	q.ended = append(q.ended, c)
}

// evaluate evaluates a product and finishes its calls. It returns a product that is due then,
// as pump does.
func (q *Queue) evaluate(b []*call) (next []*call) {
	defer q.work.Done()
	begun := time.Now()
	start := q.product(b)
	now := time.Now()
	rows, work := 0, int64(0)
	for _, c := range b {
		work += c.work
		if c.err == nil {
			rows += c.Rows
		}
	}
	many := len(b) > few || rows*b[0].Op.OutLen() > fewWords
	for _, c := range b {
		c.timing = Timing{Queue: begun.Sub(c.arrived), Compute: now.Sub(start)}
		if c.err == nil {
			c.timing.Batch, rows = rows, 0
		}
	}
	q.mu.Lock()
	q.state.done(q.state.lines[b[0].Product], len(b), work, now.Sub(start))
	if q.state.backlog >= light || many {
		next = q.due()
	}
	q.unlock()
	finish := func() {
		for _, c := range b {
			q.finish(c)
		}
	}
	if next != nil {
		q.work.Go(finish)
		return next
	}
	finish()
	q.mu.Lock()
	defer q.unlock()
	q.yield()
	return q.due()
}

// due is pump at this time, unless the queue is closed.
func (q *Queue) due() (own []*call) {
	if q.closed {
		return nil
	}
	return q.pump(time.Now())
}

// light is how many multiply-adds may wait for goroutines that are ready to run, and may bring
// calls for the same products: a tenth of a millisecond of a core with AVX-512. With fewer
// products, calls that are as cheap cost less.
const light = 8 * quantum

// So many calls of a product, with so many words of answers, are finished before the next
// product begins, if little work waits.
const few, fewWords = 64, 1 << 19

// yield lets goroutines run that are ready, if little work waits for them. q.mu must be held,
// and is not while they run.
func (q *Queue) yield() {
	if q.state.backlog >= light {
		return
	}
	q.mu.Unlock()
	runtime.Gosched()
	q.mu.Lock()
}

// PanicError is a recovered panic.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// product computes a product, sets its calls' answers or errors, and returns when its inputs
// were filled. Input words are copied, by Fill into their rows of x. Output words are not: an
// answer is its rows of y.
func (q *Queue) product(b []*call) (start time.Time) {
	ctx := q.ctx
	if len(b) == 1 { // its caller can cancel the product
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(b[0].stream.ctx)
		defer cancel()
		defer context.AfterFunc(q.ctx, cancel)()
	}
	op := b[0].Op
	x := b[0].x
	if x.Data == nil {
		rows := 0
		for _, c := range b {
			rows += c.Rows
		}
		x = matrix(&q.inputs, rows, op.InLen())
		defer q.inputs.Put(x.Data)
		rows = 0
		good := make([]*call, 0, len(b)) // if a task's Fill fails, the next call gets its rows
		for _, c := range b {
			if c.err = Guard(func() error { return c.Task.Fill(x.RowRange(rows, rows+c.Rows)) }); c.err == nil {
				good, rows = append(good, c), rows+c.Rows
			}
		}
		b, x = good, x.RowRange(0, rows)
	}
	start = time.Now()
	if len(b) == 0 {
		return start
	}
	y := matrix(&q.outputs, x.Rows, op.OutLen())
	if err := Guard(func() error { return b[0].Product.Evaluate(ctx, y, x) }); err != nil {
		q.outputs.Put(y.Data)
		for _, c := range b {
			c.err = err
		}
		return start
	}
	m := &memory{pool: &q.outputs, words: y.Data, unread: len(b), held: len(b), drop: make([]func(), 0, len(b))}
	at := 0
	for _, c := range b {
		c.answer = Answer{Y: y.RowRange(at, at+c.Rows), memory: m}
		at += c.Rows
	}
	return start
}

// Guard runs f. It returns a panic of f as a *PanicError.
func Guard(f func() error) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *kernels.Panic:
			err = &PanicError{v.Value, v.Stack}
		default:
			err = &PanicError{v, debug.Stack()}
		}
	}()
	return f()
}

func matrix(from *pool.Words, rows, cols int) ring.Matrix {
	return ring.Matrix{Rows: rows, Cols: cols, Data: from.Get(rows * cols)}
}

// Answer is the result of a call: rows in memory that all calls of a product share. Its
// receiver must call Drop, and before that Read, unless Y may still be read afterwards.
type Answer struct {
	Y      ring.Matrix
	memory *memory
}

// memory is the memory of a product's outputs.
type memory struct {
	pool  *pool.Words
	words []uint32

	mu     sync.Mutex
	unread int // answers that may still be read
	held   int // answers that have not been dropped
	drop   []func()
}

// Read declares that Y is no longer used. Once it has been called for all answers of the
// product, their memory is reused; otherwise the garbage collector frees it.
func (a Answer) Read() {
	m := a.memory
	m.mu.Lock()
	m.unread--
	last := m.unread == 0
	m.mu.Unlock()
	if last {
		m.pool.Put(m.words)
	}
}

// Drop ends the use of the answer, read or not. Once all answers of the product have been
// dropped, and its memory is free, every release is called: memory reserved for one answer
// stays reserved as long as the product's memory exists.
func (a Answer) Drop(release func()) {
	m := a.memory
	m.mu.Lock()
	m.held--
	m.drop = append(m.drop, release)
	var all []func()
	if m.held == 0 {
		all, m.drop = m.drop, nil
	}
	m.mu.Unlock()
	for _, f := range all {
		f()
	}
}
