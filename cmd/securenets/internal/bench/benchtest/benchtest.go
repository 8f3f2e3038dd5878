// Package benchtest holds what the tests of benchmarks share.
package benchtest

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// program is the path of a daemon's program, built from here, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "securenetsd-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "securenetsd")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/securenets/securenets/cmd/securenetsd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var built string // the folder of program; "": none

// Daemon returns the path of a daemon's program, which Main removes.
func Daemon(t *testing.T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main is TestMain where tests use Daemon.
func Main(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// Quiet is a progress that nobody sees.
func Quiet(string, int, int) {}

// Fields returns v's names in JSON, sorted.
func Fields[V any](v map[string]V) []string { return slices.Sorted(maps.Keys(v)) }

// CSV checks that what write writes are these lines.
func CSV(t *testing.T, write func(io.Writer) error, lines ...string) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, strings.Join(r, ","))
	}
	if !slices.Equal(got, lines) {
		t.Errorf("CSV has %q, want %q", got, lines)
	}
}
