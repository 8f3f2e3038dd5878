package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/securenets/securenets/internal/safetensors"
)

// file builds a file by hand.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func TestMarshalBytes(t *testing.T) {
	f := safetensors.File{
		Metadata: map[string]string{"b": "é", "a": `"`},
		Tensors: []safetensors.Tensor{
			safetensors.New("x", []uint32{1, 0x01020304}, 2),
			safetensors.New("s", []uint8{7}),
			safetensors.New("none", []float64{}, 3, 0),
		},
	}
	got, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"a":"\"","b":"é"},` +
		`"x":{"dtype":"U32","shape":[2],"data_offsets":[0,8]},` +
		`"s":{"dtype":"U8","shape":[],"data_offsets":[8,9]},` +
		`"none":{"dtype":"F64","shape":[3,0],"data_offsets":[9,9]}}`
	for len(header)%8 != 0 {
		header += " "
	}
	want := file(header, 1, 0, 0, 0, 4, 3, 2, 1, 7)
	if !bytes.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	back, err := safetensors.Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range f.Tensors {
		y := back.Tensors[i]
		if x.Name != y.Name || x.DType != y.DType || len(x.Shape) != len(y.Shape) || !bytes.Equal(x.Data, y.Data) {
			t.Errorf("tensor %d: got %+v, want %+v", i, y, x)
		}
	}
	if !reflect.DeepEqual(back.Metadata, f.Metadata) {
		t.Errorf("metadata %v", back.Metadata)
	}
}

func TestMarshalRefuses(t *testing.T) {
	tensor := func(d safetensors.DType, n int, shape ...int) safetensors.File {
		return safetensors.File{Tensors: []safetensors.Tensor{{Name: "x", DType: d, Shape: shape, Data: make([]byte, n)}}}
	}
	one := safetensors.New("x", []uint8{1}, 1)
	for name, f := range map[string]safetensors.File{
		"short":        tensor(safetensors.U32, 7, 2),
		"type":         tensor("BF16", 4, 2),
		"negative":     tensor(safetensors.U8, 4, -2, -2),
		"overflow":     tensor(safetensors.U8, 0, math.MaxInt, 2),
		"twice":        {Tensors: []safetensors.Tensor{one, one}},
		"metadata key": {Tensors: []safetensors.Tensor{{Name: "__metadata__", DType: safetensors.U8, Shape: []int{0}}}},
		"name":         {Tensors: []safetensors.Tensor{{Name: "\xff", DType: safetensors.U8, Shape: []int{0}}}},
		"metadata":     {Metadata: map[string]string{"a": "\xff"}},
		"header":       {Metadata: map[string]string{"a": strings.Repeat("x", safetensors.MaxHeader)}},
	} {
		if b, err := f.Marshal(); !errors.Is(err, safetensors.ErrFormat) || b != nil {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	// Keys and tensors in any order, spaces after the header, no alignment.
	b := file(`{"b":{"shape":[1],"data_offsets":[3,7],"dtype":"I32"}, "a":{"dtype":"U8","shape":[3,1],"data_offsets":[0,3]}}   `,
		1, 2, 3, 0xff, 0xff, 0xff, 0xff)
	f, err := safetensors.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tensors) != 2 || f.Tensors[0].Name != "a" || f.Tensors[1].Name != "b" {
		t.Fatalf("tensors %+v", f.Tensors)
	}
	if v, err := safetensors.Values[int32](f.Tensors[1]); err != nil || v[0] != -1 {
		t.Errorf("values %v, %v", v, err)
	}
	if _, err := safetensors.Values[uint32](f.Tensors[1]); !errors.Is(err, safetensors.ErrFormat) {
		t.Errorf("another type: %v", err)
	}
	if _, err := safetensors.Values[uint32](safetensors.Tensor{DType: safetensors.U32, Data: make([]byte, 5)}); !errors.Is(err, safetensors.ErrFormat) {
		t.Errorf("5 bytes: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	const a = `"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`
	for name, b := range map[string][]byte{
		"empty":            {},
		"short":            {1, 0, 0, 0, 0, 0, 0},
		"no header":        file(""),
		"header too long":  {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'},
		"header huge":      {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'},
		"header over 1MiB": file("{" + strings.Repeat(" ", safetensors.MaxHeader) + "}"),
		"space first":      file(" {}"),
		"array":            file("[]"),
		"not JSON":         file("{]"),
		"two values":       file("{}{}"),
		"not UTF-8":        file("{\"__metadata__\":{\"a\":\"\xff\"}}"),
		"deep":             file(`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}"),
		"trailing data":    file("{"+a+"}", 1, 2, 3),
		"missing data":     file("{"+a+"}", 1),
		"tensor twice":     file("{"+a+","+a+"}", 1, 2),
		"escaped twice":    file("{"+a+`,"\u0061":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, 1, 2, 3, 4),
		"metadata twice":   file(`{"__metadata__":{},"__metadata__":{}}`),
		"metadata key":     file(`{"__metadata__":{"a":"1","a":"2"}}`),
		"metadata number":  file(`{"__metadata__":{"a":1}}`),
		"metadata array":   file(`{"__metadata__":[]}`),
		"dtype twice":      file(`{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`),
		"unknown key":      file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}`),
		"case of a key":    file(`{"a":{"DType":"U8","shape":[0],"data_offsets":[0,0]}}`),
		"type":             file(`{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}`, 1, 2),
		"no type":          file(`{"a":{"shape":[0],"data_offsets":[0,0]}}`),
		"no shape":         file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1),
		"no place":         file(`{"a":{"dtype":"U8","shape":[0]}}`),
		"three offsets":    file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}`),
		"null":             file(`{"a":null}`),
		"shape null":       file(`{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, 1),
		"negative":         file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1),
		"fraction":         file(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1),
		"exponent":         file(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1),
		"string size":      file(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1),
		"2^64":             file(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,0]}}`),
		"product overflow": file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`),
		"byte overflow":    file(`{"a":{"dtype":"U64","shape":[2305843009213693952],"data_offsets":[0,0]}}`),
		"shape mismatch":   file(`{"a":{"dtype":"U32","shape":[1],"data_offsets":[0,2]}}`, 1, 2),
		"backwards":        file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}`, 1, 2),
		"hole":             file("{"+a+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, 1, 2, 3, 4),
		"hole first":       file(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2),
		"overlap":          file("{"+a+`,"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 1, 2, 3),
		"same place":       file("{"+a+`,"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1, 2),
	} {
		if f, err := safetensors.Parse(b); !errors.Is(err, safetensors.ErrFormat) || f != nil {
			t.Errorf("%s: file %v, error %v", name, f, err)
		}
	}
}

