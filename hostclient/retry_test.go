package hostclient_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// withSpare adds a cloud that holds the sealed model of a role, too.
func (r *rig) withSpare(t testing.TB, role int) (*cloud, *hostclient.Client) {
	t.Helper()
	c := newCloud(t)
	client := dial(t, c)
	if len(r.models) > 1 {
		if err := r.secret.Bind(role, client.Provider()); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Push(t.Context(), r.models[role], nil); err != nil {
		t.Fatal(err)
	}
	return c, client
}

// failing answers the first n requests with fail, the others honestly.
func failing(n int64, fail func(*call) error) func(*call) error {
	var calls atomic.Int64
	return func(c *call) error {
		if calls.Add(1) <= n {
			return fail(c)
		}
		return c.honest()
	}
}

// want returns what an undisturbed session infers.
func (r *rig) want(t testing.TB, x []float32, n int) []float32 {
	t.Helper()
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	y := infer(t, s, x, n)
	for _, c := range r.clouds {
		c.take()
	}
	return y
}

var overloaded = &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, Message: "later"}

// TestRetry: what the same cloud did not answer it is sent again, word for word, and
// results are as if nothing had been.
func TestRetry(t *testing.T) {
	for name, fail := range map[string]func(*call) error{
		"refuses":     func(c *call) error { return c.refuse(overloaded) },
		"ends":        func(c *call) error { return errEnd },
		"short":       func(c *call) error { return c.reply(c.req.ID, c.y.Data[1:]) },
		"not canonic": func(c *call) error { c.y.Data[1] = c.ring.Modulus(); return c.honest() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nets()["mlp"], permutePad)
			x := gaussian(rand.New(rand.NewPCG(1, 2)), 3*7)
			want := r.want(t, x, 3)
			s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 2})
			r.clouds[0].behave(failing(2, fail))
			if y := infer(t, s, x, 3); !slices.Equal(bits(y), bits(want)) {
				t.Error("another result")
			}
			if st := s.Stats(); st.Retried != 2 || st.OnTheSpot != 3 || st.Rejected != 0 {
				t.Errorf("%+v", st)
			}
			got := r.clouds[0].take()
			if len(got) != 5 { // three layers, the first of them three times
				t.Fatalf("%d requests", len(got))
			}
			for _, again := range got[1:3] {
				if again.layer != 0 || !slices.Equal(again.words.Data, got[0].words.Data) {
					t.Error("other words were sent again: one pad masks two inputs, or two pads one")
				}
			}
		})
	}
}

// TestRetriesEnd: there are as many as allowed, and then the cloud's error.
func TestRetriesEnd(t *testing.T) {
	for _, retries := range []int{-1, 0, 1, 3} {
		var pauses []time.Duration
		told := func(err error, pause time.Duration) {
			pauses = append(pauses, pause)
			var cloud *hostclient.CloudError
			if !errors.As(err, &cloud) || cloud.Role != 0 || !errors.As(err, new(*wire.Error)) {
				t.Error(err)
			}
		}
		c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{Retries: retries, Retrying: told})
		c.behave(func(c *call) error { return c.refuse(overloaded) })
		y, err := s.Infer(t.Context(), make([]float32, 7), 1)
		var refused *wire.Error
		if y != nil || !errors.As(err, &refused) || *refused != *overloaded {
			t.Errorf("%d retries: %v", retries, err)
		}
		if n := c.requests.Load(); n != int64(max(0, retries))+1 {
			t.Errorf("%d retries: %d requests", retries, n)
		}
		if want := []time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond}[:max(0, retries)]; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	}
	// What will be refused again is not asked again.
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{Retries: 3})
	c.behave(func(c *call) error {
		return c.refuse(&wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge})
	})
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); err == nil || c.requests.Load() != 1 {
		t.Errorf("%v after %d requests", err, c.requests.Load())
	}
	// A liar is not asked again.
	c, _, _, s = setup(t, nets()["mlp"], permutePad, hostclient.Options{Retries: 3})
	c.behave(func(c *call) error { c.y.Data[0] = c.ring.Add(c.y.Data[0], 1); return c.honest() })
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, verify.ErrRejected) || c.requests.Load() != 1 {
		t.Errorf("%v after %d requests", err, c.requests.Load())
	}
}

// late is when an answer is, in tests in which a cloud does not answer: a slow machine, too,
// has those of the other clouds before.
const late = 5 * time.Second

