package onnx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxExternal bounds a file beside a model: four bytes for each weight of the largest matrix.
const maxExternal = 4 << 31

// ReadFile returns the bytes of a model's file, with the tensors in it that the file
// keeps in others, as exporters write large models and PyTorch all. Those must be
// regular files in the model's folder or below, links out of it not followed.
func ReadFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var root *os.Root
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	return embed(b, func(location string) ([]byte, error) {
		if root == nil {
			if root, err = os.OpenRoot(filepath.Dir(path)); err != nil {
				return nil, err
			}
		}
		info, err := root.Stat(location) // a pipe would be waited for as it is opened
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is not a regular file", ErrExternalData, clean(location))
		}
		if info.Size() > maxExternal {
			return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrExternalData, clean(location), info.Size(), int64(maxExternal))
		}
		f, err := root.Open(location)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data := make([]byte, info.Size())
		_, err = io.ReadFull(f, data)
		return data, err
	})
}

// embed returns the model b with what its initializers keep in other files, each of
// which open reads once. A model that keeps nothing elsewhere is returned as it is, and
// so is what is no model, for Parse to refuse.
func embed(b []byte, open func(location string) ([]byte, error)) ([]byte, error) {
	e := &embedding{open: open, files: map[string][]byte{}}
	var before, after, graph [][]byte // pieces of the model around its graph, and of that
	err := pieces(b, func(f field, whole []byte) error {
		switch {
		case f.tag != 7<<3|bytes && graph == nil:
			before = append(before, whole)
		case f.tag != 7<<3|bytes:
			after = append(after, whole)
		case graph != nil:
			return ErrFormat
		default:
			return pieces(f.b, func(f field, whole []byte) error {
				p, err := [][]byte{whole}, error(nil)
				if f.tag == 5<<3|bytes {
					p, err = e.tensor(f, whole)
				}
				graph = append(graph, p...)
				return err
			})
		}
		return nil
	})
	if errors.Is(err, ErrFormat) || len(e.files) == 0 && err == nil {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	size := 0
	for _, p := range graph {
		size += len(p)
	}
	out := make([]byte, 0, len(b)+size)
	for _, p := range before {
		out = append(out, p...)
	}
	out = protowire.AppendVarint(protowire.AppendTag(out, 7, protowire.BytesType), uint64(size))
	for _, p := range append(graph, after...) {
		out = append(out, p...)
	}
	return out, nil
}

// pieces calls f for each field of a message, with all its bytes, the tag's too.
func pieces(b []byte, f func(f field, whole []byte) error) error {
	return fields(b, func(fd field) error {
		num, _ := protowire.DecodeTag(fd.tag)
		n := protowire.ConsumeFieldValue(num, protowire.Type(fd.tag&7), b[protowire.SizeTag(num):])
		if n < 0 {
			return ErrFormat // a tag in more bytes than it needs
		}
		whole := b[:protowire.SizeTag(num)+n]
		b = b[len(whole):]
		return f(fd, whole)
	})
}

type embedding struct {
	open  func(location string) ([]byte, error)
	files map[string][]byte
	room  int // bytes that may be taken from the files yet: of each, twice its size
}

// tensor returns the field of a TensorProto in pieces, its data among them.
func (e *embedding) tensor(f field, whole []byte) ([][]byte, error) {
	t := embedded{entries: map[string]string{}}
	err := fields(f.b, func(f field) error { return t.read(f) })
	if err != nil || !t.external {
		return [][]byte{whole}, err
	}
	data, err := e.data(t.entries)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", clean(t.name), err)
	}
	// What stays, field 9 with the data, all of it as field 5 of the graph.
	var rest []byte
	err = pieces(f.b, func(f field, whole []byte) error {
		if f.tag != 13<<3|bytes && f.tag != 14<<3|varint {
			rest = append(rest, whole...)
		}
		return nil
	})
	rest = protowire.AppendVarint(protowire.AppendTag(rest, 9, protowire.BytesType), uint64(len(data)))
	head := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(len(rest)+len(data)))
	return [][]byte{append(head, rest...), data}, err
}

// data returns what an external tensor's entries say.
func (e *embedding) data(entries map[string]string) ([]byte, error) {
	location := entries["location"]
	if !filepath.IsLocal(location) {
		return nil, fmt.Errorf("%w: in %s, which is not beside the model", ErrExternalData, clean(location))
	}
	file, known := e.files[location]
	if !known {
		var err error
		if file, err = e.open(location); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrExternalData, err)
		}
		e.files[location] = file
		e.room += 2 * len(file)
	}
	part := [2]int64{0, int64(len(file))} // offset and end
	if s, given := entries["offset"]; given {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 || v > int64(len(file)) {
			return nil, fmt.Errorf("%w: offset outside of %s", ErrExternalData, clean(location))
		}
		part[0] = v
	}
	if s, given := entries["length"]; given {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 || v > int64(len(file))-part[0] {
			return nil, fmt.Errorf("%w: length beyond %s", ErrExternalData, clean(location))
		}
		part[1] = part[0] + v
	}
	data := file[part[0]:part[1]]
	if e.room -= len(data); e.room < 0 {
		return nil, fmt.Errorf("%w: %s is used too often for its size", ErrExternalData, clean(location))
	}
	return data, nil
}

// embedded is what of a TensorProto says where its data are.
type embedded struct {
	name     string
	external bool
	entries  map[string]string
}

func (t *embedded) read(f field) error {
	switch f.tag {
	case 8<<3 | bytes:
		t.name = string(f.b)
	case 13<<3 | bytes:
		var key, value string
		err := fields(f.b, func(f field) error {
			switch f.tag {
			case 1<<3 | bytes:
				key = string(f.b)
			case 2<<3 | bytes:
				value = string(f.b)
			}
			return nil
		})
		t.entries[key] = value
		return err
	case 14<<3 | varint:
		t.external = f.v == 1
	}
	return nil
}
