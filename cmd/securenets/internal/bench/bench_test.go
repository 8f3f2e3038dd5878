package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/layer"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

var tiny = scope{memory: 1 << 20, shapes: []shape{
	{"tiny-dense", plan.Dense(20, 7), 3},
	{"tiny-conv", conv(5, 2, 4, 3, 1), 2},
}}

func TestKernel(t *testing.T) {
	for _, threads := range []int{1, 2} {
		b := cpu.New(cpu.Options{Threads: threads})
		calls := 0
		result, err := tiny.kernel(t.Context(), b, threads, func(string, int, int) { calls++ })
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil { // a product left open is an error
			t.Error(err)
		}
		if calls != len(tiny.shapes) {
			t.Errorf("progress of %d shapes, want %d", calls, len(tiny.shapes))
		}
		for i, want := range []KernelRow{
			{Kernel: "q4", Shape: "tiny-dense", M: 7, K: 20, N: 3},
			{Kernel: "small", Shape: "tiny-dense", M: 7, K: 20, N: 3},
			{Kernel: "q4", Shape: "tiny-conv", M: 4, K: 18, N: 50},
			{Kernel: "small", Shape: "tiny-conv", M: 4, K: 18, N: 50},
		} {
			got := result.Rows[i]
			if got.GMACs <= 0 || got.spread[0] > got.GMACs || got.spread[1] < got.GMACs {
				t.Errorf("row %d: %v GMAC/s in %v", i, got.GMACs, got.spread)
			}
			if limited := got.Limit > 0 && got.Ratio > 0; limited != roofline.Available() {
				t.Errorf("row %d: limit %v, ratio %v", i, got.Limit, got.Ratio)
			}
			want.Threads, want.GMACs, want.Limit, want.Ratio, want.spread = threads, got.GMACs, got.Limit, got.Ratio, got.spread
			if got != want {
				t.Errorf("row %d is %+v, want %+v", i, got, want)
			}
		}
		if len(result.Rows) != 2*len(tiny.shapes) {
			t.Errorf("%d rows", len(result.Rows))
		}
	}
}

// TestKernelForms: names are those that are promised, and without limits there are
// none.
func TestKernelForms(t *testing.T) {
	row := KernelRow{Kernel: "q4", Shape: "s", M: 1, K: 2, N: 3, Threads: 4, GMACs: 5.5, Limit: 6, Ratio: 0.9}
	with := &KernelResult{CPU: "C", Roofline: Roofline{VNNI: 1, FP64: 2, DRAM: 3}, Rows: []KernelRow{row}}
	avx2 := &KernelResult{CPU: "C", Roofline: Roofline{Words: 1, Wide: 2, FP64: 2, DRAM: 3}, Rows: []KernelRow{row}}
	row.Limit, row.Ratio = 0, 0
	without := &KernelResult{CPU: "C", Rows: []KernelRow{row}}
	for _, test := range []struct {
		result         *KernelResult
		roofline, rows string
		csv, table     string
	}{
		{with, "dram_gbs fp64 vpdpbusd", "gmacs k kernel limit m n ratio shape threads", "q4,s,1,2,3,4,5.5,6,0.9", "vpdpbusd"},
		{avx2, "dram_gbs fp64 vpmaddwd vpmaddwd_wide", "gmacs k kernel limit m n ratio shape threads", "q4,s,1,2,3,4,5.5,6,0.9", "vpmaddwd, wide"},
		{without, "", "gmacs k kernel m n shape threads", "q4,s,1,2,3,4,5.5,,", "No limits"},
	} {
		text, err := json.Marshal(test.result)
		if err != nil {
			t.Fatal(err)
		}
		var top map[string]any
		var parts struct {
			Roofline map[string]float64
			Rows     []map[string]any
		}
		if err := errors.Join(json.Unmarshal(text, &top), json.Unmarshal(text, &parts)); err != nil {
			t.Fatal(err)
		}
		for _, names := range [][2]string{
			{strings.Join(benchtest.Fields(top), " "), "cpu roofline rows"},
			{strings.Join(benchtest.Fields(parts.Roofline), " "), test.roofline},
			{strings.Join(benchtest.Fields(parts.Rows[0]), " "), test.rows},
		} {
			if names[0] != names[1] {
				t.Errorf("JSON has %q, want %q", names[0], names[1])
			}
		}
		benchtest.CSV(t, test.result.CSV, "kernel,shape,m,k,n,threads,gmacs,limit,ratio", test.csv)
		var table bytes.Buffer
		if err := test.result.Table(&table); err != nil || !strings.Contains(table.String(), test.table) {
			t.Errorf("no %q in %s: %v", test.table, &table, err)
		}
	}
}

