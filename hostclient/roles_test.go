package hostclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/grpc/codes"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// What the two clouds of a split are sent differs by the masked input: each of
// the two changes with every call, and their difference never.
func TestSplitShares(t *testing.T) {
	r := newRig(t, nets()["mlp"], split)
	s := r.open(t, hostclient.Options{})
	x := gaussian(rand.New(rand.NewPCG(21, 1)), 3*7)
	difference := func() [][]uint32 {
		var d [][]uint32
		seen := [2][]seen{r.clouds[0].take(), r.clouds[1].take()}
		if len(seen[0]) != 3 || len(seen[1]) != 3 {
			t.Fatalf("%d and %d requests", len(seen[0]), len(seen[1]))
		}
		for i, a := range seen[0] {
			b := seen[1][i]
			if a.seed != nil || b.seed == nil {
				t.Errorf("layer %d: role 0 gets words, role 1 a seed", a.layer)
			}
			sub := make([]uint32, len(a.words.Data))
			ring.Q4().SubVec(sub, a.words.Data, b.words.Data)
			d = append(d, a.words.Data, b.words.Data, sub)
		}
		return d
	}
	one := infer(t, s, x, 3)
	first := difference()
	if two := infer(t, s, x, 3); !slices.Equal(bits(one), bits(two)) {
		t.Error("another draw gives another result")
	}
	for i, again := range difference() {
		if same := slices.Equal(first[i], again); same != (i%3 == 2) {
			t.Errorf("vector %d: the same in two calls: %t", i, same)
		}
	}
	if st := s.Stats(); st.Stock != 0 || st.OnTheSpot != 0 || st.Samples != 6 {
		t.Errorf("%+v", st)
	}
}

// shared are the schemes of several roles.
var shared = []transform.Scheme{split, lagrange}

