package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// TestSoak: a daemon under load for a while keeps what a long load asks of it.
func TestSoak(t *testing.T) {
	span := 15 * time.Second
	if testing.Short() {
		span = 5 * time.Second
	}
	o := SoakOptions{Options: measure.Options{Daemon: benchtest.Daemon(t), Progress: benchtest.Quiet}, Threads: 1, Callers: 4, Rows: 2, For: span}
	r, err := o.soak(t.Context(), traffic.Model(0, plan.Dense(256, 256)))
	if err != nil {
		t.Fatal(err)
	}
	// In so short a time the collector's cycles are a slope of their own.
	if r.Growth > 0.3 {
		t.Errorf("memory grew by %.3f of its mean", r.Growth)
	}
	r.Growth = 0
	if err := r.Verdict(); err != nil {
		t.Error(err)
	}
	during := r.Samples[len(r.Samples)/2]
	if r.Visits < 5 || len(r.Samples) < 30 || r.Load.Goodput < 10 || during.Descriptors < r.Before.Descriptors+4 || during.Goroutines < r.Before.Goroutines+4 || during.Memory < 1<<20 {
		t.Errorf("%d visits, %d samples, %+v before, %+v in the middle, load %+v", r.Visits, len(r.Samples), r.Before, during, r.Load)
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "callers gone") {
		t.Errorf("%v: %s", err, &table)
	}
	t.Logf("\n%s", &table)
}

// TestCrowd: a daemon holds callers who ask beside many who do not.
func TestCrowd(t *testing.T) {
	o := CrowdOptions{Options: measure.Options{Daemon: benchtest.Daemon(t), Progress: benchtest.Quiet}, Threads: 1, Active: 50, Idle: 500, Rows: 1, hold: holdHere}
	r, err := o.crowd(t.Context(), traffic.Model(0, plan.Dense(256, 256)), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verdict(); err != nil {
		t.Error(err)
	}
	if r.Alive != 500 || r.With.Descriptors < r.Before.Descriptors+500 || r.EachIdle <= 0 || r.Load.Callers != 50 || r.Load.Goodput < 50 || r.Load.P99 <= 0 {
		t.Errorf("%+v", r)
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "500 of 500") {
		t.Errorf("%v: %s", err, &table)
	}
	t.Logf("\n%s", &table)
}

// holdHere has this process hold idle callers.
func holdHere(ctx context.Context, addr string, callers int) (*crowd, error) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Hold(ctx, addr, callers, inR, outW)
		outW.CloseWithError(io.EOF)
		done <- err
	}()
	return newCrowd(inW, outR, func() error { return <-done }, callers)
}

// infoServer answers who asks for its version.
type infoServer struct {
	pb.UnimplementedSecureNetsServer
}

func (infoServer) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	return &pb.InfoResponse{}, nil
}

// cutter accepts connections that a test can cut.
type cutter struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn, err
}

// TestHold: callers whose connections were cut are not alive, though others could be had.
func TestHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l}
	server := grpc.NewServer(wire.ServerOptions()...)
	pb.RegisterSecureNetsServer(server, infoServer{})
	go server.Serve(c)
	defer server.Stop()
	held, err := holdHere(t.Context(), "unix:"+path, 40)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := held.alive(); n != 40 || err != nil {
		t.Errorf("%d alive, %v", n, err)
	}
	c.mu.Lock()
	for _, conn := range c.conns[:7] {
		conn.Close()
	}
	c.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // until all callers know
		n, err := held.alive()
		if n == 33 && err == nil {
			break
		}
		if n < 33 || err != nil || time.Now().After(end) {
			t.Fatalf("%d alive, %v", n, err)
		}
	}
	if err := held.leave(); err != nil {
		t.Error(err)
	}
	if _, err := holdHere(t.Context(), "unix:"+path+"x", 3); err == nil {
		t.Error("callers of nobody")
	}
}

