package adversary_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

func gaussian(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rand.NormFloat64())
	}
	return v
}

// network returns a convolution and two dense layers on maps of 6x6, as ONNX.
func network(t *testing.T) []byte {
	t.Helper()
	conv := plan.Conv2D{H: 6, W: 6, C: 1, OutC: 3, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	ops := []graph.Op{
		&graph.Conv2D{Geometry: conv, W: gaussian(3 * 9), B: gaussian(3)}, graph.ReLU{},
		graph.Reshape{To: graph.Vector(48)},
		&graph.Dense{In: 48, Out: 12, W: gaussian(48 * 12), B: gaussian(12)}, graph.ReLU{},
		&graph.Dense{In: 12, Out: 10, W: gaussian(12 * 10), B: gaussian(10)},
	}
	g := &graph.Graph{Input: graph.Shape{H: 6, W: 6, C: 1}, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	b, err := onnx.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// startDaemon runs an honest daemon until the test ends.
func startDaemon(t *testing.T) (addr string) {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "d"), filepath.Join(dir, "state")
	ctx, cancel := context.WithCancel(context.Background())
	backend := cpu.New(cpu.Options{})
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg, slog.New(slog.DiscardHandler), backend) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, backend.Close()); err != nil {
			t.Error(err)
		}
	})
	client, err := hostclient.Dial(cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 500 {
		if info, err := client.Info(t.Context()); err == nil && info.Serving {
			return cfg.Listen
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the daemon does not serve")
	return ""
}

// TestEveryLieIsCaught: of every scheme, in every layer, the host rejects every
// lie, names a sample or calls the answer malformed, and gives out nothing.
func TestEveryLieIsCaught(t *testing.T) {
	addr := startDaemon(t)
	p, err := adversary.Start("unix:"+filepath.Join(t.TempDir(), "p"), addr, ring.Q4())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	host := cpu.New(cpu.Options{})
	defer host.Close()
	const n, layers = 8, 3
	model, x := network(t), gaussian(n*36)
	for _, scheme := range transform.Schemes() {
		models, secret, err := hostclient.Seal(t.Context(), model, hostclient.SealOptions{Scheme: scheme})
		if err != nil {
			t.Fatal(err)
		}
		infer := func() ([]float32, hostclient.Stats, error) {
			client, err := hostclient.Dial(p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Push(t.Context(), models[0], nil); err != nil {
				t.Fatal(err)
			}
			s, err := hostclient.Open(t.Context(), secret, models, []*hostclient.Client{client}, hostclient.Options{Multiplier: host})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			y, err := s.Infer(t.Context(), x, n)
			stats := s.Stats()
			if errors.Is(err, verify.ErrRejected) {
				if _, err := s.Infer(t.Context(), x, n); !errors.Is(err, hostclient.ErrQuarantined) {
					t.Errorf("%v: a liar was asked again: %v", scheme, err)
				}
			}
			return y, stats, err
		}
		honest, _, err := infer()
		if err != nil {
			t.Fatal(err)
		}
		for layer := range layers {
			for _, lie := range adversary.Lies() {
				name := fmt.Sprintf("%v, layer %d, %s", scheme, layer, lie.Name)
				p.Tell(lie, layer, 1)
				y, stats, err := infer()
				if p.Told() != 1 {
					t.Errorf("%s: told %d times", name, p.Told())
				}
				if y != nil || stats.Samples != 0 {
					t.Errorf("%s: gave %d values out", name, len(y))
				}
				var rejected *verify.RejectedError
				switch {
				case errors.As(err, &rejected):
					if len(rejected.Samples) == 0 || stats.Rejected != int64(len(rejected.Samples)) {
						t.Errorf("%s: %d samples named, %d counted", name, len(rejected.Samples), stats.Rejected)
					}
				case !errors.Is(err, hostclient.ErrBadAnswer) || lie.Name != "one word y sent as y + M":
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		p.BeHonest()
		if y, stats, err := infer(); err != nil || !slices.Equal(y, honest) || stats.Checked != layers*n || stats.Rejected != 0 {
			t.Errorf("%v: honest: %v, %+v, or other values", scheme, err, stats)
		}
	}
}
