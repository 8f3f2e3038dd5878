//go:build unix

package onnx

import (
	gobytes "bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// external returns a float tensor of 4 x 3 whose data are elsewhere.
func external(entries ...string) message {
	m := header("w", typeFloat, 4, 3)
	for i := 0; i < len(entries); i += 2 {
		m.bytes(13, cat(sub(1, []byte(entries[i])), sub(2, []byte(entries[i+1]))))
	}
	m.int(14, 1)
	return m
}

// What stands in another file gives the network that it gives in the model's own.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw := floats("w", 4, 3)
	raw = raw[len(raw)-48:]
	write(filepath.Join(dir, "data"), slices.Concat(make([]byte, 16), raw, make([]byte, 4)))
	write(filepath.Join(dir, "all"), raw)
	outside := t.TempDir()
	write(filepath.Join(outside, "data"), raw)
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "sub"), 0o700), os.Symlink(filepath.Join(outside, "data"), filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.WriteFile(filepath.Join(dir, "huge"), nil, 0o600), os.Truncate(filepath.Join(dir, "huge"), 1<<40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "sub", "data"), raw)

	want, err := Parse(dense().bytes())
	if err != nil {
		t.Fatal(err)
	}
	model := func(w ...message) []byte { return nodes(op("Gemm", "x w", "y")).with(w...).bytes() }
	for name, w := range map[string]message{
		"part":        external("location", "data", "offset", "16", "length", "48"),
		"whole":       external("location", "all", "checksum", "unread"),
		"in a folder": external("location", "sub/data", "length", "48"),
		"none":        floats("w", 4, 3),
	} {
		write(path, model(w))
		b, err := ReadFile(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g, err := Parse(b); err != nil || !reflect.DeepEqual(g, want) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
		f, err := Open(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(loaded(t, f.Graph), want) {
			t.Errorf("%s: opened, it has other weights", name)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, w := range map[string][]message{
		"another folder's":  {external("location", "../"+filepath.Base(outside)+"/data")},
		"absolute":          {external("location", filepath.Join(outside, "data"))},
		"a link out":        {external("location", "link")},
		"a folder":          {external("location", "sub")},
		"a pipe":            {external("location", "pipe")},
		"huge":              {external("location", "huge", "length", "48")},
		"nowhere":           {external("offset", "16")},
		"missing":           {external("location", "none")},
		"offset":            {external("location", "data", "offset", "69")},
		"negative":          {external("location", "data", "offset", "-1")},
		"length":            {external("location", "data", "offset", "32", "length", "48")},
		"no number":         {external("location", "data", "offset", "x")},
		"overflow":          {external("location", "data", "offset", "16", "length", "9223372036854775807")},
		"a file used often": slices.Repeat([]message{external("location", "all")}, 3),
	} {
		write(path, model(w...))
		if b, err := ReadFile(path); !errors.Is(err, ErrExternalData) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if _, err := Open(path); !errors.Is(err, ErrExternalData) {
			t.Errorf("%s: opened, %v", name, err)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "no.onnx")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// loaded returns g with the weights that are stored in memory.
func loaded(t testing.TB, g *graph.Graph) *graph.Graph {
	t.Helper()
	g = &graph.Graph{Input: g.Input, Nodes: slices.Clone(g.Nodes), Output: g.Output, Results: g.Results}
	for i, n := range g.Nodes {
		l, ok := n.Op.(graph.Linear)
		if !ok {
			continue
		}
		if l.Weights() != nil || l.Stored() == nil {
			t.Fatalf("node %d holds its weights", i)
		}
		w := make([]float32, l.Plan().Rows()*l.Plan().Terms())
		if err := graph.ReadWeights(w, l); err != nil {
			t.Fatal(err)
		}
		switch op := l.(type) {
		case *graph.Dense:
			g.Nodes[i].Op = &graph.Dense{In: op.In, Out: op.Out, W: w, B: op.B}
		case *graph.Conv2D:
			g.Nodes[i].Op = &graph.Conv2D{Geometry: op.Geometry, W: w, B: op.B}
		}
	}
	return g
}

// stored parses a model in memory as Open does a file, whose tensors of more than most
// bytes stay there. A file beside it has 48 bytes of zeros.
func stored(b []byte, most int64) (*graph.Graph, error) {
	f := &files{
		model:  section{gobytes.NewReader(b), 0, int64(len(b))},
		beside: func(string) (section, error) { return section{gobytes.NewReader(make([]byte, 48)), 0, 48}, nil },
	}
	return f.parse(most, Options{})
}

// Weights that are stored are those that Parse holds, in whatever order and type they
// stand in the file, and whatever is done to them.
func TestStored(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	large := func(name string, kind int64, dims ...int64) message { // several pieces
		n, m := int64(1), header(name, kind, dims...)
		for _, d := range dims {
			n *= d
		}
		var raw []byte
		for range n {
			if kind == typeDouble {
				raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(r.NormFloat64()))
			} else {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(r.NormFloat64())))
			}
		}
		return cat(m, sub(9, raw))
	}
	places := header("i", typeInt64, 3000)
	places.bytes(9, slices.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}, 1000))
	models := map[string][]byte{
		"matrix":            nodes(op("MatMul", "x w", "y")).on("N", 300).with(large("w", typeFloat, 300, 401)).bytes(),
		"matrix of doubles": nodes(op("MatMul", "x w", "y")).on("N", 300).with(large("w", typeDouble, 300, 401)).bytes(),
		"transposed matrix": nodes(op("Gemm", "x w", "y", intAttribute("transB", 1), floatAttribute("alpha", 3))).on("N", 401).with(large("w", typeFloat, 300, 401)).bytes(),
		"wide matrix":       nodes(op("MatMul", "x w", "y")).on("N", 2).with(large("w", typeFloat, 2, 70000)).bytes(),
		"convolution":       nodes(op("Conv", "x w", "y")).on("N", 41, 5, 5).with(large("w", typeFloat, 67, 41, 3, 5)).bytes(),
		"scaled":            nodes(op("Conv", "x w", "a"), op("Mul", "a s", "y")).on("N", 41, 5, 5).with(large("w", typeFloat, 67, 41, 3, 5), large("s", typeFloat, 67, 1, 1)).bytes(),
		"two of one":        nodes(op("MatMul", "x w", "a"), op("Gemm", "a w", "y")).with(large("w", typeFloat, 4, 4)).bytes(),
		"transposed before": nodes(op("Transpose", "w", "v"), op("MatMul", "x v", "y")).on("N", 401).with(large("w", typeFloat, 300, 401)).bytes(),
		"transposed twice":  nodes(op("Transpose", "w", "v"), op("Gemm", "x v", "y", intAttribute("transB", 1))).on("N", 300).with(large("w", typeFloat, 300, 401)).bytes(),
		"phases":            nodes(op("ConvTranspose", "x w b", "y", intsAttribute("strides", 2, 3), intAttribute("group", 2))).on("N", 40, 5, 5).with(large("w", typeFloat, 40, 30, 3, 5), large("b", typeFloat, 60)).bytes(),
		"scales in a file":  nodes(op("Transpose", "s", "a"), op("Mul", "x a", "b"), op("MatMul", "b w", "y")).on("N", 40, 40).with(large("s", typeFloat, 40, 40), large("w", typeFloat, 40, 3)).bytes(),
		"list of places":    nodes(op("Gather", "x i", "a", intAttribute("axis", 1)), op("MatMul", "a w", "y")).on("N", 3).with(places, large("w", typeFloat, 3000, 3)).bytes(),
		"sequence":          nodes(op("MatMul", "x w", "y")).on("N", 5, 300).with(large("w", typeFloat, 300, 401)).bytes(),
	}
	for i := range 30 {
		b, err := Marshal(graphtest.Random(r, 1+r.IntN(5)))
		if err != nil {
			t.Fatal(err)
		}
		models[fmt.Sprint("random ", i)] = b
	}
	for name, b := range models {
		want, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, most := range []int64{8 * maxRank, held, math.MaxInt64} {
			if g, err := stored(b, most); err != nil || !reflect.DeepEqual(loaded(t, g), want) {
				t.Errorf("%s: other than as it was held, %v", name, err)
			}
		}
		if g, err := ParseStored(b); err != nil || !reflect.DeepEqual(loaded(t, g), want) {
			t.Errorf("%s: other than as it was held, %v", name, err)
		}
	}
}

