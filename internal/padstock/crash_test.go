package padstock_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/securenets/securenets/internal/padstock"
	"github.com/securenets/securenets/internal/padstock/faultfs"
	"github.com/securenets/securenets/transform"
)

var config = padstock.Config{
	Dir: "/pads", JournalDir: "/burned",
	MachineID: "0123456789abcdef0123456789abcdef",
	Key:       padstock.Key{1, 2, 3},
	Words:     []int{2, 5},
}

const seedText = "seen by nobody but the host"

// host makes distinguishable pads, and records which it was given: a cloud may have seen them
// used.
type host struct {
	t     testing.TB
	fs    padstock.FS
	c     padstock.Config
	stock *padstock.Stock
	made  uint32
	sent  map[uint32]bool
}

func newHost(t testing.TB, fs padstock.FS, c padstock.Config) *host {
	return &host{t: t, fs: fs, c: c, sent: map[uint32]bool{}}
}

func (h *host) open() (err error) {
	h.stock, err = padstock.Open(h.fs, h.c)
	return err
}

// block returns pads of n samples. Sample i has the number made+i, which both its u and its
// seed with its index encode.
func (h *host) block(n int) []transform.PadsState {
	pads := make([]transform.PadsState, len(h.c.Words))
	for l := range pads {
		p := &pads[l]
		p.First = 7
		binary.LittleEndian.PutUint32(p.Seed[:], h.made-uint32(p.First))
		copy(p.Seed[4:31], seedText)
		p.Seed[31] = byte(l)
		for i := range n {
			u := make([]uint32, h.c.Words[l])
			for j := range u {
				u[j] = h.made + uint32(i) + uint32(j)<<24
			}
			p.U = append(p.U, u)
		}
	}
	h.made += uint32(n)
	return pads
}

func (h *host) add(n int) error { return h.stock.Add(h.block(n)) }

// take uses pads and checks that none was used before and all are unchanged.
func (h *host) take(n int, all bool) (int, error) {
	parts, err := h.stock.Take(n, all)
	if err != nil && parts != nil {
		h.t.Fatal("pads beside an error")
	}
	taken := 0
	for _, pads := range parts {
		taken += len(pads[0].U)
		for i, u := range pads[0].U {
			number := u[0]
			if h.sent[number] {
				h.t.Fatalf("sample %d of all serves twice", number)
			}
			h.sent[number] = true
			for l, p := range pads {
				if binary.LittleEndian.Uint32(p.Seed[:])+uint32(p.First)+uint32(i) != number || int(p.Seed[31]) != l {
					h.t.Fatalf("sample %d, layer %d: seed or index of another", number, l)
				}
				for j, w := range p.U[i] {
					if w != number+uint32(j)<<24 {
						h.t.Fatalf("sample %d, layer %d: u of another", number, l)
					}
				}
			}
		}
	}
	if taken > max(n, 0) || all && err == nil && taken != n {
		h.t.Fatalf("%d samples for %d", taken, n)
	}
	return taken, err
}

// small's stocks run out of ids in work.
var small = config.WithIDs(8)

