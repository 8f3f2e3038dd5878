package reread_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/securenets/securenets/internal/reread"
)

// TestGet: a value is read again once for each change of a file, however the file was changed, and
// stays while the files cannot be read.
func TestGet(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		must(os.WriteFile(path, []byte(text), 0o600))
	}
	write(a, "a")
	write(b, "b")
	bad := errors.New("bad")
	o, err := reread.New(func() (string, error) {
		x, err := os.ReadFile(a)
		if err != nil {
			return "", err
		}
		y, err := os.ReadFile(b)
		if string(y) == "bad" {
			err = bad
		}
		return string(x) + string(y), err
	}, a, b)
	must(err)
	want := func(value string, again bool, is error) {
		t.Helper()
		for _, again := range []bool{again, false} { // nothing changes before the second
			v, did, err := o.Get()
			if v != value || did != again || again && !errors.Is(err, is) || !again && err != nil {
				t.Errorf("%q, read again: %v, %v; want %q, %v, %v", v, did, err, value, again, is)
			}
		}
	}
	want("ab", false, nil)
	write(a, "aa")
	want("aab", true, nil)
	must(os.Chtimes(a, time.Time{}, time.Now().Add(time.Hour))) // as if written with the same length
	want("aab", true, nil)
	write(filepath.Join(dir, "new"), "c")
	must(os.Rename(filepath.Join(dir, "new"), b))
	want("aac", true, nil)
	write(b, "bad")
	want("aac", true, bad)
	must(os.Remove(b))
	want("aac", true, os.ErrNotExist)
	must(os.Symlink(a, b)) // as orchestrators do it: a link to another file
	want("aaaa", true, nil)
}

// TestNew: what cannot be read at first is an error.
func TestNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	if _, err := reread.New(func() ([]byte, error) { return os.ReadFile(path) }, path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