// TestSpare: a spare takes over from a cloud that fails, and stays.
func TestSpare(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(*call) error{
		"hangs": func(c *call) error { <-c.stream.Context().Done(); return nil },
		"gone":  func(c *call) error { go c.stop(); <-c.stream.Context().Done(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits
			r := newRig(t, nets()["mlp"], permutePad)
			x := gaussian(rand.New(rand.NewPCG(3, 4)), 2*7)
			want := r.want(t, x, 2)
			spare, client := r.withSpare(t, 0)
			var pauses []time.Duration
			told := func(_ error, pause time.Duration) { pauses = append(pauses, pause) }
			s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 1, Retrying: told, Timeout: late, Spares: [][]*hostclient.Client{{client}}})
			r.clouds[0].behave(answer)
			if y := infer(t, s, x, 2); !slices.Equal(bits(y), bits(want)) {
				t.Error("another result")
			}
			first, second := r.clouds[0].take(), spare.take()
			if len(first) != 1 || len(second) != 3 || !slices.Equal(first[0].words.Data, second[0].words.Data) {
				t.Errorf("%d and %d requests, or other words", len(first), len(second))
			}
			infer(t, s, x, 2)
			if n := len(r.clouds[0].take()); n != 0 || s.Stats().Retried != 1 {
				t.Errorf("%d more requests to the first, %+v", n, s.Stats())
			}
			if !slices.Equal(pauses, []time.Duration{0}) {
				t.Errorf("pauses %v", pauses)
			}
		})
	}
}

// TestHungWithoutCalls: a cloud that answers nothing is given up after the session's timeout,
// though every caller gave up earlier. The next call is for a spare or a new stream.
func TestHungWithoutCalls(t *testing.T) {
	t.Parallel()
	silent := func(t *testing.T, r *rig) { // it accepts connections, and no more
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if r.clients[0], err = hostclient.Dial("unix:" + path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.clients[0].Close() })
	}
	hangs := func(t *testing.T, r *rig) {
		first := r.clouds[0].streams.Load() + 1
		r.clouds[0].behave(func(c *call) error {
			if c.streams.Load() == first {
				<-c.stream.Context().Done()
			}
			return c.honest()
		})
	}
	for _, test := range []struct {
		name  string
		cloud func(*testing.T, *rig)
		spare bool
	}{{"to another stream", hangs, false}, {"to a spare", hangs, true}, {"to a spare, before it opens", silent, true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // it waits
			const timeout = time.Second
			r := newRig(t, nets()["mlp"], permutePad)
			o := hostclient.Options{Multiplier: kernel, Timeout: timeout}
			var spare *cloud
			if test.spare {
				var client *hostclient.Client
				spare, client = r.withSpare(t, 0)
				o.Spares = [][]*hostclient.Client{{client}}
			}
			test.cloud(t, r)
			s := r.open(t, o)
			x := make([]float32, 7)
			impatient := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				defer cancel()
				_, err := s.Infer(ctx, x, 1)
				return err
			}
			for range 3 {
				if err := impatient(); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*hostclient.CloudError)) {
					t.Errorf("an impatient caller: %v", err)
				}
			}
			time.Sleep(timeout + timeout/2)
			infer(t, s, x, 1)
			if st := s.Stats(); st.Retried != 0 {
				t.Errorf("%+v", st)
			}
			if test.spare && len(spare.take()) != 3 {
				t.Error("the spare was not asked")
			}
		})
	}
}

// TestMute: a cloud that accepts connections and no more does not answer, rather than wrongly, and
// is named.
func TestMute(t *testing.T) {
	t.Parallel() // an attempt to connect takes five seconds
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	addr := "unix:" + l.Addr().String()
	r := newRig(t, nets()["mlp"], permutePad)
	if r.clients[0], err = hostclient.Dial(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.clients[0].Close() })
	s := r.open(t, hostclient.Options{Multiplier: kernel, Timeout: time.Minute})
	for name, call := range map[string]func() error{
		"infer": func() error { _, err := s.Infer(t.Context(), make([]float32, 7), 1); return err },
		"info":  func() error { _, err := r.clients[0].Info(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := fmt.Sprintf(`at %s: %v: "it accepts connections, but answers nothing"`, addr, hostclient.ErrTimeout)
			if err := call(); !errors.Is(err, hostclient.ErrTimeout) || errors.Is(err, hostclient.ErrUnavailable) || !strings.HasSuffix(err.Error(), want) {
				t.Error(err)
			}
		})
	}
}

