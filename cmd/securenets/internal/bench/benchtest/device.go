//go:build gpu && cgo && linux && amd64

package benchtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// FakeDevice returns a library that is driver and cuBLAS of fake devices, and a daemon's
// program that finds it where a driver would be.
func FakeDevice(t *testing.T) (lib, daemon string) {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/securenets/securenets").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	kernels := filepath.Join(strings.TrimSpace(string(root)), "kernels", "cuda", "internal")
	dir := t.TempDir()
	lib = filepath.Join(dir, "libcuda.so.1")
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-I", filepath.Join(kernels, "driver", "include"),
		"-o", lib, filepath.Join(kernels, "fake", "testdata", "fake.c"), "-lpthread").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	if err := os.Symlink(lib, filepath.Join(dir, "libcublas.so.13")); err != nil {
		t.Fatal(err)
	}
	daemon = filepath.Join(dir, "securenetsd")
	build := exec.Command("go", "build", "-tags", "gpu", "-o", daemon, "github.com/securenets/securenets/cmd/securenetsd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Setenv("LD_LIBRARY_PATH", dir) // for the daemon
	return lib, daemon
}
