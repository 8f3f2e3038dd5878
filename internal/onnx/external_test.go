//go:build unix

package onnx

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// external returns a float tensor of 4 x 3 whose data are elsewhere.
func external(entries ...string) message {
	m := header("w", typeFloat, 4, 3)
	for i := 0; i < len(entries); i += 2 {
		m.bytes(13, cat(sub(1, []byte(entries[i])), sub(2, []byte(entries[i+1]))))
	}
	m.int(14, 1)
	return m
}

// What stands in another file gives the network that it gives in the model's own.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw := floats("w", 4, 3)
	raw = raw[len(raw)-48:]
	write(filepath.Join(dir, "data"), slices.Concat(make([]byte, 16), raw, make([]byte, 4)))
	write(filepath.Join(dir, "all"), raw)
	outside := t.TempDir()
	write(filepath.Join(outside, "data"), raw)
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "sub"), 0o700), os.Symlink(filepath.Join(outside, "data"), filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.WriteFile(filepath.Join(dir, "huge"), nil, 0o600), os.Truncate(filepath.Join(dir, "huge"), 1<<40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "sub", "data"), raw)

	want, err := Parse(dense().bytes())
	if err != nil {
		t.Fatal(err)
	}
	model := func(w ...message) []byte { return nodes(op("Gemm", "x w", "y")).with(w...).bytes() }
	for name, w := range map[string]message{
		"part":        external("location", "data", "offset", "16", "length", "48"),
		"whole":       external("location", "all", "checksum", "unread"),
		"in a folder": external("location", "sub/data", "length", "48"),
		"none":        floats("w", 4, 3),
	} {
		write(path, model(w))
		b, err := ReadFile(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g, err := Parse(b); err != nil || !reflect.DeepEqual(g, want) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	for name, w := range map[string][]message{
		"another folder's":  {external("location", "../"+filepath.Base(outside)+"/data")},
		"absolute":          {external("location", filepath.Join(outside, "data"))},
		"a link out":        {external("location", "link")},
		"a folder":          {external("location", "sub")},
		"a pipe":            {external("location", "pipe")},
		"huge":              {external("location", "huge", "length", "48")},
		"nowhere":           {external("offset", "16")},
		"missing":           {external("location", "none")},
		"offset":            {external("location", "data", "offset", "69")},
		"negative":          {external("location", "data", "offset", "-1")},
		"length":            {external("location", "data", "offset", "32", "length", "48")},
		"no number":         {external("location", "data", "offset", "x")},
		"overflow":          {external("location", "data", "offset", "16", "length", "9223372036854775807")},
		"a file used often": slices.Repeat([]message{external("location", "all")}, 3),
	} {
		write(path, model(w...))
		if b, err := ReadFile(path); !errors.Is(err, ErrExternalData) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := ReadFile(filepath.Join(dir, "no.onnx")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What is no model is left for Parse to refuse.
func FuzzEmbed(f *testing.F) {
	f.Add(nodes(op("Gemm", "x w", "y")).with(external("location", "data", "offset", "0")).bytes())
	f.Add(dense().bytes())
	f.Add([]byte{7<<3 | 2, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := embed(b, func(string) ([]byte, error) { return make([]byte, 48), nil })
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if _, err := Parse(out); errors.Is(err, ErrFormat) {
			if _, err := Parse(b); err == nil {
				t.Fatalf("a model became none: %v", err)
			}
		}
	})
}
