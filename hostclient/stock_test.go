package hostclient_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/padstock/faultfs"
	"github.com/securenets/securenets/transform"
)

const machine = "0123456789abcdef0123456789abcdef"

// padded are a cloud, a client and a sealed network whose one input is all that is
// ever inferred: what the cloud sees of a layer differs by the pads alone.
type padded struct {
	t      *testing.T
	cloud  *cloud
	client *hostclient.Client
	models []hostclient.SealedModel
	secret *hostclient.Secret
	x      []float32
	seen   map[string]bool
}

func newPadded(t *testing.T) *padded {
	t.Helper()
	p := &padded{t: t, cloud: newCloud(t), seen: map[string]bool{}}
	p.client = dial(t, p.cloud)
	p.models, p.secret = seal(t, nets()["mlp"], permutePad)
	if err := p.client.Push(t.Context(), p.models[0], nil); err != nil {
		t.Fatal(err)
	}
	p.x = gaussian(rand.New(rand.NewPCG(20, 1)), 7)
	return p
}

// temp returns a stock in new folders.
func (p *padded) temp() hostclient.DurableStock {
	root := p.t.TempDir()
	return hostclient.DurableStock{Dir: filepath.Join(root, "pads"), JournalDir: filepath.Join(root, "burned"), MachineID: machine}
}

func (p *padded) open(o hostclient.Options) (*hostclient.Session, error) {
	o.Multiplier = kernel
	return hostclient.Open(p.t.Context(), p.secret, p.models, []*hostclient.Client{p.client}, o)
}

func (p *padded) infer(s *hostclient.Session, n int) error {
	_, err := s.Infer(p.t.Context(), slices.Repeat(p.x, n), n)
	return err
}

// check reads what the cloud received since the last time and returns how many
// rows: none may be one that it received before. A row has 7 words or more.
func (p *padded) check(what string) int {
	p.t.Helper()
	n := 0
	for _, q := range p.cloud.take() {
		for i := range q.words.Rows {
			row := fmt.Sprint(q.layer, q.words.Row(i))
			if p.seen[row] {
				p.t.Fatalf("%s: the cloud saw one pad of layer %d twice", what, q.layer)
			}
			p.seen[row] = true
			n++
		}
	}
	return n
}

