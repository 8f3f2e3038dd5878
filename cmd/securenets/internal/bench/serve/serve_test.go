package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
)

// TestForms: names are those that are promised.
func TestForms(t *testing.T) {
	row := Row{Load: "l", Callers: 2, Offered: 3, Goodput: 4, Refused: 5, Rest: 6, Queue: 7, Compute: 8, P50: 9, P90: 10, P95: 11, P99: 12, Daemon: 13.5}
	r := &Result{CPU: "C", Threads: 1, Rows: 1, Loads: []Row{row}, Transport: []Transport{{Rows: 64, Bytes: 1 << 20, Falls: 4.5}}}
	benchtest.CSV(t, r.CSV, strings.Join(columns, ","), "l,2,3,4,5,6,7,8,9,10,11,12,13.5")
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	var parts struct{ Loads, Transport []map[string]any }
	if err := errors.Join(json.Unmarshal(text, &top), json.Unmarshal(text, &parts)); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{
		{strings.Join(benchtest.Fields(top), " "), "batching_gain batching_gain_of_kernel batching_gain_of_kernel_cpu cpu cpu_over_kernel cpu_over_kernel_shared goodput_at_twice goodput_at_twice_cpu jain kernel_alone_us kernel_merged_us least_share loads most_share rows threads transport"},
		{strings.Join(benchtest.Fields(parts.Loads[0]), " "), "concurrency daemon_cpu_us inferences_per_second load network_and_server_send_recv_us offered_per_second p50_latency_us p90_latency_us p95_latency_us p99_latency_us refused_per_second server_compute_infer_us server_queue_us"},
		{strings.Join(benchtest.Fields(parts.Transport[0]), " "), "bytes grpc kernel_us rows share_falls_by shared socket"},
	} {
		if names[0] != names[1] {
			t.Errorf("JSON has %q, want %q", names[0], names[1])
		}
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "Jain index") || !strings.Contains(table.String(), "64    1,048,576 ") {
		t.Errorf("%s: %v", &table, err)
	}
}

// TestMedianRow: each figure for itself.
func TestMedianRow(t *testing.T) {
	var rows []Row
	for _, i := range rand.Perm(5) {
		rows = append(rows, Row{Load: "l", Goodput: float64(i), P99: float64(-i)})
	}
	if got := medianRow(rows); got.Load != "l" || got.Goodput != 2 || got.P99 != -2 {
		t.Errorf("%+v", got)
	}
}

// TestAgain: a load that was not answered is put again, a few times; one that failed is not.
func TestAgain(t *testing.T) {
	fails := errors.New("fails")
	for _, test := range []struct {
		errs  []error
		calls int
		want  error
	}{
		{[]error{nil}, 1, nil},
		{[]error{fails, nil}, 1, fails},
		{[]error{errNoAnswer, fmt.Errorf("%w: l", errNoAnswer), nil}, 3, nil},
		{slices.Repeat([]error{errNoAnswer}, 9), 5, errNoAnswer},
	} {
		calls := 0
		v, err := again(time.Microsecond, func() (int, error) { calls++; return calls, test.errs[calls-1] })
		if v != test.calls || calls != test.calls || !errors.Is(err, test.want) {
			t.Errorf("%v: %d after %d calls, %v", test.errs, v, calls, err)
		}
	}
}
