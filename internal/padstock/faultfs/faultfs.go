// Package faultfs is a file system in memory that fails on demand, and that loses in a crash
// what was not made durable. It is for tests of padstock.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"

	"github.com/securenets/securenets/internal/padstock"
)

// ErrCrash, returned by Disk.Fault, ends the process: the operation is partly done, and all
// later ones fail.
var ErrCrash = errors.New("faultfs: crashed")

// Op is an operation that changes the disk or makes changes durable.
type Op struct {
	N    int    // number of earlier operations
	Name string // "create", "write", "sync", "rename", "remove" or "syncdir"
	Path string
}

// Disk is a disk. It may be used by several goroutines at once.
type Disk struct {
	// Fault is called before each operation, which fails with the error that it returns. A
	// failed write leaves half of its bytes. May be nil.
	Fault func(Op) error

	mu     sync.Mutex
	ops    []Op
	dirs   map[string]*directory
	locks  map[string]bool
	inodes uint64
	boot   int // number of crashes; older files and locks are dead
	dead   bool
}

type directory struct {
	names   map[string]*inode
	durable map[string]*inode
	pending []map[string]*inode // changes, in order; a nil inode removes the name
}

type inode struct {
	number  uint64
	data    []byte
	durable int         // bytes
	written []overwrite // since the last sync, below durable
	// What a failed sync was to make durable: from then on the system considers it written, and
	// reads return it until the power fails.
	lost []overwrite
}

// overwrite is a write in place: what was there before.
type overwrite struct {
	at  int
	old []byte
}

// undo brings back what was there before, from the byte of number from on.
func (o overwrite) undo(data []byte, from int) {
	copy(data[min(o.at+from, len(data)):], o.old[from:])
}

// New returns an empty disk.
func New() *Disk { return &Disk{dirs: map[string]*directory{}, locks: map[string]bool{}} }

// Ops returns the operations so far.
func (d *Disk) Ops() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ops)
}

// Survival says which changes that were not made durable survive a crash.
type Survival int

const (
	All  Survival = iota // as if the process alone was killed
	None                 // as if nothing was written back
	Some                 // any part: files and what was written in place cut anywhere, changes of a directory in any selection
)

// Survivals lists every Survival.
var Survivals = []Survival{All, None, Some}

func (s Survival) String() string { return [...]string{"all", "none", "some"}[s] }

// Crash ends the process that uses the disk and starts the machine again.
func (d *Disk) Crash(s Survival, rnd *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := map[*inode]bool{}
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) { // a fixed order, so that a seed determines the outcome
		dir := d.dirs[name]
		for _, change := range dir.pending {
			if s == All || s == Some && rnd.IntN(2) == 0 {
				apply(dir.durable, change)
			}
		}
		dir.names, dir.pending = maps.Clone(dir.durable), nil
		for _, name := range slices.Sorted(maps.Keys(dir.names)) {
			f := dir.names[name]
			if kept[f] {
				continue
			}
			kept[f] = true
			switch s {
			case None:
				f.data = f.data[:f.durable]
			case Some:
				f.data = f.data[:f.durable+rnd.IntN(len(f.data)-f.durable+1)]
			}
			for _, o := range slices.Backward(slices.Concat(f.lost, f.written)) {
				switch {
				case s == None || s == Some && rnd.IntN(3) == 0:
					o.undo(f.data, 0)
				case s == Some && rnd.IntN(2) == 0:
					o.undo(f.data, rnd.IntN(len(o.old)+1))
				}
			}
			f.durable, f.written, f.lost = len(f.data), nil, nil
		}
	}
	d.boot++
	d.dead = false
	clear(d.locks)
}

func apply(names, change map[string]*inode) {
	for name, f := range change {
		if f == nil {
			delete(names, name)
		} else {
			names[name] = f
		}
	}
}

// do counts an operation and asks Fault whether it fails. With partly set it fails because the
// process ends, and may have been done.
func (d *Disk) do(name, path string) (partly bool, err error) {
	if d.dead {
		return false, ErrCrash
	}
	op := Op{len(d.ops), name, path}
	d.ops = append(d.ops, op)
	if d.Fault == nil {
		return false, nil
	}
	if err := d.Fault(op); err != nil {
		d.dead = errors.Is(err, ErrCrash)
		return d.dead, fmt.Errorf("%s %s: %w", name, path, err)
	}
	return false, nil
}

