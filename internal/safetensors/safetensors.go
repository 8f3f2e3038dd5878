// Package safetensors reads and writes the safetensors format: the header's length N in eight
// little-endian bytes, N bytes of JSON with every tensor's type, shape and place, then the
// tensors' bytes.
//
//	{"__metadata__": {"key": "text"},
//	 "name": {"dtype": "U32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
//
// Tensors are row-major and little-endian. Reading is strict, because files come from
// outside: holes, overlaps, trailing bytes, and duplicate or unknown keys are refused,
// and no size is used before it was compared with the size of the file. Writing is
// deterministic.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"unicode/utf8"
)

// MaxHeader is the largest header accepted, in bytes.
const MaxHeader = 1 << 20

// align is the alignment in bytes that the header is padded to.
const align = 8

const metadataKey = "__metadata__"

// ErrFormat is wrapped by every error of this package that is not a reader's or writer's.
var ErrFormat = errors.New("safetensors: bad format")

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, a...))
}

// DType is an element type, by its name in the format.
type DType string

const (
	U8  DType = "U8"
	U32 DType = "U32"
	U64 DType = "U64"
	I32 DType = "I32"
	F32 DType = "F32"
	F64 DType = "F64"
)

// Size returns the bytes of an element, 0 for a type that this package does not support.
func (d DType) Size() int {
	switch d {
	case U8:
		return 1
	case U32, I32, F32:
		return 4
	case U64, F64:
		return 8
	}
	return 0
}

// Tensor is a named array. An empty Shape is a scalar.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte // row-major, little-endian: the shape's product times DType.Size bytes
}

// File is the content of a file: tensors in the order of their bytes.
type File struct {
	Metadata map[string]string
	Tensors  []Tensor
}

// Element is a Go type that a tensor can hold.
type Element interface {
	uint8 | uint32 | uint64 | int32 | float32 | float64
}

func dtypeOf[T Element]() DType {
	switch any(*new(T)).(type) {
	case uint8:
		return U8
	case uint32:
		return U32
	case uint64:
		return U64
	case int32:
		return I32
	case float32:
		return F32
	default:
		return F64
	}
}

// New returns a tensor that holds a copy of v. Marshal checks the shape.
func New[T Element](name string, v []T, shape ...int) Tensor {
	t := Bare[T](name, shape...)
	data := make([]byte, 0, len(v)*t.DType.Size())
	data, err := binary.Append(data, binary.LittleEndian, v)
	if err != nil {
		panic(err) // slices of fixed-size numbers are always encodable
	}
	t.Data = data
	return t
}

// Bare returns a tensor without Data, for Head.
func Bare[T Element](name string, shape ...int) Tensor {
	return Tensor{Name: name, DType: dtypeOf[T](), Shape: shape}
}

// Write writes elements in the encoding of the file.
func Write[T Element](w io.Writer, v []T) error {
	const most = 1 << 13 // elements at a time
	var buf []byte
	for len(v) > 0 {
		n := min(len(v), most)
		var err error
		if buf, err = binary.Append(buf[:0], binary.LittleEndian, v[:n]); err == nil {
			_, err = w.Write(buf)
		}
		if err != nil {
			return err
		}
		v = v[n:]
	}
	return nil
}

// Values returns a copy of the elements of t. Its errors wrap ErrFormat: t has another type, or
// Data is not a whole number of elements.
func Values[T Element](t Tensor) ([]T, error) {
	if d := dtypeOf[T](); t.DType != d {
		return nil, bad("tensor %.64q holds %.8q, want %s", t.Name, string(t.DType), d)
	}
	if len(t.Data)%t.DType.Size() != 0 {
		return nil, bad("tensor %.64q has %d bytes", t.Name, len(t.Data))
	}
	v := make([]T, len(t.Data)/t.DType.Size())
	if _, err := binary.Decode(t.Data, binary.LittleEndian, v); err != nil {
		return nil, bad("tensor %.64q: %v", t.Name, err)
	}
	return v, nil
}

// Read reads the elements of t from a file. Its errors wrap ErrFormat if t has another type,
// or are the file's.
func Read[T Element](r io.Reader, t Tensor) ([]T, error) {
	n, ok := byteLen(t.DType, t.Shape)
	if d := dtypeOf[T](); t.DType != d || !ok {
		return nil, bad("tensor %.64q holds %.8q, want %s", t.Name, string(t.DType), d)
	}
	v := make([]T, n/t.DType.Size())
	const most = 1 << 13 // elements at a time
	b := make([]byte, t.DType.Size()*min(most, len(v)))
	for left := v; len(left) > 0; {
		k := min(most, len(left))
		b := b[:k*t.DType.Size()]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		if _, err := binary.Decode(b, binary.LittleEndian, left[:k]); err != nil {
			return nil, bad("tensor %.64q: %v", t.Name, err)
		}
		left = left[k:]
	}
	return v, nil
}

