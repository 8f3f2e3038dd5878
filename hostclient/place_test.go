package hostclient_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// places is a set of layers that are kept, bit l for layer l.
type places uint

func (p places) kept(l int) bool { return p>>l&1 == 1 }

// costs are those of which p follows, different ones for each layer.
func (p places) costs(layers int) []hostclient.LayerCost {
	var costs []hostclient.LayerCost
	for l := range layers {
		n := int64(l + 1)
		c := hostclient.LayerCost{Batch: 1, WordsUp: n, WordsDown: 2 * n, Passes: 30 * n, Transport: 10 * n, Pads: 5 * n, Keep: 40 * n, Product: n}
		if p.kept(l) {
			c.Keep--
		}
		costs = append(costs, c)
	}
	return costs
}

// placed is newRig with some layers kept.
func placed(t testing.TB, g *graph.Graph, s transform.Scheme, p places) *rig {
	t.Helper()
	r := &rig{}
	var err error
	o := hostclient.SealOptions{Scheme: s}.Costing(p.costs(linear(g))...)
	if r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), o); err != nil {
		t.Fatal(err)
	}
	r.push(t)
	return r
}

// linear returns the number of layers.
func linear(g *graph.Graph) (n int) {
	for _, node := range g.Nodes {
		if _, ok := node.Op.(graph.Linear); ok {
			n++
		}
	}
	return n
}

// Whatever layers are kept, results are those of sending all, bit for bit, and the
// clouds get and see what is sent alone.
func TestPlaceChangesNothing(t *testing.T) {
	for name, g := range nets() {
		layers := linear(g)
		for _, scheme := range schemes {
			const n = 5
			x := gaussian(rand.New(rand.NewPCG(41, 1)), n*g.Input.Len())
			want := infer(t, newRig(t, g, scheme).open(t, hostclient.Options{Multiplier: kernel}), x, n)
			for p := range places(1 << layers) {
				what := fmt.Sprintf("%s, %v, kept %03b", name, scheme, p)
				r := placed(t, g, scheme, p)
				sent := 0
				for _, l := range r.secret.Describe().Layers {
					if l.Cloud != "" {
						sent++
					}
				}
				roles := scheme.Roles()
				if p == 1<<layers-1 {
					roles = 0
				}
				if r.secret.Roles() != roles || len(r.models) != roles {
					t.Fatalf("%s: %d roles, %d models", what, r.secret.Roles(), len(r.models))
				}
				for _, m := range r.models {
					parsed, err := sealed.Parse(m.Bytes)
					if err != nil || len(parsed.Plan.Ops) != sent {
						t.Fatalf("%s: %v, or not %d operators", what, err, sent)
					}
				}
				s := r.open(t, hostclient.Options{Multiplier: kernel, RequireStock: true})
				if err := s.Precompute(t.Context(), n); err != nil {
					t.Fatal(err)
				}
				if y := infer(t, s, x, n); !slices.Equal(bits(y), bits(want)) {
					t.Errorf("%s: other results", what)
				}
				st := s.Stats()
				if st.Checked != int64(n*sent) || st.Kept != int64(n*(layers-sent)) || st.Rejected != 0 || st.Stock != 0 || st.OnTheSpot != 0 {
					t.Errorf("%s: %+v", what, st)
				}
				for _, c := range r.clouds {
					if seen := c.take(); len(seen) != sent {
						t.Errorf("%s: %d requests for %d layers", what, len(seen), sent)
					}
				}
				// The same from its file.
				plain, err := r.secret.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				before := r.secret.Describe()
				if r.secret, err = hostclient.UnmarshalSecret(plain); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if d := r.secret.Describe(); !reflect.DeepEqual(d, before) {
					t.Errorf("%s: %+v became %+v", what, before, d)
				}
				if y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n); !slices.Equal(bits(y), bits(want)) {
					t.Errorf("%s: other results from a file", what)
				}
			}
		}
	}
}