// A file that lost its weights after it was opened gives an error, and so does one that
// is closed, or read in part.
func TestOpenFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	w := cat(header("w", typeFloat, 4, 1000), sub(9, make([]byte, 16000)))
	b := nodes(op("MatMul", "x w", "y")).with(w).bytes()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, dst := f.Graph.Nodes[0].Op.(graph.Linear), make([]float32, 4000)
	if err := graph.ReadWeights(dst, l); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(b)-100)); err != nil {
		t.Fatal(err)
	}
	if err := graph.ReadWeights(dst, l); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := graph.ReadWeights(dst, l); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	broken := errors.New("broken disk")
	for at := range int64(len(b)) {
		if at > 200 && at < int64(len(b))-200 && at%1000 != 0 {
			continue
		}
		file := &files{model: section{&failing{gobytes.NewReader(b), at, broken}, 0, int64(len(b))}}
		g, err := file.parse(held, Options{})
		if err == nil {
			err = graph.ReadWeights(dst, g.Nodes[0].Op.(graph.Linear))
		}
		if !errors.Is(err, broken) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	// That weights are not finite shows as they are read.
	w = cat(header("w", typeFloat, 4, 1000), sub(9, slices.Repeat([]byte{0xff}, 16000)))
	if err := os.WriteFile(path, nodes(op("MatMul", "x w", "y")).with(w).bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := graph.ReadWeights(dst, f.Graph.Nodes[0].Op.(graph.Linear)); !errors.Is(err, graph.ErrNotFinite) {
		t.Error(err)
	}
}

// failing gives an error for whatever holds a byte.
type failing struct {
	io.ReaderAt
	at  int64
	err error
}

func (f *failing) ReadAt(b []byte, at int64) (int, error) {
	if at <= f.at && f.at < at+int64(len(b)) {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(b, at)
}

// A pipe is read once.
func TestOpenPipe(t *testing.T) {
	path, b := filepath.Join(t.TempDir(), "pipe"), dense().bytes()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() error{
		func() error { _, err := Open(path); return err },
		func() error {
			got, err := ReadFile(path)
			if err == nil && !slices.Equal(got, b) {
				err = errors.New("other bytes")
			}
			return err
		},
	} {
		done := make(chan error)
		go func() { done <- os.WriteFile(path, b, 0o600) }()
		if err := errors.Join(read(), <-done); err != nil {
			t.Error(err)
		}
	}
}

// Weights take memory as they are asked for, and no more than one piece beside them.
func TestOpenMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	const size = 32 << 20
	w := cat(header("w", typeFloat, 1024, size/4096), sub(9, make([]byte, size)))
	if err := os.WriteFile(path, nodes(op("MatMul", "x w", "y")).on("N", 1024).with(w).bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var f *File
	var err error
	if n := allocated(func() { f, err = Open(path) }); err != nil || n > 1<<20 {
		t.Errorf("%d bytes for %d of weights, %v", n, size, err)
	}
	defer f.Close()
	dst := make([]float32, size/4)
	if n := allocated(func() { err = graph.ReadWeights(dst, f.Graph.Nodes[0].Op.(graph.Linear)) }); err != nil || n > 2<<20 {
		t.Errorf("%d bytes beside %d of weights, %v", n, size, err)
	}
}

// Any bytes are read as Parse reads them.
func FuzzStored(f *testing.F) {
	f.Add(nodes(op("Gemm", "x w", "y")).with(external("location", "data", "offset", "0")).bytes())
	f.Add(dense().bytes())
	f.Add(conv().bytes())
	f.Add([]byte{7<<3 | 2, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		want, err := Parse(b)
		g, storedErr := stored(b, 8*maxRank)
		switch {
		case errors.Is(err, ErrExternalData) && storedErr == nil: // it was read
		case errors.Is(err, graph.ErrNotFinite) && storedErr == nil: // as they are not yet
		case (err == nil) != (storedErr == nil):
			t.Fatalf("%v, and stored %v", err, storedErr)
		case err == nil && !reflect.DeepEqual(loaded(t, g), want):
			t.Fatal("stored weights are others")
		case storedErr != nil:
			checkTyped(t, "stored", storedErr)
		}
	})
}