// TestInterrupted: it ends with the context's error, and leaves no product open.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := cpu.New(cpu.Options{Threads: 1})
	r, err := tiny.kernel(ctx, b, 1, func(name string, _, _ int) {
		if name == tiny.shapes[1].name {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestHost: a row for every pass, and a total.
func TestHost(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	result, err := tiny.host(t.Context(), func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	if got := runtime.GOMAXPROCS(0); got != threads {
		t.Errorf("GOMAXPROCS is %d, was %d", got, threads)
	}
	names := []string{"quantize", "prg", "mask", "unmask", "check", "dequantize", "total"}
	if len(result.Rows) != len(names)*len(tiny.shapes) {
		t.Fatalf("%d rows", len(result.Rows))
	}
	for i, got := range result.Rows {
		if want := names[i%len(names)]; got.Pass != want || got.Shape != tiny.shapes[i/len(names)].name || got.Threads != 1 {
			t.Errorf("row %d is %+v, want pass %s", i, got, want)
		}
		if difference := got.Pass == "mask" || got.Pass == "unmask" || got.Pass == "check"; !difference && got.PerWord <= 0 {
			t.Errorf("row %d takes %v ns a word", i, got.PerWord)
		}
	}
	benchtest.CSV(t, (&HostResult{Rows: []HostRow{{Pass: "p", Shape: "s", Threads: 1, PerWord: 0.25}}}).CSV,
		"pass,shape,threads,ns_per_word", "p,s,1,0.25")
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CPU  string
		Rows []map[string]any
	}
	if err := json.Unmarshal(text, &got); err != nil || got.CPU == "" {
		t.Fatalf("%s: %v", text, err)
	}
	if names := strings.Join(benchtest.Fields(got.Rows[0]), " "); names != "ns_per_word pass shape threads" {
		t.Errorf("JSON has %q", names)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := tiny.host(ctx, func(string, int, int) {}); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
}

// TestTimes: a round takes each time once, of right products.
func TestTimes(t *testing.T) {
	call, err := layer.New(t.Context(), cpu.New(cpu.Options{}), tiny.shapes[0].op, tiny.shapes[0].n, transform.DefaultScheme())
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{Call: call}
	if err := c.round(); err != nil {
		t.Fatal(err)
	}
	for pass, s := range c.times {
		if len(s) != 1 {
			t.Errorf("%s: %d times", passNames[pass], len(s))
		}
	}
	for i, s := range c.Floats { // of sample i/7 and row i%7
		want := 0.0
		for j := range c.Op.In {
			want += float64(c.Values[i/7*c.Op.In+j]) * float64(c.Weights[i%7*c.Op.In+j])
		}
		if math.Abs(float64(s)-want) > 0.02 {
			t.Errorf("product %d is %v, want %v", i, s, want)
		}
	}
	c.Answers[0].Data[3] ^= 1
	if err := c.round(); !errors.Is(err, verify.ErrRejected) {
		t.Errorf("a wrong answer: %v", err)
	}
}

// TestMNIST: shapes called mnist-cnn are those of the network.
func TestMNIST(t *testing.T) {
	model, err := models.ONNX("mnist-cnn")
	if err != nil {
		t.Fatal(err)
	}
	g, err := onnx.Parse(model)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []plan.Op
	for _, n := range g.Nodes {
		if l, ok := n.Op.(graph.Linear); ok {
			want = append(want, l.Plan())
		}
	}
	for _, s := range kernelShapes {
		if strings.HasPrefix(s.name, "mnist-cnn-") {
			got = append(got, s.op)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
