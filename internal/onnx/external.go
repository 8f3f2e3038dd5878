package onnx

import (
	"bufio"
	gobytes "bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/securenets/securenets/internal/graph"
)

// maxExternal bounds a file beside a model: four bytes for each weight of the largest matrix.
const maxExternal = 4 << 31

// held is the most bytes of a tensor that are held in memory where weights are stored:
// more than any shape has.
const held = 1 << 12

// File is a model whose linear operators read their weights from its file, and from
// those beside it, as they are asked for.
type File struct {
	Graph *graph.Graph
	files *files
}

// Close closes the files. No weights can be read any more.
func (f *File) Close() error { return f.files.close() }

// Open is ParseStored of a model's file. Tensors that it keeps in other files, as
// exporters write large models and PyTorch all, are read from there. Those must be
// regular files in the model's folder or below, links out of it not followed.
func Open(path string) (*File, error) { return OpenWith(path, Options{}) }

// OpenWith is Open as options say.
func OpenWith(path string, o Options) (*File, error) {
	f, err := openFiles(path)
	if err != nil {
		return nil, err
	}
	g, err := f.parse(held, o)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return &File{g, f}, nil
}

// ReadFile returns the bytes of a model's file, with the tensors in it that the file
// keeps in others, as Open reads them. What is no model is left for Parse to refuse.
func ReadFile(path string) ([]byte, error) {
	f, err := openFiles(path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	o, err := outlined(f, held)
	switch {
	case errors.Is(err, ErrFormat) || err == nil && !o.external:
		b := make([]byte, f.model.size)
		return b, f.model.read(b, 0)
	case err == nil:
		o, err = outlined(f, math.MaxInt64)
	}
	return o.model, err
}

// section is a part of a file.
type section struct {
	file     io.ReaderAt
	at, size int64
}

// read sets b to the bytes from at on.
func (s section) read(b []byte, at int64) error {
	n, err := s.file.ReadAt(b, s.at+at)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF // it was longer when it was opened
	}
	return err
}

// files are a model's file and those beside it that were asked for, which stay open.
type files struct {
	model  section
	beside func(location string) (section, error) // opens one
	opened []io.Closer
}

// openFiles opens a model's file, and what opens those beside it. A pipe is held in memory.
func openFiles(path string) (*files, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &files{opened: []io.Closer{file}}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() { // a pipe is read once
		var b []byte
		b, err = io.ReadAll(file)
		f.model = section{gobytes.NewReader(b), 0, int64(len(b))}
	} else if err == nil {
		f.model = section{file, 0, info.Size()}
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	var root *os.Root
	f.beside = func(location string) (section, error) {
		if root == nil {
			var err error
			if root, err = os.OpenRoot(filepath.Dir(path)); err != nil {
				return section{}, err
			}
			f.opened = append(f.opened, root)
		}
		info, err := root.Stat(location) // a pipe would be waited for as it is opened
		if err != nil {
			return section{}, err
		}
		if !info.Mode().IsRegular() {
			return section{}, fmt.Errorf("%w: %s is not a regular file", ErrExternalData, clean(location))
		}
		if info.Size() > maxExternal {
			return section{}, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrExternalData, clean(location), info.Size(), int64(maxExternal))
		}
		file, err := root.Open(location)
		if err != nil {
			return section{}, err
		}
		f.opened = append(f.opened, file)
		return section{file, 0, info.Size()}, nil
	}
	return f, nil
}