// What three clouds of lagrange are sent is x + s, x - s and the seed of s: each changes
// with every call, and x never. Their models differ in every word but for chance, from
// one another and from those of the same network sealed again.
func TestLagrangeShares(t *testing.T) {
	q := ring.Q4()
	r := newRig(t, nets()["mlp"], lagrange)
	s := r.open(t, hostclient.Options{})
	x := gaussian(rand.New(rand.NewPCG(24, 1)), 3*7)
	// inputs returns x by role 0 and by role 1, and all words that were sent.
	inputs := func() (of [][]uint32, sent [][]uint32) {
		seen := [3][]seen{r.clouds[0].take(), r.clouds[1].take(), r.clouds[2].take()}
		for i, a := range seen[0] {
			b, c := seen[1][i], seen[2][i]
			if a.seed != nil || b.seed != nil || c.seed == nil {
				t.Errorf("layer %d: roles 0 and 1 get words, role 2 a seed", a.layer)
			}
			plus, minus := make([]uint32, len(a.words.Data)), make([]uint32, len(a.words.Data))
			q.SubVec(plus, a.words.Data, c.words.Data)
			q.AddVec(minus, b.words.Data, c.words.Data)
			if !slices.Equal(plus, minus) {
				t.Errorf("layer %d: roles 0 and 1 have other inputs", a.layer)
			}
			of, sent = append(of, plus), append(sent, a.words.Data, b.words.Data, c.words.Data)
		}
		if len(seen[0]) != 3 || len(seen[1]) != 3 || len(seen[2]) != 3 {
			t.Fatalf("%d, %d and %d requests", len(seen[0]), len(seen[1]), len(seen[2]))
		}
		return of, sent
	}
	one := infer(t, s, x, 3)
	first, sent := inputs()
	if two := infer(t, s, x, 3); !slices.Equal(bits(one), bits(two)) {
		t.Error("another draw gives another result")
	}
	again, resent := inputs()
	for i := range first {
		if !slices.Equal(first[i], again[i]) {
			t.Errorf("layer %d: another input", i)
		}
	}
	for i := range sent {
		if slices.Equal(sent[i], resent[i]) {
			t.Errorf("words %d are sent in two calls", i)
		}
	}
	if st := s.Stats(); st.Stock != 0 || st.OnTheSpot != 0 || st.Samples != 6 {
		t.Errorf("%+v", st)
	}

	models, _ := seal(t, nets()["mlp"], lagrange)
	var matrices [][]ring.Matrix
	for _, m := range slices.Concat(r.models, models) {
		parsed, err := sealed.Parse(m.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		matrices = append(matrices, parsed.Weights)
	}
	for i, a := range matrices {
		for _, b := range matrices[:i] {
			same := 0
			for l := range a {
				for k, word := range a[l].Data {
					if word == b[l].Data[k] {
						same++
					}
				}
			}
			if same > 1 {
				t.Errorf("two models have %d words in common", same)
			}
		}
	}
}

// A model stands for no other role's.
func TestLagrangeModelsAreFixed(t *testing.T) {
	r := newRig(t, nets()["mlp"], lagrange)
	again, _ := seal(t, nets()["mlp"], lagrange)
	for name, models := range map[string][]hostclient.SealedModel{
		"in another order":   {r.models[1], r.models[0], r.models[2]},
		"two":                r.models[:2],
		"one twice":          {r.models[0], r.models[1], r.models[1]},
		"of another sealing": {r.models[0], r.models[1], again[2]},
		"by another name":    {r.models[0], r.models[1], {Role: 2, Digest: r.models[2].Digest, Bytes: r.models[1].Bytes}},
	} {
		if s, err := hostclient.Open(t.Context(), r.secret, models, r.clients, hostclient.Options{}); s != nil || !errors.Is(err, hostclient.ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A cloud that has but another role's does not know the model that it is asked for.
	if err := r.clients[2].Remove(t.Context(), r.models[2].Digest); err != nil {
		t.Fatal(err)
	}
	if err := r.clients[2].Push(t.Context(), r.models[1], nil); err != nil {
		t.Fatal(err)
	}
	var from *hostclient.CloudError
	_, err := r.open(t, hostclient.Options{}).Infer(t.Context(), make([]float32, 7), 1)
	if !errors.As(err, &from) || from.Role != 2 {
		t.Error(err)
	}
}

// A batch that no message holds is cut for the cloud that gets words and, at
// other rows, for the one that gets seeds.
func TestSplitLargeBatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(22, 1))
	for i, scheme := range slices.Repeat(shared, 2) {
		in, out := 1<<14, 4
		if i >= len(shared) {
			in, out = out, in
		}
		const n = 300 // of 64 KiB: 18.75 MiB
		r := newRig(t, chain(graph.Vector(in), dense(rnd, in, out)), scheme)
		s := r.open(t, hostclient.Options{})
		s.SetBlock(n)
		x := make([]float32, n*in)
		for i := range x {
			x[i] = float32(i % 251)
		}
		y := infer(t, s, x, n)
		for _, i := range []int{0, 254, 255, 256, n - 1} {
			if z := infer(t, s, x[i*in:(i+1)*in], 1); !slices.Equal(bits(z), bits(y[i*out:(i+1)*out])) {
				t.Errorf("sample %d alone differs", i)
			}
		}
		// Row i of the batch is the seed's row i, in whichever message it comes.
		at := uint64(0)
		for _, q := range r.clouds[len(r.clouds)-1].take() {
			if q.words.Rows == 1 {
				break
			}
			if q.seed.First != at {
				t.Errorf("rows from %d, want from %d", q.seed.First, at)
			}
			want := make([]uint32, in)
			prg.New(prg.Seed(q.seed.Key)).Fill(ring.Q4(), want, at)
			if !slices.Equal(want, q.words.Row(0)) {
				t.Error("another row")
			}
			at += uint64(q.words.Rows)
		}
		if at != n {
			t.Errorf("%d rows of seeds", at)
		}
	}
}

// TestRoleFails: of several clouds the one that fails is named, at once, and the
// others serve on.
func TestRoleFails(t *testing.T) {
	t.Parallel()
	refusal := &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, Message: "later"}
	for _, test := range []struct {
		name   string
		answer func(*call) error
		want   error
	}{
		{"silent", func(c *call) error { <-c.stream.Context().Done(); return nil }, hostclient.ErrTimeout},
		{"gone", func(c *call) error { return errEnd }, hostclient.ErrUnavailable},
		{"answers half", func(c *call) error { return c.reply(c.req.ID, c.y.Data[len(c.y.Data)/2:]) }, hostclient.ErrBadAnswer},
		{"answers another call", func(c *call) error { return c.reply(c.req.ID+1, c.y.Data) }, hostclient.ErrBadAnswer},
		{"refuses", func(c *call) error { return c.refuse(refusal) }, refusal},
	} {
		for of, role := range []int{0, 1, 0, 1, 2} {
			scheme := shared[min(of/2, 1)]
			t.Run(fmt.Sprintf("%s, %v, role %d", test.name, scheme, role), func(t *testing.T) {
				t.Parallel() // it waits
				r := newRig(t, nets()["mlp"], scheme)
				o := hostclient.Options{Timeout: time.Minute}
				if test.want == hostclient.ErrTimeout {
					o.Timeout = late
				}
				s := r.open(t, o)
				r.clouds[role].behave(test.answer)
				if test.want != hostclient.ErrTimeout {
					// They would be waited for, were the other's failure not the end.
					for other, c := range r.clouds {
						if other != role {
							c.behave(func(c *call) error { <-c.stream.Context().Done(); return nil })
						}
					}
				}
				start := time.Now()
				y, err := s.Infer(t.Context(), make([]float32, 7), 1)
				if y != nil || time.Since(start) > 30*time.Second {
					t.Errorf("%v after %v", y, time.Since(start))
				}
				var failed *hostclient.CloudError
				if !errors.As(err, &failed) || failed.Role != role || failed.Addr != r.clients[role].Addr() {
					t.Errorf("%v, want role %d named", err, role)
				}
				if want, ok := test.want.(*wire.Error); ok {
					var refused *wire.Error
					if !errors.As(err, &refused) || *refused != *want {
						t.Errorf("%v, want %v", err, want)
					}
				} else if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			})
		}
	}
	// Two that are silent are both named.
	r := newRig(t, nets()["mlp"], split)
	s := r.open(t, hostclient.Options{Timeout: 200 * time.Millisecond})
	for _, c := range r.clouds {
		c.behave(func(c *call) error { <-c.stream.Context().Done(); return nil })
	}
	_, err := s.Infer(t.Context(), make([]float32, 7), 1)
	for _, c := range r.clients {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.Addr())) {
			t.Errorf("%v, want %s named", err, c.Addr())
		}
	}
}

