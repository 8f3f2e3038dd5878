package dataset

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
)

var npyMagic = []byte("\x93NUMPY")

// maxNPYHeader bounds the text of a header, in bytes. NumPy writes under 200.
const maxNPYHeader = 1 << 12

// npyTypes are the supported element types: their size in bytes, and the conversion of a chunk
// to float32.
var npyTypes = map[string]struct {
	size   int
	decode func(dst []float32, src []byte)
}{
	"|u1": {1, scale},
	"<f4": {4, float32s(binary.LittleEndian)},
	">f4": {4, float32s(binary.BigEndian)},
	"<f8": {8, float64s(binary.LittleEndian)},
	">f8": {8, float64s(binary.BigEndian)},
}

func float32s(order binary.ByteOrder) func([]float32, []byte) {
	return func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(order.Uint32(src[4*i:]))
		}
	}
}

func float64s(order binary.ByteOrder) func([]float32, []byte) {
	return func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = float32(math.Float64frombits(order.Uint64(src[8*i:])))
		}
	}
}

// ReadNPY reads a uint8, float32 or float64 array of 2 (count, features), 3
// (count, rows, columns) or 4 (count, channels, rows, columns) dimensions in C
// order, of either byte order. A float64 is rounded to float32, to infinity if it is too
// large.
func ReadNPY(r io.Reader) (*Images, error) { return readFloats(r, npySizes) }

func readFloats(r io.Reader, sizes func(shape []int) (*Images, int, error)) (*Images, error) {
	descr, shape, err := npyHeader(r)
	if err != nil {
		return nil, err
	}
	t, ok := npyTypes[descr]
	if !ok {
		return nil, fmt.Errorf("%w: npy elements of type %q, want uint8, float32 or float64", ErrFormat, descr)
	}
	m, n, err := sizes(shape)
	if err != nil {
		return nil, err
	}
	if m.Data, err = readElements(r, n, t.size, t.decode); err != nil {
		return nil, err
	}
	return m, nil
}

// MaxInteger is the largest magnitude up to which float32 has all integers.
const MaxInteger = 1 << 24

// ReadIntegers reads an array of integers or bools, of the dimensions that ReadNPY takes, as they
// are: a uint8 is not scaled. It refuses what is larger than MaxInteger in magnitude.
func ReadIntegers(r io.Reader) (*Images, error) { return readIntegers(r, npySizes) }

// ReadNPYLabels is ReadIntegers of labels, which may also have one dimension: one a sample.
func ReadNPYLabels(r io.Reader) (*Images, error) {
	return readIntegers(r, func(shape []int) (*Images, int, error) {
		if len(shape) == 1 {
			shape = append(shape, 1)
		}
		return npySizes(shape)
	})
}