// TestEndedTakesNoPads: a call whose context has ended before it takes no pads, in memory or
// on disk.
func TestEndedTakesNoPads(t *testing.T) {
	p := newPadded(t)
	stock := p.temp()
	for _, o := range []hostclient.Options{{RequireStock: true}, {RequireStock: true, Stock: &stock}} {
		s, err := p.open(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Precompute(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
		defer cancel()
		for ctx, want := range map[context.Context]error{cancelled: context.Canceled, late: hostclient.ErrTimeout} {
			if y, err := s.Infer(ctx, slices.Repeat(p.x, 2), 2); y != nil || !errors.Is(err, want) {
				t.Errorf("%v, %v, want %v", y, err, want)
			}
		}
		if n := s.Stats().Stock; n != 3 {
			t.Errorf("%d samples in stock, of 3", n)
		}
		if n := p.check("ended"); n != 0 {
			t.Errorf("%d rows were sent", n)
		}
		if err := p.infer(s, 3); err != nil {
			t.Error(err)
		}
		p.check("then")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDurableStock: pads outlive the session, and are used as those in memory are.
func TestDurableStock(t *testing.T) {
	p := newPadded(t)
	stock := p.temp()
	want := infer(t, open(t, p.secret, p.models, p.client, hostclient.Options{}), slices.Repeat(p.x, 3), 3)
	for life, step := range []struct{ precompute, infer, left, onTheSpot int }{
		{7, 2, 5, 0},
		{0, 1, 4, 0},
		{3, 6, 1, 0}, // across blocks
		{0, 3, 0, 2}, // runs dry
		{5, 3, 2, 0},
	} {
		s, err := p.open(hostclient.Options{Stock: &stock})
		if err != nil {
			t.Fatal(err)
		}
		s.SetBlock(2)
		if err := s.Precompute(t.Context(), step.precompute); err != nil {
			t.Fatal(err)
		}
		y := infer(t, s, slices.Repeat(p.x, step.infer), step.infer)
		for len(y) > 0 {
			if !slices.Equal(bits(y[:5]), bits(want[:5])) {
				t.Fatalf("life %d: differs from pads in memory", life)
			}
			y = y[5:]
		}
		if st := s.Stats(); st.Stock != step.left || int(st.OnTheSpot) != step.onTheSpot || s.StockDiscarded() != nil {
			t.Errorf("life %d: %+v, discarded: %v", life, st, s.StockDiscarded())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.check("")

	s, err := p.open(hostclient.Options{Stock: &stock, RequireStock: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.infer(s, 3); !errors.Is(err, hostclient.ErrNoPads) || !strings.Contains(err.Error(), "for 2 samples, and the batch has 3") || s.Stats().Stock != 2 {
		t.Errorf("3 of 2 samples: %v, %d left", err, s.Stats().Stock)
	}
	if err := p.infer(s, 2); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	p.check("")

	// Schemes without pads open no stock.
	models, secret := seal(t, nets()["mlp"], permute)
	if err := p.client.Push(t.Context(), models[0], nil); err != nil {
		t.Fatal(err)
	}
	s = open(t, secret, models, p.client, hostclient.Options{Stock: &hostclient.DurableStock{}})
	if err := p.infer(s, 1); err != nil || s.StockDiscarded() != nil {
		t.Error(err, s.StockDiscarded())
	}
}

// TestStockRefused: what Open refuses leaves the stock as it was.
func TestStockRefused(t *testing.T) {
	p := newPadded(t)
	stock := p.temp()
	s := open(t, p.secret, p.models, p.client, hostclient.Options{Stock: &stock})
	if err := s.Precompute(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, want error, change func(*hostclient.DurableStock)) {
		t.Helper()
		other := stock
		change(&other)
		if s, err := p.open(hostclient.Options{Stock: &other}); !errors.Is(err, want) || s != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refused("in use", hostclient.ErrStockInUse, func(*hostclient.DurableStock) {})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused("no machine id", hostclient.ErrMachineID, func(d *hostclient.DurableStock) { d.MachineID = "" })
	refused("one folder", hostclient.ErrStockDirs, func(d *hostclient.DurableStock) { d.JournalDir = d.Dir })
	models, secret := p.models, p.secret
	p.models, p.secret = seal(t, nets()["mlp"], permutePad)
	refused("another secret", hostclient.ErrStockSecret, func(*hostclient.DurableStock) {})
	p.models[0].Bytes = nil
	refused("another model", hostclient.ErrMismatch, func(*hostclient.DurableStock) {})
	p.models, p.secret = models, secret
	s = open(t, p.secret, p.models, p.client, hostclient.Options{Stock: &stock})
	if n := s.Stats().Stock; n != 2 {
		t.Errorf("%d samples in stock", n)
	}
}

// TestStockDiscarded: a stock that is not the one that was left is not served,
// and the session goes on without it.
func TestStockDiscarded(t *testing.T) {
	p := newPadded(t)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what   string
		change func(stock *hostclient.DurableStock, again func())
		want   error
	}{
		{"a backup is restored", func(stock *hostclient.DurableStock, again func()) {
			do(os.CopyFS(stock.Dir+".old", os.DirFS(stock.Dir)))
			again()
			again()
			do(os.Rename(stock.Dir, stock.Dir+".gone")) // removed, it may leave its inodes to what comes
			do(os.CopyFS(stock.Dir, os.DirFS(stock.Dir+".old")))
		}, hostclient.ErrStockMoved},
		{"a backup is restored into the files", func(stock *hostclient.DurableStock, again func()) {
			old, err := os.ReadFile(stock.Dir + "/burned")
			do(err)
			again()
			again()
			do(os.WriteFile(stock.Dir+"/burned", old, 0o600))
		}, hostclient.ErrStockRollback},
		{"a backup of the journal is restored into its file", func(stock *hostclient.DurableStock, again func()) {
			old, err := os.ReadFile(stock.JournalDir + "/burned")
			do(err)
			again()
			do(os.WriteFile(stock.JournalDir+"/burned", old, 0o600))
		}, hostclient.ErrStockRollback},
		{"a copy", func(stock *hostclient.DurableStock, again func()) {
			for _, dir := range []*string{&stock.Dir, &stock.JournalDir} {
				do(os.CopyFS(*dir+".copy", os.DirFS(*dir)))
			}
			again()
			stock.Dir += ".copy"
			stock.JournalDir += ".copy"
		}, hostclient.ErrStockMoved},
		{"another machine", func(stock *hostclient.DurableStock, again func()) {
			stock.MachineID = strings.Repeat("a", 32)
		}, hostclient.ErrStockMachine},
		{"the journal is deleted", func(stock *hostclient.DurableStock, again func()) {
			do(os.RemoveAll(stock.JournalDir))
		}, hostclient.ErrStockJournal},
		{"a block is damaged", func(stock *hostclient.DurableStock, again func()) {
			do(os.Truncate(stock.Dir+"/0000000000000000.pads", 1000))
		}, hostclient.ErrStockDamaged},
	} {
		stock := p.temp()
		s, err := p.open(hostclient.Options{Stock: &stock})
		do(err)
		do(s.Precompute(t.Context(), 6))
		do(p.infer(s, 1))
		do(s.Close())
		c.change(&stock, func() {
			s, err := p.open(hostclient.Options{Stock: &stock, RequireStock: true})
			do(err)
			do(p.infer(s, 1))
			do(s.Close())
		})
		s, err = p.open(hostclient.Options{Stock: &stock})
		do(err)
		if why := s.StockDiscarded(); !errors.Is(why, c.want) || s.Stats().Stock != 0 {
			t.Errorf("%s: %d in stock, discarded: %v, want %v", c.what, s.Stats().Stock, why, c.want)
		}
		do(p.infer(s, 5))
		if st := s.Stats(); st.OnTheSpot != 5 {
			t.Errorf("%s: %d samples on the spot", c.what, st.OnTheSpot)
		}
		do(s.Precompute(t.Context(), 2))
		do(p.infer(s, 2))
		do(s.Close())
		p.check(c.what)
	}
}

// TestStockFailsAtEveryStep stops the host, or fails the disk, at each change of
// the disk in turn; then the host goes on with what is left. What the cloud
// receives in all these lives never repeats.
func TestStockFailsAtEveryStep(t *testing.T) {
	p := newPadded(t)
	life := func(disk *faultfs.Disk) error {
		o := hostclient.Options{Stock: hostclient.DurableStock{Dir: "/pads", JournalDir: "/burned", MachineID: machine}.On(disk)}
		s, err := p.open(o)
		if err != nil {
			return err
		}
		defer s.Close()
		for _, step := range []func() error{
			func() error { return p.infer(s, 2) }, // with what an earlier life left
			func() error { return s.Precompute(t.Context(), 3) },
			func() error { return p.infer(s, 1) },
			func() error { return s.Precompute(t.Context(), 2) },
			func() error { return p.infer(s, 3) }, // from two blocks
			func() error { return p.infer(s, 2) }, // runs dry
			func() error { return s.Precompute(t.Context(), 3) },
			func() error { return p.infer(s, 1) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	}
	disk := faultfs.New()
	if err := life(disk); err != nil {
		t.Fatal(err)
	}
	steps := len(disk.Ops())
	if rows := p.check("no fault"); rows != 3*9 || steps < 40 {
		t.Fatalf("%d rows, %d operations", rows, steps)
	}
	stride := 1
	if testing.Short() {
		stride = 8
	}
	for i, c := range []struct {
		fault error
		left  faultfs.Survival
	}{
		{faultfs.ErrCrash, faultfs.All},
		{faultfs.ErrCrash, faultfs.None},
		{faultfs.ErrCrash, faultfs.Some},
		{syscall.EIO, faultfs.None},
		{syscall.ENOSPC, faultfs.All},
	} {
		for n := i % stride; n < steps; n += stride {
			what := fmt.Sprintf("%v at step %d, %v left", c.fault, n, c.left)
			disk := faultfs.New()
			disk.Fault = func(op faultfs.Op) error {
				if op.N == n {
					return c.fault
				}
				return nil
			}
			if err := life(disk); !errors.Is(err, c.fault) {
				t.Fatalf("%s: %v", what, err)
			}
			disk.Fault = nil
			disk.Crash(c.left, rand.New(rand.NewPCG(uint64(n), 2)))
			if err := life(disk); err != nil {
				t.Fatalf("%s: the next life: %v", what, err)
			}
			p.check(what)
		}
	}
}

// TestStockFailed: after a failure that leaves open what was burned, the session
// sends nothing under a pad.
func TestStockFailed(t *testing.T) {
	p := newPadded(t)
	disk := faultfs.New()
	s := open(t, p.secret, p.models, p.client, hostclient.Options{Stock: hostclient.DurableStock{Dir: "/pads", JournalDir: "/burned", MachineID: machine}.On(disk)})
	if err := s.Precompute(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	disk.Fault = func(op faultfs.Op) error {
		if op.Name == "sync" {
			return syscall.EIO
		}
		return nil
	}
	for range 2 {
		if err := p.infer(s, 1); !errors.Is(err, hostclient.ErrStockFailed) || !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		disk.Fault = nil // too late
	}
	if err := s.Precompute(t.Context(), 1); !errors.Is(err, hostclient.ErrStockFailed) {
		t.Error(err)
	}
	if n := p.check(""); n != 0 {
		t.Errorf("the cloud saw %d rows", n)
	}
}

// TestPadMemoryGoesOn: pads are made again once the disk has room again, and until then errors say
// what is wrong.
func TestPadMemoryGoesOn(t *testing.T) {
	p := newPadded(t)
	disk := faultfs.New()
	var full atomic.Bool
	full.Store(true)
	disk.Fault = func(op faultfs.Op) error {
		if full.Load() && op.Name == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	told := make(chan error, 100)
	s, err := p.open(hostclient.Options{
		RequireStock: true, PadMemory: 8 * p.secret.PadBytes(), PadError: func(err error) { told <- err },
		Stock: hostclient.DurableStock{Dir: "/pads", JournalDir: "/burned", MachineID: machine}.On(disk),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it goes on trying
		if err := <-told; !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	}
	if err := p.infer(s, 1); !errors.Is(err, hostclient.ErrNoPads) || !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	full.Store(false)
	refilled := func() {
		for deadline := time.Now().Add(30 * time.Second); s.Stats().Stock < 8; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no pads are made")
			}
		}
	}
	refilled()
	full.Store(true)
	if err := p.infer(s, 1); err != nil { // fewer than are made at once
		t.Error(err)
	}
	if err := p.infer(s, 8); !errors.Is(err, hostclient.ErrNoPads) {
		t.Error(err)
	}
	for range 2 { // nor does it give up when few are lacking
		<-told
	}
	full.Store(false)
	refilled()
	if err := p.infer(s, 8); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	p.check("")
}

// TestSecretKeepsStock: a secret that was written and read opens its stock.
func TestSecretKeepsStock(t *testing.T) {
	p := newPadded(t)
	stock := p.temp()
	s, err := p.open(hostclient.Options{Stock: &stock})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Precompute(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	s.Close()
	plain, err := p.secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if p.secret, err = hostclient.UnmarshalSecret(plain); err != nil {
		t.Fatal(err)
	}
	if s, err = p.open(hostclient.Options{Stock: &stock, RequireStock: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.infer(s, 2); err != nil {
		t.Error(err)
	}
	s.Close()
	for _, scheme := range transform.Schemes() {
		_, secret := seal(t, nets()["mlp"], scheme)
		plain, err := secret.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(plain), `"stock":`); has != (scheme.Inputs == transform.InputPad) {
			t.Errorf("%v: a key for stocks: %v", scheme, has)
		}
	}
}
