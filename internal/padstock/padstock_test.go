package padstock_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/padstock"
	"github.com/securenets/securenets/internal/padstock/faultfs"
	"github.com/securenets/securenets/transform"
)

// made returns a stock on the real file system: 10 samples in two blocks, 3 of them burned in
// one reservation.
func made(t testing.TB) *host {
	t.Helper()
	c := config
	root := t.TempDir()
	c.Dir, c.JournalDir = filepath.Join(root, "pads"), filepath.Join(root, "burned")
	h := newHost(t, padstock.OS{}, c)
	check(t, h.open())
	check(t, h.add(6))
	check(t, h.add(4))
	_, err := h.take(3, true)
	check(t, err)
	check(t, h.stock.Close())
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// use opens the stock, takes n samples one by one and closes it.
func (h *host) use(n int) {
	h.t.Helper()
	check(h.t, h.open())
	for range n {
		_, err := h.take(1, true)
		check(h.t, err)
	}
	check(h.t, h.stock.Close())
}

// replace replaces folder to by a copy of from, as restoring a backup does.
func replace(t testing.TB, to, from string) {
	t.Helper()
	check(t, os.Rename(to, to+".gone")) // if it were removed, the copy might get its inodes
	check(t, os.CopyFS(to, os.DirFS(from)))
}

// change changes a file in place.
func change(t testing.TB, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, f(b), 0o600))
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}

// overwrite overwrites a file in place with another's content.
func overwrite(t testing.TB, to, from string) {
	t.Helper()
	change(t, to, func([]byte) []byte { return read(t, from) })
}

