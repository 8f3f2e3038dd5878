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
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// residency keeps the weights of models in a backend, within a budget of bytes. A load counts,
// from before it begins, with the most bytes that it may take.
//
//	absent ──use──▶ waiting ──room──▶ loading ──▶ resident ──▶ leaving ──▶ absent
//
// A model is loaded when it is used, once for all uses that wait for it. Waiting loads get
// room in turn: the owner whose last load got room least recently goes first, and an owner's
// loads go in the order in which they were asked for.
//
// To make room, the least recently used of the idle models leaves. If all are in use, the
// model leaves that has been resident for longest: it takes no new uses, which wait for its
// next load, and is freed when its last use ends. A model that was loaded for a request may
// stay for patience times the longest of these: its own load, the loads of the models that it
// made leave, and the loads that ran while it waited. So loads take at most 1 part in
// 1 + patience of the time, however many models take turns; no model waits forever; and small
// models get as much time as large ones. Pinned models never leave.
//
// An owner pays for making others load again. If a load of its evicts another owner's model,
// no load of this owner may do so again before the time that the load's model could have
// stayed has passed, whether or not a request asked for the load and whatever its result.
// Meanwhile other owners' loads go first.
type residency struct {
	budget     int64
	maxWaiting func(sealed.Digest) int // uses of one model that may wait
	// read reads a model's file, checks it and loads its weights.
	read    func(ctx context.Context, m *Model) ([]plan.Product, error)
	metrics *metrics.Metrics
	log     *slog.Logger

	ctx    context.Context // of loads
	cancel context.CancelFunc
	work   sync.WaitGroup // loads, and weights being freed

	mu       sync.Mutex
	taken    int64               // bytes of weights held, and the most that loads in progress may take
	leaving  int64               // bytes of taken whose weights are leaving
	pinned   int64               // bytes of taken whose weights never leave
	resident []*weights          // in the order of their loads
	queue    []*load             // loads that wait for room, in the order in which they were asked for
	loading  int                 // loads in progress
	served   map[Owner]uint64    // value of loads when the owner's last load got room
	loads    uint64              // loads that have got room so far
	debts    map[Owner]time.Time // until when the owner's loads may not evict models of others
	timer    *time.Timer         // runs out when the next model may leave
	closed   bool
}

// patience is the time that a model may stay, as a multiple of its load's duration.
const patience = 4

// weights are a model's weights in the backend. Fields that change are guarded by
// residency.mu.
type weights struct {
	model    *Model
	products []plan.Product
	bytes    int64
	users    int
	until    time.Time // may stay until then
	leaving  bool
}

// load is a load of one model, for all uses that wait for it.
type load struct {
	model *Model

	// Guarded by residency.mu.
	waiters int
	asked   bool          // a request waits, or has waited, for it
	slowest time.Duration // longest load of a model that left for it, or that ran while it waited
	owes    bool          // another owner's model left for it

	done    chan struct{} // closed once weights or err is set
	weights *weights      // used by the waiters
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

// close ends loads and frees all weights; those in use are freed by their last Release.
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

// Use is one use of a model's weights, from a successful Take or Wait until Release. It
// belongs to one goroutine at a time.
type Use struct {
	*Model
	r       *residency
	request bool
	w       *weights // nil: the use has not begun
}

// use returns a use of a model, which has yet to begin. request says whether it is for a
// request.
func (r *residency) use(m *Model, request bool) *Use { return &Use{Model: m, r: r, request: request} }

// Took returns the duration of the model's last load, 0 if there was none.
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

// take is Take with r.mu held.
func (u *Use) take() bool {
	if w := u.weights; w != nil {
		w.users++
		u.lastUse = time.Now()
		u.w = w
	}
	return u.w != nil
}

// Wait begins the use once the weights are loaded. It starts their load if necessary, and
// waits for it until ctx ends. Its error is ctx's or the load's: a *wire.Error if callers
// should see it, for example if the model was removed or too many requests wait for it.
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

// join begins the use if the weights are loaded. Otherwise it returns their load, of which the
// use is now a waiter.
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
			Message: fmt.Sprintf("%d requests wait for this model to be loaded already; retry later", r.maxWaiting(u.Digest))}
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
		u.w = l.weights // the load has ended meanwhile
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
	free := false
	switch {
	case w.users > 0:
	case !w.leaving:
		r.schedule() // these weights may leave now
	case r.closed:
		free = true
	default:
		r.work.Go(func() { r.free(w) }) // who ends a use need not wait for a device
	}
	r.mu.Unlock()
	if free {
		r.free(w)
	}
}

// giveUp removes a waiter. It cancels a load that has no other waiter and has not begun. r.mu
// must be held.
func (r *residency) giveUp(l *load) {
	l.waiters--
	if i := slices.Index(r.queue, l); l.waiters == 0 && i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		r.charge(l, l.model.took, time.Now())
		l.end(context.Canceled)
		r.schedule() // the next load may have room
	}
}

// enqueue puts a load of a model in the queue. The caller must call schedule. r.mu must be
// held.
func (r *residency) enqueue(m *Model) *load {
	l := &load{model: m, done: make(chan struct{})}
	m.load = l
	r.queue = append(r.queue, l)
	return l
}

// warm loads a model, and waits for it, if there is room that no other load waits for.
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

// unload makes a model leave, pinned or not.
func (r *residency) unload(m *Model) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.weights != nil {
		r.leave(m.weights)
	}
}

// drop makes a model leave for good: it takes no more uses.
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

// schedule begins the loads that have room, and makes room for the next one. It must be called
// after every change that may let a load begin. r.mu must be held.
func (r *residency) schedule() {
	now := time.Now()
	for !r.closed && len(r.queue) > 0 {
		i := r.next(now)
		l := r.queue[i]
		m := l.model
		if m.need > r.budget-r.pinned {
			r.queue = slices.Delete(r.queue, i, i+1)
			l.end(tooLarge("loading the model may take %d bytes, but at most %d are available", m.need, r.budget-r.pinned))
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
		clear(r.served) // nothing waits or loads: all owners are equal again
	}
	maps.DeleteFunc(r.debts, func(_ Owner, until time.Time) bool { return !until.After(now) })
}

// next returns the index in the queue of the load that is next. r.mu must be held.
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

// room reports whether there is room for a load. If there is none, it makes models leave, or
// sets the timer for when one may. r.mu must be held.
func (r *residency) room(l *load, now time.Time) bool {
	m := l.model
	for r.taken-r.leaving+m.need > r.budget {
		if r.loading > 0 {
			return false // loads in progress take less once they are done
		}
		w, at := r.victim(m.space.owner, now)
		if w == nil {
			for _, other := range r.queue { // a load may become the next one when its owner's debt ends
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

// victim returns the weights that should leave next for a load of an owner. If none may leave
// now, it returns when some may; zero if that does not depend on time. r.mu must be held.
func (r *residency) victim(o Owner, now time.Time) (next *weights, at time.Time) {
	for _, w := range r.resident { // the longest resident first
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

// charge makes the owner of a finished load pay if models of others left for it. It returns
// until when the loaded model may stay and the debt lasts. r.mu must be held.
func (r *residency) charge(l *load, took time.Duration, now time.Time) time.Time {
	until := now.Add(patience * max(took, l.slowest))
	if o := l.model.space.owner; l.owes && until.After(r.debts[o]) {
		r.debts[o] = until
	}
	return until
}

// leave lets weights take no more uses, and frees them once they have none. r.mu must be held.
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

// free frees weights that are leaving and have no uses.
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

// run does a load that has got room.
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

// wake is called by the timer when a model may leave.
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
