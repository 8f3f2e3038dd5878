package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// residency keeps the weights of models in a backend, within a budget of bytes in
// which a load counts, from before it begins, with the most that it may take.
//
//	absent ──use──▶ waiting ──room──▶ loading ──▶ resident ──▶ leaving ──▶ absent
//
// A model is loaded when someone uses it, once for all who wait for it. Waiting loads
// are given room in turn: first one of the owner who was given some least recently,
// and of one owner's the one that was asked for first.
//
// To make room the least recently used model leaves, of those that nobody uses; where
// all are in use, the one that has been resident for longest: it takes no new uses,
// which wait for its next load, and is gone with the last one that it has. A model
// that was loaded for a request may stay for patience times as long as its load took, or
// the slowest of those that it made leave or that were loaded while it waited: so of the
// time at most 1 part in 1 + patience goes into loads, however many models take turns,
// none waits for ever, and small ones have as much of the time as large ones.
// Pinned models never leave.
//
// An owner pays for what it makes others load again: once a load of its has made a model
// of another owner's leave, whatever asked for it and whatever came of it, none does
// so again before the load could have had its stay. Loads of others go first meanwhile.
type residency struct {
	budget     int64
	maxWaiting func(sealed.Digest) int // uses of one model that may wait
	// read reads a model's file, checks it and loads its weights.
	read    func(ctx context.Context, m *Model) ([]plan.Product, error)
	metrics *metrics.Metrics
	log     *slog.Logger

	ctx    context.Context // of loads
	cancel context.CancelFunc
	work   sync.WaitGroup // loads, and weights that are let go of

	mu       sync.Mutex
	taken    int64 // bytes of weights that are there, and of what loads may take
	leaving  int64 // of these, of weights that leave
	pinned   int64 // of these, of weights that never do
	resident []*weights
	queue    []*load             // that wait for room, as they were asked for
	loading  int                 // loads that have room
	served   map[Owner]uint64    // the number of the owner's last load that was given room
	loads    uint64              // that were given room so far
	debts    map[Owner]time.Time // until when the owner's loads make no model of others' leave
	timer    *time.Timer         // for when the next model may leave
	closed   bool
}

// patience is how often the duration of its load a model may stay.
const patience = 4

// weights are those of a model that are in the backend. What changes is guarded by
// residency.mu.
type weights struct {
	model    *Model
	products []plan.Product
	bytes    int64
	users    int
	until    time.Time // it may stay
	leaving  bool
}

// load is that of one model, for all who wait for it.
type load struct {
	model   *Model
	waiters int           // guarded by residency.mu
	asked   bool          // by a request; guarded by residency.mu
	slowest time.Duration // load of a model that left for it, or that came before it; guarded by residency.mu
	owes    bool          // a model of another owner's left for it; guarded by residency.mu
	done    chan struct{} // closed once one of what follows is set
	weights *weights      // of which the waiters are users
	err     error
}

// end ends a load without weights.
func (l *load) end(err error) {
	l.model.load = nil
	l.err = err
	close(l.done)
}

func newResidency(o Options, read func(ctx context.Context, m *Model) ([]plan.Product, error)) *residency {
	r := &residency{
		budget: o.MaxLoaded, maxWaiting: o.MaxWaiting, read: read, metrics: o.Metrics, log: o.Log,
		served: map[Owner]uint64{}, debts: map[Owner]time.Time{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.timer = time.AfterFunc(time.Hour, r.wake)
	r.timer.Stop() // until a load waits
	return r
}

// close ends loads and lets go of all weights, of those in use with their last use.
func (r *residency) close() {
	r.mu.Lock()
	r.closed = true
	r.timer.Stop()
	r.cancel()
	for _, l := range r.queue {
		l.end(context.Canceled)
	}
	r.queue = nil
	for len(r.resident) > 0 {
		r.leave(r.resident[0])
	}
	r.mu.Unlock()
	r.work.Wait()
}

// Use gives one user a model's weights, from a successful Take or Wait until Release. It
// belongs to one goroutine.
type Use struct {
	*Model
	r       *residency
	request bool
	w       *weights // nil: it has none
}

// use returns a use of a model, for a request or not, that has yet to begin.
func (r *residency) use(m *Model, request bool) *Use { return &Use{Model: m, r: r, request: request} }

// Took returns how long the model's last load took, 0 if there was none.
func (u *Use) Took() time.Duration {
	u.r.mu.Lock()
	defer u.r.mu.Unlock()
	return u.took
}

// Take begins the use if the weights are loaded, and reports whether they are.
func (u *Use) Take() bool {
	u.r.mu.Lock()
	defer u.r.mu.Unlock()
	return u.take()
}

// take is Take. r.mu is held.
func (u *Use) take() bool {
	if w := u.weights; w != nil {
		w.users++
		u.lastUse = time.Now()
		u.w = w
	}
	return u.w != nil
}

// Wait begins the use once the weights are loaded, and has them loaded if they are not.
// It waits until then or until ctx ends. Its error is that of ctx or of the load: a
// *wire.Error if callers should see it, for example for a model that is gone or that too
// many requests wait for.
func (u *Use) Wait(ctx context.Context) error {
	l, err := u.join()
	if l == nil {
		return err
	}
	select {
	case <-l.done:
		u.w = l.weights
		return l.err
	case <-ctx.Done():
		u.leave(l)
		return ctx.Err()
	}
}

// join takes the weights, or returns their load, that the use waits for from now on.
func (u *Use) join() (*load, error) {
	r := u.r
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case u.gone:
		return nil, NotFound(u.Digest)
	case r.closed:
		return nil, context.Canceled
	case u.take():
		return nil, nil
	case u.load == nil:
		u.load = r.enqueue(u.Model)
	case u.load.waiters >= r.maxWaiting(u.Digest):
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: max(u.took, time.Millisecond),
			Message: fmt.Sprintf("%d requests wait for the model to be loaded", r.maxWaiting(u.Digest))}
	}
	l := u.load
	l.waiters++
	l.asked = l.asked || u.request
	r.schedule()
	return l, nil
}

