package dataset

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// array builds an npy file.
func array(descr, shape string, v any) []byte {
	text := "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(text)), byte(len(text)>>8))
	b = append(b, text...)
	if descr[0] == '>' {
		b, _ = binary.Append(b, binary.BigEndian, v)
		return b
	}
	b, _ = binary.Append(b, binary.LittleEndian, v)
	return b
}

func TestReadIntegers(t *testing.T) {
	want := []float32{0, 1, -2, 100, 3, 4}
	for _, file := range [][]byte{
		array("<i8", "(2, 3)", []int64{0, 1, -2, 100, 3, 4}), array(">i8", "(2, 3)", []int64{0, 1, -2, 100, 3, 4}),
		array("<i4", "(2, 3)", []int32{0, 1, -2, 100, 3, 4}), array(">i2", "(2, 3)", []int16{0, 1, -2, 100, 3, 4}), array("|i1", "(2, 3)", []int8{0, 1, -2, 100, 3, 4}),
	} {
		if m, err := ReadIntegers(bytes.NewReader(file)); err != nil || m.N != 2 || m.C != 3 || !slices.Equal(m.Data, want) {
			t.Errorf("%q: %+v, %v", file[:40], m, err)
		}
	}
	for _, c := range []struct {
		file []byte
		want float32
	}{
		{array("|b1", "(1, 1)", []byte{1}), 1}, {array("|u1", "(1, 1)", []byte{255}), 255}, {array("<u2", "(1, 1)", []uint16{65535}), 65535},
		{array("<u4", "(1, 1)", []uint32{1 << 24}), 1 << 24}, {array("<u8", "(1, 1)", []uint64{7}), 7}, {array("<i8", "(1, 1)", []int64{-1 << 24}), -1 << 24},
	} {
		if m, err := ReadIntegers(bytes.NewReader(c.file)); err != nil || m.Data[0] != c.want {
			t.Errorf("%q: %+v, %v", c.file[:40], m, err)
		}
	}
	for _, file := range [][]byte{
		array("<f4", "(1, 1)", []float32{1}), array("<i8", "(1, 1)", []int64{1<<24 + 1}), array("<i8", "(1, 1)", []int64{-1<<24 - 1}),
		array("<u8", "(1, 1)", []uint64{1 << 63}), array("<i8", "(1, 2)", []int64{1}), array("<i8", "(1,)", []int64{1}), []byte("x"),
		// Of no byte order, of two, and others that NumPy does not write.
		array("i4", "(1, 1)", []int32{1}), array("|i4", "(1, 1)", []int32{1}), array("<>i4", "(1, 1)", []int32{1}), array("<<i4", "(1, 1)", []int32{1}), array("=i4", "(1, 1)", []int32{1}),
		array("<u1", "(1, 1)", []byte{1}), array("u1", "(1, 1)", []byte{1}), array("|O", "(1, 1)", []int64{1}), array("<U1", "(1, 1)", []int32{1}), array("|", "(1, 1)", []byte{1}),
	} {
		if _, err := ReadIntegers(bytes.NewReader(file)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// TestOpenSingle: for a network of one input of floats, an .npz file holds its array under any name.
func TestOpenSingle(t *testing.T) {
	floats := array("<f4", "(2, 3)", []float32{1, 2, 3, 4, 5, 6})
	write := func(names ...string) string {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, name := range names {
			w, err := z.Create(name + ".npy")
			if err == nil {
				_, err = w.Write(floats)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "x.npz")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if m, err := Open(write("image"), 1); err != nil || m.N != 2 || !slices.Equal(m.Data, []float32{1, 2, 3, 4, 5, 6}) {
		t.Errorf("%+v, %v", m, err)
	}
	path := write("a", "b")
	if _, err := Open(path, 1); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "2 arrays") {
		t.Errorf("two arrays: %v", err)
	}
	cut, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, cut[:len(cut)-10], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, 1); !errors.Is(err, ErrFormat) {
		t.Errorf("cut off: %v", err)
	}
}

func TestOpenInputs(t *testing.T) {
	dir := t.TempDir()
	write := func(b []byte) string {
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type member struct {
		name string
		file []byte
	}
	zipped := func(members ...member) string {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for i, m := range members {
			method := []uint16{zip.Store, zip.Deflate}[i%2] // as savez and savez_compressed
			w, err := z.CreateHeader(&zip.FileHeader{Name: m.name, Method: method})
			if err == nil {
				_, err = w.Write(m.file)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return write(b.Bytes())
	}
	inputs := []Input{{"ids", 2, true}, {"x", 3, false}}
	ids := member{"ids.npy", array("<i8", "(2, 2)", []int64{5, 6, 7, 8})}
	x := member{"x.npy", array("<f4", "(2, 3)", []float32{.5, 1, 2, 3, 4, 5})}
	m, err := OpenInputs(zipped(x, ids), inputs)
	if want := []float32{5, 6, .5, 1, 2, 7, 8, 3, 4, 5}; err != nil || m.N != 2 || m.C != 5 || !slices.Equal(m.Data, want) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, c := range []struct {
		name, want string
		path       func() string
	}{
		{"a missing array", "no array x; the network takes ids, x", func() string { return zipped(ids) }},
		{"one too many", `array "mask" is none`, func() string { return zipped(ids, x, member{"mask.npy", x.file}) }},
		{"one twice", "two arrays", func() string { return zipped(ids, ids, x) }},
		{"unlike numbers", "2 samples of ids and 1 of x", func() string {
			return zipped(ids, member{"x.npy", array("<f4", "(1, 3)", []float32{1, 2, 3})})
		}},
		{"other sizes", "samples of 2 elements", func() string { return zipped(ids, member{"x.npy", array("<f4", "(2, 2)", make([]float32, 4))}) }},
		{"integers for floats", "of type", func() string { return zipped(ids, member{"x.npy", array("<i8", "(2, 3)", make([]int64, 6))}) }},
		{"floats for integers", "want integers", func() string {
			return zipped(member{"ids.npy", array("<f4", "(2, 2)", make([]float32, 4))}, x)
		}},
		{"too much in all", "more than 268435456 elements in all", func() string {
			return zipped(ids, member{"x.npy", array("<f4", "(89478485, 3)", make([]float32, 3))})
		}},
		{"no array", "array x", func() string { return zipped(ids, member{"x.npy", []byte("text")}) }},
		{"an npy file", "not an .npz file", func() string { return write(ids.file) }},
		{"a zip file cut short", "npz", func() string { return write([]byte("PK\x03\x04")) }},
	} {
		if _, err := OpenInputs(c.path(), inputs); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if m, err := OpenInputs(write(ids.file), inputs[:1]); err != nil || m.N != 2 || !slices.Equal(m.Data, []float32{5, 6, 7, 8}) {
		t.Errorf("%+v, %v", m, err)
	}
	many := slices.Repeat(inputs[:1], 9)
	if _, err := OpenInputs(write(ids.file), many); err == nil || !strings.Contains(err.Error(), "with arrays ids, ids, ids, ids, ids, ids and 3 more, the") {
		t.Errorf("of many inputs: %v", err)
	}
	if _, err := OpenInputs(filepath.Join(dir, "none"), inputs); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestReadNPYLabels(t *testing.T) {
	for shape, want := range map[string]Images{
		"(3,)":   {N: 3, C: 1, H: 1, W: 1},
		"(1, 3)": {N: 1, C: 3, H: 1, W: 1},
	} {
		m, err := ReadNPYLabels(bytes.NewReader(array("<i8", shape, []int64{7, -100, 0})))
		if want.Data = []float32{7, -100, 0}; err != nil || !reflect.DeepEqual(*m, want) {
			t.Errorf("%s: %+v, %v", shape, m, err)
		}
	}
	for descr, shape := range map[string]string{"<i8": "()", "<f4": "(3,)"} {
		if _, err := ReadNPYLabels(bytes.NewReader(array(descr, shape, []int64{7, 1, 0}))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s of %s: %v", descr, shape, err)
		}
	}
}
