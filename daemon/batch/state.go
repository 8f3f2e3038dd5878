package batch

import (
	"container/heap"
	"slices"
	"time"

	"github.com/securenets/securenets/internal/plan"
)

// state is the queue as a state machine: it has no clock, no goroutine and no lock.
// Events are arrive, leave, expire and done; after each of them, next is asked for
// products until there is none to begin, and wake when to ask again.
//
//	arrive ──▶ waiting ──next──▶ in a product ──done──▶
//	              └── leave, expire, or another's arrive that pushes it out ──▶
//
// Who is served is decided by deficit round robin over callers, in multiply-adds. A
// round grants every caller that has calls waiting one quantum of credit. Of those
// with a call that may begin, the caller who can pay for it after the fewest rounds
// leads the next product; of several, the one with most credit, and then the one who
// has had calls waiting for longest. The rest of the product is filled likewise, call by call,
// from what waits for the same operator. Rounds are counted, not walked: granted is a
// caller's income since the start, and its credit is what of it the caller has not
// spent since it last had nothing waiting. As everyone who waits is granted the same,
// a caller gets more than another only of what the other does not ask for.
//
// Of one caller's calls for one operator, those of a lower level go first, and of one
// level, those that came first.
type state struct {
	parallel int // products at a time
	running  int // products
	inside   int // calls waiting or in a product

	lines   map[plan.Product]*line
	callers map[Caller]*member // with calls waiting
	members []*member          // all of callers, in any order
	came    uint64             // members so far
	granted int64              // multiply-adds; it wraps around, and only differences are used
	largest int64              // work of a call or product that there was

	deadlines deadlines
	backlog   int64   // work that waits
	rate      float64 // multiply-adds a second of a product, of late; 0: none was done
}

// quantum is the multiply-adds that a round grants: tens of microseconds of a core.
const quantum = 1 << 20

// line is what waits for one operator of one model. It exists while something does,
// or runs.
type line struct {
	product plan.Product
	policy  Policy
	most    int // rows of a product that has more than one call
	running bool
	calls   int      // waiting
	rows    int      // of them
	shares  []*share // in any order
	oldest  []*call  // waiting, and some that do not any more, by arrival
}

// member is a caller with calls waiting.
type member struct {
	name   Caller
	at     int    // in members
	came   uint64 // its number
	spent  int64  // granted, less the credit
	shares []*share
}

// share is what one caller has waiting in one line.
type share struct {
	line   *line
	member *member
	at     int     // in the line's shares
	calls  []*call // in the order in which they go
}

func newState(parallel int) *state {
	return &state{parallel: max(1, parallel), lines: map[plan.Product]*line{}, callers: map[Caller]*member{}}
}

// arrive puts c in its line. Where that is full, a call is refused instead and
// returned: the last one of the caller that has most there, which may be c.
func (s *state) arrive(now time.Time, c *call) (refused *call) {
	l, ok := s.lines[c.Product]
	if !ok {
		l = &line{product: c.Product, policy: *c.Policy}
		l.most = mostRows(c.Policy, c.Op)
		s.lines[c.Product] = l
	} else if l.calls >= l.policy.MaxCalls {
		if refused = l.last(c); refused == c {
			return c
		}
	}
	m, ok := s.callers[c.Caller]
	if !ok {
		s.came++
		m = &member{name: c.Caller, at: len(s.members), came: s.came, spent: s.granted}
		s.callers[c.Caller] = m
		s.members = append(s.members, m)
	}
	sh := m.in(l)
	if sh == nil {
		sh = &share{line: l, member: m, at: len(l.shares)}
		l.shares = append(l.shares, sh)
		m.shares = append(m.shares, sh)
	}
	at := len(sh.calls)
	for at > 0 && sh.calls[at-1].level > c.level {
		at--
	}
	sh.calls = slices.Insert(sh.calls, at, c)
	l.oldest = append(l.oldest, c)
	l.calls++
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

// in returns what m has waiting in l, nil for nothing.
func (m *member) in(l *line) *share {
	for _, sh := range m.shares {
		if sh.line == l {
			return sh
		}
	}
	return nil
}

// last returns the call that a full line has no room for once c has come.
func (l *line) last(c *call) *call {
	var own, longest *share
	for _, sh := range l.shares {
		if sh.member.name == c.Caller {
			own = sh
		} else if longest == nil || len(sh.calls) > len(longest.calls) ||
			len(sh.calls) == len(longest.calls) && sh.member.name < longest.member.name {
			longest = sh
		}
	}
	if own == nil {
		own = &share{}
	}
	if longest != nil && len(longest.calls) > len(own.calls)+1 {
		return longest.calls[len(longest.calls)-1]
	}
	if n := len(own.calls); n > 0 && own.calls[n-1].level > c.level {
		return own.calls[n-1]
	}
	return c
}

// leave takes c out of its line. It returns false, and does nothing, where c does
// not wait any more.
func (s *state) leave(c *call) bool {
	if c.share == nil {
		return false
	}
	s.remove(c)
	return true
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
	if sh.calls[0] == c {
		sh.calls[0] = nil
		sh.calls = sh.calls[1:]
	} else {
		i := slices.Index(sh.calls, c)
		sh.calls = slices.Delete(sh.calls, i, i+1)
	}
	if len(sh.calls) == 0 {
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
		}
	}
	l.calls--
	l.rows -= c.Rows
	for len(l.oldest) > 0 && l.oldest[0].share == nil {
		l.oldest[0] = nil
		l.oldest = l.oldest[1:]
	}
	if len(l.oldest) > 2*l.calls+16 { // the first may wait long, and others come and go
		l.oldest = slices.DeleteFunc(l.oldest, func(o *call) bool { return o.share == nil })
	}
	s.backlog -= c.work
	if !c.deadline.IsZero() {
		heap.Remove(&s.deadlines, c.place)
	}
	if l.calls == 0 && !l.running {
		delete(s.lines, l.product)
	}
}

