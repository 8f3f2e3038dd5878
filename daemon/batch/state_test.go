package batch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// named is a product that is only a name.
type named struct{ name string }

func (*named) Evaluate(context.Context, ring.Matrix, ring.Matrix) error { return nil }
func (*named) Close() error                                             { return nil }

// script drives a state by lines of text, and records the result of each.
//
//	2ms   A1 L 3 w5 p1 t10ms   call A1 of caller A arrives for L: 3 rows, 5 quanta, level 1, timeout
//	3ms   done L               L's product ends
//	4ms   leave A1             A1 is cancelled
//	5ms   tick                 only time passes
type script struct {
	state    *state
	policies map[string]*Policy
	products map[string]*named
	calls    map[string]*call
	names    map[*call]string
	begun    map[string][]*call
	order    []string // keys of begun, in the order in which the products began
}

func newScript(parallel int, policies map[string]*Policy) *script {
	return &script{state: newState(parallel), policies: policies,
		products: map[string]*named{}, calls: map[string]*call{}, names: map[*call]string{}, begun: map[string][]*call{}}
}

func (s *script) event(text string) string {
	f := strings.Fields(text)
	at, err := time.ParseDuration(f[0])
	if err != nil {
		panic(err)
	}
	now := time.Unix(0, 0).Add(at)
	var out []string
	switch f[1] {
	case "tick":
	case "done":
		b := s.begun[f[2]]
		delete(s.begun, f[2])
		s.order = slices.DeleteFunc(s.order, func(l string) bool { return l == f[2] })
		work := int64(0)
		for _, c := range b {
			work += c.work
		}
		s.state.done(s.state.lines[plan.Product(s.products[f[2]])], len(b), work, time.Millisecond)
	case "leave":
		if len(s.state.leave(s.calls[f[2]].stream)) == 0 {
			out = append(out, "gone")
		}
	default:
		if refused := s.state.arrive(now, s.call(now, f[1:])); refused != nil {
			out = append(out, "refused "+s.names[refused])
		}
	}
	for _, c := range s.state.expire(now) {
		out = append(out, "late "+s.names[c])
	}
	for b := s.state.next(now); b != nil; b = s.state.next(now) {
		line := b[0].Product.(*named).name
		var names []string
		for _, c := range b {
			names = append(names, s.names[c])
		}
		s.begun[line], s.order = b, append(s.order, line)
		out = append(out, line+": "+strings.Join(names, " "))
	}
	if at := s.state.wake(); !at.IsZero() {
		out = append(out, "wake "+at.Sub(time.Unix(0, 0)).String())
	}
	return strings.Join(out, ", ")
}

func newStream(caller Caller) *Stream { return &Stream{caller: caller, waiting: list{by: byStream}} }

func (s *script) call(now time.Time, f []string) *call {
	name, line := f[0], f[1]
	p, ok := s.products[line]
	if !ok {
		p = &named{line}
		s.products[line] = p
	}
	c := &call{
		Call:   Call{Product: p, Op: plan.Dense(1, 1), Policy: s.policies[line]},
		stream: newStream(Caller(strings.TrimRight(name, "0123456789"))), work: quantum,
	}
	fmt.Sscan(f[2], &c.Rows)
	for _, o := range f[3:] {
		switch o[0] {
		case 'w':
			fmt.Sscan(o[1:], &c.work)
			c.work *= quantum
		case 'p':
			fmt.Sscan(o[1:], &c.level)
		case 't':
			d, err := time.ParseDuration(o[1:])
			if err != nil {
				panic(err)
			}
			c.deadline = now.Add(d)
		}
	}
	s.calls[name], s.names[c] = c, name
	return c
}

