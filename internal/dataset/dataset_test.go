package dataset

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// idx builds a file: magic, sizes, elements.
func idx(elements []byte, sizes ...uint32) []byte {
	b := []byte{0, 0, 8, byte(len(sizes))}
	for _, s := range sizes {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return append(b, elements...)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// npy builds a file of version 1 with the given header text.
func npy(text string, elements []byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(text)))
	return append(append(b, text...), elements...)
}

// encodePNG panics where image/png refuses, so that fuzz seeds may use it.
func encodePNG(m image.Image) []byte {
	var out bytes.Buffer
	if err := png.Encode(&out, m); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// hugePNG is a well-formed header of w x h pixels with nothing after it.
func hugePNG(w, h uint32) []byte {
	chunk := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	chunk = append(binary.BigEndian.AppendUint32(chunk, h), 8, 0, 0, 0, 0)
	b := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(b, chunk...), crc32.ChecksumIEEE(chunk))
}

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestReadIDX(t *testing.T) {
	// More than one chunk, which covers growth and the seams between chunks.
	const n, h, w = 70, 25, 31
	raw := counting(n * h * w)
	for name, file := range map[string][]byte{
		"plain": idx(raw, n, h, w),
		"gzip":  gzipped(t, idx(raw, n, h, w)),
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ReadIDX(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			if m.N != n || m.C != 1 || m.H != h || m.W != w || len(m.Data) != len(raw) {
				t.Fatalf("%d x %d x %d x %d with %d elements", m.N, m.C, m.H, m.W, len(m.Data))
			}
			for i, b := range raw {
				if m.Data[i] != float32(b)/255 {
					t.Fatalf("element %d is %v, want %d/255", i, m.Data[i], b)
				}
			}
			if r := m.Range(3, 5); !slices.Equal(r, m.Data[3*h*w:5*h*w]) || cap(r) != len(r) {
				t.Errorf("Range(3, 5) is not samples 3 and 4")
			}
			labels, err := ReadIDXLabels(bytes.NewReader(idx(raw, n*h*w)))
			if err != nil || !bytes.Equal(labels, raw) {
				t.Errorf("labels: %v", err)
			}
		})
	}
}

// The files of testdata were written by NumPy; element i in C order is i - 3.5, or i if
// elements are bytes.
func TestReadNPY(t *testing.T) {
	for _, c := range []struct {
		file       string
		n, c, h, w int
		want       func(i int) float32
	}{
		{"u1-4x6.npy", 4, 6, 1, 1, func(i int) float32 { return float32(i) / 255 }},
		{"f4le-2x3x4.npy", 2, 1, 3, 4, func(i int) float32 { return float32(i) - 3.5 }},
		{"f4be-2x3x4x5.npy", 2, 3, 4, 5, func(i int) float32 { return float32(i) - 3.5 }},
		{"f8le-v2-2x3.npy", 2, 3, 1, 1, func(i int) float32 { return float32(i) - 3.5 }},
		{"f8be-v3-1x2x3.npy", 1, 1, 2, 3, func(i int) float32 { return float32(i) - 3.5 }},
	} {
		t.Run(c.file, func(t *testing.T) {
			m, err := Open(filepath.Join("testdata", c.file), 1)
			if err != nil {
				t.Fatal(err)
			}
			if m.N != c.n || m.C != c.c || m.H != c.h || m.W != c.w || len(m.Data) != c.n*c.c*c.h*c.w {
				t.Fatalf("%d x %d x %d x %d with %d elements", m.N, m.C, m.H, m.W, len(m.Data))
			}
			for i, v := range m.Data {
				if v != c.want(i) {
					t.Errorf("element %d is %v, want %v", i, v, c.want(i))
				}
			}
		})
	}
}

