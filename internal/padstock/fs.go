package padstock

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is a file system as a stock uses it. All paths are absolute, except Dir's. Missing
// files are reported as fs.ErrNotExist. A change survives a power failure once the file's
// Sync (for its content) or SyncDir of its directory (for its name) has returned.
type FS interface {
	// Dir returns the absolute path of a directory, which need not exist, with links
	// resolved.
	Dir(path string) (string, error)
	// MkdirAll makes a directory, and those above it, with mode 0700 if it is missing.
	MkdirAll(dir string) error
	// Lock locks a file, which it makes if it is missing, until the lock is closed or the
	// process ends. It does not wait, but returns ErrLocked.
	Lock(path string) (io.Closer, error)
	// List returns the names in a directory.
	List(dir string) ([]string, error)
	// Create makes a new, empty file of mode 0600, replacing any that exists.
	Create(path string) (File, error)
	// Open opens an existing file.
	Open(path string) (File, error)
	// Rename moves a file within a directory, replacing any that exists.
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

// File is an open file. Write appends to one that was created.
type File interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	// Stat returns the size in bytes and the inode, which is unique in the file system while
	// the file exists.
	Stat() (size int64, inode uint64, err error)
}

// OS is the operating system's file system.
type OS struct{}

func (OS) Dir(path string) (string, error) {
	if path == "" { // which would be the working directory
		return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	missing := ""
	for {
		there, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Abs(filepath.Join(there, missing))
		}
		parent := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || parent == path {
			return "", err
		}
		path, missing = parent, filepath.Join(filepath.Base(path), missing)
	}
}

func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (OS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, path)
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (OS) Create(path string) (File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return open(path, os.O_CREATE|os.O_EXCL)
}

func (OS) Open(path string) (File, error) { return open(path, 0) }

func (OS) Rename(from, to string) error { return os.Rename(from, to) }

func (OS) Remove(path string) error { return os.Remove(path) }

func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// file is an os.File.
type file struct{ *os.File }

func open(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (f file) Stat() (int64, uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return st.Size, st.Ino, nil
}