func values[T safetensors.Element](t *rapid.T, name string, g *rapid.Generator[T]) safetensors.Tensor {
	rows, cols := rapid.IntRange(0, 5).Draw(t, "rows"), rapid.IntRange(0, 5).Draw(t, "cols")
	v := rapid.SliceOfN(g, rows*cols, rows*cols).Draw(t, "values")
	x := safetensors.New(name, v, rows, cols)
	back, err := safetensors.Values[T](x)
	if err != nil || !reflect.DeepEqual(back, v) && len(v) > 0 {
		t.Fatalf("%s: %v became %v, %v", x.DType, v, back, err)
	}
	return x
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &safetensors.File{Metadata: map[string]string{}}
		for _, k := range rapid.SliceOf(rapid.String()).Draw(t, "keys") {
			f.Metadata[k] = rapid.String().Draw(t, "value")
		}
		names := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z"\\é]{0,4}`), rapid.ID[string]).Draw(t, "names")
		for _, n := range names {
			f.Tensors = append(f.Tensors, []func() safetensors.Tensor{
				func() safetensors.Tensor { return values(t, n, rapid.Byte()) },
				func() safetensors.Tensor { return values(t, n, rapid.Uint32()) },
				func() safetensors.Tensor { return values(t, n, rapid.Uint64()) },
				func() safetensors.Tensor { return values(t, n, rapid.Int32()) },
				func() safetensors.Tensor { return values(t, n, rapid.Float32()) },
				func() safetensors.Tensor { return values(t, n, rapid.Float64()) },
			}[rapid.IntRange(0, 5).Draw(t, "type")]())
		}
		b, err := f.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again(t, b)
	})
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// again checks that a file that Parse accepts is unchanged by writing and reading, and that the
// bytes no longer change after one round.
func again(t fataler, b []byte) {
	t.Helper()
	f, err := safetensors.Parse(b)
	if err != nil {
		t.Fatalf("%v", err)
	}
	b1, err := f.Marshal()
	if err != nil {
		t.Fatalf("written anew: %v", err)
	}
	f1, err := safetensors.Parse(b1)
	if err != nil {
		t.Fatalf("read anew: %v", err)
	}
	if len(f.Metadata) == 0 {
		f.Metadata, f1.Metadata = nil, nil
	}
	if len(f.Tensors) != len(f1.Tensors) || !reflect.DeepEqual(f.Metadata, f1.Metadata) {
		t.Fatalf("got %+v, want %+v", f1, f)
	}
	for i := range f.Tensors {
		if !reflect.DeepEqual(f.Tensors[i], f1.Tensors[i]) {
			t.Fatalf("got %+v, want %+v", f1.Tensors[i], f.Tensors[i])
		}
	}
	b2, err := f1.Marshal()
	if err != nil || !bytes.Equal(b1, b2) {
		t.Fatalf("writing is not settled: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	x := safetensors.File{Metadata: map[string]string{"k": "v"}, Tensors: []safetensors.Tensor{
		safetensors.New("0", []uint32{1, 2}, 1, 2), safetensors.New("1", []uint8{}, 0),
	}}
	b, err := x.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := safetensors.Parse(b); err != nil {
			if !errors.Is(err, safetensors.ErrFormat) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again(t, b)
	})
}