func readIntegers(r io.Reader, sizes func(shape []int) (*Images, int, error)) (*Images, error) {
	descr, shape, err := npyHeader(r)
	if err != nil {
		return nil, err
	}
	// Before a type stands the order of its bytes, or that there is one.
	var order binary.ByteOrder
	one, kind := strings.HasSuffix(descr, "1"), ""
	switch {
	case one && strings.HasPrefix(descr, "|"):
		kind = descr[1:]
	case !one && strings.HasPrefix(descr, "<"):
		order, kind = binary.LittleEndian, descr[1:]
	case !one && strings.HasPrefix(descr, ">"):
		order, kind = binary.BigEndian, descr[1:]
	}
	var size int
	var value func(b []byte) int64
	switch kind {
	case "b1":
		size, value = 1, func(b []byte) int64 { return min(int64(b[0]), 1) }
	case "i1":
		size, value = 1, func(b []byte) int64 { return int64(int8(b[0])) }
	case "u1":
		size, value = 1, func(b []byte) int64 { return int64(b[0]) }
	case "i2":
		size, value = 2, func(b []byte) int64 { return int64(int16(order.Uint16(b))) }
	case "u2":
		size, value = 2, func(b []byte) int64 { return int64(order.Uint16(b)) }
	case "i4":
		size, value = 4, func(b []byte) int64 { return int64(int32(order.Uint32(b))) }
	case "u4":
		size, value = 4, func(b []byte) int64 { return int64(order.Uint32(b)) }
	case "i8":
		size, value = 8, func(b []byte) int64 { return int64(order.Uint64(b)) }
	case "u8":
		size, value = 8, func(b []byte) int64 { return int64(min(order.Uint64(b), math.MaxInt64)) }
	default:
		return nil, fmt.Errorf("%w: npy elements of type %q, want integers or bools", ErrFormat, descr)
	}
	m, n, err := sizes(shape)
	if err != nil {
		return nil, err
	}
	at, large := 0, -1 // the first that is too large
	m.Data, err = readElements(r, n, size, func(dst []float32, src []byte) {
		for i := range dst {
			v := value(src[size*i:])
			if (v > MaxInteger || v < -MaxInteger) && large < 0 {
				large = at
			}
			dst[i] = float32(v)
			at++
		}
	})
	if err == nil && large >= 0 {
		err = fmt.Errorf("%w: element %d is more than %d", ErrFormat, large, MaxInteger)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// npySizes returns samples of an array's dimensions, without their elements, and how many those are.
func npySizes(shape []int) (*Images, int, error) {
	m := &Images{C: 1, H: 1, W: 1}
	switch len(shape) {
	case 2:
		m.N, m.C = shape[0], shape[1]
	case 3:
		m.N, m.H, m.W = shape[0], shape[1], shape[2]
	case 4:
		m.N, m.C, m.H, m.W = shape[0], shape[1], shape[2], shape[3]
	default:
		return nil, 0, fmt.Errorf("%w: npy of %d dimensions, want 2 to 4", ErrFormat, len(shape))
	}
	n, err := elements(shape...)
	return m, n, err
}

// npyHeader reads the bytes before the elements: magic, version, the length of the text in 2
// (version 1) or 4 bytes, and the text (NEP 1).
func npyHeader(r io.Reader) (descr string, shape []int, err error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:10]); err != nil {
		return "", nil, malformed(err, "npy header")
	}
	if string(head[:6]) != string(npyMagic) {
		return "", nil, fmt.Errorf("%w: not an npy file", ErrFormat)
	}
	n := uint32(binary.LittleEndian.Uint16(head[8:]))
	switch major, minor := head[6], head[7]; {
	case major < 1 || major > 3 || minor != 0:
		return "", nil, fmt.Errorf("%w: npy version %d.%d", ErrFormat, major, minor)
	case major > 1:
		if _, err := io.ReadFull(r, head[10:]); err != nil {
			return "", nil, malformed(err, "npy header")
		}
		n = binary.LittleEndian.Uint32(head[8:])
	}
	if n > maxNPYHeader {
		return "", nil, fmt.Errorf("%w: npy header of %d bytes, at most %d are read", ErrFormat, n, maxNPYHeader)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", nil, malformed(err, "npy header")
	}
	return npyText(string(text))
}

// npyEntry matches one entry of the text, which is a Python dictionary of three entries in any
// order, with the comma or the end of the dictionary after it.
var npyEntry = regexp.MustCompile(
	`^\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([0-9, ]*\))\s*(,\s*}|,|})`)

// npyText parses the text of a header.
func npyText(text string) (descr string, shape []int, err error) {
	bad := func(what string) (string, []int, error) {
		return "", nil, fmt.Errorf("%w: npy header: %s", ErrFormat, what)
	}
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return bad("not a dictionary")
	}
	entries := make(map[string]string)
	for end := ""; !strings.HasSuffix(end, "}"); {
		m := npyEntry.FindStringSubmatch(rest)
		if m == nil {
			return bad("not the entries descr, fortran_order and shape")
		}
		if _, ok := entries[m[1]]; ok {
			return bad("two entries " + m[1])
		}
		entries[m[1]], end = m[2], m[3]
		rest = rest[len(m[0]):]
	}
	if strings.TrimSpace(rest) != "" || len(entries) != 3 {
		return bad("not the entries descr, fortran_order and shape alone")
	}
	switch entries["fortran_order"] {
	case "False":
	case "True":
		return bad("Fortran order, want C order")
	default:
		return bad("fortran_order is neither True nor False")
	}
	descr, ok = strings.CutPrefix(entries["descr"], "'")
	if !ok {
		return bad("descr is not a string")
	}
	descr = strings.TrimSuffix(descr, "'")
	list, ok := strings.CutPrefix(entries["shape"], "(")
	if !ok {
		return bad("shape is not a tuple")
	}
	list = strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(list, ")")), ",")
	if list == "" {
		return descr, nil, nil
	}
	for size := range strings.SplitSeq(list, ",") {
		v, err := strconv.Atoi(strings.TrimSpace(size))
		if err != nil {
			return bad("a size in shape is not a number")
		}
		shape = append(shape, v)
	}
	return descr, shape, nil
}
