package place

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
)

var placed = Result{CPU: "C", Threads: 1, Batch: 256, Rounds: 7, Rows: []Row{{
	Network: "n", Scheme: "s", Place: "auto", Sent: 1, Kept: 2, Online: 1500, Offline: 500, Total: 2100, Local: 4200, Expected: 70, spread: [2]int64{2000, 2300},
}}}

// TestForms: names are those that others read.
func TestForms(t *testing.T) {
	text, err := json.Marshal(&placed)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	var parts struct{ Rows []map[string]any }
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	if names := strings.Join(benchtest.Fields(top), " "); names != "batch cpu rounds rows threads" {
		t.Errorf("JSON has %q", names)
	}
	if names := strings.Join(benchtest.Fields(parts.Rows[0]), " "); names != "expected_saving_ns host_offline_ns host_online_ns host_total_ns layers_kept layers_sent local_ns network place scheme" {
		t.Errorf("JSON has %q", names)
	}
	benchtest.CSV(t, placed.CSV,
		"network,scheme,place,layers_sent,layers_kept,host_online_ns,host_offline_ns,host_total_ns,local_ns,expected_saving_ns",
		"n,s,auto,1,2,1500,500,2100,4200,70")
	var table bytes.Buffer
	if err := placed.Table(&table); err != nil {
		t.Fatal(err)
	}
	if line := strings.Fields(strings.Split(table.String(), "\n")[1]); strings.Join(line, " ") != "n s auto 1 2 1.5 0.5 2.1 2.0-2.3 4.2 0.50 0.1" {
		t.Errorf("%q", line)
	}
}
