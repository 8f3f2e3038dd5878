// Package padstock keeps one-time pads on disk so that each serves at most once, even if
// the process is killed, the disk fills up, or files are copied or restored from a
// backup. See docs/spec.md, section 7.
//
//	DIR/stock      the header: what the stock is bound to, and its key, sealed
//	DIR/N.pads     a block of pads; sample i of it has the id N+i
//	DIR/burned     the burn journal's twin
//	JOURNAL/burned the burn journal: ids below its last record's are used up; it keeps two
//
// Ids count up and are used in order. Pads leave the stock in these steps:
//
//	read and decrypt  ->  record in the journal, fsync  ->  record in the twin, fsync  ->  hand out
//
// When a file is created, its directory is fsynced before the next file is created. A process
// that stops between two steps has burned pads for nothing. The twin shows whether one of
// the two folders was restored: both must have the same last record, except that a stop
// between the two leaves one more in the journal. A stock that does not match is
// discarded: its files are removed, and Discarded says why. No timing here depends on
// secrets, if the processor has instructions for AES.
package padstock

import (
	"cmp"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/securenets/securenets/transform"
)

// Errors with which Open refuses a stock, leaving everything as it is.
var (
	// ErrLocked: another process, or another session of this one, has the stock.
	ErrLocked = errors.New("padstock: in use")
	// ErrMachineID: the id of the machine is missing, or not 32 hexadecimal digits.
	ErrMachineID = errors.New("padstock: no machine id of 32 hexadecimal digits")
	// ErrDirs: one of the folders is the other or inside it, so that one backup would
	// hold both.
	ErrDirs = errors.New("padstock: stock and burn journal must be in separate folders")
	// ErrSecret: the stock was made with another secret.
	ErrSecret = errors.New("padstock: stock of another secret")
	// ErrVersion: the stock has a format that this version does not read.
	ErrVersion = errors.New("padstock: unknown format version")
)

// ShortError is what Take returns where all that it is asked for are not there.
type ShortError struct{ Left, Asked int } // samples

func (e *ShortError) Error() string {
	return fmt.Sprintf("padstock: pads for %d samples are left, and %d were asked for", e.Left, e.Asked)
}

// Reasons for which a stock was discarded.
var (
	// ErrMachine: the stock was made on another machine.
	ErrMachine = errors.New("padstock: stock of another machine")
	// ErrMoved: the stock or its burn journal was moved or copied.
	ErrMoved = errors.New("padstock: moved or copied")
	// ErrJournal: a burn journal is missing, damaged or of another stock.
	ErrJournal = errors.New("padstock: no usable burn journal")
	// ErrRollback: stock and burn journal are in different states.
	ErrRollback = errors.New("padstock: stock or burn journal restored")
	// ErrDamaged: a file was changed after it was written.
	ErrDamaged = errors.New("padstock: damaged")
)

// mismatches are the reasons to discard a stock.
var mismatches = []error{ErrMachine, ErrMoved, ErrJournal, ErrRollback, ErrDamaged}

func mismatch(err error) bool {
	return slices.ContainsFunc(mismatches, func(m error) bool { return errors.Is(err, m) })
}

// Errors that Add and Take return.
var (
	// ErrShape: the pads are of other layers.
	ErrShape = errors.New("padstock: pads of the wrong shape")
	// ErrFailed: a change may or may not be on disk. The stock serves no more pads until it
	// is reopened.
	ErrFailed = errors.New("padstock: disk failed")
	// ErrClosed: the stock was closed.
	ErrClosed = errors.New("padstock: closed")
)

// Key is the key in the secret under which a stock's own key is sealed. It prints
// redacted.
type Key [32]byte

const redactedKey = "padstock.Key(redacted)"

// Format prints k redacted, whatever the verb.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, redactedKey) }

// MarshalText keeps k out of JSON and structured logs.
func (Key) MarshalText() ([]byte, error) { return []byte(redactedKey), nil }

// Config says where a stock is, and what it is bound to.
type Config struct {
	Dir        string
	JournalDir string // never backed up together with Dir, and used by this stock alone
	MachineID  string // 32 hexadecimal digits, as in /etc/machine-id
	Key        Key
	Words      []int // words of a sample's u, one entry per layer

	ids uint64 // of a stock; 0: maxID
}

// Stock is an open stock. It may be used by several goroutines at once.
type Stock struct {
	fs    FS
	c     Config
	locks []io.Closer

	mu        sync.Mutex
	discarded error
	failed    error // what every further use returns

	// The state on disk: none before the first block.
	id      [16]byte
	aead    cipher.AEAD // of the stock's key
	sum     [32]byte    // SHA-256 of the header
	journal *journal
	twin    *journal
	blocks  []block // in order of ids; the first may be partly burned
}