// TestEndsWithoutBlame: that a call's context or its session ends is no fault of a cloud's.
func TestEndsWithoutBlame(t *testing.T) {
	for _, scheme := range []transform.Scheme{permutePad, lagrange} {
		mine := errors.New("changed my mind")
		for _, test := range []struct {
			end  func(cancel context.CancelCauseFunc, s *hostclient.Session)
			want error
		}{
			{func(cancel context.CancelCauseFunc, _ *hostclient.Session) { cancel(nil) }, context.Canceled},
			{func(cancel context.CancelCauseFunc, _ *hostclient.Session) { cancel(mine) }, mine},
			{func(_ context.CancelCauseFunc, s *hostclient.Session) { s.Close() }, hostclient.ErrClosed},
		} {
			r := newRig(t, nets()["mlp"], scheme)
			asked := make(chan bool, 3)
			for _, c := range r.clouds {
				c.behave(func(c *call) error { asked <- true; <-c.stream.Context().Done(); return nil })
			}
			s, err := hostclient.Open(t.Context(), r.secret, r.models, r.clients, hostclient.Options{Multiplier: kernel, Retries: 3})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			go func() {
				for range r.clouds {
					<-asked
				}
				test.end(cancel, s)
			}()
			_, err = s.Infer(ctx, make([]float32, 7), 1)
			if !errors.Is(err, test.want) || errors.As(err, new(*hostclient.CloudError)) {
				t.Errorf("%v: %v, want %v and no cloud's name", scheme, err, test.want)
			}
			s.Close()
		}
	}
}

// TestSpareAfterLie: a spare is asked in the place of a liar, with words under other
// pads. Where pads may come from the stock alone, there is no other try.
func TestSpareAfterLie(t *testing.T) {
	for _, onlyStock := range []bool{false, true} {
		r := newRig(t, nets()["mlp"], permutePad)
		x := gaussian(rand.New(rand.NewPCG(5, 6)), 2*7)
		want := r.want(t, x, 2)
		spare, client := r.withSpare(t, 0)
		s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 1, RequireStock: onlyStock, Spares: [][]*hostclient.Client{{client}}})
		if err := s.Precompute(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		r.clouds[0].behave(failing(1, func(c *call) error { c.y.Data[3] = c.ring.Add(c.y.Data[3], 1); return c.honest() }))
		y, err := s.Infer(t.Context(), x, 2)
		if onlyStock {
			if y != nil || !errors.Is(err, verify.ErrRejected) || len(spare.take()) != 0 {
				t.Errorf("from the stock alone: %v", err)
			}
			continue
		}
		if err != nil || !slices.Equal(bits(y), bits(want)) {
			t.Errorf("another result: %v", err)
		}
		first, second := r.clouds[0].take(), spare.take()
		if len(first) != 1 || len(second) != 3 {
			t.Fatalf("%d and %d requests", len(first), len(second))
		}
		same := 0
		for i, a := range first[0].words.Data {
			if a == second[0].words.Data[i] {
				same++
			}
		}
		if same > 1 {
			t.Errorf("%d of %d words are the same: a pad served twice", same, len(first[0].words.Data))
		}
		if st := s.Stats(); st.OnTheSpot != 2 || st.Rejected != 1 || st.Retried != 1 {
			t.Errorf("%+v", st)
		}
		if _, err := r.open(t, hostclient.Options{Multiplier: kernel}).Infer(t.Context(), x, 2); !errors.Is(err, hostclient.ErrQuarantined) {
			t.Errorf("the liar is asked again: %v", err)
		}
	}
}

// TestLiarByAnotherName: of a liar's socket no other client of the session is asked either.
func TestLiarByAnotherName(t *testing.T) {
	for _, scheme := range []transform.Scheme{permutePad, split} {
		r := newRig(t, nets()["mlp"], scheme)
		lying := r.clouds[len(r.clouds)-1]
		again, err := hostclient.DialProvider("unix:"+lying.dir+"/./s", r.clients[len(r.clients)-1].Provider())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { again.Close() })
		spares := make([][]*hostclient.Client, len(r.clouds))
		spares[len(spares)-1] = []*hostclient.Client{again}
		s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 3, Spares: spares})
		lying.behave(func(c *call) error { c.y.Data[0] = c.ring.Add(c.y.Data[0], 1); return c.honest() })
		if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, verify.ErrRejected) || lying.requests.Load() != 1 {
			t.Errorf("%v: %v after %d requests", scheme, err, lying.requests.Load())
		}
		if !again.Quarantined() {
			t.Errorf("%v: the liar is not quarantined by its other name", scheme)
		}
	}
}

