package hostclient

import (
	"errors"
	"fmt"
	"sync"

	"github.com/securenets/securenets/internal/padstock"
	"github.com/securenets/securenets/transform"
)

// DurableStock says where a stock is that outlives the process, so that pads can be made
// long before they are needed. It is encrypted under a key that the secret holds, bound
// to the machine and to its place, and used by one session at a time. While pads are
// left, do not roll the machine back to a snapshot, and do not resume one snapshot twice:
// this is not noticed, and the cloud could subtract two inputs under one pad. See
// docs/threat-model.md.
type DurableStock struct {
	Dir        string // the pads
	JournalDir string // which of them are used up; a folder apart, of this stock alone
	MachineID  string // 32 hexadecimal digits, as in /etc/machine-id

	fs padstock.FS // nil: the operating system's
}

// What Open returns for a durable stock that it leaves as it is.
var (
	// ErrStockInUse: another session has the stock.
	ErrStockInUse = padstock.ErrLocked
	// ErrMachineID: the machine's id is missing or malformed.
	ErrMachineID = padstock.ErrMachineID
	// ErrStockDirs: stock and journal need two folders, neither in the other.
	ErrStockDirs = padstock.ErrDirs
	// ErrStockSecret: the stock was made with another secret.
	ErrStockSecret = padstock.ErrSecret
	// ErrStockVersion: the stock has a format of another version.
	ErrStockVersion = padstock.ErrVersion
)

// What Session.StockDiscarded returns.
var (
	// ErrStockMachine: the stock was made on another machine.
	ErrStockMachine = padstock.ErrMachine
	// ErrStockMoved: the stock or its journal was moved or copied.
	ErrStockMoved = padstock.ErrMoved
	// ErrStockJournal: the burn journal is missing, damaged or of another stock.
	ErrStockJournal = padstock.ErrJournal
	// ErrStockRollback: the stock or its journal was restored from a backup.
	ErrStockRollback = padstock.ErrRollback
	// ErrStockDamaged: a file of the stock is not as it was written.
	ErrStockDamaged = padstock.ErrDamaged
)

// ErrStockFailed is what Precompute and Infer return once the disk has not confirmed a
// change of the durable stock. The session serves no more pads.
var ErrStockFailed = padstock.ErrFailed

// sheet holds pads of n samples for every layer that is sent.
type sheet struct {
	n    int
	pads []*transform.Pads // one a layer that is sent; nil under schemes without pads
}

// cut takes the pads of the first n samples out of sh.
func (sh *sheet) cut(n int) (sheet, error) {
	first := sheet{n: n, pads: make([]*transform.Pads, len(sh.pads))}
	for l, p := range sh.pads {
		var err error
		if first.pads[l], err = p.Take(n); err != nil {
			return sheet{}, err
		}
	}
	sh.n -= n
	return first, nil
}

// stock is the pads made beforehand. What is taken never comes back. It may be
// used by several goroutines at once.
type stock interface {
	// add gives pads away to the stock.
	add(sheet) error
	// take removes the pads of n samples, or of as many as there are; with all
	// set, of n samples or of none (noPads).
	take(n int, all bool) ([]sheet, error)
	// size returns the samples that pads are in stock for.
	size() int
	close() error
}

// noPads says how many samples there are pads for, where a batch of n needs more.
func noPads(left, n int) error {
	return fmt.Errorf("%w: for %d samples, and the batch has %d", ErrNoPads, left, n)
}

// openStock opens the stock that the options ask for.
func openStock(s *Secret, o *DurableStock) (stock, error) {
	if o == nil || !s.padded() {
		return &memoryStock{}, nil
	}
	c := padstock.Config{Dir: o.Dir, JournalDir: o.JournalDir, MachineID: o.MachineID, Key: s.stock}
	for _, l := range s.sent {
		c.Words = append(c.Words, s.layers[l].masks.CloudOp().OutLen())
	}
	fs := o.fs
	if fs == nil {
		fs = padstock.OS{}
	}
	disk, err := padstock.Open(fs, c)
	if err != nil {
		return nil, err
	}
	return &durableStock{s, disk}, nil
}

// StockDiscarded returns why an existing durable stock was discarded, at the start or
// once a block was found damaged; or nil. Its pads are gone.
func (ss *Session) StockDiscarded() error {
	if st, ok := ss.stock.(*durableStock); ok {
		return st.disk.Discarded()
	}
	return nil
}

// memoryStock dies with the process.
type memoryStock struct {
	mu     sync.Mutex
	sheets []sheet
	n      int // samples in all sheets
}

func (st *memoryStock) add(sh sheet) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sheets = append(st.sheets, sh)
	st.n += sh.n
	return nil
}

func (st *memoryStock) take(n int, all bool) ([]sheet, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if all && st.n < n {
		return nil, noPads(st.n, n)
	}
	var taken []sheet
	for n > 0 && len(st.sheets) > 0 {
		first := &st.sheets[0]
		sh := *first
		if n < first.n {
			var err error
			if sh, err = first.cut(n); err != nil {
				return nil, err
			}
		} else {
			st.sheets[0] = sheet{}
			st.sheets = st.sheets[1:]
		}
		taken = append(taken, sh)
		n -= sh.n
		st.n -= sh.n
	}
	return taken, nil
}

func (st *memoryStock) size() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.n
}

func (st *memoryStock) close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sheets, st.n = nil, 0
	return nil
}

// durableStock keeps pads on disk alone.
type durableStock struct {
	secret *Secret
	disk   *padstock.Stock
}

func (st *durableStock) add(sh sheet) error {
	states := make([]transform.PadsState, len(sh.pads))
	for l, p := range sh.pads {
		states[l] = p.State()
	}
	return st.disk.Add(states)
}

func (st *durableStock) take(n int, all bool) ([]sheet, error) {
	parts, err := st.disk.Take(n, all)
	if short := new(padstock.ShortError); errors.As(err, &short) {
		return nil, noPads(short.Left, n)
	} else if err != nil {
		return nil, err
	}
	taken := make([]sheet, len(parts))
	for i, states := range parts {
		taken[i] = sheet{n: len(states[0].U), pads: make([]*transform.Pads, len(states))}
		for at, state := range states {
			l := st.secret.sent[at]
			if taken[i].pads[at], err = st.secret.layers[l].masks.RestorePads(state); err != nil {
				return nil, fmt.Errorf("layer %d: %w", l, err)
			}
		}
	}
	return taken, nil
}

func (st *durableStock) size() int { return st.disk.Len() }

func (st *durableStock) close() error { return st.disk.Close() }
