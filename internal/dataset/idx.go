package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	idxMagic  = []byte{0, 0, idxBytes}
)

// idxBytes is IDX's code for unsigned bytes, the only elements that are read.
const idxBytes = 0x08

// ReadIDX reads a file of unsigned bytes in 3 dimensions (count, rows,
// columns), plain or gzipped, as images of one channel: the format of MNIST and of data sets
// modelled on it.
func ReadIDX(r io.Reader) (*Images, error) {
	r, sizes, err := idxHeader(r, 3)
	if err != nil {
		return nil, err
	}
	n, err := elements(sizes...)
	if err != nil {
		return nil, err
	}
	data, err := readElements(r, n, 1, scale)
	if err != nil {
		return nil, err
	}
	return &Images{N: sizes[0], C: 1, H: sizes[1], W: sizes[2], Data: data}, nil
}

// ReadIDXLabels reads a file of unsigned bytes in 1 dimension, plain or gzipped.
func ReadIDXLabels(r io.Reader) ([]uint8, error) {
	r, sizes, err := idxHeader(r, 1)
	if err != nil {
		return nil, err
	}
	n, err := elements(sizes...)
	if err != nil {
		return nil, err
	}
	return readElements(r, n, 1, func(dst, src []byte) { copy(dst, src) })
}

// idxHeader reads the magic number (0, 0, element type, dimensions) and the sizes, each a
// big-endian 32-bit number. It returns a reader of the elements, and the sizes.
func idxHeader(r io.Reader, dims int) (io.Reader, []int, error) {
	br, other := bufio.NewReader(r), ""
	if head, _ := br.Peek(len(gzipMagic)); bytes.Equal(head, gzipMagic) {
		other = ", and nothing else is read gzipped"
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, malformed(err, "gzip header")
		}
		r = z
	} else {
		r = br
	}
	head := make([]byte, 4+4*dims)
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, nil, malformed(err, "IDX header")
	}
	if !bytes.HasPrefix(head, idxMagic) {
		return nil, nil, fmt.Errorf("%w: not an IDX file of unsigned bytes%s", ErrFormat, other)
	}
	if d := int(head[3]); d != dims {
		return nil, nil, fmt.Errorf("%w: IDX of %d dimensions, want %d", ErrFormat, d, dims)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, nil, malformed(err, "IDX header")
	}
	sizes := make([]int, dims)
	for i := range sizes {
		sizes[i] = int(binary.BigEndian.Uint32(head[4+4*i:]))
	}
	return r, sizes, nil
}