// TestShareAgain: with several roles a call is never made again with the same share, to
// whomever it goes.
func TestShareAgain(t *testing.T) {
	for of, role := range []int{0, 1, 0, 1, 2} {
		scheme := shared[min(of/2, 1)]
		r := newRig(t, nets()["mlp"], scheme)
		x := gaussian(rand.New(rand.NewPCG(7, 8)), 2*7)
		want := r.want(t, x, 2)
		spare, client := r.withSpare(t, role)
		spares := make([][]*hostclient.Client, scheme.Roles())
		spares[role] = []*hostclient.Client{client}
		s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 2, Spares: spares})
		r.clouds[role].behave(func(c *call) error {
			for _, other := range r.clouds { // who is not asked yet when one fails may never be
				if err := other.waitAsked(c.stream.Context()); err != nil {
					return err
				}
			}
			return errEnd
		})
		if y := infer(t, s, x, 2); !slices.Equal(bits(y), bits(want)) {
			t.Error("another result")
		}
		seeds, words := map[string]int{}, map[uint32]int{}
		for _, c := range append(slices.Clone(r.clouds), spare) {
			for _, q := range c.take() {
				if q.seed != nil {
					seeds[string(q.seed.Key)]++
				} else if q.layer == 0 {
					words[q.words.Data[0]]++
				}
			}
		}
		for _, n := range seeds {
			if n != 1 {
				t.Errorf("%v, role %d: a share was sent %d times", scheme, role, n)
			}
		}
		for _, n := range words {
			if n != 1 {
				t.Errorf("%v, role %d: words were sent %d times", scheme, role, n)
			}
		}
		if len(seeds) != 4 || len(words) != 2*scheme.WordRoles() { // three layers, the first of them twice
			t.Errorf("%v, role %d: %d seeds, words of %d calls", scheme, role, len(seeds), len(words))
		}
		if st := s.Stats(); st.Retried != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// A liar among three has its spare asked, and all three are sent a share drawn anew.
func TestLagrangeSpareAfterLie(t *testing.T) {
	for role := range lagrange.Roles() {
		r := newRig(t, nets()["mlp"], lagrange)
		x := gaussian(rand.New(rand.NewPCG(11, 12)), 2*7)
		want := r.want(t, x, 2)
		spare, client := r.withSpare(t, role)
		spares := make([][]*hostclient.Client, 3)
		spares[role] = []*hostclient.Client{client}
		s := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 1, Spares: spares})
		r.clouds[role].behave(func(c *call) error { c.y.Data[3] = c.ring.Add(c.y.Data[3], 1); return c.honest() })
		if y := infer(t, s, x, 2); !slices.Equal(bits(y), bits(want)) {
			t.Errorf("role %d: another result", role)
		}
		for other, c := range r.clouds {
			asked := c.take()
			if want := map[bool]int{true: 1, false: 4}[other == role]; len(asked) != want {
				t.Errorf("role %d lies: %d requests to role %d, want %d", role, len(asked), other, want)
			} else if other != role && slices.Equal(asked[0].words.Data, asked[1].words.Data) {
				t.Errorf("role %d lies: role %d is sent a share twice", role, other)
			}
		}
		if n := len(spare.take()); n != 3 {
			t.Errorf("role %d: %d requests to the spare", role, n)
		}
		if st := s.Stats(); st.Retried != 1 || st.Rejected != 2 && st.Rejected != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// TestSparesApart: a spare is refused for what a cloud of its role is refused for.
func TestSparesApart(t *testing.T) {
	r := newRig(t, nets()["mlp"], split)
	stranger := dial(t, newCloud(t))
	both := newCloud(t)
	var one [2]*hostclient.Client // of one cloud, by the names of two providers
	for role, provider := range []string{"x", "y"} {
		var err error
		if one[role], err = hostclient.DialProvider(both.addr, provider); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { one[role].Close() })
		if err := r.secret.Bind(role, provider); err != nil {
			t.Fatal(err)
		}
	}
	for name, spares := range map[string][][]*hostclient.Client{
		"two at one cloud":   {{one[0]}, {one[1]}},
		"not bound":          {{stranger}},
		"of the other role":  {{r.clients[1]}},
		"of the other role ": {nil, {r.clients[0]}},
	} {
		s, err := hostclient.Open(t.Context(), r.secret, r.models, r.clients, hostclient.Options{Multiplier: kernel, Spares: spares})
		if s != nil || !errors.Is(err, hostclient.ErrProvider) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := hostclient.Open(t.Context(), r.secret, r.models, r.clients, hostclient.Options{Spares: make([][]*hostclient.Client, 3)}); !errors.Is(err, hostclient.ErrMismatch) {
		t.Errorf("three roles: %v", err)
	}
}