// Keys may come in any order and with any space.
func TestReadNPYHeaderForms(t *testing.T) {
	for _, text := range []string{
		"{'shape': (1, 2), 'fortran_order': False, 'descr': '|u1'}\n",
		"{'descr':'|u1','fortran_order':False,'shape':(1,2,),}",
		"{ 'descr' : '|u1' , 'fortran_order' : False , 'shape' : ( 1 , 2 ) , }   ",
	} {
		m, err := ReadNPY(bytes.NewReader(npy(text, []byte{0, 255})))
		if err != nil || m.N != 1 || m.C != 2 || !slices.Equal(m.Data, []float32{0, 1}) {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	}
}

func TestReadPNG(t *testing.T) {
	const w, h = 5, 3
	rect := image.Rect(0, 0, w, h)
	grey, grey16 := image.NewGray(rect), image.NewGray16(rect)
	rgb, rgb16 := image.NewNRGBA(rect), image.NewNRGBA64(rect)
	paletted := image.NewPaletted(rect, color.Palette{color.Black, color.White})
	for y := range h {
		for x := range w {
			i := y*w + x
			grey.SetGray(x, y, color.Gray{uint8(17 * i)})
			grey16.SetGray16(x, y, color.Gray16{uint16(4001 * i)})
			rgb.SetNRGBA(x, y, color.NRGBA{uint8(i), uint8(100 + i), uint8(200 + i), 255})
			rgb16.SetNRGBA64(x, y, color.NRGBA64{uint16(i), uint16(1000 * i), uint16(60000 + i), 65535})
			paletted.SetColorIndex(x, y, uint8(i%2))
		}
	}
	luma := func(r, g, b float64) float64 { return 0.299*r + 0.587*g + 0.114*b }
	for _, c := range []struct {
		name     string
		file     []byte
		channels int
		want     func(channel, i int) float64
	}{
		{"grey", encodePNG(grey), 1, func(_, i int) float64 { return float64(17*i) / 255 }},
		{"grey of 16 bits", encodePNG(grey16), 1, func(_, i int) float64 { return float64(4001*i) / 65535 }},
		{"grey as colour", encodePNG(grey), 3, func(_, i int) float64 { return float64(17*i) / 255 }},
		{"colour", encodePNG(rgb), 3, func(c, i int) float64 { return float64(100*c+i) / 255 }},
		{"colour of 16 bits", encodePNG(rgb16), 3, func(c, i int) float64 {
			return []float64{float64(i), float64(1000 * i), float64(60000 + i)}[c] / 65535
		}},
		{"colour as grey", encodePNG(rgb), 1, func(_, i int) float64 {
			return luma(float64(i), float64(100+i), float64(200+i)) / 255
		}},
		{"palette", encodePNG(paletted), 1, func(_, i int) float64 { return float64(i % 2) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ReadPNG(bytes.NewReader(c.file), c.channels)
			if err != nil {
				t.Fatal(err)
			}
			if m.N != 1 || m.C != c.channels || m.H != h || m.W != w || len(m.Data) != c.channels*h*w {
				t.Fatalf("%d x %d x %d x %d with %d elements", m.N, m.C, m.H, m.W, len(m.Data))
			}
			for i, v := range m.Data {
				// The luma weights are rounded to 16 bits, their sum to 1.
				if want := c.want(i/(h*w), i%(h*w)); math.Abs(float64(v)-want) > 2.0/65535 {
					t.Errorf("element %d is %v, want %v", i, v, want)
				}
			}
		})
	}
	// A PNG of bytes gives exactly the values of an IDX file of the same bytes.
	fromPNG, err := ReadPNG(bytes.NewReader(encodePNG(grey)), 1)
	if err != nil {
		t.Fatal(err)
	}
	fromIDX, err := ReadIDX(bytes.NewReader(idx(grey.Pix, 1, h, w)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(fromPNG.Data, fromIDX.Data) {
		t.Error("PNG and IDX of the same bytes differ")
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for name, file := range map[string][]byte{
		"idx":    idx(make([]byte, 24), 2, 3, 4),
		"idx.gz": gzipped(t, idx(make([]byte, 24), 2, 3, 4)),
		"npy":    npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4), }", make([]byte, 24)),
		"png":    encodePNG(image.NewGray(image.Rect(0, 0, 4, 3))),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path, 1)
		if err != nil || m.H != 3 || m.W != 4 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, file := range map[string][]byte{"empty": nil, "short": {0}, "text": []byte("P5 28 28 255")} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, 1); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "absent"), 1); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrFormat) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "png"), 2); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("PNG of 2 channels: %v", err)
	}
}

