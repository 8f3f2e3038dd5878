package dataset

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// cifar10 builds a file of records with the given labels. Pixels count from 0 through the whole
// file, modulo 256.
func cifar10(labels ...byte) []byte {
	var b []byte
	for i, l := range labels {
		b = append(b, l)
		for p := range 3072 {
			b = append(b, byte(i*3072+p))
		}
	}
	return b
}

func TestReadCIFAR10(t *testing.T) {
	want := []byte{6, 9, 9, 4, 0, 3}
	m, labels, err := ReadCIFAR10(bytes.NewReader(cifar10(want...)))
	if err != nil {
		t.Fatal(err)
	}
	if m.N != len(want) || m.C != 3 || m.H != 32 || m.W != 32 || len(m.Data) != 3072*m.N || !bytes.Equal(labels, want) {
		t.Fatalf("%d x %d x %d x %d with %d elements and labels %d", m.N, m.C, m.H, m.W, len(m.Data), labels)
	}
	for i, v := range m.Data {
		if v != float32(i%256)/255 {
			t.Fatalf("element %d is %v", i, v)
		}
	}
	failure := errors.New("disk on fire")
	if _, _, err := ReadCIFAR10(io.MultiReader(bytes.NewReader(cifar10(1, 2)), failing{failure})); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}

// Red, green and blue are at the places where a PNG of the same pixels has them.
func TestCIFAR10ChannelsAreThoseOfPNG(t *testing.T) {
	record := cifar10(5)
	fromCIFAR, _, err := ReadCIFAR10(bytes.NewReader(record))
	if err != nil {
		t.Fatal(err)
	}
	picture := image.NewNRGBA(image.Rect(0, 0, 32, 32))
	for i := range 1024 {
		picture.SetNRGBA(i%32, i/32, color.NRGBA{record[1+i], record[1025+i], record[2049+i], 255})
	}
	fromPNG, err := ReadPNG(bytes.NewReader(encodePNG(picture)), 3)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(fromPNG.Data, fromCIFAR.Data) {
		t.Error("PNG and CIFAR-10 of the same pixels differ")
	}
}

// A file that begins like IDX is refused by Open and read by its own reader.
func TestOpenCIFAR10(t *testing.T) {
	dir := t.TempDir()
	open := func(file []byte) (*Images, error) {
		path := filepath.Join(dir, "batch.bin")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		return Open(path, 1)
	}
	for label := range byte(10) {
		if m, err := open(cifar10(label, 7)); err != nil || m.N != 2 || m.C != 3 {
			t.Errorf("label %d: %v", label, err)
		}
	}
	if _, err := open(cifar10(10)); !errors.Is(err, ErrFormat) {
		t.Errorf("label 10: %v", err)
	}
	like := cifar10(0)
	copy(like, []byte{0, 0, 8, 3})
	if m, err := open(like); !errors.Is(err, ErrFormat) {
		t.Errorf("like IDX: %+v, %v", m, err)
	}
	if m, _, err := ReadCIFAR10(bytes.NewReader(like)); err != nil || m.Data[1] != 8./255 {
		t.Errorf("like IDX: %v", err)
	}
}

// MNIST's files carry the magic numbers 2051 and 2049 and these sizes.
func TestMNISTIsIDX(t *testing.T) {
	file := []byte{0, 0, 0x08, 0x03, 0, 0, 0x27, 0x10, 0, 0, 0, 28, 0, 0, 0, 28}
	m, err := ReadIDX(io.MultiReader(bytes.NewReader(file), bytes.NewReader(make([]byte, 10000*28*28))))
	if err != nil || m.N != 10000 || m.C != 1 || m.H != 28 || m.W != 28 {
		t.Errorf("images: %v", err)
	}
	file = []byte{0, 0, 0x08, 0x01, 0, 0, 0x27, 0x10}
	labels, err := ReadIDXLabels(io.MultiReader(bytes.NewReader(file), bytes.NewReader(make([]byte, 10000))))
	if err != nil || len(labels) != 10000 {
		t.Errorf("labels: %v", err)
	}
}