// broken loads nothing.
type broken struct{}

func (broken) Load(context.Context, ring.Ring, plan.Op, ring.Matrix) (plan.Product, error) {
	return nil, errEnd
}

// TestLiarNamed: of several clouds the one that lied is named and quarantined, the
// others are not, where the host can compute a sample again; else all are.
func TestLiarNamed(t *testing.T) {
	lie := func(c *call) error {
		if c.req.Layer == 1 {
			c.y.Row(2)[1] = c.ring.Add(c.y.Row(2)[1], 1)
		}
		return c.honest()
	}
	x := gaussian(rand.New(rand.NewPCG(23, 1)), 4*7)
	for _, test := range []struct {
		name   string
		scheme transform.Scheme
		liars  []int
		host   hostclient.Options
		named  []int // the first of which the error is of; nil: all are told, none named
	}{
		{"role 0", split, []int{0}, hostclient.Options{Multiplier: kernel}, []int{0}},
		{"role 1", split, []int{1}, hostclient.Options{Multiplier: kernel}, []int{1}},
		{"role 0, no multiplier", split, []int{0}, hostclient.Options{}, nil},
		{"role 1, no multiplier", split, []int{1}, hostclient.Options{}, nil},
		{"role 1, a multiplier that fails", split, []int{1}, hostclient.Options{Multiplier: broken{}}, nil},
		{"lagrange, role 0", lagrange, []int{0}, hostclient.Options{Multiplier: kernel}, []int{0}},
		{"lagrange, role 1", lagrange, []int{1}, hostclient.Options{Multiplier: kernel}, []int{1}},
		{"lagrange, role 2", lagrange, []int{2}, hostclient.Options{Multiplier: kernel}, []int{2}},
		// What they add does not cancel out: y_0 + y_1 - y_2.
		{"lagrange, roles 0 and 1", lagrange, []int{0, 1}, hostclient.Options{Multiplier: kernel}, []int{0, 1}},
		{"lagrange, no multiplier", lagrange, []int{2}, hostclient.Options{}, nil},
		{"lagrange, a multiplier that fails", lagrange, []int{0}, hostclient.Options{Multiplier: broken{}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nets()["mlp"], test.scheme)
			s := r.open(t, test.host)
			for _, role := range test.liars {
				r.clouds[role].behave(lie)
			}
			y, err := s.Infer(t.Context(), x, 4)
			var rejected *verify.RejectedError
			if y != nil || !errors.As(err, &rejected) || !slices.Equal(rejected.Samples, []int{2}) {
				t.Fatal(err)
			}
			var liar *hostclient.CloudError
			if one := errors.As(err, &liar); one != (test.named != nil) {
				t.Errorf("one named: %t: %v", one, err)
			} else if one && liar.Role != test.named[0] {
				t.Errorf("role %d named", liar.Role)
			}
			// Who is quarantined is not asked again, not even by another session.
			for role, client := range r.clients {
				asked := r.clouds[role].requests.Load()
				barred := test.named == nil || slices.Contains(test.named, role)
				fresh := &rig{models: r.models, secret: r.secret}
				for _, c := range r.clouds {
					fresh.clients = append(fresh.clients, dial(t, c))
					c.behave(nil)
				}
				fresh.clients[role] = client
				_, err := fresh.open(t, hostclient.Options{}).Infer(t.Context(), x, 4)
				var at *hostclient.CloudError
				if barred && (!errors.Is(err, hostclient.ErrQuarantined) || !errors.As(err, &at) || at.Role != role) || !barred && err != nil {
					t.Errorf("role %d: %v", role, err)
				}
				if barred && r.clouds[role].requests.Load() != asked {
					t.Errorf("role %d was asked again", role)
				}
			}
		})
	}
	// Two errors that differ are two liars.
	r := newRig(t, nets()["mlp"], split)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	r.clouds[0].behave(func(c *call) error { clear(c.y.Data); return c.honest() })
	r.clouds[1].behave(func(c *call) error { c.y.Data[0] = c.ring.Add(c.y.Data[0], 1); return c.honest() })
	if _, err := s.Infer(t.Context(), x, 4); !errors.Is(err, verify.ErrRejected) ||
		!bytes.Contains([]byte(err.Error()), []byte("role 0 at")) || !bytes.Contains([]byte(err.Error()), []byte("role 1 at")) {
		t.Error(err)
	}
}

