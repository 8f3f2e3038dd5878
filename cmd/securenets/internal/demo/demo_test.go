package demo

import (
	"errors"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"testing"
)

// TestMissed: a lie that was not caught is an error, and still stands in the file.
func TestMissed(t *testing.T) {
	for caught, want := range map[int]error{11: nil, 10: ErrMissed, 0: ErrMissed} {
		r := &run{
			Options: Options{OutDir: t.TempDir(), Out: io.Discard},
			result:  Result{TamperTried: 11, TamperCaught: caught},
		}
		if err := r.write(t.Context()); !errors.Is(err, want) {
			t.Errorf("%d caught: %v, want %v", caught, err, want)
		}
		if _, err := os.Stat(filepath.Join(r.OutDir, resultFile)); err != nil {
			t.Error(err)
		}
	}
}

// TestBatch: a batch has no more than all samples, whose memory is taken.
func TestBatch(t *testing.T) {
	for _, c := range [][3]int{{7, math.MaxInt, 7}, {7, 3, 3}, {0, 1 << 40, 10000}} {
		r := &run{Options: Options{Network: "mlp", Samples: c[0], Batch: c[1]}}
		if err := r.read(); err != nil || r.Batch != c[2] {
			t.Errorf("%d of %d: %d, %v", c[1], c[0], r.Batch, err)
		}
	}
}

// TestClasses: the first of equal scores counts.
func TestClasses(t *testing.T) {
	got := classes([]int{9}, []float32{0, 1, 0, 2, 2, 1, -3, -2, -1}, 3)
	for i, want := range []int{9, 1, 0, 2} {
		if got[i] != want {
			t.Errorf("class %d is %d, want %d", i, got[i], want)
		}
	}
}

// TestSpotted: the chance is what counting all choices of entries gives.
func TestSpotted(t *testing.T) {
	const n = 10
	for wrong := range n + 1 {
		for c := 1; c <= n+2; c++ {
			seen, all := 0, 0
			for set := range 1 << n { // the first entries are the wrong ones
				if bits.OnesCount(uint(set)) != min(c, n) {
					continue
				}
				all++
				if set&(1<<wrong-1) != 0 {
					seen++
				}
			}
			want := float64(seen) / float64(all)
			if got := spotted(n, wrong, c); math.Abs(got-want) > 1e-12 {
				t.Errorf("%d of %d wrong, %d computed: %g, want %g", wrong, n, c, got, want)
			}
		}
	}
}
