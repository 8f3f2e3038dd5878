package sealed_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// model returns one convolution and one dense operator with seeded weights.
func model(r ring.Ring) *sealed.Model {
	m := &sealed.Model{Plan: plan.Plan{Ring: r, Ops: []plan.Op{
		plan.Conv(plan.Conv2D{H: 6, W: 5, C: 2, OutC: 4, KH: 3, KW: 2, SH: 1, SW: 2, DH: 1, DW: 1, Top: 1, Left: 0, Bot: 2, Right: 1, Groups: 2}),
		plan.Dense(7, 3),
	}}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, op := range m.Plan.Ops {
		w := ring.NewMatrix(op.Rows(), op.Terms())
		for i := range w.Data {
			w.Data[i] = rnd.Uint32N(r.Modulus())
		}
		m.Weights = append(m.Weights, w)
	}
	return m
}

func marshal(t testing.TB, m *sealed.Model) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const planText = `{"version":1,"ring":[251,241,239,233],"ops":[` +
	`{"conv2d":{"in":[6,5,2],"out":4,"kernel":[3,2],"stride":[1,2],"dilation":[1,1],"padding":[1,0,2,1],"groups":2}},` +
	`{"dense":{"in":7,"out":3}}]}`

func TestRoundTrip(t *testing.T) {
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		m := model(r)
		b := marshal(t, m)
		back, err := sealed.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%v: got %+v, want %+v", r, back, m)
		}
		if !bytes.Equal(marshal(t, back), b) {
			t.Errorf("%v: bytes differ", r)
		}
	}
}

// TestFile compares the file with the format as documented.
func TestFile(t *testing.T) {
	m := model(ring.Q4())
	f, err := safetensors.Parse(marshal(t, m))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"securenets.plan": planText}; !reflect.DeepEqual(f.Metadata, want) {
		t.Errorf("metadata\n got %v\nwant %v", f.Metadata, want)
	}
	if len(f.Tensors) != 2 || f.Tensors[1].Name != "1" || !reflect.DeepEqual(f.Tensors[1].Shape, []int{3, 7}) {
		t.Fatalf("tensors %+v", f.Tensors)
	}
	v, err := safetensors.Values[uint32](f.Tensors[1])
	if err != nil || !reflect.DeepEqual(v, m.Weights[1].Data) {
		t.Errorf("values %v, %v", v, err)
	}
}

