package demo

import (
	"errors"
	"io"
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

// TestClasses: the first of equal scores counts.
func TestClasses(t *testing.T) {
	got := classes([]int{9}, []float32{0, 1, 0, 2, 2, 1, -3, -2, -1}, 3)
	for i, want := range []int{9, 1, 0, 2} {
		if got[i] != want {
			t.Errorf("class %d is %d, want %d", i, got[i], want)
		}
	}
}
