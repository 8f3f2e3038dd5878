package batch

import (
	"container/heap"
	"slices"
	"time"

	"github.com/securenets/securenets/plan"
)

// state is the queue as a state machine, without clock, goroutines and locks. Its events are
// arrive, leave, expire and done. After each event the caller calls next until it returns no
// product, and then wake, which says when to call next again.
//
//	arrive ──▶ waiting ──next──▶ in a product ──done──▶
//	              └── leave, expire, or another's arrive that pushes it out ──▶
//
// Callers are served by deficit round robin, in multiply-adds. A round grants one quantum of
// credit to every caller with waiting calls. Of the callers with a call that may begin, the
// one that can pay for it after the fewest rounds leads the next product; among equals, the
// one with the most credit, and then the one that has had calls waiting for longest. The rest
// of the product is filled in the same way, call by call, with calls for the same operator.
// Rounds are computed, not iterated: granted is the sum of all grants since the start, and a
// caller's credit is the part of it that was granted since the caller last had nothing
// waiting, less what it has spent. All waiting callers are granted the same, so one caller
// gets more than another only of what the other does not ask for.
//
// Of one caller's calls for one operator, those of a lower level go first, and within a
// level, those that arrived first.
type state struct {
	parallel int // most products at a time
	running  int // products in progress
	inside   int // calls waiting or in a product

	lines   map[plan.Product]*line
	open    []*line            // lines with calls waiting and no product in progress; in any order
	callers map[Caller]*member // callers with calls waiting
	members []*member          // the values of callers, in any order
	came    uint64             // members so far
	granted int64              // multiply-adds; it wraps around: only differences are used
	largest int64              // most work of any call or product so far

	deadlines deadlines
	backlog   int64   // work of the waiting calls
	rate      float64 // recent multiply-adds a second of a product; 0: not known yet

	// Reused, as a caller with one call at a time comes and goes with each call.
	spareLines   spares[line]
	spareMembers spares[member]
	spareShares  spares[share]
}

// quantum is the multiply-adds that a round grants: tens of microseconds of a core.
const quantum = 1 << 20

// line is the calls for one operator of one model. It exists while a call waits or a product
// is in progress.
type line struct {
	product plan.Product
	policy  Policy
	most    int      // rows of a product with more than one call
	running bool     // a product is in progress
	at      int      // index in open
	calls   int      // waiting
	rows    int      // of the waiting calls
	shares  []*share // in any order
	waiting list     // by arrival
}

// member is a caller with calls waiting.
type member struct {
	name   Caller
	at     int    // index in members
	came   uint64 // its number in order of arrival
	spent  int64  // granted less its credit
	shares []*share
}

// share is one caller's waiting calls in one line.
type share struct {
	line   *line
	member *member
	at     int  // index in the line's shares
	calls  int  // waiting
	order  list // the calls, in the order in which they go
}

func newState(parallel int) *state {
	return &state{parallel: max(1, parallel), lines: map[plan.Product]*line{}, callers: map[Caller]*member{}}
}

// arrive puts c in its line. If the line is full, it refuses and returns a call: the last one
// of the caller with the most calls there, which may be c.
func (s *state) arrive(now time.Time, c *call) (refused *call) {
	l, ok := s.lines[c.Product]
	if !ok {
		l = s.spareLines.take()
		*l = line{product: c.Product, policy: *c.Policy, most: mostRows(c.Policy, c.Op), shares: l.shares, waiting: list{by: byArrival}}
		s.lines[c.Product] = l
	} else if l.calls >= l.policy.MaxCalls {
		if refused = l.last(c); refused == c {
			return c
		}
	}
	m, ok := s.callers[c.stream.caller]
	if !ok {
		s.came++
		m = s.spareMembers.take()
		*m = member{name: c.stream.caller, at: len(s.members), came: s.came, spent: s.granted, shares: m.shares}
		s.callers[c.stream.caller] = m
		s.members = append(s.members, m)
	}
	sh := m.in(l)
	if sh == nil {
		sh = s.spareShares.take()
		*sh = share{line: l, member: m, at: len(l.shares), order: list{by: byOrder}}
		l.shares = append(l.shares, sh)
		m.shares = append(m.shares, sh)
	}
	ahead := sh.order.last
	for ahead != nil && ahead.level > c.level {
		ahead = ahead.links[byOrder].before
	}
	sh.order.insert(c, ahead)
	sh.calls++
	l.waiting.insert(c, l.waiting.last)
	c.stream.waiting.insert(c, c.stream.waiting.last)
	if l.calls++; l.calls == 1 && !l.running {
		s.opens(l)
	}
	l.rows += c.Rows
	c.share, c.arrived, c.alone = sh, now, s.inside == 0
	s.inside++
	s.backlog += c.work
	s.largest = max(s.largest, c.work)
	if !c.deadline.IsZero() {
		heap.Push(&s.deadlines, c)
	}
	if refused != nil {
		s.remove(refused)
	}
	return refused
}

