//go:build gpu && cgo && linux && amd64

package cuda

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda/internal/fake"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/plan"
)

// With -card, the conformance suite runs on the machine's devices and not on the fake driver,
// and tests that need the fake driver are skipped.
var card = flag.Bool("card", false, "test on this machine's CUDA devices")

var library string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if *card {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "fake")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if library, err = fake.Build(dir, sanitizer...); err != nil {
			panic(err)
		}
		if code := m.Run(); code != 0 {
			return code
		}
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}())
}

// options returns options for a backend on the fake driver, or on the card.
func options(path string) Options {
	o := Options{Path: path, Pinned: 1 << 20}
	if !*card {
		o.Driver, o.BLAS = []string{library}, []string{library}
	}
	return o
}

// machine sets the fake driver's machine for one test.
func machine(t testing.TB, m fake.Machine) {
	t.Helper()
	if *card {
		t.Skip("needs the fake driver")
	}
	fake.Set(m)
	t.Cleanup(func() {
		fake.Fail("", 0, 0, fake.Any)
		fake.Set(fake.Hopper(1))
	})
}

func mustOpen(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !errors.Is(err, kernels.ErrClosed) {
			t.Error(err)
		}
		if *card {
			return
		}
		if left := fake.Alive().Left(); left != (fake.Counts{}) {
			t.Errorf("left after Close: %+v", left)
		}
	})
	return b
}

// TestConformance runs the suite on every path, on one device and on three, and on the path
// fused by each variant: on the fake driver, whose variants are one twin's, by two.
func TestConformance(t *testing.T) {
	suite := func(name, path string, devices int, forced *int) {
		t.Run(name, func(t *testing.T) {
			if !*card {
				machine(t, fake.Hopper(devices))
			}
			kerneltest.Run(t, func(t testing.TB) kernels.Backend {
				b := mustOpen(t, options(path))
				if got := b.Devices()[0]; got.State != Ready || got.Path != path {
					t.Fatalf("%+v", got)
				}
				for _, d := range b.devices {
					d.forced = forced
				}
				return b
			})
		})
	}
	for _, path := range []string{PathFused, PathInt8, PathFloat64} {
		for _, devices := range []int{1, 3} {
			if !*card || devices == 1 {
				suite(fmt.Sprintf("%s/devices=%d", path, devices), path, devices, nil)
			}
		}
	}
	for i, v := range variants {
		if *card || i < 2 {
			suite(PathFused+"/"+v.name, PathFused, 1, &i)
		}
	}
}

// TestPatches compares random convolutions whose patches the copy engine can gather, and some that
// it cannot, with their definition, for each variant.
func TestPatches(t *testing.T) {
	if !*card {
		machine(t, fake.Hopper(1))
	}
	b := mustOpen(t, options(PathFused))
	rng := rand.New(rand.NewPCG(5, 0))
	upTo := func(n int) int { return 1 + rng.IntN(n) }
	gathered := map[int]int{} // by chunk
	for i := range 60 {
		c := plan.Conv2D{H: upTo(12), W: upTo(12), C: 16 * upTo(12), OutC: upTo(70), KH: upTo(4), KW: upTo(4),
			SH: upTo(3), SW: upTo(3), DH: upTo(3), DW: upTo(3), Groups: 1}
		c.Top, c.Left, c.Bot, c.Right = rng.IntN(c.KH), rng.IntN(c.KW), rng.IntN(c.KH), rng.IntN(c.KW)
		switch {
		case i%10 == 0:
			c.SH = 9 // more than the copy engine can skip
		case i == 1:
			c = plan.Conv2D{H: 5, W: 4, C: 16, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 100, DW: 1, Groups: 1} // further than it can reach
		case i == 2:
			c = plan.Conv2D{H: 90, W: 2, C: 32, OutC: 2, KH: 2, KW: 1, SH: 1, SW: 1, DH: 86, DW: 1, Groups: 1}
		}
		op := plan.Conv(c)
		if op.Validate() != nil {
			continue
		}
		gathered[chunked(c)]++
		v := i % len(variants)
		b.devices[0].forced = &v
		if err := newLayer(op, upTo(9)).evaluate(b); err != nil {
			t.Errorf("%v, %s: %v", op, variants[v].name, err)
		}
	}
	for _, chunk := range []int{0, 32, 64, 128} {
		if gathered[chunk] == 0 {
			t.Errorf("none gathered by %d: %v", chunk, gathered)
		}
	}
}

// TestCut: parts cover a batch, in order, and none is much larger than the others.
func TestCut(t *testing.T) {
	d := &device{partBytes: partBytes}
	for _, op := range []plan.Op{plan.Dense(7, 3), plan.Dense(4096, 4096), plan.Dense(60_000, 60_000),
		plan.Conv(plan.Conv2D{H: 56, W: 56, C: 64, OutC: 64, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})} {
		r := &resident{dev: d, op: op.AsConv()}
		for rows := 1; rows < 5000; rows += 1 + rows/9 {
			ends := r.cut(rows)
			from := 0
			for i, end := range ends {
				if size := end - from; size < 1 || op == plan.Dense(4096, 4096) && size > partRows {
					t.Errorf("%v, %d rows: part %d of %v", op, rows, i, ends)
				}
				from = end
			}
			if from != rows {
				t.Errorf("%v, %d rows: %v", op, rows, ends)
			}
		}
	}
}