func TestSum(t *testing.T) {
	// FIPS 180-4's example "abc".
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	d := sealed.Sum([]byte("abc"))
	if d.String() != want || hex.EncodeToString(d[:]) != want {
		t.Errorf("got %v", d)
	}
	if of, size, err := sealed.SumOf(iotest.HalfReader(strings.NewReader("abc"))); err != nil || of != d || size != 3 {
		t.Errorf("got %v of %d bytes, %v", of, size, err)
	}
	if _, _, err := sealed.SumOf(iotest.TimeoutReader(strings.NewReader("abc"))); !errors.Is(err, iotest.ErrTimeout) {
		t.Error(err)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *sealed.Model)
		want   any
	}{
		"no plan":       {func(m *sealed.Model) { m.Plan = plan.Plan{} }, plan.ErrInvalid},
		"bad operator":  {func(m *sealed.Model) { m.Plan.Ops[1].Out = 0 }, plan.ErrInvalid},
		"too few":       {func(m *sealed.Model) { m.Weights = m.Weights[:1] }, sealed.ErrInvalid},
		"shape":         {func(m *sealed.Model) { m.Weights[1] = ring.NewMatrix(7, 3) }, new(*ring.ShapeError)},
		"order":         {func(m *sealed.Model) { m.Weights[1] = ring.NewMatrix(7, 3).T() }, new(*ring.ShapeError)},
		"not canonical": {func(m *sealed.Model) { m.Weights[1].Data[5] = m.Plan.Ring.Modulus() }, new(*ring.NonCanonicalError)},
	} {
		m := model(ring.Q4())
		c.change(m)
		b, err := m.Marshal()
		if target, ok := c.want.(error); ok && !errors.Is(err, target) || !ok && !errors.As(err, c.want) || b != nil {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := model(ring.Q4())
	// rebuild writes the model's file with a change made to it.
	rebuild := func(change func(f *safetensors.File)) []byte {
		f, err := safetensors.Parse(marshal(t, good))
		if err != nil {
			t.Fatal(err)
		}
		change(f)
		b, err := f.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	withPlan := func(p string) []byte {
		return rebuild(func(f *safetensors.File) { f.Metadata["securenets.plan"] = p })
	}
	replace := func(old, new string) []byte {
		p := strings.Replace(planText, old, new, 1)
		if p == planText {
			t.Fatalf("%s is not in the plan", old)
		}
		return withPlan(p)
	}
	b := marshal(t, good)
	if !bytes.Equal(withPlan(planText), b) {
		t.Fatal("rebuilding changes the file")
	}
	for name, b := range map[string][]byte{
		"empty":             nil,
		"foreign":           []byte("GGUF and then some more bytes"),
		"cut":               b[:len(b)-1],
		"trailing":          append(bytes.Clone(b), 0),
		"no plan":           rebuild(func(f *safetensors.File) { f.Metadata = nil }),
		"other metadata":    rebuild(func(f *safetensors.File) { f.Metadata["scales"] = "1" }),
		"no JSON":           withPlan("x"),
		"empty plan":        withPlan("{}"),
		"null":              withPlan("null"),
		"version":           replace(`"version":1`, `"version":2`),
		"unknown key":       replace(`"in":7`, `"in":7,"bias":true`),
		"duplicate key":     replace(`"in":7`, `"in":8,"in":7`),
		"case of a key":     replace(`"in":7`, `"IN":7`),
		"case duplicate":    replace(`"in":7`, `"IN":7,"in":7`),
		"white space":       replace(`"in":7`, `"in": 7`),
		"trailing JSON":     withPlan(planText + "{}"),
		"short array":       replace(`"padding":[1,0,2,1]`, `"padding":[1,0,2]`),
		"long array":        replace(`"stride":[1,2]`, `"stride":[1,2,3]`),
		"exponent":          replace(`"in":7`, `"in":7e0`),
		"no ring":           replace("251,241,239,233", ""),
		"no prime":          replace("251", "255"),
		"prime twice":       replace("241", "251"),
		"another ring":      replace("251,241,239,233", "251,241,239"),
		"both kinds":        replace(`{"dense"`, `{"dense":{"in":7,"out":3},"conv2d"`),
		"no kind":           replace(`{"dense":{"in":7,"out":3}}`, `{}`),
		"no operators":      replace(planText[strings.Index(planText, `"ops":`):], `"ops":[]}`),
		"fewer operators":   replace(`,{"dense":{"in":7,"out":3}}`, ``),
		"more operators":    replace(`{"dense":{"in":7,"out":3}}`, `{"dense":{"in":7,"out":3}},{"dense":{"in":7,"out":3}}`),
		"absurd size":       replace(`"in":7`, `"in":9223372036854775807`),
		"absurd map":        replace(`"in":[6,5,2]`, `"in":[2147483647,2147483647,2147483646]`),
		"zero stride":       replace(`"stride":[1,2]`, `"stride":[0,2]`),
		"other shape":       replace(`"in":7`, `"in":8`),
		"transposed":        replace(`{"in":7,"out":3}`, `{"in":3,"out":7}`),
		"name":              rebuild(func(f *safetensors.File) { f.Tensors[1].Name = "01" }),
		"order":             rebuild(func(f *safetensors.File) { f.Tensors[0], f.Tensors[1] = f.Tensors[1], f.Tensors[0] }),
		"type":              rebuild(func(f *safetensors.File) { f.Tensors[1].DType = safetensors.I32 }),
		"flat":              rebuild(func(f *safetensors.File) { f.Tensors[1].Shape = []int{21} }),
		"missing tensor":    rebuild(func(f *safetensors.File) { f.Tensors = f.Tensors[:1] }),
		"additional tensor": rebuild(func(f *safetensors.File) { f.Tensors = append(f.Tensors, safetensors.New("2", []uint32{}, 0, 1)) }),
		"not canonical":     rebuild(func(f *safetensors.File) { copy(f.Tensors[1].Data[8:], "\xff\xff\xff\xff") }),
	} {
		if m, err := sealed.Parse(b); !errors.Is(err, sealed.ErrInvalid) || m != nil {
			t.Errorf("%s: error %v", name, err)
		}
		words := name == "not canonical" || name == "another ring" // alone are wrong
		if _, err := readPlan(b); !errors.Is(err, sealed.ErrInvalid) != words {
			t.Errorf("%s: error %v of the plan alone", name, err)
		}
	}

	var word *ring.NonCanonicalError
	_, err := sealed.Parse(rebuild(func(f *safetensors.File) { copy(f.Tensors[1].Data[8:], "\xff\xff\xff\xff") }))
	if !errors.As(err, &word) || word.Index != 2 || strings.Contains(err.Error(), "4294967295") {
		t.Errorf("a word that is not canonical: %v", err)
	}
	if _, err := sealed.Parse(replace(`"in":7`, `"in":7,"bias":true`)); !strings.Contains(err.Error(), "bias") {
		t.Errorf("an unknown key is not named: %v", err)
	}
}

// readPlan reads a plan, and checks that nothing after the header is read.
func readPlan(b []byte) (plan.Plan, error) {
	r := &counting{Reader: bytes.NewReader(b)}
	p, err := sealed.ReadPlan(r, int64(len(b)))
	if most := 8 + safetensors.MaxHeader + 1; r.read > most {
		return p, fmt.Errorf("%d bytes were read", r.read)
	}
	return p, err
}

type counting struct {
	io.Reader
	read int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

// TestReadPlan: the plan is the model's, no byte of weights is read, and the reader's error is
// returned.
func TestReadPlan(t *testing.T) {
	m := model(ring.Q4())
	b := marshal(t, m)
	r := &counting{Reader: bytes.NewReader(b)}
	p, err := sealed.ReadPlan(r, int64(len(b)))
	if err != nil || !reflect.DeepEqual(p, m.Plan) {
		t.Errorf("%+v, %v", p, err)
	}
	weights := 0
	for _, w := range m.Weights {
		weights += 4 * len(w.Data)
	}
	if r.read != len(b)-weights {
		t.Errorf("%d bytes of %d were read, %d of weights", r.read, len(b), weights)
	}
	failed := errors.New("disk")
	for _, n := range []int{0, 5, 8, 100} {
		_, err := sealed.ReadPlan(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(failed)), int64(len(b)))
		if !errors.Is(err, failed) || errors.Is(err, sealed.ErrInvalid) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	b := marshal(f, model(ring.Q4()))
	f.Add(b)
	f.Add(b[:100])
	f.Add(marshal(f, model(ring.Q3())))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, planErr := readPlan(b)
		if planErr != nil && !errors.Is(planErr, sealed.ErrInvalid) {
			t.Fatalf("untyped error %v", planErr)
		}
		m, err := sealed.Parse(b)
		if err != nil {
			if !errors.Is(err, sealed.ErrInvalid) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if planErr != nil || !reflect.DeepEqual(p, m.Plan) {
			t.Fatalf("the plan alone: %+v, %v, want %+v", p, planErr, m.Plan)
		}
		again, err := sealed.Parse(marshal(t, m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("read anew: %v", err)
		}
	})
}

// failing is a writer that fails after the given number of bytes.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestWriter: a model written some rows at a time has the bytes that Marshal returns, and is
// the same when read matrix by matrix.
func TestWriter(t *testing.T) {
	m := model(ring.Q4())
	want := marshal(t, m)
	write := func(file io.Writer, weights []ring.Matrix, rows int) (sealed.Digest, error) {
		w, err := sealed.NewWriter(m.Plan)
		if err != nil {
			t.Fatal(err)
		}
		if w.Size() != int64(len(want)) {
			t.Errorf("size %d, want %d", w.Size(), len(want))
		}
		if err := w.Begin(file); err != nil {
			return sealed.Digest{}, err
		}
		for _, m := range weights {
			for i := 0; i < m.Rows; i += rows {
				if err := w.Write(m.RowRange(i, min(i+rows, m.Rows))); err != nil {
					return sealed.Digest{}, err
				}
			}
		}
		return w.Close()
	}
	for rows := 1; rows <= 5; rows++ {
		var b bytes.Buffer
		if d, err := write(&b, m.Weights, rows); err != nil || d != sealed.Sum(want) || !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%d rows at a time: digest %v, %v", rows, d, err)
		}
	}
	for name, weights := range map[string][]ring.Matrix{
		"too few":       m.Weights[:1],
		"a row less":    {m.Weights[0], m.Weights[1].RowRange(0, 2)},
		"too many":      {m.Weights[0], m.Weights[1], m.Weights[1]},
		"across them":   {{Rows: 5, Cols: 6, Data: make([]uint32, 30)}, m.Weights[1]},
		"another width": {m.Weights[1], m.Weights[0]},
	} {
		var shape *ring.ShapeError
		if _, err := write(io.Discard, weights, 5); !errors.Is(err, sealed.ErrInvalid) && !errors.As(err, &shape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range want {
		if _, err := write(&failing{n}, m.Weights, 1); err != errFull {
			t.Fatalf("full after %d bytes: %v", n, err)
		}
	}

	r, err := sealed.NewReader(bytes.NewReader(want), int64(len(want)))
	if err != nil || !reflect.DeepEqual(r.Plan(), m.Plan) {
		t.Fatalf("%+v, %v", r, err)
	}
	memory := make([]uint32, len(m.Weights[0].Data))
	for i, w := range m.Weights {
		got, err := r.Next(memory)
		if err != nil || !reflect.DeepEqual(got, w) || len(memory) >= len(w.Data) && &got.Data[0] != &memory[0] {
			t.Errorf("matrix %d is another, or elsewhere: %v", i, err)
		}
	}
	if r.Sum() != sealed.Sum(want) {
		t.Error("another digest was read")
	}
	cut := want[:len(want)-1] // after it was opened
	if r, err = sealed.NewReader(bytes.NewReader(cut), int64(len(want))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(nil); !errors.Is(err, sealed.ErrInvalid) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