// TestTraces: sequences of events and their results.
func TestTraces(t *testing.T) {
	type step struct{ event, want string }
	policies := func(p Policy) map[string]*Policy {
		if p.MaxCalls == 0 {
			p.MaxCalls = 100
		}
		return map[string]*Policy{"L": &p, "M": &p, "N": &p}
	}
	for _, test := range []struct {
		name     string
		parallel int
		policy   Policy
		steps    []step
	}{
		{"what waits for a product becomes the next one, as far as it fits", 2, Policy{MaxRows: 10}, []step{
			{"0s A1 L 1", "L: A1"},
			{"1ms A2 L 4", ""},
			{"1ms A3 L 5", ""},
			{"1ms A4 L 2", ""}, // no call of A overtakes it
			{"1ms A5 L 1", ""},
			{"1ms A6 L 30", ""}, // alone
			{"1ms A7 L 1", ""},
			{"2ms done L", "L: A2 A3"},
			{"3ms done L", "L: A4 A5"},
			{"4ms done L", "L: A6"},
			{"5ms done L", "L: A7"},
			{"6ms done L", ""},
		}},
		{"a smaller call of another caller takes the room", 2, Policy{MaxRows: 10}, []step{
			{"0s A1 L 1", "L: A1"},
			{"1ms A2 L 6", ""},
			{"1ms B1 L 6", ""},
			{"1ms C1 L 4", ""},
			{"2ms done L", "L: A2 C1"},
			{"3ms done L", "L: B1"},
		}},
		{"a delay is waited for company only where there is other work", 3, Policy{MaxRows: 4, MaxDelay: 10 * time.Millisecond}, []step{
			{"0s A1 L 1", "L: A1"},
			{"1ms A2 M 1", "wake 11ms"},
			{"2ms A3 M 1", "wake 11ms"},
			{"11ms tick", "M: A2 A3"},
			{"12ms A4 N 3", "wake 22ms"},
			{"13ms B1 N 1", "N: A4 B1"}, // full
			{"14ms done N", ""},
			{"15ms done M", ""},
			{"16ms done L", ""},
			{"17ms A5 M 1", "M: A5"},
		}},
		{"a delay begins with the oldest call that is left", 3, Policy{MaxRows: 4, MaxDelay: 10 * time.Millisecond}, []step{
			{"0s A1 L 1", "L: A1"},
			{"1ms A2 M 1", "wake 11ms"},
			{"5ms B1 M 1", "wake 11ms"},
			{"6ms leave A2", "wake 15ms"},
			{"15ms tick", "M: B1"},
		}},
		{"products at a time are bounded, and one of an operator", 2, Policy{MaxRows: 4}, []step{
			{"0s A1 L 1", "L: A1"},
			{"0s A2 L 1", ""},
			{"0s A3 M 1", "M: A3"},
			{"0s A4 N 1", ""},
			{"1ms done M", "N: A4"},
			{"2ms done L", "L: A2"},
		}},
		{"shares are of work, not of calls", 1, Policy{MaxRows: 1}, []step{
			{"0s A1 L 1 w4", "L: A1"},
			{"0s A2 L 1 w4", ""}, {"0s A3 L 1 w4", ""}, {"0s A4 L 1 w4", ""},
			{"0s B1 M 1 w1", ""}, {"0s B2 M 1 w1", ""}, {"0s B3 M 1 w1", ""}, {"0s B4 M 1 w1", ""},
			{"0s B5 M 1 w1", ""}, {"0s B6 M 1 w1", ""}, {"0s B7 M 1 w1", ""}, {"0s B8 M 1 w1", ""},
			{"1ms done L", "M: B1"},
			{"1ms done M", "M: B2"},
			{"1ms done M", "M: B3"},
			{"1ms done M", "L: A2"},
			{"1ms done L", "M: B4"},
			{"1ms done M", "M: B5"},
			{"1ms done M", "M: B6"},
			{"1ms done M", "M: B7"},
			{"1ms done M", "L: A3"},
		}},
		{"within a product too", 1, Policy{MaxRows: 6}, []step{
			{"0s X1 M 1", "M: X1"},
			{"0s A1 L 1", ""}, {"0s A2 L 1", ""}, {"0s A3 L 1", ""}, {"0s A4 L 1", ""}, {"0s A5 L 1", ""}, {"0s A6 L 1", ""},
			{"0s B1 L 1", ""}, {"0s C1 L 1", ""}, {"0s C2 L 1", ""}, {"0s C3 L 1", ""},
			{"1ms done M", "L: A1 B1 C1 A2 C2 A3"}, // B has no more: A and C share
			{"2ms done L", "L: C3 A4 A5 A6"},
		}},
		{"who has nothing waiting saves nothing up", 1, Policy{MaxRows: 1}, []step{
			{"0s A1 L 1", "L: A1"},
			{"0s A2 L 1", ""}, {"0s A3 L 1", ""}, {"0s A4 L 1", ""},
			{"1ms done L", "L: A2"},
			{"1ms B1 M 1", ""}, {"1ms B2 M 1", ""},
			{"2ms done L", "L: A3"},
			{"3ms done L", "M: B1"},
			{"4ms done M", "L: A4"},
			{"5ms done L", "M: B2"},
		}},
		{"a full line refuses the last call of who has most", 1, Policy{MaxRows: 1, MaxCalls: 3}, []step{
			{"0s A1 L 1", "L: A1"},
			{"0s A2 L 1", ""}, {"0s A3 L 1", ""}, {"0s A4 L 1", ""},
			{"0s A5 L 1", "refused A5"},
			{"0s B1 L 1", "refused A4"},
			{"0s B2 L 1", "refused B2"}, // otherwise A would have fewer
			{"0s A6 M 1", ""},           // another line
			{"1ms leave A2", ""},
			{"1ms A7 L 1", ""},
			{"2ms done L", "L: A3"},
			{"3ms done L", "L: B1"},
		}},
		{"a higher level pushes its caller's own calls out", 1, Policy{MaxRows: 1, MaxCalls: 1, Levels: 2, Level: 2}, []step{
			{"0s A1 L 1 p2", "L: A1"},
			{"0s A2 L 1 p2", ""},
			{"0s A3 L 1 p1", "refused A2"},
			{"0s B1 L 1 p1", "refused B1"},
			{"1ms done L", "L: A3"},
			{"1ms X1 M 1 p2", ""},
			{"1ms X2 M 1 p1", "refused X1"}, // the line's only one
			{"2ms done L", "M: X2"},
		}},
		{"levels order a caller's own calls and no one else's", 1, Policy{MaxRows: 1, Levels: 3, Level: 2}, []step{
			{"0s X1 M 1 p2", "M: X1"},
			{"0s A1 L 1 p3", ""}, {"0s A2 L 1 p2", ""}, {"0s A3 L 1 p1", ""}, {"0s A4 L 1 p1", ""},
			{"0s B1 L 1 p3", ""},
			{"1ms done M", "L: A3"},
			{"2ms done L", "L: B1"},
			{"3ms done L", "L: A4"},
			{"4ms done L", "L: A2"},
			{"5ms done L", "L: A1"},
		}},
		{"a deadline ends what waits, and nothing that has begun", 1, Policy{MaxRows: 1}, []step{
			{"0s A1 L 1 t5ms", "L: A1"},
			{"1ms A2 L 1 t9ms", "wake 10ms"},
			{"1ms A3 L 1 t5ms", "wake 6ms"},
			{"1ms A4 L 1", "wake 6ms"},
			{"6ms tick", "late A3, wake 10ms"},
			{"7ms leave A3", "gone, wake 10ms"},
			{"8ms done L", "L: A2"},
			{"20ms done L", "L: A4"},
			{"21ms leave A4", "gone"},
		}},
		{"what is late does not begin", 1, Policy{MaxRows: 4}, []step{
			{"0s A1 L 1", "L: A1"},
			{"1ms A2 L 1 t5ms", "wake 6ms"},
			{"1ms A3 L 1", "wake 6ms"},
			{"7ms done L", "late A2, L: A3"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(test.parallel, policies(test.policy))
			for i, step := range test.steps {
				if got := s.event(step.event); got != step.want {
					t.Fatalf("step %d, %s: %q, want %q", i, step.event, got, step.want)
				}
			}
		})
	}
}

// checkList returns the number of calls in a list. It checks that links agree both ways and
// that the calls are in order.
func checkList(t *rapid.T, l list, first func(c, o *call) bool) (n int) {
	var last *call
	for c := l.first; c != nil; c = c.links[l.by].after {
		if c.links[l.by].before != last || last != nil && !first(last, c) || c.share == nil {
			t.Fatalf("call %d is out of place", n)
		}
		last = c
		n++
	}
	if l.last != last {
		t.Fatal("a list has another end")
	}
	return n
}

// TestStateProperties: whatever the events, no call is lost, none ends twice, calls of one
// caller, line and level begin in order, products keep their limits, credit is bounded, and an
// empty queue holds nothing.
func TestStateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parallel := rapid.IntRange(1, 3).Draw(t, "parallel")
		p := Policy{
			MaxRows:  rapid.IntRange(1, 12).Draw(t, "rows"),
			MaxCalls: rapid.IntRange(1, 8).Draw(t, "calls"),
			MaxDelay: time.Duration(rapid.IntRange(0, 3).Draw(t, "delay")) * time.Millisecond,
		}
		s := newScript(parallel, map[string]*Policy{"L": &p, "M": &p, "N": &p})
		clock, n := 0, 0
		const (
			waits = iota
			runs
			ended
		)
		status := map[string]int{} // of every call that arrived
		move := func(name string, from, to int) {
			if got, ok := status[name]; !ok || got != from {
				t.Fatalf("%s goes to %d, but is %d (%v)", name, to, got, ok)
			}
			status[name] = to
		}
		type flow struct {
			caller, line string
			level        uint32
		}
		latest := map[flow]int{}
		running := func() []string { return slices.Sorted(maps.Keys(s.begun)) }
		do := func(event string) {
			clock += rapid.IntRange(0, 2).Draw(t, "ms")
			if f := strings.Fields(event); f[0] == "done" {
				for _, c := range s.begun[f[1]] {
					move(s.names[c], runs, ended)
				}
			}
			out := s.event(fmt.Sprintf("%dms %s", clock, event))
			for o := range strings.SplitSeq(out, ", ") {
				f := strings.Fields(o)
				if len(f) == 0 {
					continue
				}
				switch f[0] {
				case "wake":
				case "gone":
					t.Fatalf("%s: %s", event, out)
				case "refused", "late":
					move(f[1], waits, ended)
				default:
					line, rows := strings.TrimSuffix(f[0], ":"), 0
					for _, name := range f[1:] {
						move(name, waits, runs)
						c := s.calls[name]
						rows += c.Rows
						var number int
						fmt.Sscan(strings.TrimLeft(name, "ABCD"), &number)
						of := flow{string(c.stream.caller), line, c.level}
						if number < latest[of] {
							t.Fatalf("%s begins after %d", name, latest[of])
						}
						latest[of] = number
					}
					if len(f) > 2 && rows > p.MaxRows {
						t.Fatalf("%d rows in %s", rows, o)
					}
				}
			}
			if len(s.begun) > parallel || s.state.running != len(s.begun) {
				t.Fatalf("%d products", len(s.begun))
			}
			inside := 0
			for _, st := range status {
				if st != ended {
					inside++
				}
			}
			if inside != s.state.inside {
				t.Fatalf("the state has %d calls, there are %d", s.state.inside, inside)
			}
			open := 0
			for _, l := range s.state.lines {
				if l.calls > p.MaxCalls {
					t.Fatalf("%d calls wait", l.calls)
				}
				if n := checkList(t, l.waiting, func(c, o *call) bool { return !o.arrived.Before(c.arrived) }); n != l.calls {
					t.Fatalf("%d of %d calls by arrival", n, l.calls)
				}
				if l.calls > 0 && !l.running {
					open++
					if s.state.open[l.at] != l {
						t.Fatal("a line is not open")
					}
				}
			}
			if open != len(s.state.open) {
				t.Fatalf("%d lines are open, want %d", len(s.state.open), open)
			}
			for _, m := range s.state.members {
				if len(m.shares) == 0 || s.state.callers[m.name] != m {
					t.Fatalf("%s is a member and has nothing waiting", m.name)
				}
				for _, sh := range m.shares {
					s.state.rounds(sh) // which bounds the credit
					n := checkList(t, sh.order, func(c, o *call) bool {
						return c.level < o.level || c.level == o.level && !o.arrived.Before(c.arrived)
					})
					if n != sh.calls || sh.line.shares[sh.at] != sh {
						t.Fatalf("%d of %d calls of %s", n, sh.calls, m.name)
					}
				}
				if credit := s.state.granted - m.spent; credit < 0 || credit > int64(parallel+1)*s.state.largest {
					t.Fatalf("credit %d", credit)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				n++
				name := fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"A", "B", "C", "D"}).Draw(t, "caller"), n)
				event := fmt.Sprintf("%s %s %d w%d p%d", name, rapid.SampledFrom([]string{"L", "M", "N"}).Draw(t, "line"),
					rapid.IntRange(1, 15).Draw(t, "rows"), rapid.IntRange(0, 40).Draw(t, "work"), rapid.IntRange(0, 2).Draw(t, "level"))
				if rapid.Bool().Draw(t, "timeout") {
					event += fmt.Sprintf(" t%dms", rapid.IntRange(0, 9).Draw(t, "timeout"))
				}
				status[name] = waits
				do(event)
			},
			"done": func(t *rapid.T) {
				if lines := running(); len(lines) > 0 {
					do("done " + rapid.SampledFrom(lines).Draw(t, "line"))
				}
			},
			"leave": func(t *rapid.T) {
				var waiting []string
				for name, st := range status {
					if st == waits {
						waiting = append(waiting, name)
					}
				}
				if len(waiting) > 0 {
					slices.Sort(waiting)
					name := rapid.SampledFrom(waiting).Draw(t, "call")
					status[name] = ended
					do("leave " + name)
				}
			},
			"tick": func(t *rapid.T) { do("tick") },
		})
		for range 10 * n { // every waiting call must be served
			for _, l := range running() {
				do("done " + l)
			}
			clock += 3
			do("tick")
		}
		st := s.state
		if st.inside != 0 || st.running != 0 || st.backlog != 0 || len(st.lines) != 0 || len(st.callers) != 0 || len(st.members) != 0 || len(st.deadlines) != 0 {
			t.Fatalf("left: %+v", st)
		}
		for name, got := range status {
			if got != ended {
				t.Fatalf("%s is lost", name)
			}
		}
	})
}

