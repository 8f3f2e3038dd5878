package padstock

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// burn is one record of a burn journal: a reservation of ids. They then count as used up for
// good, whether or not anything was sent.
type burn struct {
	Stock      [16]byte
	Generation uint64 // counts records, from 0
	Burned     uint64 // ids below are used up
}

// A record has 64 bytes, so that none crosses a sector: the magic, a burn, and the first 24
// bytes of the SHA-256 of both. Integers are little-endian.
const (
	burnMagic = "snburn2\n"
	burnSize  = 64
	burnBody  = 40
)

func (b burn) encode() []byte {
	rec, err := binary.Append([]byte(burnMagic), binary.LittleEndian, b)
	if err != nil {
		panic(err) // a burn has a fixed size
	}
	sum := sha256.Sum256(rec)
	return append(rec, sum[:burnSize-burnBody]...)
}

func decodeBurn(rec []byte) (b burn, ok bool) {
	if _, err := binary.Decode(rec[len(burnMagic):], binary.LittleEndian, &b); err != nil {
		return burn{}, false
	}
	return b, bytes.Equal(rec, b.encode())
}

// journal is a burn journal: a file with the last two records. Each takes the place of the last
// but one, in the slot that its generation's parity says, so that the last one is whole while the
// next is written.
type journal struct {
	file File
	last burn
}

const journalName = "burned"

// createJournal creates a journal of two records that burn nothing, replacing an existing one.
func createJournal(fsys FS, dir string, stock [16]byte) (*journal, error) {
	last := burn{Stock: stock, Generation: 1}
	err := put(fsys, dir, journalName, func(f File) error {
		_, err := f.Write(append(burn{Stock: stock}.encode(), last.encode()...))
		return err
	})
	if err != nil {
		return nil, err
	}
	f, err := fsys.Open(filepath.Join(dir, journalName))
	if err != nil {
		return nil, err
	}
	return &journal{file: f, last: last}, nil
}

// openJournal opens a stock's journal and reads its last record. Its error wraps ErrJournal if
// there is no reliable one: beside half a record it is unknown what was burned.
func openJournal(fsys FS, dir string, stock [16]byte) (*journal, error) {
	f, err := fsys.Open(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: none in %s", ErrJournal, dir)
	} else if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	if err := j.read(stock); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w, in %s", err, dir)
	}
	return j, nil
}

func (j *journal) read(stock [16]byte) error {
	size, _, err := j.file.Stat()
	if err != nil {
		return err
	}
	var rec [2 * burnSize]byte
	if size != int64(len(rec)) {
		return fmt.Errorf("%w: %d bytes", ErrJournal, size)
	}
	if _, err := j.file.ReadAt(rec[:], 0); err != nil {
		return err
	}
	even, okEven := decodeBurn(rec[:burnSize])
	odd, okOdd := decodeBurn(rec[burnSize:])
	before, last := even, odd
	if even.Generation > odd.Generation {
		before, last = odd, even
	}
	switch {
	case !okEven || !okOdd || even.Generation%2 != 0 || last.Generation != before.Generation+1:
		return fmt.Errorf("%w: a record is damaged", ErrJournal)
	case before.Stock != stock || last.Stock != stock:
		return fmt.Errorf("%w: of another stock", ErrJournal)
	}
	j.last = last
	return nil
}

// record makes the next record durable. After an error it may or may not be on disk.
func (j *journal) record(b burn) error {
	if _, err := j.file.WriteAt(b.encode(), int64(b.Generation%2)*burnSize); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	j.last = b
	return nil
}

const tempName = "new"

// put writes a file atomically, replacing an existing one: after a crash it exists as a whole
// or not at all. Its error wraps ErrFailed if the file may not be durable.
func put(fsys FS, dir, name string, content func(File) error) error {
	temp := filepath.Join(dir, tempName)
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	if err := content(f); err != nil {
		f.Close()
		fsys.Remove(temp)
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = fsys.Rename(temp, filepath.Join(dir, name))
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return nil
}