// in returns m's share of l, nil for none.
func (m *member) in(l *line) *share {
	for _, sh := range m.shares {
		if sh.line == l {
			return sh
		}
	}
	return nil
}

// last returns the call that a full line refuses when c arrives.
func (l *line) last(c *call) *call {
	var own, longest *share
	for _, sh := range l.shares {
		if sh.member.name == c.stream.caller {
			own = sh
		} else if longest == nil || sh.calls > longest.calls ||
			sh.calls == longest.calls && sh.member.name < longest.member.name {
			longest = sh
		}
	}
	if own == nil {
		own = &share{}
	}
	if longest != nil && longest.calls > own.calls+1 {
		return longest.order.last
	}
	if o := own.order.last; o != nil && o.level > c.level {
		return o
	}
	return c
}

// leave takes out and returns the waiting calls of a stream.
func (s *state) leave(of *Stream) (left []*call) {
	for of.waiting.first != nil {
		c := of.waiting.first
		s.remove(c)
		left = append(left, c)
	}
	return left
}

// remove takes a waiting call out of the queue.
func (s *state) remove(c *call) {
	s.take(c)
	s.inside--
}

// take takes a waiting call out of its line.
func (s *state) take(c *call) {
	sh := c.share
	l, m := sh.line, sh.member
	c.share = nil
	sh.order.remove(c)
	if sh.calls--; sh.calls == 0 {
		end := len(l.shares) - 1
		l.shares[sh.at], l.shares[end].at = l.shares[end], sh.at
		l.shares[end] = nil
		l.shares = l.shares[:end]
		m.shares = slices.DeleteFunc(m.shares, func(o *share) bool { return o == sh })
		if len(m.shares) == 0 {
			delete(s.callers, m.name)
			end := len(s.members) - 1
			s.members[m.at], s.members[end].at = s.members[end], m.at
			s.members[end] = nil
			s.members = s.members[:end]
			s.spareMembers.keep(m)
		}
		s.spareShares.keep(sh)
	}
	l.waiting.remove(c)
	c.stream.waiting.remove(c)
	l.calls--
	l.rows -= c.Rows
	s.backlog -= c.work
	if !c.deadline.IsZero() {
		heap.Remove(&s.deadlines, c.place)
	}
	if l.calls == 0 && !l.running {
		s.shuts(l)
		s.forget(l)
	}
}

// opens adds l to open: its next product may begin.
func (s *state) opens(l *line) {
	l.at = len(s.open)
	s.open = append(s.open, l)
}

// shuts removes l from open.
func (s *state) shuts(l *line) {
	end := len(s.open) - 1
	s.open[l.at], s.open[end].at = s.open[end], l.at
	s.open[end] = nil
	s.open = s.open[:end]
}

// forget removes a line without calls or product.
func (s *state) forget(l *line) {
	delete(s.lines, l.product)
	l.product = nil // otherwise the spare line would keep the weights in memory
	s.spareLines.keep(l)
}

// expire takes out and returns the calls whose deadline has passed.
func (s *state) expire(now time.Time) (late []*call) {
	for len(s.deadlines) > 0 && !s.deadlines[0].deadline.After(now) {
		c := s.deadlines[0]
		s.remove(c)
		late = append(late, c)
	}
	return late
}

// next begins a product, if one is due, and returns its calls, all of one line. Usually none
// is due: that is found without a look at the callers.
func (s *state) next(now time.Time) []*call {
	if s.running >= s.parallel || !slices.ContainsFunc(s.open, func(l *line) bool { return l.due(now) }) {
		return nil
	}
	var lead choice
	for _, m := range s.members {
		var first *share
		for _, sh := range m.shares {
			if l := sh.line; !l.running && l.due(now) && (first == nil || sh.order.first.before(first.order.first)) {
				first = sh
			}
		}
		if first != nil {
			s.consider(&lead, first)
		}
	}
	l := lead.share.line
	l.running = true
	s.shuts(l)
	s.running++
	b := make([]*call, 0, max(1, min(l.calls, l.most)))
	for rows, work := 0, int64(0); lead.share != nil; {
		c := s.pay(lead)
		b, rows, work = append(b, c), rows+c.Rows, work+c.work
		s.largest = max(s.largest, work)
		lead = choice{}
		switch left := l.most - rows; {
		case len(l.shares) == 0 || left <= 0:
		case l.rows <= left: // all calls fit, so their order makes no difference
			lead = choice{l.shares[0], s.rounds(l.shares[0])}
		default:
			for _, sh := range l.shares {
				if sh.order.first.Rows <= left {
					s.consider(&lead, sh)
				}
			}
		}
	}
	return b
}

// choice is a share and the rounds after which it can pay for its first call.
type choice struct {
	share  *share
	rounds int64
}

