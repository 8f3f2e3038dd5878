//go:build gpu && cgo && linux && amd64

package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/kernels/cuda"
)

// fakeDevice returns a library that is driver and cuBLAS of fake devices, and a daemon's
// program that finds it where a driver would be.
func fakeDevice(t *testing.T) (lib, daemon string) {
	t.Helper()
	dir := t.TempDir()
	lib = filepath.Join(dir, "libcuda.so.1")
	const kernels = "../../../../kernels/cuda/internal/"
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-I", kernels+"driver/include",
		"-o", lib, kernels+"fake/testdata/fake.c", "-lpthread").CombinedOutput()
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

// TestDevice measures a fake device.
func TestDevice(t *testing.T) {
	lib, daemon := fakeDevice(t)
	b, err := cuda.Open(cuda.Options{Driver: []string{lib}, BLAS: []string{lib}, Pinned: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	small := shape{"tiny-dense", plan.Dense(20, 8), 12}
	sc := scope{shapes: []shape{small, {"tiny-conv", conv(5, 2, 4, 3, 1), 2}}, served: []shape{small}}
	result, err := sc.device(t.Context(), b, Options{Progress: func(string, int, int) {}, Daemon: daemon})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil { // a product left open is an error
		t.Error(err)
	}
	var got []string
	for _, r := range result.Rows {
		got = append(got, r.Shape+" "+r.Kernel+" "+r.Where)
		if r.GMACs <= 0 || r.Microseconds <= 0 || r.Ratio <= 0 && r.Kernel != "bf16" {
			t.Errorf("%+v", r)
		}
		if (r.Where == inDaemon || r.Where == inShared) != (r.Socket > 0) {
			t.Errorf("%+v", r)
		}
	}
	want := []string{
		"tiny-dense q4 device", "tiny-dense small device", "tiny-dense bf16 device", "tiny-dense fp32 device", "tiny-dense fp64 device", "tiny-dense int8 device",
		"tiny-dense q4 pinned",
		"tiny-conv q4 device", "tiny-conv small device", "tiny-conv bf16 device", "tiny-conv fp32 device", "tiny-conv fp64 device", // 18 terms are none for int8
		"tiny-conv q4 pinned",
		"tiny-dense q4 daemon", "tiny-dense q4 shared",
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var table strings.Builder
	if err := result.Table(&table); err != nil || !strings.Contains(table.String(), "fake 0") {
		t.Errorf("%v: %s", err, &table)
	}
}

// TestThroughputDevice: where daemons multiply on a device, its int8 product is the
// limit, and the device is told of.
func TestThroughputDevice(t *testing.T) {
	lib, daemon := fakeDevice(t)
	o := ThroughputOptions{
		Options: Options{Daemon: daemon, Progress: func(string, int, int) {}},
		Backend: "auto", Command: []string{"a"}, driver: []string{lib},
	}
	r, err := o.run(t.Context(), func(device bool) sweep {
		if !device {
			t.Error("the device is not taken for one")
		}
		return tinySweep(device)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Daemon.Devices) == 0 || r.Daemon.Devices[0].Name == "" || !strings.Contains(r.Daemon.LimitOf, "64 x 64 by 64") {
		t.Errorf("%+v", r.Daemon)
	}
	for _, row := range r.Rows {
		if row.Limit == nil || row.Limit.Median <= 0 || row.Share == nil || row.ShareCPU != nil || row.DaemonCPU == nil {
			t.Errorf("%+v", row)
		}
	}
	var table strings.Builder
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "fake 0") {
		t.Errorf("%v: %s", err, &table)
	}
}