// Lies that cancel out leave the right answer, which passes: with two liars the verdict says
// something of both, which is why agreeing on how to lie counts as collusion.
func TestLiesThatCancelOut(t *testing.T) {
	x := gaussian(rand.New(rand.NewPCG(23, 3)), 4*7)
	for _, scheme := range shared {
		r := newRig(t, nets()["mlp"], scheme)
		want := r.want(t, x, 4)
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		r.clouds[0].behave(func(c *call) error { c.y.Data[5] = c.ring.Add(c.y.Data[5], 7); return c.honest() })
		r.clouds[1].behave(func(c *call) error {
			if scheme == split { // y_0 - y_1
				c.y.Data[5] = c.ring.Add(c.y.Data[5], 7)
			} else { // y_0 + y_1 - y_2
				c.y.Data[5] = c.ring.Sub(c.y.Data[5], 7)
			}
			return c.honest()
		})
		if y := infer(t, s, x, 4); !slices.Equal(bits(y), bits(want)) || s.Stats().Rejected != 0 {
			t.Errorf("%v: another result, or %d rejected", scheme, s.Stats().Rejected)
		}
		r.clouds[1].behave(nil)
		if _, err := s.Infer(t.Context(), x, 4); !errors.Is(err, verify.ErrRejected) || !r.clients[0].Quarantined() || r.clients[1].Quarantined() {
			t.Errorf("%v, one lie of the two: %v", scheme, err)
		}
	}
}