// consider makes sh the best choice if it precedes the current one.
func (s *state) consider(best *choice, sh *share) {
	n := s.rounds(sh)
	if o := best.share; o != nil {
		// The member that has spent less has more credit.
		m, o := sh.member, o.member
		if n > best.rounds || n == best.rounds && (m.spent-o.spent > 0 || m.spent == o.spent && m.came > o.came) {
			return
		}
	}
	*best = choice{sh, n}
}

// rounds returns the number of rounds until a share's caller can pay for its first call.
func (s *state) rounds(sh *share) int64 {
	m := sh.member
	// Credit is limited: a caller whose operators are busy must not accumulate it without
	// bound. The limit is what the others can get before its turn: a product each.
	most := int64(s.parallel+1) * s.largest
	if s.granted-m.spent > most {
		m.spent = s.granted - most
	}
	short := sh.order.first.work - (s.granted - m.spent)
	return max(0, (short+quantum-1)/quantum)
}

// pay grants the rounds of a choice and takes its first call out of the queue.
func (s *state) pay(of choice) *call {
	c, m := of.share.order.first, of.share.member
	s.granted += of.rounds * quantum
	m.spent += c.work
	s.take(c)
	return c
}

// due reports whether a line's next product should begin.
func (l *line) due(now time.Time) bool {
	return l.calls > 0 && (l.rows >= l.most || l.waiting.first.alone || !now.Before(l.ripe()))
}

// ripe returns when a line's next product should begin at the latest.
func (l *line) ripe() time.Time { return l.waiting.first.arrived.Add(l.policy.MaxDelay) }

// done ends a product of n calls.
func (s *state) done(l *line, n int, work int64, took time.Duration) {
	l.running = false
	if l.calls > 0 {
		s.opens(l)
	} else {
		s.forget(l)
	}
	s.running--
	s.inside -= n
	if took > 0 && work > 0 {
		const weight = 0.125 // of the newest
		r := float64(work) / took.Seconds()
		if s.rate > 0 {
			r = s.rate + weight*(r-s.rate)
		}
		s.rate = r
	}
}

// wake returns when next may return a product, or expire a call, without another event; the
// zero time for never.
func (s *state) wake() (at time.Time) {
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if len(s.deadlines) > 0 {
		sooner(s.deadlines[0].deadline)
	}
	if s.running < s.parallel {
		for _, l := range s.open {
			sooner(l.ripe())
		}
	}
	return at
}

// Limits of retry's estimate.
const (
	leastRetry = time.Millisecond
	mostRetry  = 5 * time.Second
)

// retry estimates how long the backlog will take: when a refused caller should try again.
func (s *state) retry() time.Duration {
	if s.rate == 0 {
		return 10 * leastRetry
	}
	seconds := float64(s.backlog) / (s.rate * float64(max(1, s.running)))
	return min(max(time.Duration(seconds*float64(time.Second)), leastRetry), mostRetry)
}

// before reports whether c goes before o, a call of the same caller.
func (c *call) before(o *call) bool {
	return c.level < o.level || c.level == o.level && c.arrived.Before(o.arrived)
}

// list is a linked list of waiting calls.
type list struct {
	by          int // index in call.links of this list's links
	first, last *call
}

// A waiting call is in three lists.
const (
	byArrival = iota // its line's
	byOrder          // its share's
	byStream         // its stream's
)

// links are the neighbours of a call in a list, nil at an end.
type links struct{ before, after *call }

// insert puts c after before, or first if before is nil.
func (l *list) insert(c, before *call) {
	after := l.first
	if before == nil {
		l.first = c
	} else {
		after = before.links[l.by].after
		before.links[l.by].after = c
	}
	if after == nil {
		l.last = c
	} else {
		after.links[l.by].before = c
	}
	c.links[l.by] = links{before, after}
}

// remove takes c out of the list.
func (l *list) remove(c *call) {
	before, after := c.links[l.by].before, c.links[l.by].after
	if before == nil {
		l.first = after
	} else {
		before.links[l.by].after = after
	}
	if after == nil {
		l.last = before
	} else {
		after.links[l.by].before = before
	}
}

// spares are unused values, kept for reuse.
type spares[T any] []*T

func (s *spares[T]) take() *T {
	end := len(*s) - 1
	if end < 0 {
		return new(T)
	}
	v := (*s)[end]
	*s = (*s)[:end]
	return v
}

// keep keeps a value for reuse, unless there are enough: after a peak of callers the rest is
// left to the garbage collector.
func (s *spares[T]) keep(v *T) {
	const most = 256
	if len(*s) < most {
		*s = append(*s, v)
	}
}

// deadlines is a heap of waiting calls, the earliest deadline first.
type deadlines []*call

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *deadlines) Push(x any) {
	c := x.(*call)
	c.place = len(*d)
	*d = append(*d, c)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	c := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return c
}