// TestPieces: writing and reading in pieces agrees with Marshal and Parse.
func TestPieces(t *testing.T) {
	long := make([]uint64, 20000) // several pieces
	for i := range long {
		long[i] = uint64(i) << 40
	}
	words := []uint32{1, 2, 3, 4, 5, 6}
	f := safetensors.File{Metadata: map[string]string{"a": "b"}, Tensors: []safetensors.Tensor{
		safetensors.New("long", long, len(long)), safetensors.New("words", words, 2, 3), safetensors.New[uint8]("none", nil, 0),
	}}
	want, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f.Tensors = []safetensors.Tensor{safetensors.Bare[uint64]("long", len(long)), safetensors.Bare[uint32]("words", 2, 3), safetensors.Bare[uint8]("none", 0)}
	head, size, err := f.Head()
	if err != nil || len(head)+size != len(want) {
		t.Fatalf("%d and %d bytes, want %d, %v", len(head), size, len(want), err)
	}
	b := bytes.NewBuffer(head)
	for _, err := range []error{safetensors.Write(b, long), safetensors.Write(b, words), safetensors.Write[uint8](b, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Error("other bytes")
	}

	head, err = safetensors.ReadHead(b)
	if err != nil || !bytes.Equal(head, want[:len(head)]) || b.Len() != size {
		t.Fatalf("%d bytes are left, want %d, %v", b.Len(), size, err)
	}
	for most, ok := range map[int]bool{len(want): true, len(want) + 1: true, math.MaxInt: true, len(want) - 1: false, len(head): false, 8: false} {
		if got, err := safetensors.ParseHeadOf(head, most); (err == nil) != ok || ok && !reflect.DeepEqual(got, &f) || !ok && !errors.Is(err, safetensors.ErrFormat) {
			t.Errorf("at most %d bytes: %+v, %v", most, got, err)
		}
	}
	if _, err := safetensors.Read[uint32](b, f.Tensors[0]); !errors.Is(err, safetensors.ErrFormat) || b.Len() != size {
		t.Errorf("another type: %v", err)
	}
	if v, err := safetensors.Read[uint64](b, f.Tensors[0]); err != nil || !slices.Equal(v, long) {
		t.Errorf("other elements: %v", err)
	}
	b.Truncate(23)
	if _, err := safetensors.Read[uint32](b, f.Tensors[1]); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}