// dir returns the directory of a path and the path's name in it.
func (d *Disk) dir(p string) (*directory, string, error) {
	dir := d.dirs[path.Dir(p)]
	if dir == nil {
		return nil, "", fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return dir, path.Base(p), nil
}

func (dir *directory) change(c map[string]*inode) {
	apply(dir.names, c)
	dir.pending = append(dir.pending, c)
}

// Dir makes a directory, durably.
func (d *Disk) Dir(p string) (string, error) { return path.Clean("/" + p), nil }

func (d *Disk) MkdirAll(p string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs[p] == nil {
		d.dirs[p] = &directory{names: map[string]*inode{}, durable: map[string]*inode{}}
	}
	return nil
}

func (d *Disk) Lock(p string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[p] {
		return nil, padstock.ErrLocked
	}
	d.locks[p] = true
	return &lock{d, p, d.boot}, nil
}

type lock struct {
	d    *Disk
	path string
	boot int
}

func (l *lock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.boot == l.d.boot {
		delete(l.d.locks, l.path)
	}
	return nil
}

func (d *Disk) List(p string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.dirs[p]
	if dir == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Sorted(maps.Keys(dir.names)), nil
}

func (d *Disk) Create(p string) (padstock.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, err := d.dir(p)
	if err != nil {
		return nil, err
	}
	if _, err := d.do("create", p); err != nil {
		return nil, err
	}
	d.inodes++
	f := &inode{number: d.inodes}
	dir.change(map[string]*inode{name: f})
	return &file{d, p, f, d.boot}, nil
}

func (d *Disk) Open(p string) (padstock.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, err := d.dir(p)
	if err != nil {
		return nil, err
	}
	f := dir.names[name]
	if f == nil {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return &file{d, p, f, d.boot}, nil
}

func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, err := d.dir(from)
	if err != nil {
		return err
	}
	f := dir.names[name]
	if f == nil {
		return fmt.Errorf("%s: %w", from, fs.ErrNotExist)
	}
	partly, err := d.do("rename", to)
	if err == nil || partly {
		dir.change(map[string]*inode{name: nil, path.Base(to): f})
	}
	return err
}

func (d *Disk) Remove(p string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, err := d.dir(p)
	if err != nil {
		return err
	}
	if dir.names[name] == nil {
		return fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	partly, err := d.do("remove", p)
	if err == nil || partly {
		dir.change(map[string]*inode{name: nil})
	}
	return err
}

func (d *Disk) SyncDir(p string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.dirs[p]
	if dir == nil {
		return fs.ErrNotExist
	}
	if _, err := d.do("syncdir", p); err != nil {
		return err
	}
	dir.durable, dir.pending = maps.Clone(dir.names), nil
	return nil
}

type file struct {
	d    *Disk
	path string
	*inode
	boot int
}

// dead reports whether the process that opened f has ended.
func (f *file) dead() bool { return f.d.dead || f.boot != f.d.boot }

func (f *file) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return 0, ErrCrash
	}
	_, err := f.d.do("write", f.path)
	if err != nil {
		b = b[:len(b)/2]
	}
	f.data = append(f.data, b...)
	return len(b), err
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return 0, ErrCrash
	}
	if int(at)+len(b) > f.durable {
		return 0, errors.New("faultfs: not in place")
	}
	_, err := f.d.do("write", f.path)
	if err != nil {
		b = b[:len(b)/2]
	}
	f.written = append(f.written, overwrite{int(at), slices.Clone(f.data[at:][:len(b)])})
	return copy(f.data[at:], b), err
}

func (f *file) ReadAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := 0
	if at < int64(len(f.data)) {
		n = copy(b, f.data[at:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return ErrCrash
	}
	partly, err := f.d.do("sync", f.path)
	if partly {
		return err
	}
	if err != nil {
		f.lost = append(append(f.lost, f.written...), overwrite{f.durable, make([]byte, len(f.data)-f.durable)})
	} else {
		for _, w := range f.written { // all of it is on disk now
			f.lost = slices.DeleteFunc(f.lost, func(l overwrite) bool { return l.at == w.at && len(l.old) <= len(w.old) })
		}
	}
	f.durable, f.written = len(f.data), nil
	return err
}

func (f *file) Close() error { return nil }

func (f *file) Stat() (int64, uint64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.data)), f.number, nil
}

// Tamper changes the content of an existing file in place.
func (d *Disk) Tamper(p string, change func([]byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.dirs[path.Dir(p)].names[path.Base(p)]
	f.data = change(slices.Clone(f.data))
	f.durable, f.written = len(f.data), nil
}