// work takes a stock through every kind of step: parts of blocks, several blocks at once,
// running dry, and starting anew, with and without pads left.
func (h *host) work() error {
	take := func(n int) error { _, err := h.take(n, false); return err }
	for _, step := range []func() error{
		h.open,
		func() error { return take(1) }, // none left
		func() error { return h.add(3) },
		func() error { return take(1) },
		func() error { return h.add(2) },
		func() error { return take(3) },
		func() error { return h.stock.Close() },
		h.open,
		func() error { return h.add(2) },
		func() error { return take(5) },
		func() error { return h.add(4) },
		func() error { return take(2) },
		func() error { return h.add(4) },
		func() error { return h.add(3) }, // too many ids: 6 samples are left behind
		func() error { return take(2) },
		func() error { return h.stock.Close() },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryStepFails stops the process, or fails the operation, at each change of the disk in
// turn; then the power fails, too, and work continues.
func TestEveryStepFails(t *testing.T) {
	disk := faultfs.New()
	if err := newHost(t, disk, small).work(); err != nil {
		t.Fatal(err)
	}
	steps := len(disk.Ops())
	if steps < 80 {
		t.Fatalf("%d operations are not all of them", steps)
	}
	for _, fault := range []error{faultfs.ErrCrash, syscall.EIO, syscall.ENOSPC} {
		for _, lasting := range []bool{false, true} {
			for _, left := range faultfs.Survivals {
				for n := range steps {
					name := fmt.Sprintf("%v at step %d, lasting %v, %v left", fault, n, lasting, left)
					rnd := rand.New(rand.NewPCG(uint64(n), 1))
					disk := faultfs.New()
					disk.Fault = func(op faultfs.Op) error {
						if op.N == n || lasting && op.N > n {
							return fault
						}
						return nil
					}
					h := newHost(t, disk, small)
					err := h.work()
					if !errors.Is(err, fault) {
						t.Fatalf("%s: %v", name, err)
					}
					failed := errors.Is(err, padstock.ErrFailed)
					if h.stock != nil {
						// A stock that may or may not have burned pads serves no more.
						if k, err := h.take(9, false); failed && (k != 0 || !errors.Is(err, padstock.ErrFailed)) {
							t.Fatalf("%s: %d samples after a failure, %v", name, k, err)
						}
						h.stock.Close()
					}
					disk.Fault = nil
					disk.Crash(left, rnd)
					h.recover(name)
				}
			}
		}
	}
}

// recover opens the remaining stock and uses it up.
func (h *host) recover(name string) {
	h.t.Helper()
	if err := h.open(); err != nil {
		h.t.Fatalf("%s: open: %v", name, err)
	}
	// The only mismatch that a crash may leave is half a record in a journal.
	if why := h.stock.Discarded(); why != nil && !errors.Is(why, padstock.ErrJournal) {
		h.t.Fatalf("%s: discarded: %v", name, why)
	}
	left := h.stock.Len()
	if k, err := h.take(left, true); err != nil || k != left {
		h.t.Fatalf("%s: %d of %d left, %v", name, k, left, err)
	}
	if err := h.add(2); err != nil {
		h.t.Fatalf("%s: add: %v", name, err)
	}
	if _, err := h.take(2, true); err != nil {
		h.t.Fatalf("%s: take: %v", name, err)
	}
	if h.stock.Discarded() != nil && left > 0 {
		h.t.Fatalf("%s: %d samples of a stock that was discarded", name, left)
	}
	if err := h.stock.Close(); err != nil {
		h.t.Fatalf("%s: close: %v", name, err)
	}
}

// TestKilled: a killed process loses only the pads that it had burned.
func TestKilled(t *testing.T) {
	for n := 0; ; n++ {
		disk := faultfs.New()
		var last faultfs.Op
		disk.Fault = func(op faultfs.Op) error {
			if last = op; op.N == n {
				return faultfs.ErrCrash
			}
			return nil
		}
		h := newHost(t, disk, small)
		err := h.work()
		disk.Fault = nil
		disk.Crash(faultfs.All, nil)
		if err == nil {
			return
		}
		if last.Name == "write" { // the kernel does not cut writes of this length
			continue
		}
		if err := h.open(); err != nil {
			t.Fatal(err)
		}
		if why := h.stock.Discarded(); why != nil {
			t.Errorf("killed at step %d, %s %s: discarded: %v", n, last.Name, last.Path, why)
		}
		h.stock.Close()
	}
}

// TestDurable: after a power failure all pads that were added and not taken are left.
func TestDurable(t *testing.T) {
	disk := faultfs.New()
	h := newHost(t, disk, config)
	for life, step := range []struct{ before, add, take, left int }{
		{0, 8, 4, 4},
		{4, 9, 2, 7}, // starts anew
		{0, 3, 0, 10},
		{3, 0, 0, 7},
	} {
		check(t, h.open())
		_, err := h.take(step.before, true)
		check(t, err)
		if step.add > 0 {
			check(t, h.add(step.add))
		}
		_, err = h.take(step.take, true)
		check(t, err)
		disk.Crash(faultfs.None, nil)
		check(t, h.open())
		if h.stock.Len() != step.left || h.stock.Discarded() != nil {
			t.Fatalf("life %d: %d samples, want %d; discarded: %v", life, h.stock.Len(), step.left, h.stock.Discarded())
		}
		check(t, h.stock.Close())
	}
}

// TestManyFailures: many runs on one disk with random failures.
func TestManyFailures(t *testing.T) {
	served := 0
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		disk := faultfs.New()
		h := newHost(t, disk, config.WithIDs(12))
		for range 12 {
			left := 1 + rnd.IntN(60)
			fault := []error{faultfs.ErrCrash, syscall.EIO, syscall.ENOSPC}[rnd.IntN(3)]
			disk.Fault = func(faultfs.Op) error {
				if left--; left == 0 {
					return fault
				}
				return nil
			}
			for err := h.open(); err == nil; {
				switch rnd.IntN(4) {
				case 0:
					err = h.add(1 + rnd.IntN(4))
				case 1:
					if err = h.stock.Close(); err == nil {
						err = h.open()
					}
				default:
					if _, err = h.take(1+rnd.IntN(5), rnd.IntN(2) == 0); errors.As(err, new(*padstock.ShortError)) {
						err = nil
					}
				}
			}
			if h.stock != nil {
				h.stock.Close()
			}
			if rnd.IntN(4) > 0 {
				disk.Crash(faultfs.Survivals[rnd.IntN(3)], rnd)
			}
		}
		disk.Fault = nil
		disk.Crash(faultfs.None, rnd)
		h.recover(fmt.Sprintf("seed %d", seed))
		served += len(h.sent)
	}
	if served < 2000 {
		t.Errorf("%d samples served", served)
	}
}
