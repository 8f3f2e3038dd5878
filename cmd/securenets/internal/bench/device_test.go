//go:build gpu && cgo && linux && amd64

package bench

import (
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/plan"
)

// TestDevice measures a fake device.
func TestDevice(t *testing.T) {
	lib, daemon := benchtest.FakeDevice(t)
	b, err := cuda.Open(cuda.Options{Driver: []string{lib}, BLAS: []string{lib}, Pinned: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	small := shape{"tiny-dense", plan.Dense(20, 8), 12}
	sc := scope{shapes: []shape{small, {"tiny-conv", conv(5, 2, 4, 3, 1), 2}}, served: []shape{small}}
	result, err := sc.device(t.Context(), b, measure.Options{Progress: benchtest.Quiet, Daemon: daemon})
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