// TestPipelined: parts of a batch are in work at once, and come back in order.
func TestPipelined(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	const n = 40
	x := gaussian(rand.New(rand.NewPCG(9, 10)), n*7)
	want := r.want(t, x, n)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	s.SetBlock(3)
	s.SetParts(2)
	calls, first := 0, (*call)(nil) // without an answer until another request, which is another part's, has come
	r.clouds[0].behave(func(c *call) error {
		switch calls++; calls {
		case 1:
			first = c
			return nil
		case 2:
			if err := first.honest(); err != nil {
				return err
			}
		}
		return c.honest()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if y, err := s.Infer(ctx, x, n); err != nil || !slices.Equal(bits(y), bits(want)) {
		t.Error("another result:", err)
	}
	// One fails: nothing of the batch comes back, and nothing is left running.
	r.clouds[0].behave(func(c *call) error {
		if c.requests.Load()%7 == 0 {
			return c.refuse(overloaded)
		}
		return c.honest()
	})
	if y, err := s.Infer(t.Context(), x, n); y != nil || err == nil {
		t.Errorf("%v", err)
	}
}

// TestPadMemory: the stock is filled in the background, up to what is allowed, and
// again after use.
func TestPadMemory(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	each := r.secret.PadBytes()
	if each <= 0 {
		t.Fatal(each)
	}
	const most = 10
	s := r.open(t, hostclient.Options{Multiplier: kernel, RequireStock: true, PadMemory: most*each + each/2})
	filled := func() {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); s.Stats().Stock != most; time.Sleep(time.Millisecond) {
			if s.Stats().Stock > most || time.Now().After(deadline) {
				t.Fatalf("%d in stock", s.Stats().Stock)
			}
		}
	}
	filled() // and what fills it rests
	s.SetBlock(4)
	for range 5 {
		filled()
		infer(t, s, make([]float32, 7*7), 7)
	}
	if st := s.Stats(); st.OnTheSpot != 0 {
		t.Errorf("%+v", st)
	}
	// Schemes without pads need none.
	if n := newRig(t, nets()["mlp"], split).secret.PadBytes(); n != 0 {
		t.Errorf("%d bytes under split", n)
	}
}

// TestPadSheets: under a light load pads are made some at a time, as parts of later batches are no
// larger than what was made at once. A batch that finds too few has all that may be there made.
func TestPadSheets(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	const most = 16
	s := r.open(t, hostclient.Options{Multiplier: kernel, RequireStock: true, PadMemory: most * r.secret.PadBytes()})
	atLeast := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); s.Stats().Stock < n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d in stock, want %d", s.Stats().Stock, n)
			}
		}
	}
	x := make([]float32, most*7)
	atLeast(most)
	for range 2*most - 1 {
		infer(t, s, x[:7], 1)
		atLeast(most - most/4 + 1)
	}
	if sheets := s.Sheets(); len(sheets) < 2 || slices.Min(sheets[1:]) < most/4 {
		t.Errorf("sheets of %v", sheets)
	}
	if left := s.Stats().Stock; left == most {
		t.Error("nothing lacks")
	}
	if _, err := s.Infer(t.Context(), x, most); !errors.Is(err, hostclient.ErrNoPads) {
		t.Error(err)
	}
	atLeast(most)
	infer(t, s, x, most)
}

// TestHungPart: a cloud that hangs on one part of a batch ends the other part. What the
// cloud of another role owes others is left alone.
func TestHungPart(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t, nets()["mlp"], split)
	kept := make(chan *call, 2) // what role 1 does not answer yet: layer 1, of two calls
	r.clouds[1].behave(func(c *call) error {
		if c.req.Layer == 1 {
			kept <- c
			return nil
		}
		return c.honest()
	})
	other, done := r.open(t, hostclient.Options{}), make(chan error)
	go func() {
		_, err := other.Infer(t.Context(), make([]float32, 7), 1)
		done <- err
	}()
	owed := <-kept
	// One part is not answered, and the other one is, later, so that it waits for role 1
	// when that one's time is over.
	calls := 0
	r.clouds[0].behave(func(c *call) error {
		if c.req.Layer > 0 {
			return c.honest()
		}
		if calls++; calls == 1 {
			return nil
		}
		time.Sleep(time.Second)
		return c.honest()
	})
	s := r.open(t, hostclient.Options{Timeout: late, Parts: 2})
	if _, err := s.Infer(t.Context(), make([]float32, 64*7), 64); !errors.Is(err, hostclient.ErrTimeout) {
		t.Error(err)
	}
	if len(kept) != 1 {
		t.Fatalf("%d parts waited for role 1", len(kept))
	}
	r.clouds[0].behave(nil)
	r.clouds[1].behave(nil)
	if err := owed.honest(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
