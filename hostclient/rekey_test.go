package hostclient_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	mathbig "math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

const fieldP = 1<<52 - 47

// contents returns the plaintext of a secret's file.
func contents(t testing.TB, s *hostclient.Secret) *safetensors.File {
	t.Helper()
	plain, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// vector returns a tensor of a secret's file, nil where there is none of that name.
func vector[T safetensors.Element](t testing.TB, f *safetensors.File, name string) []T {
	t.Helper()
	i := slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	v, err := safetensors.Values[T](f.Tensors[i])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// changed returns the secret whose file is that of s with a change.
func changed(t testing.TB, s *hostclient.Secret, change func(*safetensors.File)) *hostclient.Secret {
	t.Helper()
	f := contents(t, s)
	change(f)
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := hostclient.UnmarshalSecret(b)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// geometries are convolutions of every kind. Under permute, which unrolls them on the
// host, those of several groups cannot be sealed.
func geometries() map[string]*graph.Graph {
	rnd := rand.New(rand.NewPCG(51, 1))
	of := func(c plan.Conv2D) *graph.Graph {
		return chain(graph.Shape{H: c.H, W: c.W, C: c.C}, conv(rnd, c), graph.ReLU{})
	}
	return map[string]*graph.Graph{
		"1x1":       of(plan.Conv2D{H: 3, W: 4, C: 5, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
		"stride":    of(plan.Conv2D{H: 8, W: 8, C: 1, OutC: 2, KH: 3, KW: 3, SH: 4, SW: 2, DH: 1, DW: 1, Groups: 1}),
		"dilation":  of(plan.Conv2D{H: 9, W: 9, C: 2, OutC: 2, KH: 3, KW: 2, SH: 1, SW: 2, DH: 2, DW: 3, Top: 2, Bot: 3, Left: 1, Right: 2, Groups: 1}),
		"groups":    of(plan.Conv2D{H: 5, W: 5, C: 6, OutC: 9, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 3}),
		"depthwise": of(plan.Conv2D{H: 5, W: 4, C: 7, OutC: 7, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Right: 1, Groups: 7}),
	}
}

// adjoint returns S·W mod P by the definition in package plan, in math/mathbig.
func adjoint(op plan.Op, s []uint64, w []int64) []uint64 {
	c := op.AsConv()
	cg, og := c.C/c.Groups, c.OutC/c.Groups
	sums := make([]*mathbig.Int, op.InLen())
	for i := range sums {
		sums[i] = new(mathbig.Int)
	}
	for o, e := range s {
		p, q, k := o/c.OutC/c.OutW(), o/c.OutC%c.OutW(), o%c.OutC
		for j := range op.Terms() {
			a, b, i := j/cg/c.KW, j/cg%c.KW, j%cg
			h, v := p*c.SH+a*c.DH-c.Top, q*c.SW+b*c.DW-c.Left
			if h < 0 || h >= c.H || v < 0 || v >= c.W {
				continue
			}
			term := new(mathbig.Int).Mul(new(mathbig.Int).SetUint64(e), mathbig.NewInt(w[k*op.Terms()+j]))
			at := (h*c.W+v)*c.C + k/og*cg + i
			sums[at].Add(sums[at], term)
		}
	}
	out, p := make([]uint64, len(sums)), mathbig.NewInt(fieldP)
	for i, sum := range sums {
		out[i] = sum.Mod(sum, p).Uint64()
	}
	return out
}

// quantised returns the integers of weights by the definition of the spec, section 3.
func quantised(op plan.Op, w, scale []float32) []int64 {
	q := make([]int64, len(w))
	for i, v := range w {
		q[i] = int64(math.RoundToEven(float64(v) * (1 / float64(scale[i/op.Terms()]))))
	}
	return q
}

// Under every scheme, ring and shape S and V are others, V is that of S and the network's
// own weights, all else is the same byte for byte, and so are results.
func TestRekey(t *testing.T) {
	all := geometries()
	for name, g := range nets() {
		all[name] = g
	}
	for name, g := range all {
		for _, scheme := range schemes {
			for _, in := range hostclient.Rings() {
				what := fmt.Sprintf("%s, %v, %s", name, scheme, in)
				r := &rig{}
				var err error
				r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: scheme, Ring: in})
				if scheme == permute && (name == "groups" || name == "depthwise") {
					if !errors.Is(err, transform.ErrUnsupported) {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				r.push(t)
				const n = 3
				x := gaussian(rand.New(rand.NewPCG(52, 1)), n*g.Input.Len())
				want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n)

				before := contents(t, r.secret)
				var steps [][2]int
				again, err := r.secret.Rekey(t.Context(), r.models, func(done, total int) { steps = append(steps, [2]int{done, total}) })
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if layers := linear(g); len(steps) != layers || steps[layers-1] != [2]int{layers, layers} {
					t.Errorf("%s: progress %v", what, steps)
				}
				if !reflect.DeepEqual(contents(t, r.secret), before) {
					t.Errorf("%s: the old secret has changed", what)
				}
				after := contents(t, again)
				if !reflect.DeepEqual(after.Metadata, before.Metadata) || len(after.Tensors) != len(before.Tensors) {
					t.Fatalf("%s: another header, or other tensors", what)
				}
				for i, a := range after.Tensors {
					drawn := strings.HasSuffix(a.Name, ".S") || strings.HasSuffix(a.Name, ".V")
					if same := reflect.DeepEqual(a, before.Tensors[i]); same == drawn || a.Name != before.Tensors[i].Name {
						t.Errorf("%s: %s is the same: %t", what, a.Name, same)
					}
				}
				l := 0
				for _, node := range g.Nodes {
					op, ok := node.Op.(graph.Linear)
					if !ok {
						continue
					}
					of := func(name string) string { return fmt.Sprintf("%d.%s", l, name) }
					s, v := vector[uint64](t, after, of("S")), vector[uint64](t, after, of("V"))
					same := 0
					for i, e := range vector[uint64](t, before, of("S")) {
						if e == s[i] {
							same++
						}
					}
					if same > 0 {
						t.Errorf("%s: %d elements of %s are not drawn anew", what, same, of("S"))
					}
					w := quantised(op.Plan(), op.Weights(), vector[float32](t, after, of("scale")))
					if !slices.Equal(adjoint(op.Plan(), s, w), v) {
						t.Errorf("%s: %s is not S·W", what, of("V"))
					}
					l++
				}
				r.secret = again
				if y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n); !slices.Equal(bits(y), bits(want)) {
					t.Errorf("%s: other results", what)
				}
			}
		}
	}
}

// Whatever layers are kept, those that are sent have new vectors, and all stay in their place.
func TestRekeyPlaced(t *testing.T) {
	g := nets()["cnn"]
	for _, scheme := range schemes {
		for p := range places(1 << linear(g)) {
			r := placed(t, g, scheme, p)
			const n = 2
			x := gaussian(rand.New(rand.NewPCG(53, 1)), n*g.Input.Len())
			want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n)
			before := contents(t, r.secret)
			again, err := r.secret.Rekey(t.Context(), r.models, nil)
			if err != nil {
				t.Fatalf("%v, kept %03b: %v", scheme, p, err)
			}
			if a, b := again.Describe(), r.secret.Describe(); !reflect.DeepEqual(a, b) {
				t.Errorf("%v, kept %03b: %+v became %+v", scheme, p, b, a)
			}
			after := contents(t, again)
			for l := range linear(g) {
				for _, name := range []string{fmt.Sprintf("%d.S", l), fmt.Sprintf("%d.V", l)} {
					a, b := vector[uint64](t, before, name), vector[uint64](t, after, name)
					if kept := p.kept(l); kept != (a == nil) || kept != slices.Equal(a, b) {
						t.Errorf("%v, kept %03b: %s", scheme, p, name)
					}
				}
			}
			r.secret = again
			if y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n); !slices.Equal(bits(y), bits(want)) {
				t.Errorf("%v, kept %03b: other results", scheme, p)
			}
		}
	}
}

// forge returns d, not zero and of at most limit in magnitude, with S·d = 0 mod P: what
// who knows S may add to an answer. The first two elements of all such d with the third
// zero are a lattice of determinant P, of which Gauss finds a short basis; with a third
// element given, they are a point of the plane less the lattice's nearest.
func forge(t testing.TB, s []uint64, limit int64) [3]int64 {
	t.Helper()
	p := mathbig.NewInt(fieldP)
	mod := func(a *mathbig.Int) int64 { return a.Mod(a, p).Int64() }
	inverse := new(mathbig.Int).ModInverse(new(mathbig.Int).SetUint64(s[0]), p)
	if inverse == nil {
		t.Fatal("S has a zero")
	}
	// over returns c with S[0]·c = -S[i]·e.
	over := func(i int, e int64) int64 {
		c := new(mathbig.Int).Mul(inverse, new(mathbig.Int).SetUint64(s[i]))
		return mod(c.Mul(c, mathbig.NewInt(-e)))
	}
	dot := func(a, b [2]int64) float64 { return float64(a[0])*float64(b[0]) + float64(a[1])*float64(b[1]) }
	less := func(a, b [2]int64, times int64) [2]int64 { return [2]int64{a[0] - times*b[0], a[1] - times*b[1]} }
	a, b := [2]int64{fieldP, 0}, [2]int64{over(1, 1), 1}
	for dot(b, b) < dot(a, a) {
		a, b = b, less(a, b, int64(math.Round(dot(a, b)/dot(b, b))))
	}
	det := float64(a[0])*float64(b[1]) - float64(a[1])*float64(b[0])
	for third := range int64(1 << 20) {
		d := a
		if third > 0 {
			x := float64(over(2, third))
			i, j := math.Round(x*float64(b[1])/det), math.Round(-x*float64(a[1])/det)
			d = less(less([2]int64{int64(x), 0}, a, int64(i)), b, int64(j))
		}
		if max(d[0], -d[0], d[1], -d[1], third) <= limit {
			return [3]int64{d[0], d[1], third}
		}
	}
	t.Fatal("no forged answer")
	return [3]int64{}
}

// A cloud that has an old copy of the secret forges an answer that passes the old check,
// under every scheme and in every ring. After a rekey it is rejected as any other.
func TestRekeyEndsForgeries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(54, 1))
	g := chain(graph.Vector(7), dense(rnd, 7, 3))
	x := []float32{1, -1, 0.5, -0.5, 0.25, -0.25, 0.125}
	for _, scheme := range schemes {
		for _, in := range hostclient.Rings() {
			what := fmt.Sprintf("%v, %s", scheme, in)
			r := &rig{}
			var err error
			if r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: scheme, Ring: in}); err != nil {
				t.Fatal(err)
			}
			r.push(t)
			leaked := contents(t, r.secret)
			q := map[hostclient.Ring]ring.Ring{hostclient.RingQ4: ring.Q4(), hostclient.RingQ3: ring.Q3()}[in]
			word := func(v int64) uint32 { return q.FromSigned(int32(v)) }
			s := vector[uint64](t, leaked, "0.S")
			d := forge(t, s, int64(q.Max()/2)) // right products are at most as large here
			sum := new(mathbig.Int)
			for i, e := range s {
				sum.Add(sum, new(mathbig.Int).Mul(new(mathbig.Int).SetUint64(e), mathbig.NewInt(d[i])))
			}
			if d == [3]int64{} || sum.Mod(sum, mathbig.NewInt(fieldP)).Sign() != 0 {
				t.Fatalf("%s: %d is no forgery", what, d)
			}
			units, rows := vector[uint32](t, leaked, "0.D"), vector[uint32](t, leaked, "0.E")
			if units == nil {
				units, rows = []uint32{1, 1, 1}, []uint32{0, 1, 2}
			}
			f, u := vector[uint32](t, leaked, "0.F"), vector[uint32](t, leaked, "0.U")
			integers := make([]int32, len(x))
			if err := transform.QuantizeInputs(integers, make([]float32, 1), x, 1, xmax(r.secret)[0]); err != nil {
				t.Fatal(err)
			}
			lie := func(c *call) error {
				unit := uint32(1) // of the batch's row, under permute: xhat over x'
				if xhat := c.take()[0].words.Row(0); scheme == permute {
					unit = 0
					for j, i := range u {
						if inverse, ok := q.Inv(word(int64(integers[i]))); ok {
							unit = q.Mul(q.Mul(xhat[j], f[i]), inverse)
						}
					}
				}
				for k, row := range rows {
					c.y.Data[k] = q.Add(c.y.Data[k], q.Mul(unit, q.Mul(units[row], word(d[row]))))
				}
				return c.honest()
			}
			old := r.open(t, hostclient.Options{Multiplier: kernel})
			right := infer(t, old, x, 1)
			r.clouds[0].take()
			r.clouds[0].behave(lie)
			wrong, err := old.Infer(t.Context(), x, 1)
			if err != nil {
				t.Fatalf("%s: the forgery does not pass: %v", what, err)
			}
			scale := vector[float32](t, leaked, "0.scale")
			for i := range right {
				if moved := float64(wrong[i] - right[i]); (d[i] != 0) != (moved != 0) || (d[i] < 0) != (moved < 0) {
					t.Errorf("%s: output %d of scale %g moves by %g with %d", what, i, scale[i], moved, d[i])
				}
			}

			if r.secret, err = r.secret.Rekey(t.Context(), r.models, nil); err != nil {
				t.Fatal(err)
			}
			r.clouds[0].behave(nil)
			again := r.open(t, hostclient.Options{Multiplier: kernel})
			if y := infer(t, again, x, 1); !slices.Equal(bits(y), bits(right)) {
				t.Errorf("%s: other results", what)
			}
			r.clouds[0].take()
			r.clouds[0].behave(lie)
			if y, err := again.Infer(t.Context(), x, 1); y != nil || !errors.Is(err, verify.ErrRejected) {
				t.Errorf("%s: the forgery passes after a rekey: %v", what, err)
			}
		}
	}
}