// Format prints s redacted, whatever the verb.
func (*Stock) Format(f fmt.State, _ rune) { io.WriteString(f, "padstock.Stock(redacted)") }

// block is a file of pads for n samples, with the ids from first on.
type block struct {
	first uint64
	n     int
}

func (b block) end() uint64 { return b.first + uint64(b.n) }

const padsSuffix = ".pads"

func (b block) name() string { return fmt.Sprintf("%016x%s", b.first, padsSuffix) }

// A block file has a head, which is a seed and a first index per layer, and then a record per
// sample, which is u of all layers in order. Head and records are sealed one by one. The
// associated data are the header's digest, the block's first id, and 0 for the head or i+1
// for sample i.
const headLayer = 32 + 8 // bytes

func (s *Stock) headSize() int { return headLayer*len(s.c.Words) + sealing }

func (s *Stock) recordSize() int {
	words := 0
	for _, w := range s.c.Words {
		words += w
	}
	return 4*words + sealing
}

// maxID bounds the samples of a stock: even with a head for each, at most 2^32 messages are
// sealed under its key.
const maxID = 1 << 31

// Open opens the stock of c, which need not exist yet. It holds the stock until Close:
// all others get ErrLocked.
func Open(fsys FS, c Config) (_ *Stock, err error) {
	if err := checkMachine(c.MachineID); err != nil {
		return nil, err
	}
	if len(c.Words) == 0 || slices.Min(c.Words) < 1 {
		return nil, ErrShape
	}
	s := &Stock{fs: fsys, c: c}
	s.c.ids = cmp.Or(c.ids, maxID)
	if s.c.Dir, err = fsys.Dir(c.Dir); err != nil {
		return nil, err
	}
	if s.c.JournalDir, err = fsys.Dir(c.JournalDir); err != nil {
		return nil, err
	}
	if within(s.c.Dir, s.c.JournalDir) || within(s.c.JournalDir, s.c.Dir) {
		return nil, ErrDirs
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	for _, dir := range []string{s.c.Dir, s.c.JournalDir} {
		if err := fsys.MkdirAll(dir); err != nil {
			return nil, err
		}
		lock, err := fsys.Lock(filepath.Join(dir, "lock"))
		if err != nil {
			return nil, err
		}
		s.locks = append(s.locks, lock)
	}
	err = s.load()
	if mismatch(err) {
		err = s.discard(err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	const slash = string(filepath.Separator)
	return strings.HasPrefix(path+slash, strings.TrimSuffix(dir, slash)+slash)
}

// Discarded returns why an existing stock was discarded, or nil.
func (s *Stock) Discarded() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discarded
}

// Len returns the number of samples for which pads are left.
func (s *Stock) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left()
}

func (s *Stock) left() int {
	n := 0
	for _, b := range s.blocks {
		n += int(b.end() - max(b.first, s.journal.last.Burned))
	}
	return n
}

// Close releases the stock for others.
func (s *Stock) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed, s.blocks = ErrClosed, nil
	return s.release()
}

func (s *Stock) release() error {
	errs := []error{s.forget()}
	for _, l := range s.locks {
		errs = append(errs, l.Close())
	}
	s.locks = nil
	return errors.Join(errs...)
}

// forget closes the files.
func (s *Stock) forget() error {
	var errs []error
	for _, j := range []*journal{s.journal, s.twin} {
		if j != nil {
			errs = append(errs, j.file.Close())
		}
	}
	s.aead, s.journal, s.twin, s.blocks = nil, nil, nil, nil
	return errors.Join(errs...)
}

// load reads the state on disk. If that is to be discarded, its error is a mismatch.
func (s *Stock) load() error {
	f, err := s.fs.Open(filepath.Join(s.c.Dir, headerName))
	if errors.Is(err, fs.ErrNotExist) {
		return s.clear() // removes what a stop in begin or clear left
	} else if err != nil {
		return err
	}
	defer f.Close()
	h, err := readHeader(f, s.c)
	if err != nil {
		return err
	}
	s.id, s.sum = h.Stock, sha256.Sum256(h.encode())
	if s.journal, err = openJournal(s.fs, s.c.JournalDir, s.id); err != nil {
		return err
	}
	if at, err := place(s.id, s.c, f, s.journal.file); err != nil {
		return err
	} else if at != h.Place {
		return ErrMoved
	}
	if s.aead, err = h.unseal(s.c.Key); err != nil {
		return err
	}
	if s.twin, err = openJournal(s.fs, s.c.Dir, s.id); err != nil {
		return err
	}
	switch journal, twin := s.journal.last, s.twin.last; {
	case journal == twin:
	case journal.Generation == twin.Generation+1 && journal.Burned > twin.Burned:
		if err := s.twin.record(journal); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: record %d in the stock's folder, %d in the journal's", ErrRollback, twin.Generation, journal.Generation)
	}
	return s.loadBlocks()
}

