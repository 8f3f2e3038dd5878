package hostclient_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil { // those that are parallel wait, mostly
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var (
	permute    = transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPermute}
	permutePad = transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPad}
	nonePad    = transform.Scheme{Weights: transform.WeightNone, Inputs: transform.InputPad}
	split      = transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputSplit}
	lagrange   = transform.Scheme{Weights: transform.WeightLagrange, Inputs: transform.InputLagrange}
	schemes    = transform.Schemes()
)

func newCloud(t testing.TB) *cloud {
	t.Helper()
	c, err := startCloud()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dial(t testing.TB, c *cloud) *hostclient.Client {
	t.Helper()
	client, err := hostclient.Dial(c.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func seal(t testing.TB, g *graph.Graph, s transform.Scheme) ([]hostclient.SealedModel, *hostclient.Secret) {
	t.Helper()
	models, secret, err := hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	return models, secret
}

// kernel multiplies for hosts.
var kernel = cpu.New(cpu.Options{})

func open(t testing.TB, secret *hostclient.Secret, models []hostclient.SealedModel, client *hostclient.Client, o hostclient.Options) *hostclient.Session {
	t.Helper()
	o.Multiplier = kernel
	return (&rig{clients: []*hostclient.Client{client}, models: models, secret: secret}).open(t, o)
}

// setup seals g, pushes it to clouds of its own, and opens a session. It returns
// the cloud and the client of role 0.
func setup(t testing.TB, g *graph.Graph, s transform.Scheme, o hostclient.Options) (*cloud, *hostclient.Client, *hostclient.Secret, *hostclient.Session) {
	t.Helper()
	r := newRig(t, g, s)
	o.Multiplier = kernel
	return r.clouds[0], r.clients[0], r.secret, r.open(t, o)
}

// rig is a sealed network that a cloud for every role holds.
type rig struct {
	clouds  []*cloud
	clients []*hostclient.Client
	models  []hostclient.SealedModel
	secret  *hostclient.Secret
}

func newRig(t testing.TB, g *graph.Graph, s transform.Scheme) *rig {
	t.Helper()
	r := &rig{}
	r.models, r.secret = seal(t, g, s)
	r.push(t)
	return r
}

// push gives every role to a cloud of its own.
func (r *rig) push(t testing.TB) {
	t.Helper()
	for role, m := range r.models {
		c := newCloud(t)
		client := dial(t, c)
		if err := r.secret.Bind(role, client.Provider()); err != nil {
			t.Fatal(err)
		}
		if err := client.Push(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
		r.clouds, r.clients = append(r.clouds, c), append(r.clients, client)
	}
}

// throughFile writes the secret to a file and reads it back.
func (r *rig) throughFile(t testing.TB) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := r.secret.Encrypt(&file, identity.Recipient()); err != nil {
		t.Fatal(err)
	}
	if r.secret, err = hostclient.DecryptSecret(&file, identity); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open(t testing.TB, o hostclient.Options) *hostclient.Session {
	t.Helper()
	s, err := hostclient.Open(t.Context(), r.secret, r.models, r.clients, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func infer(t testing.TB, s *hostclient.Session, x []float32, n int) []float32 {
	t.Helper()
	y, err := s.Infer(t.Context(), x, n)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

func bits(v []float32) []uint32 {
	b := make([]uint32, len(v))
	for i, x := range v {
		b[i] = math.Float32bits(x)
	}
	return b
}

func xmax(secret *hostclient.Secret) []int32 {
	var v []int32
	for _, l := range secret.Describe().Layers {
		if l.Cloud != "" {
			v = append(v, l.XMax)
		}
	}
	return v
}

// Private inference is plain inference but for quantisation, which has a bound;
// masks change no bit of it, nor does the batch.
func TestPrivateEqualsPlain(t *testing.T) {
	for name, g := range nets() {
		t.Run(name, func(t *testing.T) {
			const n = 9
			in := g.Input.Len()
			x := gaussian(rand.New(rand.NewPCG(3, 4)), n*in)
			for i := range in {
				x[2*in+i] = 0 // a sample without a scale
			}
			var first []float32
			for _, scheme := range schemes {
				_, _, secret, s := setup(t, g, scheme, hostclient.Options{})
				y := infer(t, s, x, n)
				out := len(y) / n
				for i := range n {
					want, eps := plain(g, xmax(secret), x[i*in:(i+1)*in])
					if eps > 0.005*peak(want) {
						t.Fatalf("%v: a bound of %g says nothing", scheme, eps)
					}
					for j, v := range want {
						if d := math.Abs(float64(y[i*out+j]) - v); !(d <= eps) {
							t.Errorf("%v: sample %d, output %d is off by %g, at most %g", scheme, i, j, d, eps)
						}
					}
				}
				if first == nil {
					first = y
				} else if !slices.Equal(bits(first), bits(y)) {
					t.Errorf("%v: differs from %v", scheme, schemes[0])
				}
				s.SetBlock(4)
				if z := infer(t, s, x, n); !slices.Equal(bits(z), bits(y)) {
					t.Errorf("%v: in blocks differs", scheme)
				}
				for i := range n {
					if z := infer(t, s, x[i*in:(i+1)*in], 1); !slices.Equal(bits(z), bits(y[i*out:(i+1)*out])) {
						t.Errorf("%v: sample %d alone differs", scheme, i)
					}
				}
				layers := int64(len(xmax(secret)))
				if st := s.Stats(); st.Samples != 3*n || st.Checked != 3*n*layers || st.Rejected != 0 {
					t.Errorf("%v: %+v", scheme, st)
				}
			}
		})
	}
}

func TestTraffic(t *testing.T) {
	for _, scheme := range schemes {
		_, _, secret, s := setup(t, nets()["cnn"], scheme, hostclient.Options{})
		infer(t, s, make([]float32, 3*144), 3)
		var up, down int64
		for _, l := range secret.Describe().Layers {
			if l.Cloud == "" {
				continue
			}
			up += 3 * 4 * l.WordsUp
			down += 3 * 4 * l.WordsDown
			if scheme.WordRoles() < scheme.Roles() { // a seed
				up += 32
			}
		}
		if st := s.Stats(); st.BytesUp != up || st.BytesDown != down || up == 0 {
			t.Errorf("%v: %d up and %d down, want %d and %d", scheme, st.BytesUp, st.BytesDown, up, down)
		}
	}
}

// TestTimes: a cloud's account of its time is added up, that of the role that computed
// for longest, and no claim makes more of it than the calls took.
func TestTimes(t *testing.T) {
	const pause = 5 * time.Millisecond
	claim := func(queue, compute uint64) func(*call) error {
		return func(c *call) error {
			time.Sleep(pause)
			resp := &wire.Response{ID: c.req.ID, Words: wire.EncodeWords(c.ring, c.y.Data, nil), QueueNS: queue, ComputeNS: compute}
			defer resp.Free()
			return c.stream.SendMsg(resp)
		}
	}
	const calls = 3 * 2 // layers, parts of the batch
	for _, test := range []struct {
		name             string
		roles            []func(*call) error
		queued, computed time.Duration // of a call; -1: all that it took
	}{
		{"one role", []func(*call) error{claim(7, 9)}, 7, 9},
		{"no account", []func(*call) error{claim(0, 0)}, 0, 0},
		{"too much", []func(*call) error{claim(math.MaxUint64, math.MaxUint64)}, -1, -1},
		{"two roles", []func(*call) error{claim(20, 8), claim(6, 9)}, 6, 9},
		{"two roles, the other way", []func(*call) error{claim(7, 9), claim(20, 8)}, 7, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			scheme := permutePad
			if len(test.roles) == 2 {
				scheme = split
			}
			r := newRig(t, nets()["mlp"], scheme)
			s := r.open(t, hostclient.Options{Multiplier: kernel})
			s.SetBlock(2)
			for role, answer := range test.roles {
				r.clouds[role].behave(answer)
			}
			start := time.Now()
			infer(t, s, gaussian(rand.New(rand.NewPCG(7, 8)), 4*7), 4)
			took, st := time.Since(start), s.Stats()
			if st.Waited < calls*pause || st.Waited > took {
				t.Errorf("waited %v of %v", st.Waited, took)
			}
			for _, c := range []struct {
				what      string
				got, want time.Duration
			}{{"queued", st.Queued, test.queued}, {"computed", st.Computed, test.computed}} {
				if c.want >= 0 && c.got != calls*c.want || c.want < 0 && (c.got < calls*pause || c.got > st.Waited) {
					t.Errorf("%s for %v of %v, want %v a call", c.what, c.got, st.Waited, c.want)
				}
			}
		})
	}
}

func TestInput(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{RequireStock: true})
	if err := s.Precompute(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	good := make([]float32, 14)
	with := func(v float32) []float32 { b := slices.Clone(good); b[9] = v; return b }
	for _, bad := range []struct {
		what string
		x    []float32
		n    int
	}{
		{"short", good[:13], 2},
		{"long", append(slices.Clone(good), 0), 2},
		{"empty", nil, 0},
		{"count", good, 3},
		{"negative", good, -2},
		{"huge", good, math.MaxInt},
		{"NaN", with(float32(math.NaN())), 2},
		{"+Inf", with(float32(math.Inf(1))), 2},
		{"-Inf", with(float32(math.Inf(-1))), 2},
	} {
		y, err := s.Infer(t.Context(), bad.x, bad.n)
		if y != nil || !errors.Is(err, hostclient.ErrInput) {
			t.Errorf("%s: %v, %v", bad.what, y, err)
		}
		var sample *hostclient.SampleError
		if named := len(bad.x) == len(good) && bad.n == 2; errors.As(err, &sample) != named || named && (sample.Sample != 1 || sample.Err.Error() != "value 2 is not finite") {
			t.Errorf("%s: %v", bad.what, err)
		}
	}
	if st := s.Stats(); st.Stock != 2 || c.requests.Load() != 0 {
		t.Errorf("%d of 2 pads left, %d requests", st.Stock, c.requests.Load())
	}
}

// An activation that overflows is an error that names the sample, not a result, in
// layers that are sent and kept, whatever block the sample is in.
func TestOverflow(t *testing.T) {
	x := make([]float32, 4*36)
	for i := range 36 {
		x[3*36+i] = 1e30
	}
	for _, p := range []places{0b00, 0b11} {
		s := placed(t, nets()["squares"], permutePad, p).open(t, hostclient.Options{Multiplier: kernel})
		for _, block := range []int{1, 2, 3, 4} {
			s.SetBlock(block)
			_, err := s.Infer(t.Context(), x, 4)
			var sample *hostclient.SampleError
			if !errors.Is(err, hostclient.ErrInput) || !errors.As(err, &sample) || sample.Sample != 3 {
				t.Errorf("kept %b, blocks of %d: %v", p, block, err)
			}
		}
	}
}

func TestStock(t *testing.T) {
	ctx := t.Context()
	g := nets()["mlp"]
	x := gaussian(rand.New(rand.NewPCG(5, 6)), 10*7)
	_, _, _, s := setup(t, g, permutePad, hostclient.Options{})
	s.SetBlock(4)
	check := func(stock int, onTheSpot int64) {
		t.Helper()
		if st := s.Stats(); st.Stock != stock || st.OnTheSpot != onTheSpot {
			t.Errorf("stock %d, on the spot %d; want %d, %d", st.Stock, st.OnTheSpot, stock, onTheSpot)
		}
	}
	want := infer(t, s, x, 10)
	check(0, 10)
	if err := s.Precompute(ctx, 13); err != nil {
		t.Fatal(err)
	}
	check(13, 10)
	if y := infer(t, s, x[:3*7], 3); !slices.Equal(bits(y), bits(want[:3*5])) {
		t.Error("with stock differs")
	}
	check(10, 10)
	if y := infer(t, s, x, 10); !slices.Equal(bits(y), bits(want)) {
		t.Error("across sheets differs")
	}
	check(0, 10)
	if err := s.Precompute(ctx, 4); err != nil {
		t.Fatal(err)
	}
	if y := infer(t, s, x, 10); !slices.Equal(bits(y), bits(want)) {
		t.Error("running dry differs")
	}
	check(0, 16)
	if err := s.Precompute(ctx, 0); err != nil {
		t.Error(err)
	}
	check(0, 16)
}

func TestRequireStock(t *testing.T) {
	ctx := t.Context()
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{RequireStock: true})
	if err := s.Precompute(ctx, 3); err != nil {
		t.Fatal(err)
	}
	x := make([]float32, 4*7)
	if y, err := s.Infer(ctx, x, 4); y != nil || !errors.Is(err, hostclient.ErrNoPads) || !strings.Contains(err.Error(), "for 3 samples, and the batch has 4") {
		t.Errorf("%v, %v", y, err)
	}
	if st := s.Stats(); st.Stock != 3 || c.requests.Load() != 0 {
		t.Errorf("%d of 3 pads left, %d requests", st.Stock, c.requests.Load())
	}
	infer(t, s, x[:3*7], 3)
	if _, err := s.Infer(ctx, x[:7], 1); !errors.Is(err, hostclient.ErrNoPads) {
		t.Error(err)
	}

	// Schemes without pads know no stock.
	_, _, _, s = setup(t, nets()["mlp"], permute, hostclient.Options{RequireStock: true})
	if err := s.Precompute(ctx, 3); err != nil {
		t.Fatal(err)
	}
	infer(t, s, x, 4)
	if st := s.Stats(); st.Stock != 0 || st.OnTheSpot != 0 {
		t.Errorf("%+v", st)
	}
}

// Whatever the cloud does, the caller gets an error of the right kind and no
// value, and the pads of the call are gone.
func TestMisbehaviour(t *testing.T) {
	refusal := &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, Message: "later"}
	for _, test := range []struct {
		name   string
		answer func(*call) error
		want   error
	}{
		{"dies", func(c *call) error { go c.stop(); <-c.stream.Context().Done(); return nil }, hostclient.ErrUnavailable},
		{"ends the stream", func(c *call) error { return errEnd }, hostclient.ErrUnavailable},
		{"hangs", func(c *call) error { <-c.stream.Context().Done(); return nil }, hostclient.ErrTimeout},
		{"answers short", func(c *call) error { return c.reply(c.req.ID, c.y.Data[1:]) }, hostclient.ErrBadAnswer},
		{"answers long", func(c *call) error { return c.reply(c.req.ID, append(c.y.Data, 0)) }, hostclient.ErrBadAnswer},
		{"answers nothing", func(c *call) error { return c.reply(c.req.ID, nil) }, hostclient.ErrBadAnswer},
		{"answers fewer rows", func(c *call) error { return c.reply(c.req.ID, c.y.Row(0)) }, hostclient.ErrBadAnswer},
		{"answers without canon", func(c *call) error { c.y.Data[1] = ring.Q4().Modulus(); return c.honest() }, hostclient.ErrBadAnswer},
		{"answers another id", func(c *call) error { return c.reply(c.req.ID+1, c.y.Data) }, hostclient.ErrBadAnswer},
		{"sends what is no message", func(c *call) error { return c.stream.SendMsg(notAnAnswer) }, hostclient.ErrBadAnswer},
		{"refuses", func(c *call) error { return c.refuse(refusal) }, refusal},
		{"refuses all", func(c *call) error { return refusal.Status() }, refusal},
		{"lies in one word", func(c *call) error { c.y.Data[0] = c.ring.Add(c.y.Data[0], 1); return c.honest() }, verify.ErrRejected},
		{"lies in every word", func(c *call) error { clear(c.y.Data); return c.honest() }, verify.ErrRejected},
		{"swaps samples", func(c *call) error {
			y := slices.Concat(c.y.Row(1), c.y.Row(0))
			return c.reply(c.req.ID, y)
		}, verify.ErrRejected},
	} {
		for layer := range uint32(2) {
			t.Run(fmt.Sprintf("%s at layer %d", test.name, layer), func(t *testing.T) {
				var o hostclient.Options
				if test.want == hostclient.ErrTimeout {
					o.Timeout = 300 * time.Millisecond
				}
				c, _, _, s := setup(t, nets()["mlp"], permutePad, o)
				if err := s.Precompute(t.Context(), 5); err != nil {
					t.Fatal(err)
				}
				c.behave(func(c *call) error {
					if c.req.Layer == layer {
						return test.answer(c)
					}
					return c.honest()
				})
				x := gaussian(rand.New(rand.NewPCG(7, 8)), 2*7)
				y, err := s.Infer(t.Context(), x, 2)
				if y != nil {
					t.Error("values came back")
				}
				var refused *wire.Error
				switch want := test.want.(type) {
				case *wire.Error:
					if !errors.As(err, &refused) || *refused != *want {
						t.Errorf("got %v, want %v", err, want)
					}
				default:
					if !errors.Is(err, want) || errors.As(err, &refused) {
						t.Errorf("got %v, want %v", err, want)
					}
				}
				if st := s.Stats(); st.Stock != 3 || st.Samples != 0 {
					t.Errorf("%+v", st)
				}
				// An honest cloud is asked again, with other pads; a liar is not.
				c.behave(nil)
				if test.name == "dies" {
					if err := c.start(); err != nil {
						t.Fatal(err)
					}
				}
				asked := c.requests.Load()
				for range 50 {
					y, err = s.Infer(t.Context(), x[:7], 1)
					if !errors.Is(err, hostclient.ErrUnavailable) && !(o.Timeout != 0 && errors.Is(err, hostclient.ErrTimeout)) {
						break
					}
					time.Sleep(100 * time.Millisecond) // gRPC connects again in its own time, and a machine may be slow
				}
				if test.want == verify.ErrRejected {
					if y != nil || !errors.Is(err, hostclient.ErrQuarantined) || c.requests.Load() != asked {
						t.Errorf("a liar was asked again: %v", err)
					}
				} else if err != nil {
					t.Errorf("does not recover: %v", err)
				}
			})
		}
	}
}

var errEnd = errors.New("end")

// notAnAnswer has a text where a response has an error, and no error is in it.
var notAnAnswer = &pb.Error{Message: "x"}

// A rejection says which samples of the batch were wrong, in which layer, where.
func TestRejection(t *testing.T) {
	c, client, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	s.SetBlock(4)
	var batches int
	c.behave(func(c *call) error {
		if c.req.Layer == 1 {
			if batches++; batches == 2 {
				for _, i := range []int{1, 3} {
					c.y.Row(i)[2] = c.ring.Add(c.y.Row(i)[2], 1)
				}
			}
		}
		return c.honest()
	})
	_, err := s.Infer(t.Context(), make([]float32, 9*7), 9)
	var rejected *verify.RejectedError
	if !errors.As(err, &rejected) || !slices.Equal(rejected.Samples, []int{5, 7}) {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("layer 1: role 0 at %s: %v", client.Addr(), rejected); err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if st := s.Stats(); st.Rejected != 2 || st.Checked != 3*4+2*4 || st.Samples != 0 {
		t.Errorf("%+v", st)
	}
}

// Quarantine is the client's: no session asks the cloud again, and calls in
// flight end.
func TestQuarantine(t *testing.T) {
	c := newCloud(t)
	client := dial(t, c)
	models, secret := seal(t, nets()["mlp"], permutePad)
	if err := client.Push(t.Context(), models[0], nil); err != nil {
		t.Fatal(err)
	}
	one, other := open(t, secret, models, client, hostclient.Options{}), open(t, secret, models, client, hostclient.Options{})
	waiting := make(chan struct{})
	c.behave(func(c *call) error {
		if c.req.Rows == 1 { // is never answered
			close(waiting)
			return nil
		}
		clear(c.y.Data)
		return c.honest()
	})
	stuck := make(chan error)
	go func() {
		_, err := other.Infer(context.Background(), make([]float32, 7), 1)
		stuck <- err
	}()
	<-waiting
	x := gaussian(rand.New(rand.NewPCG(9, 9)), 2*7)
	if _, err := one.Infer(t.Context(), x, 2); !errors.Is(err, verify.ErrRejected) {
		t.Error(err)
	}
	if err := <-stuck; !errors.Is(err, hostclient.ErrQuarantined) {
		t.Error(err)
	}
	asked := c.requests.Load()
	if _, err := other.Infer(t.Context(), x, 2); !errors.Is(err, hostclient.ErrQuarantined) || c.requests.Load() != asked {
		t.Error(err)
	}
	if _, err := client.Info(t.Context()); err != nil {
		t.Error(err) // it may still be looked at
	}
}

// Every word that is sent is masked by a pad of its own: what the cloud sees of
// one input never repeats, and never shows the input.
func TestNoPadServesTwice(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	s.SetBlock(3)
	if err := s.Precompute(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	sample := gaussian(rand.New(rand.NewPCG(10, 1)), 7)
	for _, n := range []int{1, 5, 2, 7, 9, 1, 4} { // runs dry in between
		infer(t, s, slices.Repeat(sample, n), n)
		if n == 5 { // pads of a call that fails are lost, too
			c.behave(func(c *call) error { return c.refuse(&wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal}) })
			if _, err := s.Infer(t.Context(), slices.Repeat(sample, 2), 2); err == nil {
				t.Fatal("no error")
			}
			c.behave(nil)
		}
	}
	checkPadsOnce(t, c.take(), []int{31, 29})
}

// checkPadsOnce fails where of the rows that a cloud was sent of one input, so many of
// each layer, two were masked by one pad: they differ by the pads alone. Among random
// words of 31 bits, fewer than 2,000 of them, two are equal with chance 1 in 2,000;
// two pairs, in one place of two rows, practically never.
func checkPadsOnce(t *testing.T, sent []seen, want []int) {
	t.Helper()
	rows := map[uint32][][]uint32{}
	for _, q := range sent {
		for i := range q.words.Rows {
			rows[q.layer] = append(rows[q.layer], q.words.Row(i))
		}
	}
	for layer, n := range want {
		if len(rows[uint32(layer)]) != n {
			t.Fatalf("layer %d: %d rows seen, want %d", layer, len(rows[uint32(layer)]), n)
		}
	}
	for layer, rows := range rows {
		for i, a := range rows {
			for _, b := range rows[:i] {
				same := 0
				for k := range a {
					if a[k] == b[k] {
						same++
					}
				}
				if same > 1 {
					t.Errorf("layer %d: two rows share %d words", layer, same)
				}
			}
		}
	}
}

// A batch is cut to parts of one size, as many as are in work at once, and pads with it,
// whatever batches they were made for; each serves once.
func TestParts(t *testing.T) {
	for _, test := range []struct {
		parts, made int // what pads are made for at a time
		batches     []int
		want        [][]int // rows of the calls of a layer, for each batch
	}{
		{0, 0, []int{1, 63, 64, 65, 200}, [][]int{{1}, {63}, {32, 32}, {33, 32}, {100, 100}}},
		{1, 0, []int{64, 200}, [][]int{{64}, {200}}},
		{3, 0, []int{64, 95, 96, 100}, [][]int{{32, 32}, {48, 47}, {32, 32, 32}, {34, 34, 32}}},
		{0, 100, []int{100, 64, 64, 70}, [][]int{{50, 50}, {32, 18, 14}, {32, 4, 28}, {22, 35, 13}}},
	} {
		c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{Parts: test.parts, RequireStock: test.made > 0})
		sample, all := gaussian(rand.New(rand.NewPCG(10, 2)), 7), 0
		for _, n := range test.batches {
			all += n
		}
		for made := 0; test.made > 0 && made < all; made += test.made {
			if err := s.Precompute(t.Context(), test.made); err != nil {
				t.Fatal(err)
			}
		}
		var one []float32
		var sent []seen
		for i, n := range test.batches {
			y := infer(t, s, slices.Repeat(sample, n), n)
			if one == nil {
				one = slices.Clone(y[:len(y)/n])
			}
			if !slices.Equal(bits(y), bits(slices.Repeat(one, n))) {
				t.Errorf("%+v: batch %d differs", test, i)
			}
			var rows []int
			for _, q := range c.take() {
				sent = append(sent, q)
				if q.layer == 0 {
					rows = append(rows, q.words.Rows)
				}
			}
			slices.Sort(rows)
			if want := slices.Sorted(slices.Values(test.want[i])); !slices.Equal(rows, want) {
				t.Errorf("%d parts, batch of %d: calls of %v, want %v", test.parts, n, rows, want)
			}
		}
		checkPadsOnce(t, sent, []int{all, all})
	}
}

// A batch that no message holds is cut, both ways, and comes back whole.
func TestLargeBatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, shape := range [][2]int{{1 << 14, 4}, {4, 1 << 14}} {
		in, out := shape[0], shape[1]
		const n = 300 // of 64 KiB: 18.75 MiB
		g := chain(graph.Vector(in), dense(rnd, in, out))
		c, _, _, s := setup(t, g, nonePad, hostclient.Options{})
		s.SetBlock(n)
		x := make([]float32, n*in)
		for i := range x {
			x[i] = float32(i % 251)
		}
		y := infer(t, s, x, n)
		if asked := c.requests.Load(); asked != 2 {
			t.Errorf("%d requests", asked)
		}
		for _, i := range []int{0, 254, 255, 256, n - 1} {
			if z := infer(t, s, x[i*in:(i+1)*in], 1); !slices.Equal(bits(z), bits(y[i*out:(i+1)*out])) {
				t.Errorf("sample %d alone differs", i)
			}
		}
	}
}

// Answers may come in any order.
func TestOrder(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	rnd := rand.New(rand.NewPCG(13, 14))
	x := gaussian(rnd, 2*7)
	want := infer(t, s, x, 2)
	held := make(chan *call, 1)
	c.behave(func(c *call) error { // the first waits for the second
		select {
		case first := <-held:
			if err := c.honest(); err != nil {
				return err
			}
			return first.honest()
		default:
			held <- c
			return nil
		}
	})
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			y, err := s.Infer(context.Background(), x[i*7:(i+1)*7], 1)
			if err != nil || !slices.Equal(bits(y), bits(want[i*5:(i+1)*5])) {
				t.Errorf("sample %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// An answer that nobody waits for breaks the stream for all who do.
func TestAnsweredTwice(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	waiting := make(chan struct{})
	var once sync.Once // or the stream that is opened next may break, too
	c.behave(func(c *call) (err error) {
		if c.req.Rows == 2 {
			close(waiting)
			return nil
		}
		once.Do(func() { err = c.honest() })
		return errors.Join(err, c.honest())
	})
	done := make(chan error)
	go func() {
		_, err := s.Infer(context.Background(), make([]float32, 2*7), 2)
		done <- err
	}()
	<-waiting
	s.Infer(t.Context(), make([]float32, 7), 1) // may be through before
	if err := <-done; !errors.Is(err, hostclient.ErrBadAnswer) {
		t.Error(err)
	}
	c.behave(nil)
	infer(t, s, make([]float32, 7), 1)
}

func TestConcurrency(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	s.SetBlock(3)
	x := gaussian(rand.New(rand.NewPCG(15, 16)), 8*7)
	want := infer(t, s, x, 8)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := range 8 {
				if i == 0 {
					if err := s.Precompute(context.Background(), n); err != nil {
						t.Error(err)
					}
					continue
				}
				y, err := s.Infer(context.Background(), x[:(n+1)*7], n+1)
				if err != nil || !slices.Equal(bits(y), bits(want[:(n+1)*5])) {
					t.Errorf("%d samples: %v", n+1, err)
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	if made := int64(28); 8+5*36+int64(st.Stock) != made+st.OnTheSpot {
		t.Errorf("pads do not add up: %+v", st)
	}
	seen := map[string]bool{}
	for _, q := range c.take() {
		for i := range q.words.Rows {
			key := fmt.Sprint(q.layer, q.words.Row(i))
			if seen[key] {
				t.Error("one masked row was sent twice")
			}
			seen[key] = true
		}
	}
}

func TestCancel(t *testing.T) {
	c, client, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	x := make([]float32, 7)
	waiting := make(chan *call, 1)
	c.behave(func(c *call) error { waiting <- c; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Infer(ctx, x, 1)
		done <- err
	}()
	late := <-waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := client.Waiting(); n != 0 {
		t.Errorf("memory is held for %d answers", n)
	}
	// The answer that comes late, before the next one, harms nobody.
	var once sync.Once
	c.behave(func(c *call) (err error) {
		once.Do(func() { err = late.honest() })
		return errors.Join(err, c.honest())
	})
	infer(t, s, x, 1)

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c.behave(func(c *call) error { return nil })
	if _, err := s.Infer(ctx, x, 1); !errors.Is(err, hostclient.ErrTimeout) {
		t.Error(err)
	}
	cancel()
	if err := s.Precompute(ctx, 5); err == nil || s.Stats().Stock != 0 {
		t.Error(err)
	}
}

// TestAnswerOfFailedCall: what a call that failed waited for may still come, so its
// memory is no other call's.
func TestAnswerOfFailedCall(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // memory goes to who asks next
	c, client, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	infer(t, s, make([]float32, 7), 1)
	waiting := make(chan *call, 1)
	c.behave(func(c *call) error { waiting <- c; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Infer(ctx, make([]float32, 7), 1)
		done <- err
	}()
	<-waiting
	places := client.Destinations()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(places) != 1 {
		t.Fatalf("%d answers are waited for", len(places))
	}
	for range 100 {
		if &hostclient.AnswerMemory(len(places[0]))[0] == &places[0][0] {
			t.Fatal("another call has the memory")
		}
	}
}

func TestClose(t *testing.T) {
	c, client, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	if err := s.Precompute(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan struct{})
	c.behave(func(c *call) error { close(waiting); return nil })
	done := make(chan error)
	go func() {
		_, err := s.Infer(context.Background(), make([]float32, 7), 1)
		done <- err
	}()
	<-waiting
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, hostclient.ErrClosed) {
		t.Error(err)
	}
	if n := s.Stats().Stock; n != 0 {
		t.Errorf("pads of %d samples are kept", n)
	}
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrClosed) {
		t.Error(err)
	}
	if err := s.Precompute(t.Context(), 1); !errors.Is(err, hostclient.ErrClosed) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestClosedClient(t *testing.T) {
	_, client, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	infer(t, s, make([]float32, 7), 1)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrUnavailable) {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	ctx := t.Context()
	client := dial(t, newCloud(t))
	g := nets()["mlp"]
	models, secret := seal(t, g, permutePad)
	others, _ := seal(t, g, permutePad)
	damaged := slices.Clone(models)
	damaged[0].Bytes = slices.Clone(models[0].Bytes)
	damaged[0].Bytes[len(damaged[0].Bytes)-1] ^= 1
	elsewhere := slices.Clone(models)
	elsewhere[0].Role = 1
	clients := []*hostclient.Client{client}
	o := hostclient.Options{Multiplier: kernel}
	for _, bad := range []struct {
		what    string
		models  []hostclient.SealedModel
		clients []*hostclient.Client
	}{
		{"no models", nil, clients},
		{"two models", append(slices.Clone(models), models...), clients},
		{"no clients", models, nil},
		{"another seal", others, clients},
		{"damaged", damaged, clients},
		{"another role", elsewhere, clients},
		{"a nil client", models, []*hostclient.Client{nil}},
	} {
		if _, err := hostclient.Open(ctx, secret, bad.models, bad.clients, o); !errors.Is(err, hostclient.ErrMismatch) {
			t.Errorf("%s: %v", bad.what, err)
		}
	}
	spared := o
	spared.Spares = [][]*hostclient.Client{{client, nil}}
	if _, err := hostclient.Open(ctx, secret, models, clients, spared); !errors.Is(err, hostclient.ErrMismatch) {
		t.Errorf("a nil spare: %v", err)
	}
	if _, err := hostclient.Open(ctx, secret, models, clients, hostclient.Options{}); !errors.Is(err, hostclient.ErrMultiplier) {
		t.Error(err)
	}
	// A secret may name a model of another shape: it was written by who knows whom.
	others, _ = seal(t, nets()["cnn"], permutePad)
	plain, err := secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	plain = bytes.Replace(plain, []byte(models[0].Digest.String()), []byte(others[0].Digest.String()), 1)
	renamed, err := hostclient.UnmarshalSecret(plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostclient.Open(ctx, renamed, others, clients, o); !errors.Is(err, hostclient.ErrMismatch) {
		t.Error(err)
	}
	models, secret = seal(t, g, permute)
	s, err := hostclient.Open(ctx, secret, models, clients, hostclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Nothing is pushed and nobody listens: both are errors of their own.
func TestNotThere(t *testing.T) {
	c := newCloud(t)
	client := dial(t, c)
	models, secret := seal(t, nets()["mlp"], permutePad)
	s := open(t, secret, models, client, hostclient.Options{})
	var refused *wire.Error
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.As(err, &refused) || refused.Reason != wire.ReasonModelNotFound {
		t.Error(err)
	}
	c.stop()
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrUnavailable) {
		t.Error(err)
	}
}

// TestShortDeadline: a caller that has little time leaves the calls of others alone.
func TestShortDeadline(t *testing.T) {
	c, _, _, s := setup(t, nets()["mlp"], permutePad, hostclient.Options{})
	x := make([]float32, 7)
	asked, release := make(chan bool), make(chan bool)
	var once sync.Once
	c.behave(func(c *call) error {
		once.Do(func() { asked <- true; <-release })
		return c.honest()
	})
	patient := make(chan error)
	go func() {
		_, err := s.Infer(t.Context(), x, 1)
		patient <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Infer(ctx, x, 1)
	if !errors.Is(err, hostclient.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(release)
	if err := <-patient; err != nil {
		t.Error("the patient caller:", err)
	}
}

// TestNothingSent: calls that end before they are sent leave nothing behind.
func TestNothingSent(t *testing.T) {
	_, client, _, s := setup(t, nets()["mlp"], nonePad, hostclient.Options{})
	x := make([]float32, 7)
	infer(t, s, x, 1)
	before := client.Entries()
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Precompute(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 100 {
		if _, err := s.Infer(ctx, x, 1); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	infer(t, s, x, 1)
	// Some were sent: their late answers are still awaited, and dropped.
	for wait := time.Millisecond; client.Entries() > before; wait *= 2 {
		if wait > 5*time.Second {
			t.Fatalf("%d ids are kept, %d before", client.Entries(), before)
		}
		time.Sleep(wait)
	}
}

// TestOutputsOutOfRange: what leaves the range of float32 is an error, as it is
// between layers.
func TestOutputsOutOfRange(t *testing.T) {
	g := chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{3e38, 3e38}})
	_, _, _, s := setup(t, g, nonePad, hostclient.Options{})
	if y, err := s.Infer(t.Context(), []float32{0.5, 0.25, 3e38, 3e38}, 2); y != nil || !errors.Is(err, hostclient.ErrInput) {
		t.Errorf("%v, %v", y, err)
	}
}
