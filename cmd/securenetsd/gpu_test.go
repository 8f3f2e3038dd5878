//go:build gpu && cgo && linux && amd64

package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestDevices runs the scripts for a build with CUDA, with a fake driver in the folder
// FAKE.
func TestDevices(t *testing.T) {
	dir := t.TempDir()
	const internal = "../../kernels/cuda/internal/"
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-I", internal+"driver/include",
		"-o", filepath.Join(dir, "libcuda.so.1"), internal+"fake/testdata/fake.c", "-lpthread").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, name := range []string{"libcublas.so.13", "libnvidia-ml.so.1"} {
		if err := os.Symlink("libcuda.so.1", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	runScripts(t, "testdata/gpu", "FAKE="+dir)
}

// TestLibraries: the program needs the C library alone, so it starts where there is
// neither a driver nor cuBLAS.
func TestLibraries(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(libraries, []string{"libc.so.6"}) {
		t.Errorf("linked with %v", libraries)
	}
}