// What does not fit together is refused, by models that are not the secret's and by
// secrets whose masks, bounds or vectors are not those of the models.
func TestRekeyRefuses(t *testing.T) {
	refuses := func(what string, s *hostclient.Secret, models []hostclient.SealedModel, want error) {
		t.Helper()
		if again, err := s.Rekey(t.Context(), models, nil); again != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for _, scheme := range schemes {
		models, secret := seal(t, nets()["cnn"], scheme)
		others, _ := seal(t, nets()["cnn"], scheme)
		refuses("none", secret, nil, hostclient.ErrMismatch)
		refuses("one too many", secret, append(slices.Clone(models), models[0]), hostclient.ErrMismatch)
		for role := range models {
			refuses("one missing", secret, slices.Delete(slices.Clone(models), role, role+1), hostclient.ErrMismatch)
			with := func(m hostclient.SealedModel) []hostclient.SealedModel {
				all := slices.Clone(models)
				all[role] = m
				return all
			}
			if scheme.Weights != transform.WeightNone {
				refuses("of another sealing", secret, with(others[role]), hostclient.ErrMismatch)
			}
			flipped := models[role]
			flipped.Bytes = slices.Clone(flipped.Bytes)
			flipped.Bytes[len(flipped.Bytes)-1] ^= 1
			refuses("a flipped bit", secret, with(flipped), hostclient.ErrMismatch)
			if next := models[(role+1)%len(models)]; len(models) > 1 {
				refuses("another role's", secret, with(next), hostclient.ErrMismatch)
			}
			// One that the secret names, as its digest was written there, and that
			// sealing did not make.
			parsed, err := sealed.Parse(models[role].Bytes)
			if err != nil {
				t.Fatal(err)
			}
			word := &parsed.Weights[1].Data[3]
			*word = ring.Q4().Add(*word, 1)
			b, err := parsed.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			foreign := hostclient.SealedModel{Role: role, Digest: sealed.Sum(b), Bytes: b}
			of := changed(t, secret, func(f *safetensors.File) {
				var digests []string
				for _, m := range with(foreign) {
					digests = append(digests, `"`+m.Digest.String()+`"`)
				}
				h := f.Metadata["securenets.secret"]
				from := strings.Index(h, `"digests":[`) + len(`"digests":[`)
				to := from + strings.IndexByte(h[from:], ']')
				f.Metadata["securenets.secret"] = h[:from] + strings.Join(digests, ",") + h[to:]
			})
			refuses(fmt.Sprintf("%v: another word of role %d", scheme, role), of, with(foreign), hostclient.ErrInconsistent)
		}

		// Its vectors and masks, each another one that might be.
		for _, tensor := range contents(t, secret).Tensors {
			var change func(b []byte)
			switch _, name, _ := strings.Cut(tensor.Name, "."); name {
			case "S", "V":
				change = func(b []byte) { binary.LittleEndian.PutUint64(b, (binary.LittleEndian.Uint64(b)+1)%fieldP) }
			case "D", "F":
				change = func(b []byte) {
					u := binary.LittleEndian.Uint32(b)
					for u++; u >= ring.Q4().Modulus() || !ring.Q4().IsUnit(u); u++ {
					}
					binary.LittleEndian.PutUint32(b, u)
				}
			case "E", "U":
				change = func(b []byte) { copy(b, slices.Concat(b[4:8], b[:4])) }
			default:
				continue
			}
			of := changed(t, secret, func(f *safetensors.File) {
				for _, other := range f.Tensors {
					if other.Name == tensor.Name {
						change(other.Data)
					}
				}
			})
			refuses(fmt.Sprintf("%v: another %s", scheme, tensor.Name), of, models, hostclient.ErrInconsistent)
		}
		// A bound that weights do not keep to, though they have their V.
		of := changed(t, secret, func(f *safetensors.File) {
			h := f.Metadata["securenets.secret"]
			bound := fmt.Sprintf(`"x_max":[%d`, xmax(secret)[0])
			if !strings.Contains(h, bound) {
				t.Fatalf("no %s in %s", bound, h)
			}
			f.Metadata["securenets.secret"] = strings.Replace(h, bound, fmt.Sprintf(`"x_max":[%d`, 2*xmax(secret)[0]+1), 1)
		})
		refuses(fmt.Sprintf("%v: another bound", scheme), of, models, hostclient.ErrInconsistent)

		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		again, err := secret.Rekey(ctx, models, func(int, int) { calls++; cancel() })
		if again != nil || !errors.Is(err, context.Canceled) || calls != 1 {
			t.Errorf("%v: cancelled after %d layers: %v", scheme, calls, err)
		}
	}
}

// A session goes on with what it was opened with, and a provider that is bound to the
// new secret is not to the old one.
func TestRekeyIsApart(t *testing.T) {
	r := newRig(t, nets()["mlp"], split)
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	x := gaussian(rand.New(rand.NewPCG(55, 1)), 2*7)
	want := infer(t, s, x, 2)
	again, err := r.secret.Rekey(t.Context(), r.models, nil)
	if err != nil {
		t.Fatal(err)
	}
	if y := infer(t, s, x, 2); !slices.Equal(bits(y), bits(want)) {
		t.Error("other results")
	}
	provider := r.secret.Describe().Providers[1][0]
	for name, secret := range map[string]*hostclient.Secret{"old": r.secret, "new": again} {
		if err := secret.Bind(1, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, secret := range map[string]*hostclient.Secret{"old": r.secret, "new": again} {
		if got := secret.Describe().Providers[1]; !slices.Equal(got, []string{provider, name}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// files returns what a folder holds: names, content and when it was last written.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = fmt.Sprint(info.ModTime(), info.Mode(), sealed.Sum(b))
	}
	return all
}

// unwilling is a recipient that nothing can be encrypted to.
type unwilling struct{}

var errUnwilling = errors.New("no key")

func (unwilling) Wrap([]byte) ([]*age.Stanza, error) { return nil, errUnwilling }

// RekeyDir writes the secret alone, for whom it was or for others, or touches nothing.
func TestRekeyDir(t *testing.T) {
	for _, scheme := range schemes {
		dir := filepath.Join(t.TempDir(), "net")
		id, other := identity(t), identity(t)
		models, secret := seal(t, nets()["mlp"], scheme)
		if err := hostclient.WriteDir(dir, secret, models, id.Recipient(), other.Recipient()); err != nil {
			t.Fatal(err)
		}
		if scheme.Roles() > 1 {
			if _, err := hostclient.BindDir(dir, clientsAt(t, []string{"a", "b", "c"}[:scheme.Roles()]...), []age.Identity{id}); err != nil {
				t.Fatal(err)
			}
		}
		read := func(with age.Identity) *hostclient.Secret {
			s, err := hostclient.ReadSecret(dir, with)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		rekey := func(with age.Identity, to ...age.Recipient) error {
			_, err := hostclient.RekeyDir(t.Context(), dir, nil, []age.Identity{with}, to...)
			return err
		}
		was, held := read(id), files(t, dir)
		untouched := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("%v, %s: %v, want %v", scheme, what, err, want)
			}
			if now := files(t, dir); !reflect.DeepEqual(now, held) {
				t.Fatalf("%v, %s: the folder holds %v, held %v", scheme, what, now, held)
			}
		}
		untouched("another's identity", rekey(identity(t)), hostclient.ErrSecret)
		untouched("recipients that fail", rekey(id, unwilling{}), errUnwilling)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := hostclient.RekeyDir(ctx, dir, func(int, int) { cancel() }, []age.Identity{id})
		untouched("cancelled", err, context.Canceled)
		for role := range models {
			path := filepath.Join(dir, hostclient.RoleFile(role, len(models)))
			aside := filepath.Join(t.TempDir(), "aside")
			if err := os.Rename(path, aside); err != nil {
				t.Fatal(err)
			}
			whole := held
			held = files(t, dir)
			missing := hostclient.ErrRoleFiles
			if len(models) == 1 {
				missing = fs.ErrNotExist
			}
			untouched("a model is missing", rekey(id), missing)
			if err := os.WriteFile(path, append(models[role].Bytes, 0), 0o600); err != nil {
				t.Fatal(err)
			}
			held = files(t, dir)
			untouched("another model", rekey(id), hostclient.ErrMismatch)
			if err := os.Rename(aside, path); err != nil {
				t.Fatal(err)
			}
			held = whole
			untouched("put back", nil, nil)
		}

		// For whom it was, by any of them.
		before := contents(t, was)
		for i, with := range []age.Identity{id, other} {
			if err := rekey(with); err != nil {
				t.Fatal(err)
			}
			now := files(t, dir)
			if now["secret.age"] == held["secret.age"] {
				t.Fatalf("%v: the secret was not written", scheme)
			}
			now["secret.age"] = held["secret.age"]
			if !reflect.DeepEqual(now, held) {
				t.Errorf("%v: the folder holds %v, held %v", scheme, now, held)
			}
			after := contents(t, read([]age.Identity{other, id}[i]))
			for l := range 3 {
				name := fmt.Sprintf("%d.S", l)
				if slices.Equal(vector[uint64](t, after, name), vector[uint64](t, before, name)) {
					t.Errorf("%v: the same %s", scheme, name)
				}
			}
			before = after
			if !reflect.DeepEqual(read(id).Describe(), was.Describe()) {
				t.Errorf("%v: %+v became %+v", scheme, was.Describe(), read(id).Describe())
			}
		}
		// For another alone.
		only := identity(t)
		if err := rekey(id, only.Recipient()); err != nil {
			t.Fatal(err)
		}
		if _, err := hostclient.ReadSecret(dir, id, other); !errors.Is(err, hostclient.ErrSecret) {
			t.Errorf("%v: still opens for whom it was: %v", scheme, err)
		}
		if err := rekey(only); err != nil { // and stays so
			t.Errorf("%v: %v", scheme, err)
		}
		read(only)
	}
}

// With a passphrase the caller says it again, before the work.
func TestRekeyDirPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], permutePad)
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
	before := files(t, dir)
	work := func(int, int) { t.Error("the work is done for nothing") }
	if _, err := hostclient.RekeyDir(t.Context(), dir, work, []age.Identity{with}); !errors.Is(err, hostclient.ErrRecipients) {
		t.Error(err)
	}
	if !reflect.DeepEqual(files(t, dir), before) {
		t.Error("the folder was touched")
	}
	again, err := hostclient.RekeyDir(t.Context(), dir, nil, []age.Identity{with}, phrase)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := hostclient.ReadSecret(dir, with); err != nil || !reflect.DeepEqual(contents(t, s), contents(t, again)) {
		t.Errorf("what is stored is not what is returned: %v", err)
	}
}

// Who binds and rekeys at the same time waits: nothing of either is lost.
func TestRekeyDirConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	models, secret := seal(t, nets()["mlp"], split)
	id := identity(t)
	if err := hostclient.WriteDir(dir, secret, models, id.Recipient()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		clients := clientsAt(t, "a", fmt.Sprint("b", i))
		wg.Go(func() {
			if _, err := hostclient.BindDir(dir, clients, []age.Identity{id}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := hostclient.RekeyDir(t.Context(), dir, nil, []age.Identity{id}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := hostclient.ReadSecret(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	providers := s.Describe().Providers
	slices.Sort(providers[1])
	if want := [][]string{{"a"}, {"b0", "b1", "b2", "b3"}}; !reflect.DeepEqual(providers, want) {
		t.Errorf("%q, want %q", providers, want)
	}
	if slices.Equal(vector[uint64](t, contents(t, s), "0.S"), vector[uint64](t, contents(t, secret), "0.S")) {
		t.Error("the same S")
	}
}