// Bytes are as they are in files of any kind.
func TestOpenBytes(t *testing.T) {
	all := counting(256)
	header := "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 16, 16), }"
	grey, deep := image.NewGray(image.Rect(0, 0, 16, 16)), image.NewGray16(image.Rect(0, 0, 16, 16))
	copy(grey.Pix, all)
	for i, v := range all {
		deep.SetGray16(i%16, i/16, color.Gray16{Y: uint16(min(257*int(v)+100, 65535))})
	}
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	w, err := z.Create("image.npy")
	if err == nil {
		_, err = w.Write(npy(header, all))
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	for name, file := range map[string][]byte{
		"idx": idx(all, 1, 16, 16), "idx.gz": gzipped(t, idx(all, 1, 16, 16)), "npy": npy(header, all), "npz": zipped.Bytes(),
		"integers": array("<i2", "(1, 256)", counting16(256)), "png": encodePNG(grey), "png of 16 bits": encodePNG(deep),
	} {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := OpenBytes(path, 1)
		if err != nil || len(m.Data) != 256 {
			t.Errorf("%s: %+v, %v", name, m, err)
			continue
		}
		for i, v := range m.Data {
			if v != float32(i) {
				t.Errorf("%s: byte %d is %v", name, i, v)
				break
			}
		}
	}
	if err := os.WriteFile(path, array("<f4", "(1, 2)", []float32{0, 1}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBytes(path, 1); !errors.Is(err, ErrFormat) {
		t.Errorf("floats: %v", err)
	}
}

func counting16(n int) []int16 {
	v := make([]int16, n)
	for i := range v {
		v[i] = int16(i)
	}
	return v
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Each file is refused with ErrFormat and a reason, and takes little memory whatever sizes it
// declares.
func TestHostileFiles(t *testing.T) {
	images := func(r io.Reader) error { _, err := ReadIDX(r); return err }
	labels := func(r io.Reader) error { _, err := ReadIDXLabels(r); return err }
	array := func(r io.Reader) error { _, err := ReadNPY(r); return err }
	picture := func(r io.Reader) error { _, err := ReadPNG(r, 1); return err }
	record := func(r io.Reader) error { _, _, err := ReadCIFAR10(r); return err }
	const text = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
	good := gzipped(t, idx(counting(256), 1, 16, 16))
	badSum := slices.Clone(good)
	badSum[len(badSum)-5] ^= 1 // the last of the sum's bytes; the length follows
	smallPNG := encodePNG(image.NewGray(image.Rect(0, 0, 9, 9)))
	fortran, err := os.ReadFile("testdata/fortran-2x3.npy")
	if err != nil {
		t.Fatal(err)
	}
	integers, err := os.ReadFile("testdata/i8-2x3.npy")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		read func(io.Reader) error
		file []byte
		want string
	}{
		{"no bytes", images, nil, "IDX header"},
		{"short magic", images, []byte{0, 0, 8}, "IDX header"},
		{"short sizes", images, idx(nil, 1, 1, 1)[:15], "IDX header"},
		{"other magic", images, []byte("\x00\x01\x08\x03............"), "not an IDX file"},
		{"a gzipped npy", images, gzipped(t, fortran), "not an IDX file of unsigned bytes, and nothing else is read gzipped"},
		{"floats", images, []byte("\x00\x00\x0d\x03............"), "not an IDX file"},
		{"labels as images", images, idx(counting(5), 5), "1 dimensions, want 3"},
		{"images as labels", labels, idx(counting(4), 1, 2, 2), "3 dimensions, want 1"},
		{"no samples", images, idx(nil, 0, 28, 28), "size of 0"},
		{"no columns", images, idx(nil, 5, 28, 0), "size of 0"},
		{"no labels", labels, idx(nil, 0), "size of 0"},
		{"truncated", images, idx(counting(99), 1, 10, 10), "elements 0 to 99 of 100"},
		{"truncated labels", labels, idx(counting(99), 100), "elements 0 to 99 of 100"},
		{"followed by a byte", images, idx(counting(101), 1, 10, 10), "bytes follow"},
		{"absurd sizes", images, idx(nil, 1<<31, 1<<31, 1<<31), "2147483648 x 2147483648 x 2147483648: more than 268435456 elements"},
		{"sizes that overflow to 0", images, idx(nil, 1<<31, 1<<31, 4), "more than"},
		{"absurd labels", labels, idx(nil, math.MaxUint32), "more than"},
		{"largest size, no elements", images, idx(nil, 1<<8, 1<<10, 1<<10), "elements 0 to"},
		{"largest size, few elements", images, idx(make([]byte, 40000), 1<<8, 1<<10, 1<<10), "elements 32768 to"},
		{"gzip that ends", images, good[:len(good)/2], "elements"},
		{"gzip without its sum", images, good[:len(good)-8], "last element"},
		{"gzip of a wrong sum", images, badSum, "checksum"},
		{"gzip header", images, []byte{0x1f, 0x8b, 8}, "gzip header"},
		{"gzip bomb behind the elements", images, gzipped(t, idx(make([]byte, 64<<20), 1, 10, 10)), "bytes follow"},

		{"no npy", array, nil, "npy header"},
		{"npy magic", array, []byte("\x93NUMPZ\x01\x00\x00\x00"), "not an npy"},
		{"npy version", array, []byte("\x93NUMPY\x04\x00\x00\x00"), "version 4.0"},
		{"npy version 2 cut", array, []byte("\x93NUMPY\x02\x00\x00\x00"), "npy header"},
		{"npy header of 4 GiB", array, []byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"), "4294967295 bytes"},
		{"npy header cut", array, npy(fmt.Sprintf(text, "|u1", "(1, 2)"), nil)[:40], "npy header"},
		{"npy of integers", array, integers, `type "<i8"`},
		{"npy in Fortran order", array, fortran, "Fortran order"},
		{"npy of objects", array, npy(fmt.Sprintf(text, "|O", "(1, 2)"), nil), `type "|O"`},
		{"npy of 1 dimension", array, npy(fmt.Sprintf(text, "|u1", "(2,)"), []byte{1, 2}), "1 dimensions"},
		{"npy of no dimensions", array, npy(fmt.Sprintf(text, "|u1", "()"), []byte{1}), "0 dimensions"},
		{"npy of 5 dimensions", array, npy(fmt.Sprintf(text, "|u1", "(1, 1, 1, 1, 1)"), []byte{1}), "5 dimensions"},
		{"npy of nothing", array, npy(fmt.Sprintf(text, "|u1", "(0, 2)"), nil), "size of 0"},
		{"npy of absurd sizes", array, npy(fmt.Sprintf(text, "<f4", "(4611686018427387904, 4)"), nil), "more than"},
		{"npy sizes that overflow to 0", array, npy(fmt.Sprintf(text, "<f4", "(4, 4611686018427387904)"), nil), "more than"},
		{"npy size over an int", array, npy(fmt.Sprintf(text, "<f4", "(99999999999999999999, 1)"), nil), "not a number"},
		{"npy size missing", array, npy(fmt.Sprintf(text, "<f4", "(1,,1)"), nil), "not a number"},
		{"npy shape as a string", array, npy(fmt.Sprintf(text, "<f4", "'1, 2'"), nil), "not a tuple"},
		{"npy descr as a tuple", array, npy("{'descr': (1,), 'fortran_order': False, 'shape': (1, 1)}", nil), "not a string"},
		{"npy order as a string", array, npy("{'descr': '|u1', 'fortran_order': 'False', 'shape': (1, 1)}", nil), "neither"},
		{"npy without shape", array, npy("{'descr': '|u1', 'fortran_order': False}", nil), "not the entries"},
		{"npy with two shapes", array, npy("{'descr': '|u1', 'shape': (1, 1), 'shape': (1, 2), 'fortran_order': False}", nil), "two entries"},
		{"npy with another entry", array, npy("{'descr': '|u1', 'x': (1, 1), 'shape': (1, 2), 'fortran_order': False}", nil), "not the entries"},
		{"npy with code", array, npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1)}; import os", nil), "alone"},
		{"npy without a dictionary", array, npy("[1, 2]", nil), "dictionary"},
		{"npy truncated", array, npy(fmt.Sprintf(text, "<f8", "(1, 2)"), make([]byte, 15)), "elements 0 to 1 of 2"},
		{"npy followed by a byte", array, npy(fmt.Sprintf(text, "<f8", "(1, 2)"), make([]byte, 17)), "bytes follow"},

		{"no PNG", picture, nil, "PNG header"},
		{"another picture", picture, []byte("GIF89a.................."), "not a PNG"},
		{"PNG without IHDR", picture, append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 30)...), "not a PNG"},
		{"PNG of 4 Gi x 4 Gi", picture, hugePNG(math.MaxUint32, math.MaxUint32), "4294967295 x 4294967295"},
		{"PNG just over the limit", picture, hugePNG(1<<12, 1<<12+1), "4096 x 4097"},
		{"PNG of no pixels", picture, hugePNG(0, 5), "0 x 5"},
		{"PNG cut", picture, smallPNG[:len(smallPNG)-20], "PNG"},
		{"PNG of a wrong sum", picture, append(slices.Clone(smallPNG[:40]), smallPNG[41:]...), "PNG"},

		{"no records", record, nil, "record 0: EOF"},
		{"a record cut", record, cifar10(1)[:3072], "record 0: unexpected EOF"},
		{"a label alone", record, []byte{1}, "record 0: unexpected EOF"},
		{"a second record cut", record, cifar10(1, 2)[:6145], "record 1: unexpected EOF"},
		{"followed by a label", record, append(cifar10(1, 2), 3), "record 2: unexpected EOF"},
		{"label of 10", record, cifar10(1, 10, 2), "record 1 does not begin with a label"},
		{"CIFAR-100", record, bytes.Repeat(append([]byte{4, 50}, make([]byte, 3072)...), 2), "record 2: unexpected EOF"},
		{"IDX as CIFAR-10", record, idx(counting(3072*2), 2, 32, 96), "record 1"},
		{"PNG as CIFAR-10", record, append(smallPNG, make([]byte, 3073)...), "record 0 does not begin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			spent := allocated(func() { err = c.read(bytes.NewReader(c.file)) })
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v, want ErrFormat", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
			if spent > 1<<20 {
				t.Errorf("allocated %d bytes", spent)
			}
		})
	}
}

