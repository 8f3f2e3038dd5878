package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/cmd/securenets/internal/peer"
)

// echoHere serves the frames in this process, which has used twice the processor time of
// the last time whenever it is asked.
func echoHere(t *testing.T) func(context.Context) (*echoProcess, error) {
	return func(ctx context.Context) (*echoProcess, error) {
		addr := "unix:" + filepath.Join(t.TempDir(), "s")
		inR, inW := io.Pipe()
		outR, outW := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- peer.Serve(ctx, addr, inR, outW, Frames) }()
		if _, err := outR.Read(make([]byte, len(addr+"\n"))); err != nil {
			return nil, err
		}
		var used time.Duration = time.Second
		return &echoProcess{
			addr: addr,
			cpu:  func() (time.Duration, error) { used *= 2; return used, nil },
			stop: func() error { return errors.Join(inW.Close(), <-done) },
		}, nil
	}
}

// TestEcho: what a daemon costs is held against the kernel and an echo of frames that are
// as long.
func TestEcho(t *testing.T) {
	if _, err := cputime.Of(1); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("processor times of processes are not known here")
	}
	o := EchoOptions{Options: measure.Options{Daemon: benchtest.Daemon(t), Progress: benchtest.Quiet}, Threads: 1, Callers: 4, Rows: 2, echo: echoHere(t)}
	r, err := o.measure(t.Context(), 1, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kernel <= 0 || r.Echo <= 0 || r.EchoDirect <= 0 || r.EchoDirect == r.Echo {
		t.Errorf("%+v", r)
	}
	for name, l := range map[string]EchoLoad{"socket": r.Socket, "shared": r.Shared, "gRPC": r.GRPC} {
		if l.Load.Daemon <= r.Kernel/2 || l.Load.Goodput < 10 {
			t.Errorf("%s: %+v", name, l)
		}
		for got, echo := range map[float64]float64{l.OverGRPC: r.Echo, l.OverDirect: r.EchoDirect} {
			if want := l.Load.Daemon / (r.Kernel + echo); got < want*0.99 || got > want*1.01 {
				t.Errorf("%s: ratio %v, want %v", name, got, want)
			}
		}
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "over kernel and direct echo") || !strings.Contains(table.String(), "shared memory") {
		t.Errorf("%v: %s", err, &table)
	}
}

// TestFramesLengths: the echo's answers are as long as the daemon's would be; others are
// found out as wrong ones are.
func TestFramesLengths(t *testing.T) {
	e, err := echoHere(t)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var of []traffic.Target
	for i, op := range traffic.MNIST {
		of = append(of, traffic.Target{Layer: i, Op: op, X: traffic.Rows(op, 3)})
	}
	wrong := of[0]
	wrong.Op = traffic.MNIST[1] // of which the echo knows nothing
	for _, way := range []traffic.Way{traffic.Direct, traffic.GRPC} {
		answers, err := traffic.Unix(e.addr).Drive(t.Context(), by(way, inTurn(5, of)), time.Now().Add(300*time.Millisecond))
		if err != nil || len(answers) < len(of) {
			t.Errorf("%d answers, %v", len(answers), err)
		}
		if _, err := traffic.Unix(e.addr).Drive(t.Context(), by(way, inTurn(1, []traffic.Target{wrong})), time.Now().Add(300*time.Millisecond)); err == nil {
			t.Error("an answer of another length")
		}
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
}