func FuzzCIFAR10(f *testing.F) {
	f.Add(cifar10(3))
	f.Add(cifar10(9, 0))
	f.Add(cifar10(9, 10))
	f.Add(cifar10(9, 0)[:5000])
	f.Add([]byte{})
	fuzz(f, func(r io.Reader) (*Images, error) {
		m, labels, err := ReadCIFAR10(r)
		if err == nil && (len(labels) != m.N || slices.Max(labels) >= 10) {
			return nil, errors.New("labels of another number or kind")
		}
		return m, err
	})
}

// Every element that Fit returns is the image's inside the centred image, and 0 elsewhere.
func TestFit(t *testing.T) {
	for _, c := range []struct{ from, to [3]int }{
		{[3]int{1, 28, 28}, [3]int{3, 32, 32}},
		{[3]int{1, 2, 3}, [3]int{1, 5, 4}},
		{[3]int{1, 2, 3}, [3]int{4, 2, 3}},
		{[3]int{3, 4, 2}, [3]int{3, 4, 5}},
		{[3]int{2, 3, 3}, [3]int{2, 3, 3}},
	} {
		const n = 3
		m := &Images{N: n, C: c.from[0], H: c.from[1], W: c.from[2]}
		m.Data = make([]float32, n*m.C*m.H*m.W)
		for i := range m.Data {
			m.Data[i] = float32(i + 1)
		}
		before := slices.Clone(m.Data)
		got, err := m.Fit(c.to[0], c.to[1], c.to[2])
		if err != nil {
			t.Fatal(err)
		}
		if got.N != n || [3]int{got.C, got.H, got.W} != c.to || len(got.Data) != n*c.to[0]*c.to[1]*c.to[2] {
			t.Fatalf("%v to %v: %d x %d x %d x %d with %d elements", c.from, c.to, got.N, got.C, got.H, got.W, len(got.Data))
		}
		for i, v := range got.Data {
			x, y, channel, s := i%got.W, i/got.W%got.H, i/(got.W*got.H)%got.C, i/(got.W*got.H*got.C)
			x, y, want := x-(got.W-m.W)/2, y-(got.H-m.H)/2, float32(0)
			if m.C == 1 {
				channel = 0
			}
			if x >= 0 && x < m.W && y >= 0 && y < m.H {
				want = m.Data[((s*m.C+channel)*m.H+y)*m.W+x]
			}
			if v != want {
				t.Fatalf("%v to %v: element %d is %v, want %v", c.from, c.to, i, v, want)
			}
		}
		if !slices.Equal(m.Data, before) {
			t.Errorf("%v to %v: the images were written to", c.from, c.to)
		}
	}
}

func TestFitRefuses(t *testing.T) {
	grey := &Images{N: 2, C: 1, H: 4, W: 4, Data: make([]float32, 32)}
	colour := &Images{N: 1, C: 3, H: 4, W: 4, Data: make([]float32, 48)}
	for _, c := range []struct {
		m       *Images
		c, h, w int
	}{
		{grey, 1, 3, 4}, {grey, 1, 4, 3}, {grey, 0, 4, 4}, {grey, -1, 4, 4}, {grey, 1, -8, 4},
		{colour, 1, 4, 4}, {colour, 6, 4, 4}, {colour, 4, 4, 4},
		{grey, 1, MaxElements, 4}, {grey, math.MaxInt, math.MaxInt, math.MaxInt}, {grey, 1, 1 << 32, 1 << 32},
	} {
		if _, err := c.m.Fit(c.c, c.h, c.w); err == nil || errors.Is(err, ErrFormat) {
			t.Errorf("%d x %d x %d to %d x %d x %d: %v", c.m.C, c.m.H, c.m.W, c.c, c.h, c.w, err)
		}
	}
}