// A reader's own failure is told apart from a file's end.
func TestReaderFails(t *testing.T) {
	failure := errors.New("disk on fire")
	file := idx(counting(50), 1, 10, 10)
	_, err := ReadIDX(io.MultiReader(bytes.NewReader(file), failing{failure}))
	if !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// fuzz checks what every reader promises for arbitrary bytes.
func fuzz(f *testing.F, read func(io.Reader) (*Images, error)) {
	f.Fuzz(func(t *testing.T, file []byte) {
		m, err := read(bytes.NewReader(file))
		if err != nil {
			if !errors.Is(err, ErrFormat) || m != nil {
				t.Fatalf("%v with %v", m, err)
			}
			return
		}
		if m.N < 1 || m.C < 1 || m.H < 1 || m.W < 1 || len(m.Data) != m.N*m.C*m.H*m.W {
			t.Fatalf("%d x %d x %d x %d with %d elements", m.N, m.C, m.H, m.W, len(m.Data))
		}
	})
}

func FuzzIDX(f *testing.F) {
	f.Add(idx(counting(24), 2, 3, 4))
	f.Add(gzipped(f, idx(counting(24), 2, 3, 4)))
	f.Add(idx(nil, 1<<31, 1<<31, 4))
	fuzz(f, ReadIDX)
}

func FuzzNPY(f *testing.F) {
	files, err := filepath.Glob("testdata/*.npy")
	if err != nil || len(files) == 0 {
		f.Fatal("no files in testdata")
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	fuzz(f, ReadNPY)
}

func FuzzIntegers(f *testing.F) {
	f.Add(array("|b1", "(1, 2)", []byte{0, 1}))
	f.Add(array("<i8", "(2, 3)", []int64{0, 1, -2, 100, 1 << 24, -1 << 24}))
	f.Add(array(">u4", "(2, 1, 1)", []uint32{3, 1 << 31}))
	fuzz(f, ReadIntegers)
}

func FuzzPNG(f *testing.F) {
	f.Add(encodePNG(image.NewGray(image.Rect(0, 0, 5, 4))))
	f.Add(encodePNG(image.NewNRGBA64(image.Rect(0, 0, 5, 4))))
	f.Add(encodePNG(image.NewPaletted(image.Rect(0, 0, 5, 4), color.Palette{color.Black, color.White})))
	f.Add(hugePNG(1<<12, 1<<12+1))
	fuzz(f, func(r io.Reader) (*Images, error) { return ReadPNG(r, 3) })
}