// byteLen returns the bytes of a tensor, or false if its type is unknown, a dimension is
// negative or the product overflows.
func byteLen(d DType, shape []int) (int, bool) {
	n := d.Size()
	if n == 0 {
		return 0, false
	}
	for _, s := range shape {
		if s < 0 || s > 0 && n > math.MaxInt/s {
			return 0, false
		}
		n *= s
	}
	return n, true
}

// Marshal returns the file's bytes, a function of f alone. It refuses files that Parse would
// not accept, with errors that wrap ErrFormat.
func (f *File) Marshal() ([]byte, error) {
	b, size, err := f.Head()
	if err != nil {
		return nil, err
	}
	b = slices.Grow(b, size)
	for _, t := range f.Tensors {
		if n, _ := byteLen(t.DType, t.Shape); n != len(t.Data) {
			return nil, bad("tensor %.64q: %d bytes are not %s %v", t.Name, len(t.Data), t.DType, t.Shape)
		}
		b = append(b, t.Data...)
	}
	return b, nil
}

// Head returns the bytes before the tensors' bytes, and size, the number of the tensors'
// bytes. Tensors need no Data. Its errors are Marshal's.
func (f *File) Head() (head []byte, size int, err error) {
	var h bytes.Buffer
	h.WriteByte('{')
	field := func(name string) error {
		if !utf8.ValidString(name) {
			return bad("a name is not UTF-8")
		}
		if h.Len() > 1 {
			h.WriteByte(',')
		}
		writeString(&h, name)
		h.WriteByte(':')
		return nil
	}
	if len(f.Metadata) > 0 {
		keys := make([]string, 0, len(f.Metadata))
		for k := range f.Metadata {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		if err := field(metadataKey); err != nil {
			return nil, 0, err
		}
		for i, k := range keys {
			v := f.Metadata[k]
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, 0, bad("metadata is not UTF-8")
			}
			h.WriteByte("{,"[min(i, 1)])
			writeString(&h, k)
			h.WriteByte(':')
			writeString(&h, v)
		}
		h.WriteByte('}')
	}
	seen := map[string]bool{metadataKey: true}
	for _, t := range f.Tensors {
		if seen[t.Name] {
			return nil, 0, bad("duplicate tensor name %.64q", t.Name)
		}
		seen[t.Name] = true
		n, ok := byteLen(t.DType, t.Shape)
		if !ok || n > math.MaxInt-size {
			return nil, 0, bad("tensor %.64q: bad type or shape %s %v", t.Name, t.DType, t.Shape)
		}
		if err := field(t.Name); err != nil {
			return nil, 0, err
		}
		fmt.Fprintf(&h, `{"dtype":"%s","shape":[`, t.DType)
		for i, s := range t.Shape {
			if i > 0 {
				h.WriteByte(',')
			}
			h.WriteString(strconv.Itoa(s))
		}
		fmt.Fprintf(&h, `],"data_offsets":[%d,%d]}`, size, size+n)
		size += n
	}
	h.WriteByte('}')
	for h.Len()%align != 0 {
		h.WriteByte(' ')
	}
	if h.Len() > MaxHeader {
		return nil, 0, bad("header of %d bytes, at most %d", h.Len(), MaxHeader)
	}
	head = binary.LittleEndian.AppendUint64(nil, uint64(h.Len()))
	return append(head, h.Bytes()...), size, nil
}

// writeString writes a valid UTF-8 string as JSON.
func writeString(h *bytes.Buffer, s string) {
	j, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string is always encodable
	}
	h.Write(j)
}

// Parse reads a file. The tensors' Data share b's memory. Every error wraps
// ErrFormat.
func Parse(b []byte) (*File, error) {
	f, data, err := parse(b, len(b), len(b))
	if err != nil {
		return nil, err
	}
	end := 0
	for i := range f.Tensors {
		t := &f.Tensors[i]
		n, _ := byteLen(t.DType, t.Shape) // checked by parse
		t.Data = data[end : end+n : end+n]
		end += n
	}
	return f, nil
}

// ParseHead parses the header of a file of size bytes. b is the file's beginning: 8 bytes and
// the header. Tensors have no Data. It checks everything that Parse checks. Every error wraps
// ErrFormat.
func ParseHead(b []byte, size int) (*File, error) {
	f, _, err := parse(b, size, size)
	return f, err
}

// ParseHeadOf is ParseHead for a file of unknown size, at most most bytes.
func ParseHeadOf(b []byte, most int) (*File, error) {
	f, _, err := parse(b, len(b), most)
	return f, err
}

// ReadHead returns the beginning of a file for ParseHead: 8 bytes and the header. A header
// longer than MaxHeader is cut, and ParseHead refuses it.
func ReadHead(r io.Reader) ([]byte, error) {
	b := make([]byte, 8, 8+4096)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	n := min(binary.LittleEndian.Uint64(b), MaxHeader+1)
	b = slices.Grow(b, int(n))[:8+n]
	_, err := io.ReadFull(r, b[8:])
	return b, err
}

