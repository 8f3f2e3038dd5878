package hostclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// modelFile opens the sealed model of a role, and returns its size.
type modelFile func() (io.ReadCloser, int64, error)

// inMemory returns sealed models, which must be one a role, as files.
func (s *Secret) inMemory(models []SealedModel) ([]modelFile, error) {
	if len(models) != s.Roles() {
		return nil, fmt.Errorf("%w: %d models for %d roles", ErrMismatch, len(models), s.Roles())
	}
	files := make([]modelFile, len(models))
	for i, m := range models {
		if m.Role != i {
			return nil, fmt.Errorf("%w: role %d", ErrMismatch, i)
		}
		files[i] = func() (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(m.Bytes)), int64(len(m.Bytes)), nil
		}
	}
	return files, nil
}

// CheckFiles returns an error wrapping ErrMismatch unless sealed models in files, as SealedFiles
// returns them, are those that the secret was made with, one a role.
func (s *Secret) CheckFiles(models []SealedFile) error {
	if len(models) != s.Roles() {
		return fmt.Errorf("%w: %d models for %d roles", ErrMismatch, len(models), s.Roles())
	}
	for i, m := range models {
		if m.Role != i || m.Digest != s.digests[i] {
			return fmt.Errorf("%w: role %d", ErrMismatch, i)
		}
	}
	return nil
}

// inDir returns the sealed models of a folder, which must be one a role.
func (s *Secret) inDir(dir string) ([]modelFile, error) {
	files := make([]modelFile, s.Roles())
	n, err := rolesIn(dir)
	if len(files) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if n != len(files) {
		return nil, fmt.Errorf("%w: %d models for %d roles", ErrMismatch, n, len(files))
	}
	for i := range files {
		files[i] = func() (io.ReadCloser, int64, error) {
			f, err := openRegular(filepath.Join(dir, roleFile(i, len(files))))
			if err != nil {
				return nil, 0, err
			}
			info, err := f.Stat()
			if err != nil {
				return nil, 0, errors.Join(err, f.Close())
			}
			return f, info.Size(), nil
		}
	}
	return files, nil
}

// modelReader reads the sealed model that must be the one of a role.
type modelReader struct {
	*sealed.Reader
	file   io.Closer
	role   int
	digest sealed.Digest
	memory []uint32 // of one matrix
}

// openModel checks the plan of the sealed model of a role, which is to be closed.
func (s *Secret) openModel(role int, open modelFile) (*modelReader, error) {
	file, size, err := open()
	if err != nil {
		return nil, modelError(role, err)
	}
	r, err := sealed.NewReader(file, size)
	if err == nil && (r.Plan().Ring != s.ring || !slices.EqualFunc(r.Plan().Ops, s.sent,
		func(op plan.Op, l int) bool { return op == s.layers[l].masks.CloudOp() })) {
		err = fmt.Errorf("%w: another plan", sealed.ErrInvalid)
	}
	if err != nil {
		return nil, errors.Join(modelError(role, err), file.Close())
	}
	return &modelReader{Reader: r, file: file, role: role, digest: s.digests[role]}, nil
}

// next returns the next matrix, until it is called again.
func (r *modelReader) next() (ring.Matrix, error) {
	m, err := r.Next(r.memory)
	if err != nil {
		return m, modelError(r.role, err)
	}
	r.memory = m.Data
	return m, nil
}

// check tells, once all matrices were read, whether they are the secret's.
func (r *modelReader) check() error {
	if r.Sum() != r.digest {
		return fmt.Errorf("%w: role %d", ErrMismatch, r.role)
	}
	return nil
}

// modelError returns an error of reading a role's sealed model.
func modelError(role int, err error) error {
	if errors.Is(err, sealed.ErrInvalid) {
		return fmt.Errorf("%w: role %d: %w", ErrMismatch, role, err)
	}
	return fmt.Errorf("hostclient: sealed model of role %d: %w", role, err)
}

// readModel calls use with each layer's masked weights of a role, which are lent. What it
// made of them may only be used if no error is returned: that they are the secret's shows
// at the end.
func (s *Secret) readModel(role int, file modelFile, use func(l int, what ring.Matrix) error) error {
	r, err := s.openModel(role, file)
	if err != nil {
		return err
	}
	defer r.file.Close()
	for _, l := range s.sent {
		what, err := r.next()
		if err == nil {
			err = use(l, what)
		}
		if err != nil {
			return err
		}
	}
	return r.check()
}