// leave ends the wait for a load.
func (u *Use) leave(l *load) {
	r := u.r
	r.mu.Lock()
	select {
	case <-l.done:
		u.w = l.weights // meanwhile
	default:
		r.giveUp(l)
	}
	r.mu.Unlock()
	u.Release()
}

// Product returns the product of operator i of the plan.
func (u *Use) Product(i int) plan.Product { return u.w.products[i] }

// Release ends the use, if it has begun.
func (u *Use) Release() {
	r, w := u.r, u.w
	if w == nil {
		return
	}
	u.w = nil
	r.mu.Lock()
	w.users--
	gone := w.leaving && w.users == 0
	if w.users == 0 && !gone {
		r.schedule() // which may have it leave
	}
	r.mu.Unlock()
	if gone {
		r.free(w)
	}
}

// giveUp lets a waiter go. A load that has no other, and that has not begun, is not
// wanted any more. r.mu is held.
func (r *residency) giveUp(l *load) {
	l.waiters--
	if i := slices.Index(r.queue, l); l.waiters == 0 && i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		r.charge(l, l.model.took, time.Now())
		l.end(context.Canceled)
		r.schedule() // for those behind it
	}
}

// enqueue puts a load of a model in the queue, where schedule finds it. r.mu is held.
func (r *residency) enqueue(m *Model) *load {
	l := &load{model: m, done: make(chan struct{})}
	m.load = l
	r.queue = append(r.queue, l)
	return l
}

// warm loads a model if there is room for it that nobody waits for, and waits for that.
func (r *residency) warm(ctx context.Context, m *Model) {
	r.mu.Lock()
	if m.gone || r.closed || m.weights != nil || m.load != nil || len(r.queue) > 0 || r.taken+m.need > r.budget {
		r.mu.Unlock()
		return
	}
	l := r.enqueue(m)
	r.schedule()
	r.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}

// unload has a model leave, pinned or not.
func (r *residency) unload(m *Model) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.weights != nil {
		r.leave(m.weights)
	}
}

// drop makes a model one that is not to be used any more.
func (r *residency) drop(m *Model) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.gone = true
	if m.weights != nil {
		r.leave(m.weights)
	}
	if i := slices.IndexFunc(r.queue, func(l *load) bool { return l.model == m }); i >= 0 {
		l := r.queue[i]
		r.queue = slices.Delete(r.queue, i, i+1)
		r.charge(l, m.took, time.Now())
		l.end(NotFound(m.Digest))
		r.schedule()
	}
}

// schedule begins the loads that there is room for, and makes room for the next one.
// It is called at whatever may let a load begin. r.mu is held.
func (r *residency) schedule() {
	now := time.Now()
	for !r.closed && len(r.queue) > 0 {
		i := r.next(now)
		l := r.queue[i]
		m := l.model
		if m.need > r.budget-r.pinned {
			r.queue = slices.Delete(r.queue, i, i+1)
			l.end(tooLarge("loading the model takes up to %d bytes, of which there are %d", m.need, r.budget-r.pinned))
			continue
		}
		if !r.room(l, now) {
			return
		}
		r.queue = slices.Delete(r.queue, i, i+1)
		r.loads++
		r.served[m.space.owner] = r.loads
		r.loading++
		r.taken += m.need
		r.work.Go(func() { r.run(l) })
	}
	r.timer.Stop()
	if r.loading == 0 {
		clear(r.served) // nobody is ahead of anybody
	}
	maps.DeleteFunc(r.debts, func(_ Owner, until time.Time) bool { return !until.After(now) })
}

// next returns which load of the queue's is next. r.mu is held.
func (r *residency) next(now time.Time) int {
	at := 0
	for i, l := range r.queue {
		one, other := l.model.space.owner, r.queue[at].model.space.owner
		switch indebted := r.debts[one].After(now); {
		case indebted != r.debts[other].After(now):
			if !indebted {
				at = i
			}
		case r.served[one] < r.served[other]:
			at = i
		}
	}
	return at
}