// ending loads as the kernel does, once it has ended the call that asks for it.
type ending struct{ end func() }

func (m ending) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	m.end()
	return kernel.Load(ctx, r, op, w)
}

// A call that ends while it is seen who lied, as by a failure of another part of the batch,
// accuses nobody else.
func TestLiarNamedThoughCallEnds(t *testing.T) {
	r := newRig(t, nets()["mlp"], split)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := r.open(t, hostclient.Options{Multiplier: ending{cancel}})
	r.clouds[1].behave(func(c *call) error { clear(c.y.Data); return c.honest() })
	x := gaussian(rand.New(rand.NewPCG(23, 2)), 7)
	_, err := s.Infer(ctx, x, 1)
	var liar *hostclient.CloudError
	if !errors.Is(err, verify.ErrRejected) || !errors.As(err, &liar) || liar.Role != 1 {
		t.Errorf("%v, want role 1 named", err)
	}
	fresh := &rig{models: r.models, secret: r.secret, clients: []*hostclient.Client{r.clients[0], dial(t, r.clouds[1])}}
	r.clouds[1].behave(nil)
	if _, err := fresh.open(t, hostclient.Options{}).Infer(t.Context(), x, 1); err != nil {
		t.Errorf("role 0, which did not lie: %v", err)
	}
}

// A role's cloud, and its provider, is its own.
func TestRolesApart(t *testing.T) {
	r := newRig(t, nets()["mlp"], split)
	named := func(c *cloud, provider string) *hostclient.Client {
		client, err := hostclient.DialProvider(c.addr, provider)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
	detour := &cloud{addr: "unix:" + r.clouds[0].dir + "/./s"}
	a, b := r.clients[0], r.clients[1]
	for _, bad := range []struct {
		what    string
		clients []*hostclient.Client
		want    error
	}{
		{"one client twice", []*hostclient.Client{a, a}, hostclient.ErrOneProvider},
		{"two clients of one cloud", []*hostclient.Client{a, dial(t, r.clouds[0])}, hostclient.ErrOneProvider},
		{"two spellings of one cloud", []*hostclient.Client{a, dial(t, detour)}, hostclient.ErrOneProvider},
		{"two names of one cloud", []*hostclient.Client{named(r.clouds[0], "x"), named(r.clouds[0], "y")}, hostclient.ErrOneProvider},
		{"two clouds of one name", []*hostclient.Client{named(r.clouds[0], "x"), named(r.clouds[1], "x")}, hostclient.ErrOneProvider},
		{"roles exchanged", []*hostclient.Client{b, a}, hostclient.ErrProvider},
		{"one that was not given its role", []*hostclient.Client{a, dial(t, newCloud(t))}, hostclient.ErrProvider},
		{"one client", []*hostclient.Client{a}, hostclient.ErrMismatch},
		{"three clients", []*hostclient.Client{a, b, dial(t, newCloud(t))}, hostclient.ErrMismatch},
	} {
		if s, err := hostclient.Open(t.Context(), r.secret, r.models, bad.clients, hostclient.Options{}); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", bad.what, err)
			if err == nil {
				s.Close()
			}
		}
	}
}

