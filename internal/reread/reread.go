// Package reread keeps what was read from files, such as certificates that others renew, and
// reads them again once they have changed.
package reread

import (
	"os"
	"sync"
)

// Of is a value that was read from files. Several goroutines may use it at once.
type Of[T any] struct {
	read  func() (T, error)
	paths []string

	mu    sync.Mutex
	value T
	seen  []os.FileInfo // of the files, before they were last read; nil for one that was not there
}

// New reads a value of files.
func New[T any](read func() (T, error), paths ...string) (*Of[T], error) {
	o := &Of[T]{read: read, paths: paths}
	o.seen = o.stat()
	var err error
	o.value, err = read()
	return o, err
}

// Get returns the value. If a file has been changed or replaced since the files were last read, it
// reads them again and reports that it did. If that fails, the value stays as it is until they
// change once more, so that each failure is reported once.
func (o *Of[T]) Get() (value T, again bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.stat()
	if o.same(now) {
		return o.value, false, nil
	}
	o.seen = now
	fresh, err := o.read()
	if err == nil {
		o.value = fresh
	}
	return o.value, true, err
}

func (o *Of[T]) stat() []os.FileInfo {
	all := make([]os.FileInfo, len(o.paths))
	for i, p := range o.paths {
		if info, err := os.Stat(p); err == nil {
			all[i] = info
		}
	}
	return all
}

func (o *Of[T]) same(now []os.FileInfo) bool {
	for i, a := range o.seen {
		b := now[i]
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			return false
		}
	}
	return true
}