// TestVerdicts: each thing that a daemon is to keep, alone.
func TestVerdicts(t *testing.T) {
	before := Figures{Memory: 1 << 20, Goroutines: 9, Descriptors: 8}
	for name, change := range map[string]func(*SoakResult){
		"":            func(*SoakResult) {},
		"memory":      func(r *SoakResult) { r.Growth = 0.06 },
		"goroutines":  func(r *SoakResult) { r.After.Goroutines++ },
		"descriptors": func(r *SoakResult) { r.After.Descriptors++ },
	} {
		r := &SoakResult{Before: before, After: before, Growth: 0.01}
		change(r)
		if err := r.Verdict(); name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*CrowdResult){
		"":            func(*CrowdResult) {},
		"idle":        func(r *CrowdResult) { r.Alive-- },
		"goroutines":  func(r *CrowdResult) { r.After.Goroutines++ },
		"descriptors": func(r *CrowdResult) { r.After.Descriptors++ },
	} {
		r := &CrowdResult{Before: before, After: before, Idle: 5, Alive: 5}
		change(r)
		if err := r.Verdict(); name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGrowth is that of a line, whatever else is in the samples.
func TestGrowth(t *testing.T) {
	samples := func(memory func(at float64) float64) (all []Sample) {
		for i := range 100 {
			at := float64(i)
			all = append(all, Sample{at, Figures{Memory: int64(memory(at))}})
		}
		return all
	}
	for _, test := range []struct {
		name   string
		memory func(at float64) float64
		want   float64
	}{
		{"flat", func(float64) float64 { return 1e9 }, 0},
		{"a ramp", func(at float64) float64 { return 1e9 * (1 + at/100) }, 0.79 / 1.595}, // from 20 to 99
		{"falling", func(at float64) float64 { return 1e9 * (2 - at/100) }, -0.79 / 1.405},
		{"warm-up alone", func(at float64) float64 { return 1e9 * min(1, at/20) }, 0},
	} {
		got, err := growth(samples(test.memory), 20)
		if err != nil || math.Abs(got-test.want) > 1e-6 {
			t.Errorf("%s: %v, %v, want %v", test.name, got, err, test.want)
		}
	}
	noise, err := growth(samples(func(float64) float64 { return 1e9 * (1 + rand.Float64()/50) }), 20)
	if err != nil || math.Abs(noise) > 0.02 {
		t.Errorf("noise: %v, %v", noise, err)
	}
	if _, err := growth(samples(func(float64) float64 { return 1 })[:25], 20); err == nil {
		t.Error("a line through 5 samples")
	}
}

// TestFigures are read where they are, and missed where they are not.
func TestFigures(t *testing.T) {
	const text = "# HELP go_goroutines x\ngo_goroutines 12\nprocess_open_fds 13\nprocess_resident_memory_bytes 2.69e+08\nprocess_open_fds_x 9\n"
	f, err := parseFigures(bufio.NewScanner(strings.NewReader(text)))
	if want := (Figures{Memory: 269e6, Goroutines: 12, Descriptors: 13}); err != nil || f != want {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range []string{"", strings.Replace(text, " 12", " x", 1), strings.Replace(text, "process_open_fds 13", "", 1)} {
		if _, err := parseFigures(bufio.NewScanner(strings.NewReader(bad))); err == nil {
			t.Errorf("figures of %q", bad)
		}
	}
}

// TestSoakForms: names are those that are promised.
func TestSoakForms(t *testing.T) {
	f := Figures{Memory: 1, Goroutines: 2, Descriptors: 3}
	r := &SoakResult{Samples: []Sample{{0.5, f}}}
	benchtest.CSV(t, r.CSV, "seconds,resident_memory_bytes,goroutines,open_fds", "0.5,1,2,3")
	for want, v := range map[string]any{
		"after before cpu load memory_growth samples seconds threads visits warm_up_seconds":  r,
		"goroutines open_fds resident_memory_bytes seconds":                                   r.Samples[0],
		"after before cpu idle idle_alive load memory_bytes_an_idle_caller threads with_idle": &CrowdResult{},
	} {
		text, err := json.Marshal(v)
		var all map[string]any
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		if got := strings.Join(benchtest.Fields(all), " "); err != nil || got != want {
			t.Errorf("JSON has %q, want %q: %v", got, want, err)
		}
	}
}