// close closes all that were opened.
func (f *files) close() error {
	var errs []error
	for _, c := range f.opened {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// parse reads the model. Tensors of more than most bytes stay in the files.
func (f *files) parse(most int64, options Options) (*graph.Graph, error) {
	o, err := outlined(f, most)
	if err != nil {
		return nil, err
	}
	m, err := decodeModel(o.model)
	if err != nil {
		return nil, err
	}
	size := int64(len(o.model))
	for i, t := range m.graph.initializers {
		if t.stored = o.stored[i]; t.stored != nil {
			size += t.stored.size
		}
	}
	return parse(m, int(size), options)
}

// outline is a model without the data of large initializers.
type outline struct {
	model  []byte
	stored []*section // where those data are, one an initializer; nil where model has them
	// external says that some data are beside the model's file.
	external bool
}

// outliner makes an outline.
type outliner struct {
	outline
	in     reader
	files  *files
	beside map[string]section // files that were opened, by location
	most   int64              // bytes of a tensor in the outline
	room   int64              // bytes that may be taken from files beside the model yet: of each, twice its size
}

// outlined reads the outline of a model whose tensors of more than most bytes are left
// out. Its errors wrap ErrFormat or ErrExternalData, or are of reading.
func outlined(f *files, most int64) (outline, error) {
	o := &outliner{in: newReader(f.model), files: f, beside: map[string]section{}, most: most}
	err := o.in.fields(f.model.size, func(fd field, length int64) (err error) {
		if fd.tag != 7<<3|bytes {
			o.model, err = o.in.append(o.model, fd, length)
			return err
		}
		var graph []byte
		err = o.in.fields(o.in.at+length, func(fd field, length int64) (err error) {
			if fd.tag == 5<<3|bytes {
				graph, err = o.tensor(graph, length)
			} else {
				graph, err = o.in.append(graph, fd, length)
			}
			return err
		})
		o.model = appendBytes(o.model, fd.tag, graph)
		return err
	})
	return o.outline, err
}

// appendBytes appends a field.
func appendBytes(b []byte, tag uint64, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendVarint(b, tag), v)
}

// tensor appends an initializer, a TensorProto of length bytes, to the outline's graph.
func (o *outliner) tensor(graph []byte, length int64) ([]byte, error) {
	var (
		rest     []byte // but for the data
		name     string
		data     *section
		entries  map[string]string // what says where external data are
		external uint64
	)
	err := o.in.fields(o.in.at+length, func(fd field, length int64) (err error) {
		switch fd.tag {
		case 8<<3 | bytes:
			b, err := o.in.take(length)
			name, rest = string(b), appendBytes(rest, fd.tag, b)
			return err
		case 9<<3 | bytes:
			data = &section{o.files.model.file, o.files.model.at + o.in.at, length}
		case 13<<3 | bytes:
			b, err := o.in.take(length)
			if err != nil {
				return err
			}
			key, value, err := decodeEntry(b)
			if entries == nil {
				entries = map[string]string{}
			}
			entries[key] = value
			return err
		case 14<<3 | varint:
			external = fd.v
		default:
			rest, err = o.in.append(rest, fd, length)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	switch {
	case external == 1:
		s, err := o.section(entries)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", clean(name), err)
		}
		data, o.external = &s, true
	case external != 0 || entries != nil:
		return nil, ErrExternalData
	}
	if data != nil && data.size <= o.most {
		b := make([]byte, data.size)
		if err := data.read(b, 0); err != nil {
			return nil, err
		}
		rest, data = appendBytes(rest, 9<<3|bytes, b), nil
	}
	o.stored = append(o.stored, data)
	return appendBytes(graph, 5<<3|bytes, rest), nil
}

// decodeEntry decodes a StringStringEntryProto.
func decodeEntry(b []byte) (key, value string, err error) {
	err = fields(b, func(f field) error {
		switch f.tag {
		case 1<<3 | bytes:
			key = string(f.b)
		case 2<<3 | bytes:
			value = string(f.b)
		}
		return nil
	})
	return key, value, err
}

// section returns what an external tensor's entries say.
func (o *outliner) section(entries map[string]string) (section, error) {
	location := entries["location"]
	if !filepath.IsLocal(location) {
		return section{}, fmt.Errorf("%w: in %s, which is not beside the model", ErrExternalData, clean(location))
	}
	s, known := o.beside[location]
	if !known {
		var err error
		if s, err = o.files.beside(location); err != nil {
			return section{}, fmt.Errorf("%w: %w", ErrExternalData, err)
		}
		o.beside[location] = s
		o.room += 2 * s.size
	}
	if text, given := entries["offset"]; given {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 || v > s.size {
			return section{}, fmt.Errorf("%w: offset outside of %s", ErrExternalData, clean(location))
		}
		s.at, s.size = v, s.size-v
	}
	if text, given := entries["length"]; given {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 || v > s.size {
			return section{}, fmt.Errorf("%w: length beyond %s", ErrExternalData, clean(location))
		}
		s.size = v
	}
	if o.room -= s.size; o.room < 0 {
		return section{}, fmt.Errorf("%w: %s is used too often for its size", ErrExternalData, clean(location))
	}
	return s, nil
}

// reader reads a file's fields one after the other, and jumps over what is not asked for.
type reader struct {
	from section
	at   int64
	buf  *bufio.Reader
	err  error // of reading, but for the file's end
}

// newReader returns a reader of all of s.
func newReader(s section) reader {
	return reader{from: s, buf: bufio.NewReader(io.NewSectionReader(s.file, s.at, s.size))}
}

// fields is fields of the part of the file that is left up to end. f need not read the
// length bytes of a field that has so many.
func (r *reader) fields(end int64, f func(fd field, length int64) error) error {
	for r.at < end {
		tag, err := r.varint()
		if err != nil {
			return err
		}
		if num := tag >> 3; num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
			return fmt.Errorf("%w: broken field", ErrFormat)
		}
		fd, length, size := field{tag: tag}, int64(0), int64(0) // size: of a number
		switch tag & 7 {
		case varint:
			fd.v, err = r.varint()
		case fixed32:
			size = 4
		case fixed64:
			size = 8
		case bytes:
			fd.v, err = r.varint()
			if err == nil && (r.at > end || fd.v > uint64(end-r.at)) {
				err = fmt.Errorf("%w: broken field %d", ErrFormat, tag>>3)
			}
			length = int64(fd.v)
		default:
			err = fmt.Errorf("%w: broken field %d", ErrFormat, tag>>3)
		}
		if err == nil && size > 0 {
			var b []byte
			b, err = r.take(size)
			for i, v := range b {
				fd.v |= uint64(v) << (8 * i)
			}
		}
		if err == nil && r.at > end {
			err = fmt.Errorf("%w: broken field %d", ErrFormat, tag>>3)
		}
		if err != nil {
			return err
		}
		next := r.at + length
		if err := f(fd, length); err != nil {
			return err
		}
		r.seek(next)
	}
	return nil
}

// append appends a field, which has length bytes, to b.
func (r *reader) append(b []byte, fd field, length int64) ([]byte, error) {
	switch fd.tag & 7 {
	case varint:
		return protowire.AppendVarint(protowire.AppendVarint(b, fd.tag), fd.v), nil
	case fixed32:
		return protowire.AppendFixed32(protowire.AppendVarint(b, fd.tag), uint32(fd.v)), nil
	case fixed64:
		return protowire.AppendFixed64(protowire.AppendVarint(b, fd.tag), fd.v), nil
	}
	v, err := r.take(length)
	return appendBytes(b, fd.tag, v), err
}

// ReadByte reads one byte. Its errors are noted, but for the file's end.
func (r *reader) ReadByte() (byte, error) {
	b, err := r.buf.ReadByte()
	if err == nil {
		r.at++
	} else if err != io.EOF {
		r.err = err
	}
	return b, err
}

// varint reads a number of protobuf.
func (r *reader) varint() (uint64, error) {
	v, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, r.fault()
	}
	return v, nil
}

// take reads n bytes, which the file had when it was opened.
func (r *reader) take(n int64) ([]byte, error) {
	b := make([]byte, n)
	k, err := io.ReadFull(r.buf, b)
	r.at += int64(k)
	if err == nil {
		return b, nil
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		r.err = err
	}
	return nil, r.fault()
}

// fault returns what went wrong: reading, or else that the file's fields are broken.
func (r *reader) fault() error {
	if r.err != nil {
		return r.err
	}
	return fmt.Errorf("%w: broken field", ErrFormat)
}

// seek goes on to a later place.
func (r *reader) seek(to int64) {
	if n := to - r.at; n <= int64(r.buf.Buffered()) {
		r.buf.Discard(int(n))
	} else {
		r.buf.Reset(io.NewSectionReader(r.from.file, r.from.at+to, r.from.size-to))
	}
	r.at = to
}