// TestFairShares: nine callers each ask for one and a half tenths of the capacity, and one asks
// for ten times as much as one of them. The nine each get their tenth of the work, whatever
// the sizes of their calls.
func TestFairShares(t *testing.T) {
	for _, test := range []struct {
		name     string
		parallel int
		rows     int // of a product
		work     func(caller int) int
		line     func(caller int) string
	}{
		{"one operator, merged", 2, 64, func(int) int { return 16 }, func(int) string { return "L" }},
		{"one operator, one at a time", 1, 1, func(int) int { return 16 }, func(int) string { return "L" }},
		{"three operators", 2, 8, func(int) int { return 5 }, func(c int) string { return string("LMN"[c%3]) }},
		{"calls of different sizes", 2, 8, func(c int) int { return 4 + 3*c }, func(c int) string { return "L" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(test.parallel, map[string]*Policy{})
			for _, l := range []string{"L", "M", "N"} {
				s.policies[l] = &Policy{MaxRows: test.rows, MaxCalls: 256}
			}
			served := make([]float64, 10)
			ids := make([]int, 10)
			const capacity = 160 // quanta a tick
			fair := capacity / 10.0
			owed := make([]float64, 10)
			var debt float64
			for tick := range 400 {
				for c := range served { // caller 0 asks for 10 times what the others do
					want := 1.5 * fair
					if c == 0 {
						want *= 10
					}
					for owed[c] += want; owed[c] >= float64(test.work(c)); owed[c] -= float64(test.work(c)) {
						ids[c]++
						s.event(fmt.Sprintf("%dms %c%d %s 1 w%d", tick, 'A'+c, ids[c], test.line(c), test.work(c)))
					}
				}
				for debt += capacity; debt > 0 && len(s.order) > 0; {
					l := s.order[0]
					for _, c := range s.begun[l] {
						debt -= float64(c.work / quantum)
						if tick >= 20 {
							served[c.stream.caller[0]-'A'] += float64(c.work / quantum)
						}
					}
					s.event(fmt.Sprintf("%dms done %s", tick, l))
				}
			}
			var sum, squares float64
			for c, v := range served {
				v /= 380 * fair
				sum, squares = sum+v, squares+v*v
				if v < 0.95 || v > 1.05 {
					t.Errorf("caller %d has %.3f of its fair share", c, v)
				}
			}
			if jain := sum * sum / (10 * squares); jain < 0.99 {
				t.Errorf("Jain index %.4f", jain)
			}
		})
	}
}