// loadBlocks finds the blocks, and removes the burned ones.
func (s *Stock) loadBlocks() error {
	blocks, err := s.names()
	if err != nil {
		return err
	}
	for _, b := range blocks {
		f, err := s.fs.Open(filepath.Join(s.c.Dir, b.name()))
		if err != nil {
			return err
		}
		size, _, err := f.Stat()
		f.Close()
		if err != nil {
			return err
		}
		n := size - int64(s.headSize())
		if each := int64(s.recordSize()); n <= 0 || n%each != 0 || n/each > maxID || b.first > maxID {
			return fmt.Errorf("%w: %s has %d bytes", ErrDamaged, b.name(), size)
		}
		b.n = int(n / int64(s.recordSize()))
		if k := len(s.blocks); k > 0 && b.first < s.blocks[k-1].end() {
			return fmt.Errorf("%w: %s overlaps %s", ErrDamaged, b.name(), s.blocks[k-1].name())
		}
		s.blocks = append(s.blocks, b)
	}
	return s.drop()
}

// names returns the blocks that have a file, in order of ids, without their lengths.
func (s *Stock) names() ([]block, error) {
	names, err := s.fs.List(s.c.Dir)
	if err != nil {
		return nil, err
	}
	var blocks []block
	for _, name := range names {
		hex, ok := strings.CutSuffix(name, padsSuffix)
		first, err := strconv.ParseUint(hex, 16, 64)
		if b := (block{first: first}); ok && err == nil && b.name() == name {
			blocks = append(blocks, b)
		}
	}
	slices.SortFunc(blocks, func(a, b block) int { return cmp.Compare(a.first, b.first) })
	return blocks, nil
}

// drop removes the files of burned blocks. If a crash brings one back, it is still burned.
func (s *Stock) drop() error {
	for len(s.blocks) > 0 && s.blocks[0].end() <= s.journal.last.Burned {
		if err := s.fs.Remove(filepath.Join(s.c.Dir, s.blocks[0].name())); err != nil {
			return err
		}
		s.blocks = s.blocks[1:]
	}
	return nil
}

// discard removes the stock.
func (s *Stock) discard(why error) error {
	s.discarded = why
	return s.clear()
}