func TestBind(t *testing.T) {
	_, secret := seal(t, nets()["mlp"], split)
	if d := secret.Describe(); d.Providers != nil {
		t.Errorf("bound to %q", d.Providers)
	}
	for _, step := range []struct {
		role     int
		provider string
		want     error
	}{
		{0, "a", nil}, {0, "a", nil}, {1, "a", hostclient.ErrProvider}, {1, "b", nil}, {0, "b", hostclient.ErrProvider},
		{0, "c", nil}, {1, "c", hostclient.ErrProvider},
		{2, "d", hostclient.ErrProvider}, {-1, "d", hostclient.ErrProvider}, {0, "", hostclient.ErrProvider},
	} {
		if err := secret.Bind(step.role, step.provider); !errors.Is(err, step.want) {
			t.Errorf("role %d to %q: %v", step.role, step.provider, err)
		}
	}
	want := [][]string{{"a", "c"}, {"b"}}
	if got := secret.Describe().Providers; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
	// A scheme of one role has nothing to bind.
	_, secret = seal(t, nets()["mlp"], permutePad)
	if err := errors.Join(secret.Bind(0, "a"), secret.Bind(0, "b")); err != nil || secret.Describe().Providers != nil {
		t.Errorf("%v, %q", err, secret.Describe().Providers)
	}
}

// A secret in which a provider has two roles, or none has a name, is refused.
func TestHostileProviders(t *testing.T) {
	_, of2 := seal(t, nets()["mlp"], split)
	if err := errors.Join(of2.Bind(0, "a"), of2.Bind(1, "b")); err != nil {
		t.Fatal(err)
	}
	_, of1 := seal(t, nets()["mlp"], permutePad)
	const of, key = `,"providers":[["a"],["b"]]`, "securenets.secret"
	for _, c := range []struct {
		secret    *hostclient.Secret
		providers string
		good      bool
	}{
		{of2, `[["a"],["b"]]`, true}, {of2, `[["a"],[]]`, true},
		{of2, `[["a"],["a"]]`, false}, {of2, `[["a","b"],["b"]]`, false}, {of2, `[["a","a"],["b"]]`, false}, {of2, `[[""],["b"]]`, false},
		{of2, `[["a","b"]]`, false}, {of2, `[["a"],["b"],["c"]]`, false},
		{of1, `[["a"]]`, false}, {of1, `[["a"],["b"]]`, false},
	} {
		plain, err := c.secret.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		f, err := safetensors.Parse(plain)
		if err != nil {
			t.Fatal(err)
		}
		header := strings.Replace(strings.TrimSuffix(f.Metadata[key], "}"), of, "", 1)
		f.Metadata[key] = header + `,"providers":` + c.providers + "}"
		if plain, err = f.Marshal(); err != nil {
			t.Fatal(err)
		}
		if _, err := hostclient.UnmarshalSecret(plain); (err == nil) != c.good {
			t.Errorf("%d roles, providers %s: %v", c.secret.Roles(), c.providers, err)
		}
	}
}

// Of three roles a provider has one, for good, and all three are bound or none.
func TestBindLagrange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], lagrange)
	id := identity(t)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		names string
		want  error
	}{
		{"ab", hostclient.ErrMismatch}, {"aba", hostclient.ErrProvider}, {"abb", hostclient.ErrProvider}, {"abc", nil},
		{"bca", hostclient.ErrProvider}, {"adb", hostclient.ErrProvider}, {"abd", nil}, {"dbc", hostclient.ErrProvider}, {"abcd", hostclient.ErrMismatch},
	} {
		if _, err := hostclient.BindDir(dir, clientsAt(t, strings.Split(step.names, "")...), []age.Identity{id}); !errors.Is(err, step.want) {
			t.Errorf("%s: %v", step.names, err)
		}
	}
	stored, err := hostclient.ReadSecret(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"a"}, {"b"}, {"c", "d"}}
	if got := stored.Describe().Providers; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
	if read, err := hostclient.ReadModels(dir); err != nil || len(read) != 3 {
		t.Errorf("%d models: %v", len(read), err)
	}
}

