package hostclient

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/sealed"
)

const secretFile = "secret.age"

var (
	errNoRecipients = errors.New("nobody to encrypt the secret to")
	errNotRegular   = errors.New("not a regular file")
)

// roleFile names the sealed model of a role. How many roles there are is part of the name, so
// that a folder that lacks some does not pass for one of fewer.
func roleFile(role, roles int) string {
	if roles == 1 {
		return fmt.Sprintf("role-%d.safetensors", role)
	}
	return fmt.Sprintf("role-%d-of-%d.safetensors", role, roles)
}

var (
	roleName = regexp.MustCompile(`^role-[0-9]+(-of-[0-9]+)?\.safetensors$`)
	tempName = regexp.MustCompile(`^\.(` + regexp.QuoteMeta(secretFile) + `|role-[0-9]+(-of-[0-9]+)?\.safetensors)\.[0-9]+$`)
)

// namesIn returns the names in a folder that match.
func namesIn(dir string, match *regexp.Regexp) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if match.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// rolesIn returns how many roles the sealed models of a folder are of, which has one of each.
func rolesIn(dir string) (int, error) {
	names, err := namesIn(dir, roleName)
	if err != nil {
		return 0, fmt.Errorf("hostclient: %w", err)
	}
	if len(names) == 0 {
		return 0, modelError(0, &fs.PathError{Op: "open", Path: filepath.Join(dir, roleFile(0, 1)), Err: unix.ENOENT})
	}
	for role := range names {
		if !slices.Contains(names, roleFile(role, len(names))) {
			return 0, fmt.Errorf("%w: %s holds %s", ErrRoleFiles, dir, strings.Join(names, ", "))
		}
	}
	return len(names), nil
}

// WriteDir writes a sealed network to the folder dir, made if it is missing:
//
//	DIR/secret.age                the secret, encrypted to the recipients
//	DIR/role-0.safetensors        the sealed model, if there is one role
//	DIR/role-N-of-M.safetensors   the sealed model of role N, if there are M
//
// Every file is written anew with mode 0600 and renamed once all are, the secret last, so
// that a folder with a secret is complete. Other sealed models that an earlier network left
// there are removed. A folder that has a secret is left as it is, with an
// error wrapping fs.ErrExist. One call at a time works on a folder.
func WriteDir(dir string, s *Secret, models []SealedModel, to ...age.Recipient) error {
	return fillDir(dir, to, func(create func(role, roles int) (io.Writer, error)) (*Secret, error) {
		for _, m := range models {
			w, err := create(m.Role, s.Roles())
			if err == nil {
				_, err = w.Write(m.Bytes)
			}
			if err != nil {
				return nil, fmt.Errorf("hostclient: sealed model of role %d: %w", m.Role, err)
			}
		}
		return s, nil
	})
}

// fillDir writes a folder as WriteDir does: the sealed models that fill writes to what
// create gives it, one a role, and the secret that it returns. What fails
// leaves no file of these, and no folder where there was none.
func fillDir(dir string, to []age.Recipient, fill func(create func(role, roles int) (io.Writer, error)) (*Secret, error)) (err error) {
	made, err := makeDir(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, dir := range made {
				os.Remove(dir) // if it is empty
			}
		}
	}()
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := Vacant(dir); err != nil {
		return err
	}
	if err := sweep(dir); err != nil {
		return fmt.Errorf("hostclient: %w", err)
	}
	var files []*newFile
	defer func() {
		for _, f := range files {
			f.discard()
		}
	}()
	create := func(name string) (*newFile, error) {
		f, err := createFile(filepath.Join(dir, name))
		if err == nil {
			files = append(files, f)
		}
		return f, err
	}
	s, err := fill(func(role, roles int) (io.Writer, error) { return create(roleFile(role, roles)) })
	if err != nil {
		return err
	}
	models := files
	secret, err := create(secretFile)
	if err == nil {
		err = s.Encrypt(secret, to...)
	}
	if err != nil {
		return err
	}
	others, err := namesIn(dir, roleName)
	if err != nil {
		return fmt.Errorf("hostclient: %w", err)
	}
	for _, f := range models {
		if err := f.commit(); err != nil {
			return fmt.Errorf("hostclient: sealed model: %w", err)
		}
		others = slices.DeleteFunc(others, func(name string) bool { return name == filepath.Base(f.path) })
	}
	for _, name := range others {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("hostclient: sealed model of another network: %w", err)
		}
	}
	return secret.commit()
}

// makeDir makes a folder and those above it, and returns the ones that were missing, the
// innermost first.
func makeDir(dir string) (made []string, err error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	return made, nil
}

