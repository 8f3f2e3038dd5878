// Package dataset reads images and labels from files: IDX (plain or gzipped), in which
// MNIST comes, CIFAR-10's binary version, NumPy's .npy, and PNG; and the inputs of networks of
// text from .npy and .npz. It treats them as hostile: memory grows with the bytes that a file
// has, not with the sizes that its header declares, up to a fixed limit, and errors say what is
// wrong.
package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// ErrFormat reports a file that is not of its reader's format.
var ErrFormat = errors.New("dataset: bad file")

// MaxElements bounds the elements of one file: 1 GiB of float32.
const MaxElements = 1 << 28

// Images are N samples in C, H, W order, one after the other. Bytes are scaled to [0, 1], but not
// by OpenBytes, OpenInputs of integers and ReadIntegers; floating-point files are taken as they are.
type Images struct {
	N, C, H, W int
	Data       []float32
}

// Range returns samples [i, j), sharing memory. It panics like a slice expression if they are
// out of range.
func (m *Images) Range(i, j int) []float32 {
	n := m.C * m.H * m.W
	return m.Data[i*n : j*n : j*n]
}

// Fit returns the images for a network of input c x h x w: centred on maps of zeros, with an
// odd zero below and to the right, and a single channel repeated c times. If nothing changes,
// it returns m.
func (m *Images) Fit(c, h, w int) (*Images, error) {
	if c == m.C && h == m.H && w == m.W {
		return m, nil
	}
	if c < m.C || c > m.C && m.C != 1 || h < m.H || w < m.W {
		return nil, fmt.Errorf("dataset: images of %d x %d x %d do not fit into %d x %d x %d", m.C, m.H, m.W, c, h, w)
	}
	n, err := elements(m.N, c, h, w)
	if err != nil {
		return nil, fmt.Errorf("dataset: %d images of %d x %d x %d: more than %d elements", m.N, c, h, w, MaxElements)
	}
	out := &Images{N: m.N, C: c, H: h, W: w, Data: make([]float32, n)}
	top, left := (h-m.H)/2, (w-m.W)/2
	repeat := c / m.C
	for channel := range m.N * c {
		from, to := m.Data[channel/repeat*m.H*m.W:], out.Data[channel*h*w:]
		for y := range m.H {
			copy(to[(top+y)*w+left:], from[y*m.W:(y+1)*m.W])
		}
	}
	return out, nil
}

// Open reads the images of a file of any of these formats, told apart by their first bytes. A
// PNG is converted to the given channels, 1 or 3; other formats have their own. CIFAR-10's
// files have no magic number: a file that begins with a label and has no other format's magic
// is read as one. One that begins with label 0 and pixels 0 and 8 looks like IDX and is
// refused; ReadCIFAR10 reads it.
func Open(path string, channels int) (*Images, error) { return open(path, channels, ReadNPY) }

// OpenBytes is Open of bytes as they are, 0 to 255: .npy and .npz files hold integers, and a PNG's
// samples of 16 bits are rounded to 8.
func OpenBytes(path string, channels int) (*Images, error) {
	scaled := true
	m, err := open(path, channels, func(r io.Reader) (*Images, error) {
		scaled = false
		return ReadIntegers(r)
	})
	if err == nil && scaled {
		for i, v := range m.Data {
			m.Data[i] = float32(math.Round(255 * float64(v)))
		}
	}
	return m, err
}

func open(path string, channels int, npy func(io.Reader) (*Images, error)) (*Images, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, err := r.Peek(8)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var m *Images
	switch {
	case bytes.HasPrefix(head, gzipMagic), bytes.HasPrefix(head, idxMagic):
		m, err = ReadIDX(r)
	case bytes.HasPrefix(head, npyMagic):
		m, err = npy(r)
	case bytes.HasPrefix(head, zipMagic):
		m, err = readSingle(f, npy)
	case bytes.HasPrefix(head, pngMagic):
		m, err = ReadPNG(r, channels)
	case len(head) > 0 && head[0] < cifarClasses:
		if m, _, err = ReadCIFAR10(r); errors.Is(err, ErrFormat) {
			err = fmt.Errorf("%w; nor is it IDX, npy, npz or PNG", err)
		}
	default:
		err = fmt.Errorf("%w: not IDX, npy, npz, PNG or CIFAR-10", ErrFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// elements returns the product of a header's sizes, or an error if one is not positive or the
// product exceeds MaxElements.
func elements(sizes ...int) (int, error) {
	n := 1
	for _, s := range sizes {
		if s <= 0 {
			return 0, fmt.Errorf("%w: a size of %d", ErrFormat, s)
		}
		if s > MaxElements/n {
			text := strings.ReplaceAll(strings.Trim(fmt.Sprint(sizes), "[]"), " ", " x ")
			return 0, fmt.Errorf("%w: %s: more than %d elements", ErrFormat, text, MaxElements)
		}
		n *= s
	}
	return n, nil
}

// readElements reads n elements of size bytes each, and wants the file to end after them.
// Memory grows with the bytes that r has: a header alone costs one chunk.
func readElements[T any](r io.Reader, n, size int, decode func(dst []T, src []byte)) ([]T, error) {
	const chunk = 1 << 14 // elements
	buf := make([]byte, min(n, chunk)*size)
	var out []T
	for len(out) < n {
		m := min(n-len(out), chunk)
		if _, err := io.ReadFull(r, buf[:m*size]); err != nil {
			return nil, malformed(err, "elements %d to %d of %d", len(out), len(out)+m-1, n)
		}
		if cap(out)-len(out) < m {
			out = append(make([]T, 0, min(n, max(2*len(out), chunk))), out...)
		}
		out = out[:len(out)+m]
		decode(out[len(out)-m:], buf[:m*size])
	}
	// At its end a gzip reader checks the checksum.
	switch k, err := io.ReadFull(r, buf[:1]); {
	case k != 0:
		return nil, fmt.Errorf("%w: bytes follow the %d elements that the header declares", ErrFormat, n)
	case err != io.EOF:
		return nil, malformed(err, "after the last element")
	}
	return out, nil
}

// malformed wraps ErrFormat and err, with which reading a part of a file failed.
func malformed(err error, format string, a ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrFormat, fmt.Sprintf(format, a...), err)
}

// scale maps bytes to [0, 1].
func scale(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = float32(b) / 255
	}
}