// clientsAt returns clients of named providers, whose clouds are not there.
func clientsAt(t *testing.T, names ...string) []*hostclient.Client {
	t.Helper()
	var clients []*hostclient.Client
	for i, name := range names {
		c, err := hostclient.DialProvider(fmt.Sprintf("unix:/nowhere/%s%d", name, i), name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	return clients
}

// BindDir keeps who has which role across processes, for all who could read the
// secret before, and never leaves half of it.
func TestBindDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], split)
	id, other := identity(t), identity(t)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient(), other.Recipient()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "secret.age")
	read := func() []byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bind := func(with age.Identity, names ...string) error {
		_, err := hostclient.BindDir(dir, clientsAt(t, names...), []age.Identity{with})
		return err
	}
	sealed := read()
	if err := bind(id, "a", "a"); !errors.Is(err, hostclient.ErrProvider) {
		t.Error(err)
	}
	if err := bind(identity(t), "a", "b"); !errors.Is(err, hostclient.ErrSecret) {
		t.Error(err)
	}
	if err := bind(id, "a"); !errors.Is(err, hostclient.ErrMismatch) {
		t.Error(err)
	}
	if !bytes.Equal(read(), sealed) {
		t.Fatal("written without need")
	}
	if err := bind(id, "a", "b"); err != nil {
		t.Fatal(err)
	}
	bound := read()
	if err := bind(other, "a", "b"); err != nil { // it may still read it
		t.Error(err)
	}
	if err := bind(other, "b", "a"); !errors.Is(err, hostclient.ErrProvider) {
		t.Error(err)
	}
	// Of two roles none is bound where one is refused.
	if err := bind(other, "c", "a"); !errors.Is(err, hostclient.ErrProvider) {
		t.Error(err)
	}
	if !bytes.Equal(read(), bound) {
		t.Error("written without need")
	}
	// Who is not written down must not be pushed to.
	if s, err := hostclient.BindDir(dir, clientsAt(t, "a", "d"), []age.Identity{id}, unwilling{}); s != nil || !errors.Is(err, errUnwilling) {
		t.Errorf("bound, and not written: %v", err)
	}
	if !bytes.Equal(read(), bound) {
		t.Error("half written")
	}
	again, err := hostclient.BindDir(dir, clientsAt(t, "a", "d"), []age.Identity{other})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"a"}, {"b", "d"}}
	if got := again.Describe().Providers; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
	stored, err := hostclient.ReadSecret(dir, id)
	if err != nil || !slices.EqualFunc(stored.Describe().Providers, want, slices.Equal) {
		t.Errorf("stored otherwise: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("%d files in the folder: %v", len(entries), err)
	}
}

// A record that is there already is made durable, too: a push follows.
func TestBindDirDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], split)
	id := identity(t)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	bind := func() error {
		_, err := hostclient.BindDir(dir, clientsAt(t, "a", "b"), []age.Identity{id})
		return err
	}
	defer hostclient.FailSyncDir(syscall.EIO)()
	for range 2 { // the second finds the record of the first, which may not survive
		if err := bind(); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	}
	hostclient.FailSyncDir(nil)
	if err := bind(); err != nil {
		t.Error(err)
	}
}

// Who binds at the same time waits, so that nothing is lost and nobody gets two roles.
func TestBindDirConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], split)
	id := identity(t)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		clients := clientsAt(t, "even", "odd")
		if i >= 4 {
			clients = clientsAt(t, "odd", "even")
		}
		wg.Go(func() { _, errs[i] = hostclient.BindDir(dir, clients, []age.Identity{id}) })
	}
	wg.Wait()
	first := errs[0] == nil
	for i, err := range errs {
		if won := first == (i < 4); won && err != nil || !won && !errors.Is(err, hostclient.ErrProvider) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// With a passphrase the caller says it again.
func TestBindDirPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], split)
	phrase, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	phrase.SetWorkFactor(10)
	with, err := age.NewScryptIdentity("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if err := hostclient.WriteDir(dir, secret, models, phrase); err != nil {
		t.Fatal(err)
	}
	clients, ids := clientsAt(t, "a", "b"), []age.Identity{with}
	if _, err := hostclient.BindDir(dir, clients, ids); !errors.Is(err, hostclient.ErrRecipients) {
		t.Error(err)
	}
	if _, err := hostclient.BindDir(dir, clients, ids, phrase); err != nil {
		t.Error(err)
	}
	if s, err := hostclient.ReadSecret(dir, with); err != nil || s.Describe().Providers == nil {
		t.Error(err)
	}
}