func TestPlaceDescribed(t *testing.T) {
	g := nets()["cnn"]
	r := placed(t, g, permutePad, 0b101)
	d := r.secret.Describe()
	// By the costs of places: 40, 80 and 120 sent, 39, 80 and 119 kept, pads of 5, 10 and 15.
	if !reflect.DeepEqual(d.Placement, &hostclient.Placement{AllOnline: 240, AllOffline: 30, Online: 238, Offline: 10}) {
		t.Errorf("%+v", d.Placement)
	}
	costs := places(0b101).costs(3)
	l := 0
	for _, ld := range d.Layers {
		if ld.XMax == 0 {
			if ld.Kept || ld.Cost != nil {
				t.Errorf("%+v", ld)
			}
			continue
		}
		if kept := l != 1; ld.Kept != kept || (ld.Cloud == "") != kept || (ld.WordsUp+ld.WordsDown == 0) != kept || *ld.Cost != costs[l] || ld.MulAdds == 0 {
			t.Errorf("layer %d: %+v", l, ld)
		}
		l++
	}
	if all := newRig(t, g, permutePad).secret.Describe(); all.Placement != nil {
		t.Errorf("%+v of what was not measured", all.Placement)
	}
}

// A lie about what is sent is caught, and told with the network's number of the layer.
func TestPlaceLiar(t *testing.T) {
	r := placed(t, nets()["mlp"], split, 0b001)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	r.clouds[1].behave(func(c *call) error {
		if c.req.Layer == 1 {
			c.y.Row(1)[2] = c.ring.Add(c.y.Row(1)[2], 1)
		}
		return c.honest()
	})
	_, err := s.Infer(t.Context(), make([]float32, 3*7), 3)
	var from *hostclient.CloudError
	if !errors.Is(err, verify.ErrRejected) || !errors.As(err, &from) || from.Role != 1 || !strings.HasPrefix(err.Error(), "layer 2: ") {
		t.Error(err)
	}
}

// yielding lets others run after each product.
type yielding struct{ plan.Multiplier }

type yieldingProduct struct{ plan.Product }

func (m yielding) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	p, err := m.Multiplier.Load(ctx, r, op, w)
	return yieldingProduct{p}, err
}

func (p yieldingProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	err := p.Product.Evaluate(ctx, y, x)
	runtime.Gosched()
	return err
}