// clear removes the content of the stock's folder, the header first: without it the rest is not
// a stock. The journal stays until a new one replaces it, so that files that a crash brings
// back are checked as before.
func (s *Stock) clear() error {
	if err := s.forget(); err != nil {
		return err
	}
	remove := func(name string) error {
		err := s.fs.Remove(filepath.Join(s.c.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := remove(headerName); err != nil {
		return err
	}
	blocks, err := s.names()
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if err := remove(b.name()); err != nil {
			return err
		}
	}
	return remove(journalName)
}

// begin creates a stock without pads, with a new key and id, replacing an existing one. The
// header is written last.
func (s *Stock) begin() (err error) {
	if err := s.clear(); err != nil {
		return err
	}
	rand.Read(s.id[:]) // never fails: the process would end
	if s.journal, err = createJournal(s.fs, s.c.JournalDir, s.id); err != nil {
		return err
	}
	if s.twin, err = createJournal(s.fs, s.c.Dir, s.id); err != nil {
		return err
	}
	return put(s.fs, s.c.Dir, headerName, func(f File) error {
		h := newHeader(s.id, s.c)
		if h.Place, err = place(s.id, s.c, f, s.journal.file); err != nil {
			return err
		}
		if s.aead, err = h.seal(s.c.Key); err != nil {
			return err
		}
		b := h.encode()
		s.sum = sha256.Sum256(b)
		_, err = f.Write(b)
		return err
	})
}

// Add writes a block of pads, one entry per layer, all of the same number of samples.
// When it returns, they are durable. If it fails, they are lost and the stock is unchanged,
// except after ErrFailed. A stock whose ids are used up begins anew, and pads that are left then
// are removed, unused, even if Add then fails. Nobody else may hold the states.
func (s *Stock) Add(pads []transform.PadsState) error {
	if err := s.checkShape(pads); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	err := s.add(pads)
	if errors.Is(err, ErrFailed) {
		s.failed = err
	}
	return err
}

func (s *Stock) add(pads []transform.PadsState) error {
	b := block{n: len(pads[0].U)}
	if k := len(s.blocks); k > 0 {
		b.first = s.blocks[k-1].end()
	}
	if s.left() == 0 || b.end() > s.c.ids {
		if err := s.begin(); err != nil {
			s.forget()
			return fmt.Errorf("padstock: begin: %w", err)
		}
		b.first = 0
	}
	err := put(s.fs, s.c.Dir, b.name(), func(f File) error {
		var buf, sealed []byte
		for _, p := range pads {
			buf = append(buf, p.Seed[:]...)
			buf = binary.LittleEndian.AppendUint64(buf, p.First)
		}
		for i := range b.n + 1 {
			sealed = s.aead.Seal(sealed[:0], nil, buf, s.associated(b, i))
			if _, err := f.Write(sealed); err != nil || i == b.n {
				return err
			}
			buf = buf[:0]
			for _, p := range pads {
				for _, w := range p.U[i] {
					buf = binary.LittleEndian.AppendUint32(buf, w)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("padstock: add: %w", err)
	}
	s.blocks = append(s.blocks, b)
	return nil
}

func (s *Stock) checkShape(pads []transform.PadsState) error {
	if len(pads) != len(s.c.Words) || len(pads[0].U) == 0 || len(pads[0].U) > maxID {
		return ErrShape
	}
	for l, p := range pads {
		if len(p.U) != len(pads[0].U) || slices.ContainsFunc(p.U, func(u []uint32) bool { return len(u) != s.c.Words[l] }) {
			return fmt.Errorf("%w: layer %d", ErrShape, l)
		}
	}
	return nil
}

// associated returns the associated data of part i of a block; part 0 is the head.
func (s *Stock) associated(b block, i int) []byte {
	return append(slices.Clone(s.sum[:]), le64(b.first, uint64(i))...)
}

// Take burns the pads of up to n samples and returns them: one entry per block that they come
// from, which has one entry per layer. If all is set and fewer than n are left, it takes none
// and returns a *ShortError. On any other error pads may be burned, but none is returned.
func (s *Stock) Take(n int, all bool) ([][]transform.PadsState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	parts, burned, err := s.read(n)
	if mismatch(err) {
		parts, err = nil, s.discard(err)
	}
	if err != nil {
		return nil, fmt.Errorf("padstock: take: %w", err)
	}
	taken := 0
	for _, p := range parts {
		taken += len(p[0].U)
	}
	switch {
	case all && taken < n:
		return nil, &ShortError{Left: taken, Asked: n}
	case taken == 0:
		return nil, nil
	}
	next := burn{Stock: s.id, Generation: s.journal.last.Generation + 1, Burned: burned}
	for _, j := range []*journal{s.journal, s.twin} { // in this order: see load
		if err := j.record(next); err != nil {
			s.failed = fmt.Errorf("padstock: take: %w", err)
			return nil, s.failed
		}
	}
	if err := s.drop(); err != nil {
		s.failed = fmt.Errorf("%w: take: %w", ErrFailed, err)
		return nil, s.failed
	}
	return parts, nil
}

// read returns the pads of the next up to n samples, and the id after the last.
func (s *Stock) read(n int) (parts [][]transform.PadsState, burned uint64, err error) {
	for _, b := range s.blocks {
		if n <= 0 {
			break
		}
		first := max(b.first, s.journal.last.Burned)
		k := min(n, int(b.end()-first))
		pads, err := s.readBlock(b, int(first-b.first), k)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", b.name(), err)
		}
		parts = append(parts, pads)
		n -= k
		burned = first + uint64(k)
	}
	return parts, burned, nil
}

// readBlock returns the pads of a block's samples i to i+n-1.
func (s *Stock) readBlock(b block, i, n int) ([]transform.PadsState, error) {
	f, err := s.fs.Open(filepath.Join(s.c.Dir, b.name()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the file is missing", ErrDamaged)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var buf []byte
	part := func(i, size int, at int64) ([]byte, error) {
		buf = slices.Grow(buf[:0], size)[:size]
		if _, err := f.ReadAt(buf, at); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the file was truncated", ErrDamaged)
		} else if err != nil {
			return nil, err
		}
		plain, err := s.aead.Open(buf[:0], nil, buf, s.associated(b, i))
		if err != nil {
			return nil, fmt.Errorf("%w: part %d", ErrDamaged, i)
		}
		return plain, nil
	}
	head, err := part(0, s.headSize(), 0)
	if err != nil {
		return nil, err
	}
	pads := make([]transform.PadsState, len(s.c.Words))
	for l := range pads {
		copy(pads[l].Seed[:], head[l*headLayer:])
		pads[l].First = binary.LittleEndian.Uint64(head[l*headLayer+32:]) + uint64(i)
	}
	for k := i; k < i+n; k++ {
		rec, err := part(k+1, s.recordSize(), int64(s.headSize())+int64(k)*int64(s.recordSize()))
		if err != nil {
			return nil, err
		}
		for l, words := range s.c.Words {
			u := make([]uint32, words)
			for j := range u {
				u[j] = binary.LittleEndian.Uint32(rec[4*j:])
			}
			rec = rec[4*words:]
			pads[l].U = append(pads[l].U, u)
		}
	}
	return pads, nil
}