// TestOneSocketOfTwoNames: a link does not make two clouds of one.
func TestOneSocketOfTwoNames(t *testing.T) {
	c := newCloud(t)
	link := filepath.Join(c.dir, "l")
	if err := os.Symlink(strings.TrimPrefix(c.addr, "unix:"), link); err != nil {
		t.Fatal(err)
	}
	models, secret := seal(t, nets()["mlp"], transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputSplit})
	a, err := hostclient.Dial(c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := hostclient.Dial("unix:" + link)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for role, client := range []*hostclient.Client{a, b} {
		if err := secret.Bind(role, client.Provider()); err != nil {
			t.Fatal(err)
		}
	}
	_, err = hostclient.Open(t.Context(), secret, models, []*hostclient.Client{a, b}, hostclient.Options{})
	if !errors.Is(err, hostclient.ErrProvider) {
		t.Error(err)
	}
}

// TestWordsInFlight: what a call that was given up has yet to send arrives as it was
// masked, though calls since then were masked in memory of the same kind.
func TestWordsInFlight(t *testing.T) {
	for range 10 {
		if wordsInFlight(t) {
			return
		}
	}
	t.Fatal("no call is given up with words on their way")
}

// wordsInFlight reports whether the words of a call were on their way when it was given up.
func wordsInFlight(t *testing.T) bool {
	const in, n = 1 << 12, 200 // 3 MiB: more than a cloud that does not read takes
	rnd := rand.New(rand.NewPCG(23, 1))
	g := chain(graph.Vector(in), dense(rnd, in, 2))
	r, other := newRig(t, g, split), newRig(t, g, split)
	for _, r := range []*rig{r, other} { // words go by messages
		var err error
		if r.clients[0], err = hostclient.Dial(r.clouds[0].addr, hostclient.SharedMemory(0)); err != nil {
			t.Fatal(err)
		}
		defer r.clients[0].Close()
	}
	s, more := r.open(t, hostclient.Options{Parts: 1}), other.open(t, hostclient.Options{Parts: 1})
	x := gaussian(rnd, n*in)
	// difference is what request i was masked from, of those since the last time.
	difference := func(i, of int) []uint32 {
		t.Helper()
		words, seeds := r.clouds[0].take(), r.clouds[1].take()
		if len(words) != of || len(seeds) != of {
			t.Fatalf("%d and %d requests, want %d", len(words), len(seeds), of)
		}
		sub := make([]uint32, n*in)
		ring.Q4().SubVec(sub, words[i].words.Data, seeds[i].words.Data)
		return sub
	}
	infer(t, s, x, n)
	want := difference(0, 1)
	seeds := r.clouds[1].requests.Load()

	// Of two calls at once the cloud answers the first late, and reads the second then.
	asked, gate := make(chan struct{}, 1), make(chan struct{})
	r.clouds[0].behave(func(c *call) error {
		asked <- struct{}{}
		<-gate
		return c.honest()
	})
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := s.Infer(t.Context(), x[:in], 1); err != nil {
			t.Error(err)
		}
	})
	<-asked
	r.clouds[0].behave(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Infer(ctx, x, n)
		done <- err
	}()
	for end := time.Now().Add(time.Minute); r.clouds[1].requests.Load() < seeds+2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // the seed of their share comes when they are sent
			t.Fatal("the second call does not begin")
		}
	}
	time.Sleep(100 * time.Millisecond) // until the words are on their way, but for a stop of this process
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	sent := r.clients[0].Entries() == 2
	for range 5 {
		infer(t, more, gaussian(rnd, n*in), n)
	}
	close(gate)
	first.Wait()
	infer(t, s, x[:in], 1) // after the call that was given up
	if !sent {
		return false
	}
	if !slices.Equal(difference(1, 3), want) {
		t.Error("other words arrived than were masked")
	}
	return true
}