// TestRestoredAndCopied: pads are served only from the latest state of a stock, on its machine
// and in its place.
func TestRestoredAndCopied(t *testing.T) {
	const secondBlock = "0000000000000006.pads"
	for name, c := range map[string]struct {
		do   func(t *testing.T, h *host)
		want error
		left int
	}{
		"nothing happened": {func(t *testing.T, h *host) {}, nil, 7},
		"reopened often":   {func(t *testing.T, h *host) { h.use(1); h.use(0); h.use(2) }, nil, 4},

		"a backup of the stock is restored": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".old", os.DirFS(h.c.Dir)))
			h.use(2)
			replace(t, h.c.Dir, h.c.Dir+".old")
		}, padstock.ErrMoved, 0},
		"a backup of the stock is restored into its files": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".old", os.DirFS(h.c.Dir)))
			h.use(2)
			overwrite(t, h.c.Dir+"/burned", h.c.Dir+".old/burned")
		}, padstock.ErrRollback, 0},
		// The state after a stop between the two appends. The burn journal decides.
		"the stock is one reservation behind": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".old", os.DirFS(h.c.Dir)))
			h.use(1)
			overwrite(t, h.c.Dir+"/burned", h.c.Dir+".old/burned")
		}, nil, 6},
		"a backup of the burn journal is restored": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.JournalDir+".old", os.DirFS(h.c.JournalDir)))
			h.use(1)
			replace(t, h.c.JournalDir, h.c.JournalDir+".old")
		}, padstock.ErrMoved, 0},
		"a backup of the burn journal is restored into its file": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.JournalDir+".old", os.DirFS(h.c.JournalDir)))
			h.use(1)
			overwrite(t, h.c.JournalDir+"/burned", h.c.JournalDir+".old/burned")
		}, padstock.ErrRollback, 0},
		"both backups are restored": {func(t *testing.T, h *host) {
			for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
				check(t, os.CopyFS(dir+".old", os.DirFS(dir)))
			}
			h.use(2)
			for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
				replace(t, dir, dir+".old")
			}
		}, padstock.ErrMoved, 0},
		"the backup of an earlier stock is restored": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".old", os.DirFS(h.c.Dir)))
			h.use(7)
			check(t, h.open())
			check(t, h.add(3)) // starts anew
			check(t, h.stock.Close())
			replace(t, h.c.Dir, h.c.Dir+".old")
		}, padstock.ErrJournal, 0},
		"burned blocks are restored": {func(t *testing.T, h *host) {
			first := read(t, h.c.Dir+"/0000000000000000.pads")
			h.use(4)
			check(t, os.WriteFile(h.c.Dir+"/0000000000000000.pads", first, 0o600))
		}, nil, 3},

		"the stock is copied": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".copy", os.DirFS(h.c.Dir)))
			h.c.Dir += ".copy"
		}, padstock.ErrMoved, 0},
		"the stock is copied with its journal": {func(t *testing.T, h *host) {
			for _, dir := range []*string{&h.c.Dir, &h.c.JournalDir} {
				check(t, os.CopyFS(*dir+".copy", os.DirFS(*dir)))
				*dir += ".copy"
			}
		}, padstock.ErrMoved, 0},
		"the stock is copied to where there is no journal": {func(t *testing.T, h *host) {
			check(t, os.CopyFS(h.c.Dir+".copy", os.DirFS(h.c.Dir)))
			h.c.Dir += ".copy"
			h.c.JournalDir += ".new"
		}, padstock.ErrJournal, 0},
		"the stock is moved": {func(t *testing.T, h *host) {
			check(t, os.Rename(h.c.Dir, h.c.Dir+".new"))
			h.c.Dir += ".new"
		}, padstock.ErrMoved, 0},
		"another machine": {func(t *testing.T, h *host) {
			h.c.MachineID = strings.Repeat("5", 32)
		}, padstock.ErrMachine, 0},

		"the journal is gone": {func(t *testing.T, h *host) {
			check(t, os.Remove(h.c.JournalDir+"/burned"))
		}, padstock.ErrJournal, 0},
		"the journal's folder is gone": {func(t *testing.T, h *host) {
			check(t, os.RemoveAll(h.c.JournalDir))
		}, padstock.ErrJournal, 0},
		"the journal is empty": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func([]byte) []byte { return nil })
		}, padstock.ErrJournal, 0},
		"the journal ends in half a record": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return append(b, b[:32]...) })
		}, padstock.ErrJournal, 0},
		"the journal lost half a record": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return b[:len(b)-32] })
		}, padstock.ErrJournal, 0},
		"the journal lost a record": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return b[:len(b)-64] })
		}, padstock.ErrJournal, 0},
		"the journal lost its first record": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return b[64:] })
		}, padstock.ErrJournal, 0},
		"the journal's records changed places": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return slices.Concat(b[64:], b[:64]) })
		}, padstock.ErrJournal, 0},
		"the journal has its earlier record alone": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return slices.Concat(b[64:], b[64:]) })
		}, padstock.ErrJournal, 0},
		"the journal's last record is an earlier one": {func(t *testing.T, h *host) {
			first := read(t, h.c.JournalDir+"/burned")[:64]
			h.use(2)
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return slices.Concat(first, b[64:]) })
		}, padstock.ErrRollback, 0},
		"a bit of the journal's earlier record flipped": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { b[64+32] ^= 1; return b })
		}, padstock.ErrJournal, 0},
		"the journal ends in zeros": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { return append(b, make([]byte, 64)...) })
		}, padstock.ErrJournal, 0},
		"a bit of the journal flipped": {func(t *testing.T, h *host) {
			change(t, h.c.JournalDir+"/burned", func(b []byte) []byte { b[len(b)-30] ^= 1; return b })
		}, padstock.ErrJournal, 0},
		"another stock's journal": {func(t *testing.T, h *host) {
			other := made(t)
			overwrite(t, h.c.JournalDir+"/burned", other.c.JournalDir+"/burned")
		}, padstock.ErrJournal, 0},
		"the twin is gone": {func(t *testing.T, h *host) {
			check(t, os.Remove(h.c.Dir+"/burned"))
		}, padstock.ErrJournal, 0},

		"layers of another shape": {func(t *testing.T, h *host) {
			h.c.Words = []int{2, 4}
		}, padstock.ErrDamaged, 0},
		"a block is shorter": {func(t *testing.T, h *host) {
			change(t, filepath.Join(h.c.Dir, secondBlock), func(b []byte) []byte { return b[:len(b)-1] })
		}, padstock.ErrDamaged, 0},
		"a block is empty": {func(t *testing.T, h *host) {
			change(t, filepath.Join(h.c.Dir, secondBlock), func([]byte) []byte { return nil })
		}, padstock.ErrDamaged, 0},
		"a block overlaps another": {func(t *testing.T, h *host) {
			check(t, os.Rename(filepath.Join(h.c.Dir, secondBlock), h.c.Dir+"/0000000000000005.pads"))
		}, padstock.ErrDamaged, 0},
		"a block far away": {func(t *testing.T, h *host) {
			check(t, os.Rename(filepath.Join(h.c.Dir, secondBlock), h.c.Dir+"/ffffffffffffffff.pads"))
		}, padstock.ErrDamaged, 0},
		"a block is gone": {func(t *testing.T, h *host) {
			check(t, os.Remove(filepath.Join(h.c.Dir, secondBlock)))
		}, nil, 3},
		"the header is gone": {func(t *testing.T, h *host) {
			check(t, os.Remove(h.c.Dir+"/stock"))
		}, nil, 0},
		"files of others": {func(t *testing.T, h *host) {
			for _, name := range []string{"x.pads", "6.pads", "notes", "new"} {
				check(t, os.WriteFile(filepath.Join(h.c.Dir, name), []byte("x"), 0o600))
			}
		}, nil, 7},
	} {
		t.Run(name, func(t *testing.T) {
			h := made(t)
			c.do(t, h)
			check(t, h.open())
			defer func() { check(t, h.stock.Close()) }()
			if why := h.stock.Discarded(); !errors.Is(why, c.want) {
				t.Errorf("discarded: %v, want %v", why, c.want)
			}
			if h.stock.Len() != c.left {
				t.Errorf("%d samples left, want %d", h.stock.Len(), c.left)
			}
			if c.want != nil {
				if blocks, err := filepath.Glob(h.c.Dir + "/0*.pads"); len(blocks) > 0 || err != nil {
					t.Errorf("%v, %v are left", blocks, err)
				}
			}
			k, err := h.take(100, false)
			if err != nil || k != c.left {
				t.Errorf("took %d samples, %v", k, err)
			}
			check(t, h.add(2))
			if _, err := h.take(2, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDamagedBlock: taking damaged pads discards the stock and returns no pads.
func TestDamagedBlock(t *testing.T) {
	const first, second = "/0000000000000000.pads", "/0000000000000006.pads"
	flip := func(at int) func([]byte) []byte { return func(b []byte) []byte { b[at] ^= 1; return b } }
	head, record := 2*40+28, 7*4+28
	for name, do := range map[string]func(h *host){
		"nonce":   func(h *host) { change(t, h.c.Dir+second, flip(0)) },
		"head":    func(h *host) { change(t, h.c.Dir+second, flip(20)) },
		"sample":  func(h *host) { change(t, h.c.Dir+second, flip(head+record+20)) },
		"tag":     func(h *host) { change(t, h.c.Dir+second, flip(head+2*record-1)) },
		"gone":    func(h *host) { check(t, os.Remove(h.c.Dir+second)) },
		"shorter": func(h *host) { change(t, h.c.Dir+second, func(b []byte) []byte { return b[:head+10] }) },
		"two samples changed places": func(h *host) {
			change(t, h.c.Dir+second, func(b []byte) []byte {
				return slices.Concat(b[:head], b[head+record:head+2*record], b[head:head+record], b[head+2*record:])
			})
		},
		"another block": func(h *host) {
			overwrite(t, h.c.Dir+second, h.c.Dir+first)
		},
		"another stock's block": func(h *host) {
			overwrite(t, h.c.Dir+second, made(t).c.Dir+second)
		},
	} {
		h := made(t)
		check(t, h.open())
		do(h)
		before := len(h.sent)
		if k, err := h.take(5, true); k != 0 || !errors.As(err, new(*padstock.ShortError)) || len(h.sent) != before {
			t.Errorf("%s: %d samples, %v", name, k, err)
		}
		if why := h.stock.Discarded(); !errors.Is(why, padstock.ErrDamaged) || h.stock.Len() != 0 {
			t.Errorf("%s: discarded: %v, %d left", name, why, h.stock.Len())
		}
		check(t, h.add(2))
		if _, err := h.take(2, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, h.stock.Close())
	}
}

// inMemory returns a stock of two blocks with 2 samples each, one of which is burned.
func inMemory(t testing.TB) (*host, *faultfs.Disk) {
	t.Helper()
	disk := faultfs.New()
	h := newHost(t, disk, config)
	check(t, h.open())
	check(t, h.add(2))
	check(t, h.add(2))
	_, err := h.take(1, true)
	check(t, err)
	check(t, h.stock.Close())
	return h, disk
}

// TestHeader: a change of any bit of the header is detected.
func TestHeader(t *testing.T) {
	for bit := range 8 * 196 {
		h, disk := inMemory(t)
		flip := func(b []byte) []byte {
			if len(b) != 196 {
				t.Fatalf("a header of %d bytes", len(b))
			}
			b[bit/8] ^= 1 << (bit % 8)
			return b
		}
		disk.Tamper("/pads/stock", flip)
		if err := h.open(); err == nil {
			if h.stock.Discarded() == nil || h.stock.Len() > 0 {
				t.Errorf("bit %d changed: %d samples", bit, h.stock.Len())
			}
			continue
		} else if !errors.Is(err, padstock.ErrSecret) && !errors.Is(err, padstock.ErrVersion) {
			t.Errorf("bit %d changed: %v", bit, err)
		}
		disk.Tamper("/pads/stock", flip) // restore the bit: nothing else was changed
		check(t, h.open())
		if h.stock.Len() != 3 {
			t.Errorf("bit %d changed and changed back: %d samples", bit, h.stock.Len())
		}
	}
}

// TestRefused: Open leaves stocks that it refuses unchanged.
func TestRefused(t *testing.T) {
	h := made(t)
	before := read(t, h.c.Dir+"/stock")
	link := h.c.Dir + ".link"
	check(t, os.Symlink(h.c.Dir, link))
	newer := func(c *padstock.Config) {
		change(t, h.c.Dir+"/stock", func(b []byte) []byte { b[6] = '2'; return b })
	}
	for _, bad := range []struct {
		what   string
		change func(c *padstock.Config)
		want   error
	}{
		{"no machine id", func(c *padstock.Config) { c.MachineID = "" }, padstock.ErrMachineID},
		{"not yet an id", func(c *padstock.Config) { c.MachineID = "uninitialized" }, padstock.ErrMachineID},
		{"zeros", func(c *padstock.Config) { c.MachineID = strings.Repeat("0", 32) }, padstock.ErrMachineID},
		{"a short id", func(c *padstock.Config) { c.MachineID = "0123" }, padstock.ErrMachineID},
		{"a new line", func(c *padstock.Config) { c.MachineID += "\n" }, padstock.ErrMachineID},
		{"no folder", func(c *padstock.Config) { c.JournalDir = "" }, fs.ErrNotExist},
		{"one folder", func(c *padstock.Config) { c.JournalDir = c.Dir }, padstock.ErrDirs},
		{"one folder by a link", func(c *padstock.Config) { c.JournalDir = link }, padstock.ErrDirs},
		{"the journal in the stock", func(c *padstock.Config) { c.JournalDir = c.Dir + "/burned.d" }, padstock.ErrDirs},
		{"the stock in the journal", func(c *padstock.Config) { c.Dir = c.JournalDir + "/a/b" }, padstock.ErrDirs},
		{"the journal behind a link into the stock", func(c *padstock.Config) { c.JournalDir = link + "/burned.d" }, padstock.ErrDirs},
		{"in the root", func(c *padstock.Config) { c.JournalDir = "/" }, padstock.ErrDirs},
		{"another secret", func(c *padstock.Config) { c.Key[31]++ }, padstock.ErrSecret},
		{"no layers", func(c *padstock.Config) { c.Words = nil }, padstock.ErrShape},
		{"an empty layer", func(c *padstock.Config) { c.Words = []int{2, 0} }, padstock.ErrShape},
		{"another version", newer, padstock.ErrVersion},
	} {
		c := h.c
		bad.change(&c)
		if s, err := padstock.Open(padstock.OS{}, c); !errors.Is(err, bad.want) || s != nil {
			t.Errorf("%s: %v, want %v", bad.what, err, bad.want)
		}
	}
	for _, dir := range []string{h.c.Dir + "/burned.d", h.c.JournalDir + "/a"} {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made: %v", dir, err)
		}
	}
	check(t, os.WriteFile(h.c.Dir+"/stock", before, 0o600))
	h.c.Dir = link // a link to the same folder is the same place
	check(t, h.open())
	if h.stock.Len() != 7 || h.stock.Discarded() != nil {
		t.Errorf("%d samples, discarded: %v", h.stock.Len(), h.stock.Discarded())
	}

	if s, err := padstock.Open(padstock.OS{}, h.c); !errors.Is(err, padstock.ErrLocked) || s != nil {
		t.Errorf("opened twice: %v", err)
	}
	c := h.c
	c.Dir = t.TempDir()
	if s, err := padstock.Open(padstock.OS{}, c); !errors.Is(err, padstock.ErrLocked) || s != nil {
		t.Errorf("two stocks with one journal: %v", err)
	}
	check(t, h.stock.Close())
	if _, err := h.take(1, false); !errors.Is(err, padstock.ErrClosed) {
		t.Errorf("take after close: %v", err)
	}
	if err := h.add(1); !errors.Is(err, padstock.ErrClosed) {
		t.Errorf("add after close: %v", err)
	}
	h.use(1)
}

func TestAddRefuses(t *testing.T) {
	h := newHost(t, faultfs.New(), config)
	check(t, h.open())
	for what, pads := range map[string][]transform.PadsState{
		"no layers":       nil,
		"a layer less":    h.block(1)[:1],
		"no samples":      h.block(0),
		"fewer of one":    {h.block(2)[0], h.block(1)[1]},
		"another layer's": {h.block(2)[1], h.block(2)[0]},
	} {
		if err := h.stock.Add(pads); !errors.Is(err, padstock.ErrShape) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := h.stock.Len(); n != 0 {
		t.Errorf("%d samples", n)
	}
	check(t, h.stock.Close())
}

// TestTakeAll: with all set, Take returns all pads or none.
func TestTakeAll(t *testing.T) {
	h := newHost(t, faultfs.New(), config)
	check(t, h.open())
	check(t, h.add(2))
	check(t, h.add(2))
	if k, err := h.take(5, true); k != 0 || !errors.As(err, new(*padstock.ShortError)) || h.stock.Len() != 4 {
		t.Errorf("%d samples, %v, %d left", k, err, h.stock.Len())
	}
	for _, n := range []int{0, -1} {
		if k, err := h.take(n, false); k != 0 || err != nil || h.stock.Len() != 4 {
			t.Errorf("%d of %d samples, %v", k, n, err)
		}
	}
	if k, err := h.take(3, true); k != 3 || err != nil {
		t.Errorf("%d samples, %v", k, err)
	}
	if k, err := h.take(3, false); k != 1 || err != nil {
		t.Errorf("%d samples, %v", k, err)
	}
	check(t, h.stock.Close())
}

// TestFilesAreAsTheSpecHasThem reads a stock by docs/spec.md, section 7, alone. The associated
// data bind a part to its place in its block, and a block to its id and stock.
func TestFilesAreAsTheSpecHasThem(t *testing.T) {
	h := made(t)
	unseal := func(key, sealed, associated []byte) []byte {
		t.Helper()
		block, err := aes.NewCipher(key)
		check(t, err)
		gcm, err := cipher.NewGCM(block)
		check(t, err)
		plain, err := gcm.Open(nil, sealed[:12], sealed[12:], associated)
		check(t, err)
		return plain
	}
	header := read(t, h.c.Dir+"/stock")
	if len(header) != 196 {
		t.Fatalf("a header of %d bytes", len(header))
	}
	key := unseal(h.c.Key[:], header[136:], header[:136])
	sum := sha256.Sum256(header)
	for _, b := range []struct{ first, n uint64 }{{0, 6}, {6, 4}} {
		rest := read(t, fmt.Sprintf("%s/%016x.pads", h.c.Dir, b.first))
		part := func(i uint64, size int) []byte {
			t.Helper()
			associated := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(sum[:], b.first), i)
			sealed := rest[:size+28]
			rest = rest[size+28:]
			return unseal(key, sealed, associated)
		}
		head := part(0, 2*40)
		for l := range 2 {
			if seed := head[40*l:][:32]; !bytes.Contains(seed, []byte(seedText)) || int(seed[31]) != l {
				t.Errorf("block %d: the seed of layer %d is another", b.first, l)
			}
		}
		for i := range b.n {
			u := part(i+1, 4*(2+5))
			if number := binary.LittleEndian.Uint32(u); number != uint32(b.first+i) || number != binary.LittleEndian.Uint32(u[8:]) {
				t.Errorf("block %d: sample %d is %d", b.first, i, number)
			}
		}
		if len(rest) != 0 {
			t.Errorf("block %d: %d bytes left over", b.first, len(rest))
		}
	}
	for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
		journal := read(t, dir+"/burned")
		if len(journal) != 2*64 {
			t.Errorf("%s: %d bytes of journal", dir, len(journal))
		}
		for i, want := range []struct{ generation, burned uint64 }{{2, 3}, {1, 0}} {
			rec := journal[64*i:][:64]
			digest := sha256.Sum256(rec[:40])
			if string(rec[:8]) != "snburn2\n" || !bytes.Equal(rec[8:24], header[8:24]) || !bytes.Equal(rec[40:], digest[:24]) ||
				binary.LittleEndian.Uint64(rec[24:]) != want.generation || binary.LittleEndian.Uint64(rec[32:]) != want.burned {
				t.Errorf("%s: record %d is %x", dir, i, rec)
			}
		}
	}
}

// TestIDsUsedUp: a stock that never runs dry goes on past its last id, in as much room.
func TestIDsUsedUp(t *testing.T) {
	h := made(t)
	h.c = h.c.WithIDs(20)
	check(t, h.open())
	headers := map[string]bool{}
	for range 30 {
		for range 2 {
			if h.stock.Len() < 6 {
				check(t, h.add(3))
			}
		}
		if _, err := h.take(3, true); err != nil {
			t.Fatal(err)
		}
		if n := h.stock.Len(); n < 0 || n > 10 {
			t.Fatalf("%d samples left", n)
		}
		headers[string(read(t, h.c.Dir+"/stock"))] = true
		for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
			if n := len(read(t, dir+"/burned")); n != 2*64 {
				t.Fatalf("%d bytes of journal", n)
			}
		}
	}
	if len(headers) < 4 || len(headers) > 10 {
		t.Errorf("%d stocks for 90 samples, of 20 ids each", len(headers))
	}
	check(t, h.stock.Close())
}

// TestBegunAnew: every stock has a new id and key.
func TestBegunAnew(t *testing.T) {
	h := made(t)
	ids, keys := map[string]bool{}, map[string]bool{}
	const stocks = 3
	for range stocks {
		header := read(t, h.c.Dir+"/stock")
		block, err := aes.NewCipher(h.c.Key[:])
		check(t, err)
		gcm, err := cipher.NewGCM(block)
		check(t, err)
		key, err := gcm.Open(nil, header[136:148], header[148:], header[:136])
		check(t, err)
		if bytes.Equal(key, make([]byte, 32)) {
			t.Error("a key of zeros")
		}
		ids[string(header[8:24])], keys[string(key)] = true, true
		check(t, h.open())
		_, err = h.take(10, false)
		check(t, err)
		check(t, h.add(1))
		check(t, h.stock.Close())
	}
	if len(ids) != stocks || len(keys) != stocks {
		t.Errorf("%d ids and %d keys of %d stocks", len(ids), len(keys), stocks)
	}
}

// TestAtRest: no part of a pad, a key or the machine's id is on disk in clear, others cannot
// read the files, and files do not accumulate.
func TestAtRest(t *testing.T) {
	h := made(t)
	machine, err := hex.DecodeString(h.c.MachineID)
	check(t, err)
	secrets := [][]byte{machine, []byte(h.c.MachineID), h.c.Key[:], []byte(seedText)}
	for i := range byte(10) { // u of sample i in the second layer
		secrets = append(secrets, []byte{i, 0, 0, 0, i, 0, 0, 1, i, 0, 0, 2, i, 0, 0, 3})
	}
	files := 0
	for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
		check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			check(t, err)
			info, err := d.Info()
			check(t, err)
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
			if d.IsDir() {
				return nil
			}
			files++
			b := read(t, path)
			for i, s := range secrets {
				if bytes.Contains(b, s[:16]) {
					t.Errorf("%s holds secret %d", path, i)
				}
			}
			return nil
		}))
	}
	if files != 7 { // two locks, two journals, the header and two blocks
		t.Errorf("%d files", files)
	}
	h.use(7)
	if blocks, err := filepath.Glob(h.c.Dir + "/*.pads"); len(blocks) > 0 || err != nil {
		t.Errorf("used up, and %v, %v are left", blocks, err)
	}
	for _, dir := range []string{h.c.Dir, h.c.JournalDir} {
		if n := len(read(t, dir+"/burned")); n != 2*64 {
			t.Errorf("%d bytes of journal after 8 reservations", n)
		}
	}
	check(t, h.open())
	check(t, h.add(1))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if s := fmt.Sprintf(verb, h.c.Key); s != "padstock.Key(redacted)" {
			t.Errorf("%s prints %s", verb, s)
		}
		if s := fmt.Sprintf(verb, h.stock); s != "padstock.Stock(redacted)" {
			t.Errorf("%s prints %s", verb, s)
		}
	}
	if text, err := json.Marshal(h.c.Key); err != nil || string(text) != `"padstock.Key(redacted)"` {
		t.Errorf("a key marshals to %s, %v", text, err)
	}
	check(t, h.stock.Close())
}