// sweep removes files that writing a folder left unfinished when its process was killed.
// The folder must be locked.
func sweep(dir string) error {
	names, err := namesIn(dir, tempName)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// Vacant returns the error with which WriteDir would refuse a folder because of what is
// in it; for a secret it wraps fs.ErrExist. Call it before the work of sealing.
func Vacant(dir string) error {
	switch _, err := os.Lstat(filepath.Join(dir, secretFile)); {
	case err == nil:
		return fmt.Errorf("hostclient: secret in %s: %w", dir, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("hostclient: %w", err)
	}
	return nil
}

// BindDir binds the provider of client i to role i in the secret of a folder and returns
// that secret. If this changes the secret, it is written anew and renamed. It is
// encrypted to the recipients given; without any, to its earlier ones, or with an error
// wrapping ErrRecipients if that is not possible, as with a passphrase. Call it before
// Push: when it returns, the record is durable. One call at a time works on a folder; others
// wait.
func BindDir(dir string, clients []*Client, with []age.Identity, to ...age.Recipient) (*Secret, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := ReadSecret(dir, with...)
	if err != nil {
		return nil, err
	}
	before := s.count()
	if err := s.bind(clients); err != nil {
		return nil, err
	}
	if s.count() == before {
		// What is there may be of a call that was cut off after the rename.
		if err := syncDir(dir); err != nil {
			return nil, fmt.Errorf("hostclient: secret: %w", err)
		}
		return s, nil
	}
	if to, err = s.recipientsOr(to); err != nil {
		return nil, err
	}
	if err := s.rewrite(dir, to); err != nil {
		return nil, err
	}
	return s, nil
}

// recipientsOr returns the recipients given or, if there are none, the recipients of the
// secret's file.
func (s *Secret) recipientsOr(to []age.Recipient) ([]age.Recipient, error) {
	if len(to) > 0 {
		return to, nil
	}
	to, err := age.ParseRecipients(strings.NewReader(strings.Join(s.recipients, "\n")))
	if err != nil {
		return nil, ErrRecipients // what age says of a key may quote it
	}
	return to, nil
}

// rewrite writes the secret of a folder anew, in the place of the one that is there.
func (s *Secret) rewrite(dir string, to []age.Recipient) error {
	f, err := createFile(filepath.Join(dir, secretFile))
	if err != nil {
		return fmt.Errorf("hostclient: secret: %w", err)
	}
	defer f.discard()
	if err := s.Encrypt(f, to...); err != nil {
		return err
	}
	if err := f.commit(); err != nil {
		return fmt.Errorf("hostclient: secret: %w", err)
	}
	return nil
}

// lockDir waits until no other call works on a folder, and keeps others waiting
// until unlock is called.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("hostclient: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("hostclient: lock %s: %w", dir, err)
	}
	return f.Close, nil
}

// newFile is a file of mode 0600 that after a crash is there whole or not at all, in
// place of one that was there before.
type newFile struct {
	*os.File
	path string
}

func createFile(path string) (*newFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	return &newFile{f, path}, nil
}

// commit puts the file in its place.
func (f *newFile) commit() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

// syncDir makes the names in a folder durable. Tests replace it.
var syncDir = func(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// discard removes the file, unless it is in its place.
func (f *newFile) discard() {
	f.Close()
	os.Remove(f.Name())
}

// ReadModels reads the sealed models of a folder that WriteDir wrote, in the
// order of their roles; with an error wrapping ErrRoleFiles if there is not one of each. That
// they belong to the secret is checked by Open.
func ReadModels(dir string) ([]SealedModel, error) { return perRole(dir, readModel) }

func readModel(path string, role int) (SealedModel, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return SealedModel{}, modelError(role, err)
	}
	return SealedModel{Role: role, Digest: sealed.Sum(b), Bytes: b}, nil
}

// SealedFiles is ReadModels for Client.PushFile: it reads the files through for their
// digests, and keeps nothing of what they hold.
func SealedFiles(dir string) ([]SealedFile, error) { return perRole(dir, sealedFile) }

// openRegular opens a regular file, and nothing else: a pipe would be waited for as it is opened,
// and is read but once.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

func sealedFile(path string, role int) (SealedFile, error) {
	m := SealedFile{Role: role, path: path}
	f, err := openRegular(m.path)
	if err == nil {
		defer f.Close()
		m.Digest, m.Size, err = sealed.SumOf(f)
	}
	if err != nil {
		return SealedFile{}, modelError(role, err)
	}
	return m, nil
}

// perRole returns what read finds in the files of a folder's roles.
func perRole[M any](dir string, read func(path string, role int) (M, error)) ([]M, error) {
	roles, err := rolesIn(dir)
	if err != nil {
		return nil, err
	}
	all := make([]M, roles)
	for role := range all {
		if all[role], err = read(filepath.Join(dir, roleFile(role, roles)), role); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ReadSecret reads and decrypts the secret of a folder that WriteDir wrote.
func ReadSecret(dir string, with ...age.Identity) (*Secret, error) {
	path := filepath.Join(dir, secretFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("hostclient: secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("hostclient: secret: %w", err)
	}
	var s *Secret
	if info.Mode().IsRegular() {
		s, err = decryptFile(f, info.Size(), with)
	} else {
		s, err = DecryptSecret(f, with...)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