// room reports whether there is room for a load. Where there is none, it has models
// leave, or sets the timer for when one may. r.mu is held.
func (r *residency) room(l *load, now time.Time) bool {
	m := l.model
	for r.taken-r.leaving+m.need > r.budget {
		if r.loading > 0 {
			return false // which leave more than they take now
		}
		w, at := r.victim(m.space.owner, now)
		if w == nil {
			for _, other := range r.queue { // who may be next once its debt is paid
				if debt := r.debts[other.model.space.owner]; debt.After(now) && debt.Before(at) {
					at = debt
				}
			}
			if !at.IsZero() {
				r.timer.Reset(at.Sub(now))
			}
			return false
		}
		l.slowest = max(l.slowest, w.model.took)
		l.owes = l.owes || w.model.space != m.space
		r.log.Info("model evicted", "owner", w.model.space.owner, "model", w.model.Digest, "bytes", w.bytes, "users", w.users)
		r.metrics.Evicted()
		r.leave(w)
		step("evict: chosen")
	}
	return r.taken+m.need <= r.budget
}

// victim returns the weights that are to leave next for a load of an owner's, or else when
// there may be some, zero if it is not for the clock to say. r.mu is held.
func (r *residency) victim(o Owner, now time.Time) (next *weights, at time.Time) {
	for _, w := range r.resident { // the first are there for longest
		until := w.until
		if debt := r.debts[o]; w.model.space.owner != o && debt.After(until) {
			until = debt
		}
		switch {
		case w.model.pinned:
		case until.After(now):
			if at.IsZero() || until.Before(at) {
				at = until
			}
		case next == nil, w.users == 0 && (next.users > 0 || w.model.lastUse.Before(next.model.lastUse)):
			next = w
		}
	}
	return next, at
}

// charge has the owner of a load that is over, and took so long, pay for the models of
// others that left for it. It returns until when. r.mu is held.
func (r *residency) charge(l *load, took time.Duration, now time.Time) time.Time {
	until := now.Add(patience * max(took, l.slowest))
	if o := l.model.space.owner; l.owes && until.After(r.debts[o]) {
		r.debts[o] = until
	}
	return until
}

// leave has weights take no more uses, and lets go of them once they have none. r.mu
// is held.
func (r *residency) leave(w *weights) {
	w.leaving = true
	w.model.weights = nil
	i := slices.Index(r.resident, w)
	r.resident = slices.Delete(r.resident, i, i+1)
	r.leaving += w.bytes
	if w.model.pinned {
		r.pinned -= w.bytes
	}
	if w.users == 0 {
		r.work.Go(func() { r.free(w) })
	}
}

// free lets go of weights that have left.
func (r *residency) free(w *weights) {
	for i, p := range w.products {
		if err := p.Close(); err != nil {
			r.log.Error("cannot free weights", "model", w.model.Digest, "layer", i, "error", err)
		}
	}
	step("evict: weights freed")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= w.bytes
	r.leaving -= w.bytes
	r.schedule()
}

// run does a load that has been given room.
func (r *residency) run(l *load) {
	m := l.model
	begun := time.Now()
	products, err := r.read(r.ctx, m)
	step("load: done")
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.schedule()
	r.loading--
	r.taken -= m.need
	took := now.Sub(begun)
	until := r.charge(l, took, now)
	for _, other := range r.queue {
		other.slowest = max(other.slowest, took)
	}
	if err == nil {
		w := &weights{model: m, products: products}
		for i, p := range products {
			w.bytes += heldBytes(p, m.Plan.Ops[i])
		}
		r.taken += w.bytes
		if m.pinned {
			r.pinned += w.bytes
		}
		r.resident = append(r.resident, w)
		m.weights, l.weights = w, w
	}
	if m.gone || r.closed {
		if err == nil {
			r.leave(m.weights)
			l.weights = nil
		}
		if !errors.As(err, new(*wire.Error)) {
			err = NotFound(m.Digest)
		}
	}
	if err != nil {
		r.metrics.LoadFailed()
		l.end(err)
		return
	}
	w := l.weights
	m.took = took
	if w.users = l.waiters; w.users > 0 {
		m.lastUse = now
	}
	if l.asked {
		w.until = until
	}
	r.metrics.Loaded(took)
	r.log.Info("model loaded", "owner", m.space.owner, "model", m.Digest, "bytes", w.bytes, "layers", len(products), "took", took, "requested", l.asked)
	m.load = nil
	close(l.done)
}

// wake looks again when a model may leave.
func (r *residency) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.schedule()
}

func (r *residency) figures() metrics.Loaded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return metrics.Loaded{Resident: len(r.resident), Bytes: r.taken, Limit: r.budget, Waiting: len(r.queue)}
}