// FuzzStock opens files with arbitrary content: no burned pad is served, and served pads are
// unchanged.
func FuzzStock(f *testing.F) {
	names := []string{"/pads/stock", "/pads/burned", "/burned/burned", "/pads/0000000000000000.pads", "/pads/0000000000000002.pads"}
	_, disk := inMemory(f)
	for i, name := range names {
		disk.Tamper(name, func(b []byte) []byte {
			f.Add(uint8(i), uint16(0), b)
			f.Add(uint8(i), uint16(len(b)/2), b[:len(b)/2])
			f.Add(uint8(i), uint16(len(b)), b[:min(64, len(b))])
			return b
		})
	}
	// content replaces a file's bytes from at on.
	f.Fuzz(func(t *testing.T, file uint8, at uint16, content []byte) {
		h, disk := inMemory(t)
		disk.Tamper(names[int(file)%len(names)], func(b []byte) []byte {
			return append(b[:min(int(at), len(b))], content...)
		})
		if err := h.open(); err != nil {
			if !errors.Is(err, padstock.ErrSecret) && !errors.Is(err, padstock.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if _, err := h.take(9, false); err != nil {
			t.Fatal(err)
		}
		check(t, h.add(1))
		if _, err := h.take(1, true); err != nil {
			t.Fatal(err)
		}
		check(t, h.stock.Close())
	})
}

// BenchmarkTake takes pads of mnist-cnn's size, one sample at a time.
func BenchmarkTake(b *testing.B) {
	c := config
	c.Words = []int{9216, 2048, 128, 10}
	c.Dir, c.JournalDir = filepath.Join(b.TempDir(), "pads"), filepath.Join(b.TempDir(), "burned")
	h := newHost(b, padstock.OS{}, c)
	check(b, h.open())
	for b.Loop() {
		if h.stock.Len() == 0 {
			b.StopTimer()
			check(b, h.add(256))
			b.StartTimer()
		}
		if _, err := h.stock.Take(1, true); err != nil {
			b.Fatal(err)
		}
	}
	check(b, h.stock.Close())
}
