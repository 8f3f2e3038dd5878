package model

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/securenets/securenets/internal/sealed"
)

// divide moves the files in the state directory itself to the folder of the daemon's own
// user, one at a time. If it is interrupted, the next start completes it.
func (s *Store) divide() error {
	if err := os.MkdirAll(filepath.Join(s.o.Dir, callersName), 0o700); err != nil {
		return err
	}
	if err := syncDir(s.o.Dir); err != nil {
		return err
	}
	moved := false
	for _, suffix := range []string{modelSuffix, uploadSuffix, badSuffix} {
		found, err := files(s.o.Dir, suffix)
		if err != nil {
			return err
		}
		for _, d := range found {
			if !moved {
				if err := s.Of(s.o.Own).makeDir(); err != nil {
					return err
				}
				moved = true
			}
			if err := os.Rename(filepath.Join(s.o.Dir, d.String()+suffix), s.Of(s.o.Own).path(d, suffix)); err != nil {
				return err
			}
			s.o.Log.Info("model moved to its owner's folder", "model", d, "owner", s.o.Own)
		}
	}
	if !moved {
		return nil
	}
	return errors.Join(syncDir(s.Of(s.o.Own).dir()), syncDir(s.o.Dir))
}

func (s Space) dir() string { return filepath.Join(s.s.o.Dir, callersName, string(s.owner)) }

func (s Space) path(d sealed.Digest, suffix string) string {
	return filepath.Join(s.dir(), d.String()+suffix)
}

// makeDir makes the caller's folder durably.
func (s Space) makeDir() error {
	if err := os.Mkdir(s.dir(), 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(s.dir()))
}

// spaces returns the spaces of all callers that have a folder.
func (s *Store) spaces() ([]Space, error) {
	entries, err := os.ReadDir(filepath.Join(s.o.Dir, callersName))
	if err != nil {
		return nil, err
	}
	var all []Space
	for _, e := range entries {
		if o := Owner(e.Name()); e.IsDir() && o.valid() {
			all = append(all, s.Of(o))
		}
	}
	return all, nil
}

// files returns the digests of a folder's files that have the suffix.
func files(dir, suffix string) ([]sealed.Digest, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []sealed.Digest
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if b, err := hex.DecodeString(name); err == nil && len(b) == len(sealed.Digest{}) {
			found = append(found, sealed.Digest(b))
		}
	}
	return found, nil
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
