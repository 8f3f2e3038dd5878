// Package tiertest has tests of a tier of assembly fail on processors where another would run.
package tiertest

import (
	"os"
	"testing"
)

// Fastest fails where the fastest tier is not the one that the environment's TIER names.
func Fastest(t *testing.T, name string) {
	t.Helper()
	want := os.Getenv("TIER")
	if want == "" {
		t.Skip("TIER is not set: make check-avx512 sets it")
	}
	if name != want {
		t.Fatalf("the fastest tier here is %s, want %s", name, want)
	}
}
