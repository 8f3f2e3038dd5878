//go:build gpu && cgo && linux && amd64

package throughput

import (
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
)

// TestDevice: where daemons multiply on a device, its int8 product is the
// limit, and the device is told of.
func TestDevice(t *testing.T) {
	lib, daemon := benchtest.FakeDevice(t)
	o := Options{
		Options: measure.Options{Daemon: daemon, Progress: benchtest.Quiet},
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