// parse parses the header in b, the beginning of a file of least to most bytes. It returns the
// tensors in the order of their bytes, which must fill the rest of the file, and the bytes of
// b after the header.
func parse(b []byte, least, most int) (f *File, data []byte, err error) {
	if len(b) < 8 || len(b) > most {
		return nil, nil, bad("%d bytes", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	b = b[8:]
	if n > MaxHeader || n > uint64(len(b)) {
		return nil, nil, bad("header of %d bytes in %d, at most %d", n, len(b), MaxHeader)
	}
	header := b[:n]
	if !bytes.HasPrefix(header, []byte{'{'}) {
		return nil, nil, bad("header does not begin with {")
	}
	if !utf8.Valid(header) || !json.Valid(header) {
		return nil, nil, bad("header is not JSON")
	}
	p := parser{dec: json.NewDecoder(bytes.NewReader(header)), size: most - 8 - len(header)}
	p.dec.UseNumber()
	if f, err = p.file(); err != nil {
		return nil, nil, err
	}
	sort.SliceStable(f.Tensors, func(i, j int) bool {
		a, c := p.places[f.Tensors[i].Name], p.places[f.Tensors[j].Name]
		return a[0] < c[0] || a[0] == c[0] && a[1] < c[1]
	})
	end := 0
	for _, t := range f.Tensors {
		at := p.places[t.Name]
		if at[0] != end {
			return nil, nil, bad("tensor %.64q begins at byte %d, want %d", t.Name, at[0], end)
		}
		end = at[1]
	}
	if left := least - 8 - len(header) - end; left > 0 {
		return nil, nil, bad("%d bytes after the last tensor", left)
	}
	return f, b[n:], nil
}

// parser walks a header that is valid JSON token by token, as decoding to a struct or map would
// accept duplicate keys.
type parser struct {
	dec    *json.Decoder
	size   int               // bytes of all tensors
	places map[string][2]int // by tensor: first byte and the one after the last
}

func (p *parser) token() (json.Token, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, bad("header: %v", err)
	}
	return t, nil
}

func (p *parser) delim(want json.Delim) error {
	t, err := p.token()
	if err == nil && t != want {
		err = bad("header: want %v at byte %d", want, p.dec.InputOffset())
	}
	return err
}

func (p *parser) str() (string, error) {
	t, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", bad("header: want a string at byte %d", p.dec.InputOffset())
	}
	return s, nil
}

// object calls field for every key of an object, with the decoder at its value.
func (p *parser) object(field func(key string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.dec.More() {
		key, err := p.str()
		if err != nil {
			return err
		}
		if seen[key] {
			return bad("header: duplicate key %.64q", key)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return err
		}
	}
	return p.delim('}')
}

// ints reads an array of decimal numbers that fit an int.
func (p *parser) ints() ([]int, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	v := []int{}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		num, ok := t.(json.Number)
		if !ok {
			return nil, bad("header: want a number at byte %d", p.dec.InputOffset())
		}
		u, err := strconv.ParseUint(num.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, bad("header: %.32s is not a size", num)
		}
		v = append(v, int(u))
	}
	return v, p.delim(']')
}

func (p *parser) file() (*File, error) {
	f := &File{}
	p.places = map[string][2]int{}
	err := p.object(func(key string) error {
		if key == metadataKey {
			f.Metadata = map[string]string{}
			return p.object(func(key string) (err error) {
				f.Metadata[key], err = p.str()
				return err
			})
		}
		t, at, err := p.tensor(key)
		if err != nil {
			return err
		}
		f.Tensors = append(f.Tensors, t)
		p.places[key] = at
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return nil, bad("header: more than one value")
	}
	return f, nil
}

func (p *parser) tensor(name string) (t Tensor, at [2]int, err error) {
	t.Name = name
	var offsets []int
	err = p.object(func(key string) (err error) {
		switch key {
		case "dtype":
			var s string
			s, err = p.str()
			t.DType = DType(s)
		case "shape":
			t.Shape, err = p.ints()
		case "data_offsets":
			offsets, err = p.ints()
		default:
			err = bad("tensor %.64q: unknown key %.64q", name, key)
		}
		return err
	})
	if err != nil {
		return t, at, err
	}
	if t.DType.Size() == 0 {
		return t, at, bad("tensor %.64q: element type %.8q", name, string(t.DType))
	}
	if t.Shape == nil || len(offsets) != 2 {
		return t, at, bad("tensor %.64q: no shape or data_offsets", name)
	}
	at = [2]int{offsets[0], offsets[1]}
	if at[0] > at[1] || at[1] > p.size {
		return t, at, bad("tensor %.64q: bytes %d to %d of %d", name, at[0], at[1], p.size)
	}
	if n, ok := byteLen(t.DType, t.Shape); !ok || n != at[1]-at[0] {
		return t, at, bad("tensor %.64q: %d bytes are not %s %.128s", name, at[1]-at[0], t.DType, fmt.Sprint(t.Shape))
	}
	return t, at, nil
}
