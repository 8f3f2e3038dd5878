//go:build gpu && cgo && linux && amd64

package cuda

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda/internal/fake"
	"github.com/securenets/securenets/kernels/kerneltest"
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

// TestConformance runs the suite on every path, on one device and on three.
func TestConformance(t *testing.T) {
	for _, path := range []string{PathFused, PathInt8, PathFloat64} {
		for _, devices := range []int{1, 3} {
			if *card && devices > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/devices=%d", path, devices), func(t *testing.T) {
				if !*card {
					machine(t, fake.Hopper(devices))
				}
				kerneltest.Run(t, func(t testing.TB) kernels.Backend {
					b := mustOpen(t, options(path))
					if got := b.Devices()[0]; got.State != Ready || got.Path != path {
						t.Fatalf("%+v", got)
					}
					for _, d := range b.devices {
						d.eager = true // as the products are small
					}
					return b
				})
			})
		}
	}
}
