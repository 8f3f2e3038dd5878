package dataset

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/securenets/securenets/internal/few"
)

var zipMagic = []byte("PK\x03\x04")

// Input is one of a network's inputs.
type Input struct {
	Name     string
	Elements int  // of a sample
	Integers bool // else floats
}

// OpenInputs reads samples of a network of several inputs, or of one of integers: from an .npz file
// with an array for each input, by its name; or, for a single input, from an .npy file. A sample of
// the result, a vector, has its inputs one after the other.
func OpenInputs(path string, inputs []Input) (*Images, error) {
	m, err := openInputs(path, inputs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func openInputs(path string, inputs []Input) (*Images, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, _ := r.Peek(len(npyMagic)) // what cannot be read shows below
	switch {
	case bytes.HasPrefix(head, zipMagic):
		return openNPZ(f, inputs)
	case len(inputs) > 1:
		return nil, fmt.Errorf("%w: not an .npz file with arrays %s, the network's inputs", ErrFormat, names(inputs))
	}
	m, err := readInput(r, inputs[0], MaxElements)
	if err != nil {
		return nil, err
	}
	return &Images{N: m.N, C: inputs[0].Elements, H: 1, W: 1, Data: m.Data}, nil
}

func names(inputs []Input) string {
	return few.Of(inputs, func(in Input) string { return in.Name })
}

// readInput reads the array of one input, if it has no more than most elements.
func readInput(r *bufio.Reader, in Input, most int) (*Images, error) {
	sizes := func(shape []int) (*Images, int, error) {
		m, n, err := npySizes(shape)
		switch {
		case err != nil:
		case m.C*m.H*m.W != in.Elements:
			err = fmt.Errorf("%w: samples of %d elements, the network takes %d", ErrFormat, m.C*m.H*m.W, in.Elements)
		case n > most:
			err = fmt.Errorf("%w: more than %d elements in all", ErrFormat, MaxElements)
		}
		return m, n, err
	}
	if in.Integers {
		return readIntegers(r, sizes)
	}
	return readFloats(r, sizes)
}

// openNPZ reads an .npz file: a zip file of .npy files, which may be compressed.
func openNPZ(f *os.File, inputs []Input) (*Images, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, malformed(err, "npz")
	}
	files := map[string]*zip.File{}
	for _, file := range z.File {
		name := strings.TrimSuffix(file.Name, ".npy")
		if files[name] != nil {
			return nil, fmt.Errorf("%w: two arrays %.64q", ErrFormat, name)
		}
		files[name] = file
	}
	out := &Images{H: 1, W: 1}
	parts := make([]*Images, len(inputs))
	total := 0 // elements
	for i, in := range inputs {
		file := files[in.Name]
		if file == nil {
			return nil, fmt.Errorf("%w: no array %s; the network takes %s", ErrFormat, in.Name, names(inputs))
		}
		delete(files, in.Name)
		if parts[i], err = readMember(file, in, MaxElements-total); err != nil {
			return nil, fmt.Errorf("array %s: %w", in.Name, err)
		}
		if out.N = parts[i].N; out.N != parts[0].N {
			return nil, fmt.Errorf("%w: %d samples of %s and %d of %s", ErrFormat, parts[0].N, inputs[0].Name, out.N, in.Name)
		}
		out.C += in.Elements
		total += len(parts[i].Data)
	}
	for name := range files { // a runtime refuses such, too
		return nil, fmt.Errorf("%w: array %.64q is none of the network's inputs %s", ErrFormat, name, names(inputs))
	}
	out.Data = make([]float32, 0, total)
	for i := range out.N {
		for _, m := range parts {
			out.Data = append(out.Data, m.Range(i, i+1)...)
		}
	}
	return out, nil
}

// readSingle reads an .npz file with one array, whatever its name.
func readSingle(f *os.File, npy func(io.Reader) (*Images, error)) (*Images, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, malformed(err, "npz")
	}
	if n := len(z.File); n != 1 {
		return nil, fmt.Errorf("%w: an .npz file of %d arrays, want one, as the network has one input", ErrFormat, n)
	}
	r, err := z.File[0].Open()
	if err != nil {
		return nil, malformed(err, "npz")
	}
	defer r.Close()
	return npy(bufio.NewReader(r))
}

func readMember(file *zip.File, in Input, most int) (*Images, error) {
	r, err := file.Open()
	if err != nil {
		return nil, malformed(err, "npz")
	}
	defer r.Close()
	return readInput(bufio.NewReader(r), in, most)
}