// expire takes the calls out whose deadline has come.
func (s *state) expire(now time.Time) (late []*call) {
	for len(s.deadlines) > 0 && !s.deadlines[0].deadline.After(now) {
		c := s.deadlines[0]
		s.remove(c)
		late = append(late, c)
	}
	return late
}

// next begins a product where one is due, and returns its calls, all of one line.
func (s *state) next(now time.Time) []*call {
	if s.running >= s.parallel {
		return nil
	}
	var lead choice
	for _, m := range s.members {
		var first *share
		for _, sh := range m.shares {
			if l := sh.line; !l.running && l.due(now) && (first == nil || sh.calls[0].before(first.calls[0])) {
				first = sh
			}
		}
		if first != nil {
			s.consider(&lead, first)
		}
	}
	if lead.share == nil {
		return nil
	}
	l := lead.share.line
	l.running = true
	s.running++
	var b []*call
	for rows, work := 0, int64(0); lead.share != nil; {
		c := s.pay(lead)
		b, rows, work = append(b, c), rows+c.Rows, work+c.work
		s.largest = max(s.largest, work)
		lead = choice{}
		switch left := l.most - rows; {
		case len(l.shares) == 0 || left <= 0:
		case l.rows <= left: // all goes, and the order makes no difference
			lead = choice{l.shares[0], s.rounds(l.shares[0])}
		default:
			for _, sh := range l.shares {
				if sh.calls[0].Rows <= left {
					s.consider(&lead, sh)
				}
			}
		}
	}
	return b
}

// choice is a share whose first call is to be paid for, after so many rounds.
type choice struct {
	share  *share
	rounds int64
}

// consider makes sh the choice where it comes first.
func (s *state) consider(best *choice, sh *share) {
	n := s.rounds(sh)
	if o := best.share; o != nil {
		// Of two credits the larger one is that of who has spent less.
		m, o := sh.member, o.member
		if n > best.rounds || n == best.rounds && (m.spent-o.spent > 0 || m.spent == o.spent && m.came > o.came) {
			return
		}
	}
	*best = choice{sh, n}
}

// rounds returns how many it takes until a share's caller can pay for its first call.
func (s *state) rounds(sh *share) int64 {
	m := sh.member
	// Credit is bounded: a caller whose operators are busy gathers no claim without
	// end. What the others can get before its turn is a product each.
	most := int64(s.parallel+1) * s.largest
	if s.granted-m.spent > most {
		m.spent = s.granted - most
	}
	short := sh.calls[0].work - (s.granted - m.spent)
	return max(0, (short+quantum-1)/quantum)
}

// pay grants the rounds of a choice and takes its call for a product.
func (s *state) pay(of choice) *call {
	c, m := of.share.calls[0], of.share.member
	s.granted += of.rounds * quantum
	m.spent += c.work
	s.take(c)
	return c
}

// due reports whether a line's next product should begin.
func (l *line) due(now time.Time) bool {
	return l.calls > 0 && (l.rows >= l.most || l.oldest[0].alone || !now.Before(l.ripe()))
}

// ripe returns when a line's next product should begin at the latest.
func (l *line) ripe() time.Time { return l.oldest[0].arrived.Add(l.policy.MaxDelay) }

// done ends a product of n calls that took so long.
func (s *state) done(l *line, n int, work int64, took time.Duration) {
	l.running = false
	if l.calls == 0 {
		delete(s.lines, l.product)
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

// wake returns when next may have a product, or expire a call, without another
// event; the zero time for never.
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
		for _, l := range s.lines {
			if !l.running && l.calls > 0 {
				sooner(l.ripe())
			}
		}
	}
	return at
}

// Bounds of retry.
const (
	leastRetry = time.Millisecond
	mostRetry  = 5 * time.Second
)

// retry estimates how long what waits will take: when it is worth to come back.
func (s *state) retry() time.Duration {
	if s.rate == 0 {
		return 10 * leastRetry
	}
	seconds := float64(s.backlog) / (s.rate * float64(max(1, s.running)))
	return min(max(time.Duration(seconds*float64(time.Second)), leastRetry), mostRetry)
}

// before says whether c goes before another call of its caller's.
func (c *call) before(o *call) bool {
	return c.level < o.level || c.level == o.level && c.arrived.Before(o.arrived)
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