// TestCreditIsBounded: a caller whose operator is busy does not accumulate credit without bound.
func TestCreditIsBounded(t *testing.T) {
	p := &Policy{MaxRows: 1, MaxCalls: 1000}
	s := newScript(2, map[string]*Policy{"L": p, "M": p})
	s.event("0s B1 L 1")
	s.event("0s B2 L 1") // waits for long
	s.event("0s X1 M 1")
	for i := range 200 {
		s.event(fmt.Sprintf("1ms A%d M 1", 1+i))
	}
	for range 100 {
		s.event("2ms done M")
	}
	for i := range 20 {
		s.event(fmt.Sprintf("3ms B%d M 1", 3+i))
	}
	n := 0
	for ; strings.HasPrefix(s.event("4ms done M"), "M: B"); n++ {
	}
	if n == 0 || n > 4 {
		t.Errorf("B was served %d times in a row", n)
	}
}

// BenchmarkState: a call of each of many callers, merged into one product or into
// many.
func BenchmarkState(b *testing.B) {
	for _, rows := range []int{64, 4096} {
		b.Run(fmt.Sprintf("1000 callers, %d rows", rows), func(b *testing.B) {
			p := &Policy{MaxRows: rows, MaxCalls: 1000}
			product := &named{"L"}
			now := time.Unix(0, 0)
			callers := make([]Caller, 1000)
			for i := range callers {
				callers[i] = Caller(fmt.Sprintf("uid 1000, connection %d", i))
			}
			s := newState(1)
			for b.Loop() {
				for _, name := range callers {
					s.arrive(now, &call{Call: Call{Product: product, Op: plan.Dense(1, 1), Policy: p, Rows: 1}, stream: newStream(name), work: 16 * quantum})
				}
				for batch := s.next(now); batch != nil; batch = s.next(now) {
					s.done(s.lines[product], len(batch), 1, time.Millisecond)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/call")
		})
	}
}

// TestRetry: the hint is the backlog divided by the recent rate, within limits.
func TestRetry(t *testing.T) {
	s := newScript(1, map[string]*Policy{"L": {MaxRows: 1, MaxCalls: 100}})
	if d := s.state.retry(); d != 10*time.Millisecond {
		t.Errorf("before any product: %v", d)
	}
	s.event("0s A1 L 1 w10")
	s.event("1ms done L") // in a millisecond
	if d := s.state.retry(); d != time.Millisecond {
		t.Errorf("nothing waits: %v", d)
	}
	for i := range 8 {
		s.event(fmt.Sprintf("2ms A%d L 1 w10", 2+i))
	}
	if d := s.state.retry(); d != 7*time.Millisecond {
		t.Errorf("seven wait: %v", d)
	}
	s.event("2ms B1 L 1 w1000000")
	if d := s.state.retry(); d != 5*time.Second {
		t.Errorf("much waits: %v", d)
	}
}