// Layers that are kept and sent by many calls at once share no memory.
func TestPlaceConcurrently(t *testing.T) {
	for _, name := range []string{"mlp", "cnn"} {
		g := nets()[name]
		r := placed(t, g, split, 0b101)
		s := r.open(t, hostclient.Options{Multiplier: yielding{kernel}})
		const n = 6
		x := gaussian(rand.New(rand.NewPCG(44, 1)), n*g.Input.Len())
		want := infer(t, s, x, n)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for i := range 30 {
					k := 1 + i%n
					y, err := s.Infer(t.Context(), x[:k*len(x)/n], k)
					if err != nil || !slices.Equal(bits(y), bits(want[:k*len(want)/n])) {
						t.Errorf("%s, %d samples: other results, or %v", name, k, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// A durable stock has pads of what is sent, and another placement's is not used.
func TestPlaceStock(t *testing.T) {
	g := nets()["mlp"]
	x := gaussian(rand.New(rand.NewPCG(42, 1)), 4*7)
	r := placed(t, g, permutePad, 0b010)
	root := t.TempDir()
	stock := &hostclient.DurableStock{Dir: filepath.Join(root, "pads"), JournalDir: filepath.Join(root, "burned"), MachineID: machine}
	o := hostclient.Options{Multiplier: kernel, Stock: stock, RequireStock: true}
	s := r.open(t, o)
	if err := s.Precompute(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = r.open(t, o)
	want := infer(t, newRig(t, g, permutePad).open(t, hostclient.Options{Multiplier: kernel}), x, 4)
	if y := infer(t, s, x, 4); !slices.Equal(bits(y), bits(want)) || s.StockDiscarded() != nil {
		t.Errorf("other results: %v", s.StockDiscarded())
	}
}

// Where all is kept nothing is asked for: no cloud, no pads, no stock.
func TestPlaceNothingSent(t *testing.T) {
	g := nets()["mlp"]
	r := placed(t, g, permutePad, 0b111)
	ctx := t.Context()
	id := identity(t)
	dir := t.TempDir()
	if err := hostclient.WriteDir(dir, r.secret, r.models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	secret, err := hostclient.ReadSecret(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostclient.Open(ctx, secret, nil, nil, hostclient.Options{}); !errors.Is(err, hostclient.ErrMultiplier) {
		t.Error(err)
	}
	if _, err := hostclient.Open(ctx, secret, nil, []*hostclient.Client{dial(t, newCloud(t))}, hostclient.Options{Multiplier: kernel}); !errors.Is(err, hostclient.ErrMismatch) {
		t.Error(err)
	}
	if err := secret.Bind(0, "anyone"); !errors.Is(err, hostclient.ErrProvider) {
		t.Error(err)
	}
	s, err := hostclient.Open(ctx, secret, nil, nil, hostclient.Options{
		Multiplier: kernel, RequireStock: true,
		Stock: &hostclient.DurableStock{Dir: filepath.Join(dir, "none"), JournalDir: filepath.Join(dir, "neither"), MachineID: machine},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Precompute(ctx, 3); err != nil || s.Stats().Stock != 0 {
		t.Error(err, s.Stats())
	}
	if y := infer(t, s, make([]float32, 2*7), 2); len(y) != 2*5 {
		t.Errorf("%d results", len(y))
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if y, err := s.Infer(cancelled, make([]float32, 7), 1); y != nil || !errors.Is(err, context.Canceled) {
		t.Error(y, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Infer(ctx, make([]float32, 7), 1); !errors.Is(err, hostclient.ErrClosed) {
		t.Error(err)
	}
}

// slow computes every product so many times.
type slow struct {
	plan.Multiplier
	times int
}

type slowProduct struct {
	plan.Product
	times int
}

func (s slow) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	p, err := s.Multiplier.Load(ctx, r, op, w)
	return slowProduct{p, s.times}, err
}

func (p slowProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	for range p.times {
		if err := p.Product.Evaluate(ctx, y, x); err != nil {
			return err
		}
	}
	return nil
}

// What a host measures decides: a convolution that permute unrolls to 25 times its
// input is kept, and a slow host sends even that.
func TestPlaceMeasured(t *testing.T) {
	rnd := rand.New(rand.NewPCG(43, 1))
	c := plan.Conv2D{H: 16, W: 16, C: 1, OutC: 1, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Top: 2, Left: 2, Bot: 2, Right: 2, Groups: 1}
	g := chain(graph.Shape{H: 16, W: 16, C: 1}, conv(rnd, c), graph.ReLU{}, graph.Reshape{To: graph.Vector(256)}, dense(rnd, 256, 2))
	measure := func(s transform.Scheme, m plan.Multiplier) hostclient.LayerDescription {
		_, secret, err := hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: s, Place: hostclient.PlaceAuto, Multiplier: m})
		if err != nil {
			t.Fatal(err)
		}
		return secret.Describe().Layers[0]
	}
	for _, scheme := range schemes {
		if testing.Short() && scheme != permute {
			continue
		}
		l := measure(scheme, kernel)
		up, down := int64(scheme.WordRoles()*256), int64(scheme.Roles()*256)
		if scheme == permute {
			up *= 25
			if !l.Kept {
				t.Errorf("sent: %+v", *l.Cost)
			}
		}
		if c := *l.Cost; c.Batch < 1 || c.Batch > 256 || c.WordsUp != up || c.WordsDown != down || c.Passes <= 0 || c.Transport <= 0 ||
			c.Keep < c.Product || c.Product <= 0 || (c.Pads > 0) != (scheme.Inputs == transform.InputPad) {
			t.Errorf("%v: %+v", scheme, c)
		}
	}
	if testing.Short() {
		return
	}
	if l := measure(permute, slow{kernel, 300}); l.Kept {
		t.Errorf("kept on a slow host: %+v", *l.Cost)
	}
}

// wrong errs in one word.
type wrong struct{ plan.Product }

func (p wrong) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	err := p.Product.Evaluate(ctx, y, x)
	y.Data[0] = ring.Q4().Add(y.Data[0], 1)
	return err
}

// faulty makes the i-th product that is loaded wrong.
type faulty struct{ at *int }

func (f faulty) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	p, err := kernel.Load(ctx, r, op, w)
	if *f.at--; *f.at == -1 {
		p = wrong{p}
	}
	return p, err
}

func TestPlaceErrors(t *testing.T) {
	g := nets()["mlp"]
	auto := hostclient.SealOptions{Place: hostclient.PlaceAuto, Multiplier: kernel}
	for _, bad := range []struct {
		what   string
		change func(*hostclient.SealOptions)
		want   error
	}{
		{"no multiplier", func(o *hostclient.SealOptions) { o.Multiplier = nil }, hostclient.ErrMultiplier},
		{"no such place", func(o *hostclient.SealOptions) { o.Place = "some" }, hostclient.ErrPlace},
		{"a multiplier that fails", func(o *hostclient.SealOptions) { o.Multiplier = broken{} }, errEnd},
		{"a masked product that is wrong", func(o *hostclient.SealOptions) { at := 1; o.Multiplier, o.Scheme = faulty{&at}, permute }, verify.ErrRejected},
		{"a product that is wrong", func(o *hostclient.SealOptions) { at := 0; o.Multiplier = faulty{&at} }, nil},
		{"no such link", func(o *hostclient.SealOptions) { o.Link = "pigeons" }, hostclient.ErrLink},
		{"no echo by TLS", func(o *hostclient.SealOptions) { o.Link, o.Echo = hostclient.LinkTLS, "tls:127.0.0.1:1" }, hostclient.ErrUnavailable},
		{"an echo by TLS at a socket", func(o *hostclient.SealOptions) { o.Link, o.Echo = hostclient.LinkTLS, "unix:s" }, nil},
		{"no echo there", func(o *hostclient.SealOptions) { o.Echo = "unix:" + filepath.Join(t.TempDir(), "none") }, hostclient.ErrUnavailable},
		{"no echo's address", func(o *hostclient.SealOptions) { o.Echo = "none" }, nil},
	} {
		o := auto
		bad.change(&o)
		models, secret, err := hostclient.Seal(t.Context(), model(g), o)
		if models != nil || secret != nil || err == nil || bad.want != nil && !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", bad.what, err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := hostclient.Seal(cancelled, model(g), auto); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// An emulator needs no placement: it sends nothing anyway.
	e, err := hostclient.NewEmulator(t.Context(), model(g), auto)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()

	r := placed(t, g, split, 0b010)
	if _, err := hostclient.Open(t.Context(), r.secret, r.models, r.clients, hostclient.Options{}); !errors.Is(err, hostclient.ErrMultiplier) {
		t.Error(err)
	}
}

// unshared has its connections be of no kind that memory can be shared by.
type unshared struct{ net.Listener }

func (l unshared) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// TestLinks: layers are placed by the link that sessions will use, measured in this process
// or with an echo elsewhere (here one of the test's), and the description says which that was.
func TestLinks(t *testing.T) {
	shared, socket, overTLS := hostclient.LinkShared, hostclient.LinkSocket, hostclient.LinkTLS
	for _, test := range []struct {
		link    hostclient.Link
		echo    string // of "unix", "unshared" and "tcp", or in this process
		measure []hostclient.Link
	}{
		{"", "", []hostclient.Link{shared, socket}},
		{shared, "unix", []hostclient.Link{shared, socket}},
		{socket, "", []hostclient.Link{socket, shared}},
		{socket, "unix", []hostclient.Link{socket, shared}},
		{shared, "unshared", []hostclient.Link{socket}},
		{overTLS, "", []hostclient.Link{overTLS}},
		{overTLS, "tcp", []hostclient.Link{overTLS}},
	} {
		what := fmt.Sprintf("link %q, echo %q", test.link, test.echo)
		o := hostclient.SealOptions{Scheme: nonePad, Place: hostclient.PlaceAuto, Multiplier: kernel, Link: test.link}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		if test.echo == "" {
			served <- nil
		} else {
			network, at, scheme := "unix", filepath.Join(t.TempDir(), "s"), "unix:"
			if test.echo == "tcp" {
				network, at, scheme = "tcp", "127.0.0.1:0", "tls:"
			}
			l, err := net.Listen(network, at)
			if err != nil {
				t.Fatal(err)
			}
			o.Echo = scheme + l.Addr().String()
			if test.echo == "unshared" {
				l = unshared{l}
			}
			go func() { served <- hostclient.ServeEcho(ctx, l) }()
		}
		_, secret, err := hostclient.Seal(ctx, model(nets()["mlp"]), o)
		cancel()
		if err := errors.Join(err, <-served); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if runtime.GOOS != "linux" {
			test.measure = slices.DeleteFunc(test.measure, func(l hostclient.Link) bool { return l == shared })
		}
		plain, err := secret.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if secret, err = hostclient.UnmarshalSecret(plain); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		d := secret.Describe()
		cost := map[hostclient.Link]hostclient.LinkCost{}
		var measured []hostclient.Link
		for _, c := range d.Placement.Links {
			if c.Message <= 0 || c.Word <= 0 {
				t.Errorf("%s: %+v", what, c)
			}
			cost[c.Link] = c
			measured = append(measured, c.Link)
		}
		if !slices.Equal(measured, test.measure) {
			t.Fatalf("%s: measured %q, want %q", what, measured, test.measure)
		}
		by := cost[test.measure[0]]
		for _, l := range d.Layers {
			if c := l.Cost; c != nil {
				// One message of the whole batch.
				want := by.Message/float64(c.Batch) + by.Word*float64(c.WordsUp+c.WordsDown)
				if math.Abs(float64(c.Transport)-want) > 1 {
					t.Errorf("%s: sending costs %d, want %.1f by %+v", what, c.Transport, want, by)
				}
			}
		}
	}
}

// A secret that keeps a layer is checked as if it came from an enemy.
func TestHostilePlacement(t *testing.T) {
	r := placed(t, nets()["mlp"], permutePad, 0b010)
	plain, err := r.secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	header := func(old, new string) func(*safetensors.File) {
		return func(f *safetensors.File) {
			h := strings.Replace(f.Metadata["securenets.secret"], old, new, 1)
			if h == f.Metadata["securenets.secret"] {
				t.Fatalf("no %q in %s", old, h)
			}
			f.Metadata["securenets.secret"] = h
		}
	}
	weights := func(change func(*safetensors.Tensor)) func(*safetensors.File) {
		return func(f *safetensors.File) {
			i := slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == "1.W" })
			change(&f.Tensors[i])
		}
	}
	_, all := seal(t, nets()["mlp"], permutePad)
	sent, err := all.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	fileOfAll, err := safetensors.Parse(sent)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*safetensors.File){
		"version 1":              header(`"version":2`, `"version":1`),
		"version 2 of version 1": func(f *safetensors.File) { *f = *fileOfAll; header(`"version":1`, `"version":2`)(f) },
		"one layer less":         header(`{"kept":true,`, `"x":{"kept":true,`),
		"sent":                   header(`"kept":true`, `"kept":false`),
		"no such link":           header(`}]}`, `}],"links":[{"link":"pigeons","message_ns":1,"word_ns":1}]}`),
		"one link twice":         header(`}]}`, `}],"links":[{"link":"tls","message_ns":1,"word_ns":1},{"link":"tls","message_ns":1,"word_ns":1}]}`),
		"a link that pays":       header(`}]}`, `}],"links":[{"link":"tls","message_ns":1,"word_ns":-1}]}`),
		"a link without end":     header(`}]}`, `}],"links":[{"link":"tls","message_ns":1e+16,"word_ns":1}]}`),
		"links in version 1": func(f *safetensors.File) {
			*f = *fileOfAll
			header(`]}`, `],"links":[{"link":"tls","message_ns":1,"word_ns":1}]}`)(f)
		},
		"another kept":           header(`"kept":false`, `"kept":true`),
		"no batch":               header(`"batch":1`, `"batch":0`),
		"costs below 0":          header(`"keep_ns":`, `"keep_ns":-`),
		"costs beyond":           header(`"passes_ns":`, `"passes_ns":99999999999999`),
		"a cost that is a float": header(`"pads_ns":5`, `"pads_ns":5.5`),
		"a cost more":            header(`"pads_ns":5`, `"more":0,"pads_ns":5`),
		"a cost less":            header(`"pads_ns":5,`, ``),
		"no digest":              header(`"digests":["`, `"digests":[],"x":["`),
		"weights short": weights(func(t *safetensors.Tensor) {
			t.Shape = []int{t.Shape[0] - 1}
			t.Data = t.Data[:len(t.Data)-4]
		}),
		"weights not canonical": weights(func(t *safetensors.Tensor) { copy(t.Data, []byte{0xff, 0xff, 0xff, 0xff}) }),
		"a weight of M, for 0":  weights(func(t *safetensors.Tensor) { binary.LittleEndian.PutUint32(t.Data, ring.Q4().Modulus()) }),
		"weights too large":     weights(func(t *safetensors.Tensor) { copy(t.Data, []byte{0, 0, 0, 0x40}) }),
		"weights as integers":   weights(func(t *safetensors.Tensor) { t.DType = safetensors.I32 }),
		"weights of the layer before": func(f *safetensors.File) {
			i := slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == "1.W" })
			f.Tensors[i].Name = "0.W"
		},
	} {
		f, err := safetensors.Parse(slices.Clone(plain))
		if err != nil {
			t.Fatal(err)
		}
		change(f)
		b, err := f.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := hostclient.UnmarshalSecret(b); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	f, err := safetensors.Parse(slices.Clone(plain))
	if err != nil {
		t.Fatal(err)
	}
	header(`"version":2`, `"version":3`)(f)
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostclient.UnmarshalSecret(b); !errors.Is(err, hostclient.ErrSecretVersion) {
		t.Error(err)
	}
	if bytes.Contains(sent, []byte("placement")) || !bytes.Contains(sent, []byte(`\"version\":1`)) {
		t.Error("a secret without costs is not of version 1")
	}
}

// Weights that a secret keeps may reach the bound of spec.md, (1), and then give right
// products; beyond it they are refused.
func TestKeptBound(t *testing.T) {
	g := chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{1, 1}})
	r := placed(t, g, nonePad, 1)
	plain, err := r.secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	x := int64(r.secret.Describe().Layers[0].XMax)
	budget := int64(ring.Q4().Max()) / x
	for _, test := range []struct {
		w     [2]int64
		taken bool
	}{{[2]int64{budget, 0}, true}, {[2]int64{budget + 1, 0}, false}, {[2]int64{-budget, 0}, true}, {[2]int64{budget - 1, -1}, true}, {[2]int64{budget, -1}, false}} {
		f, err := safetensors.Parse(slices.Clone(plain))
		if err != nil {
			t.Fatal(err)
		}
		named := func(name string) int {
			return slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == name })
		}
		scales, err := safetensors.Values[float32](f.Tensors[named("0.scale")])
		if err != nil {
			t.Fatal(err)
		}
		f.Tensors[named("0.W")] = safetensors.New("0.W", []uint32{ring.Q4().FromSigned(int32(test.w[0])), ring.Q4().FromSigned(int32(test.w[1]))}, 2)
		b, err := f.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		secret, err := hostclient.UnmarshalSecret(b)
		if (err == nil) != test.taken {
			t.Errorf("weights %d of at most %d: %v", test.w, budget, err)
		}
		if err != nil {
			continue
		}
		s, err := hostclient.Open(t.Context(), secret, nil, nil, hostclient.Options{Multiplier: kernel})
		if err != nil {
			t.Fatal(err)
		}
		y := infer(t, s, []float32{1, -1}, 1)
		if want := float64(test.w[0]-test.w[1]) * float64(scales[0]); math.Abs(float64(y[0])-want) > 1e-5*math.Abs(want) {
			t.Errorf("weights %d: %g, want %g", test.w, y[0], want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestParseLink(t *testing.T) {
	for _, l := range hostclient.Links() {
		if got, err := hostclient.ParseLink(string(l)); got != l || err != nil {
			t.Error(got, err)
		}
	}
	for _, text := range []string{"", "TLS", "unix", strings.Repeat("x", 1000)} {
		if _, err := hostclient.ParseLink(text); !errors.Is(err, hostclient.ErrLink) || len(err.Error()) > 120 {
			t.Error(err)
		}
	}
}

func TestParsePlace(t *testing.T) {
	for _, p := range []hostclient.Place{hostclient.PlaceAll, hostclient.PlaceAuto} {
		if got, err := hostclient.ParsePlace(string(p)); got != p || err != nil {
			t.Error(got, err)
		}
	}
	for _, text := range []string{"", "Auto", "none", strings.Repeat("x", 1000)} {
		if _, err := hostclient.ParsePlace(text); !errors.Is(err, hostclient.ErrPlace) || len(err.Error()) > 120 {
			t.Error(err)
		}
	}
}
