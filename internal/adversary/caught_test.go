package adversary_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
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

// chain returns the network of operators that each read the one before, as ONNX.
func chain(t *testing.T, input graph.Shape, ops ...graph.Op) []byte {
	t.Helper()
	g := &graph.Graph{Input: input, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	b, err := onnx.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// conv returns a convolution of a side x side map of one channel to three.
func conv(side int) *graph.Conv2D {
	geometry := plan.Conv2D{H: side, W: side, C: 1, OutC: 3, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	return &graph.Conv2D{Geometry: geometry, W: gaussian(3 * 9), B: gaussian(3)}
}

func dense(in, out int) *graph.Dense {
	return &graph.Dense{In: in, Out: out, W: gaussian(in * out), B: gaussian(out)}
}

// startDaemons runs an honest daemon for each role of a scheme.
func startDaemons(t *testing.T) (addrs []string) {
	most := 0
	for _, s := range transform.Schemes() {
		most = max(most, s.Roles())
	}
	for range most {
		addrs = append(addrs, startDaemon(t))
	}
	return addrs
}

// startDaemon runs an honest daemon until the test ends.
func startDaemon(t *testing.T) (addr string) {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "d"), filepath.Join(dir, "state")
	cfg.Limits.MaxModels, cfg.Limits.MaxModelsPerCaller = 256, 256 // one caller has those of every victim
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
	for range 6000 {
		if info, err := client.Info(t.Context()); err == nil && info.Serving {
			return cfg.Listen
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the daemon does not serve")
	return ""
}

// victim is a host with every role's cloud behind a proxy. The proxies conspire and have seen
// answers of another model.
type victim struct {
	*testing.T
	host    *cpu.Backend
	proxies []*adversary.Proxy
	models  []hostclient.SealedModel
	secret  *hostclient.Secret
}

// newVictim seals a network, uploads it to daemons, one per role, and infers n samples.
func newVictim(t *testing.T, daemons []string, model []byte, scheme transform.Scheme, n int) *victim {
	t.Helper()
	v := &victim{T: t, host: cpu.New(cpu.Options{})}
	t.Cleanup(func() { v.host.Close() })
	v.seal(model, scheme)
	parsed, err := sealed.Parse(v.models[0].Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for role := range v.models {
		p, err := adversary.Start("unix:"+filepath.Join(t.TempDir(), "p"), daemons[role], parsed.Plan)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		v.proxies = append(v.proxies, p)
	}
	for role, p := range v.proxies[:len(v.proxies)-1] {
		p.Conspire(v.proxies[role+1])
		v.proxies[role+1].Conspire(p)
	}
	other := &victim{T: t, host: v.host, proxies: v.proxies}
	other.seal(chain(t, graph.Vector(5), dense(5, 7), dense(7, 3)), scheme)
	for _, v := range []*victim{other, v} {
		clients := v.dial()
		for role, m := range v.models {
			if err := v.secret.Bind(role, clients[role].Provider()); err != nil {
				t.Fatal(err)
			}
			if err := clients[role].Push(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
		in := v.secret.Describe().Input
		if _, _, err := v.infer(clients, gaussian(n*in[0]*in[1]*in[2]), n, time.Minute); err != nil {
			t.Fatal(err)
		}
		hangUp(clients)
	}
	return v
}

func (v *victim) seal(model []byte, scheme transform.Scheme) {
	v.Helper()
	var err error
	if v.models, v.secret, err = hostclient.Seal(v.Context(), model, hostclient.SealOptions{Scheme: scheme}); err != nil {
		v.Fatal(err)
	}
}

// dial returns new clients, which have not received a lie yet.
func (v *victim) dial() []*hostclient.Client {
	clients := make([]*hostclient.Client, len(v.proxies))
	for role, p := range v.proxies {
		var err error
		if clients[role], err = hostclient.DialProvider(p.Addr(), fmt.Sprint("owner ", role)); err != nil {
			panic(err) // goroutines dial, too
		}
	}
	return clients
}

func hangUp(clients []*hostclient.Client) {
	for _, c := range clients {
		c.Close()
	}
}

// infer runs samples in a session of its own.
func (v *victim) infer(clients []*hostclient.Client, x []float32, n int, timeout time.Duration) ([]float32, hostclient.Stats, error) {
	s, err := hostclient.Open(v.Context(), v.secret, v.models, clients, hostclient.Options{Multiplier: v.host, Timeout: timeout})
	if err != nil {
		return nil, hostclient.Stats{}, err
	}
	defer s.Close()
	y, err := s.Infer(v.Context(), x, n)
	return y, s.Stats(), err
}

// deceived infers with new clients while a role's cloud tells a lie about a layer. If the lie is
// a late answer and the host timed out before it, deceived repeats with a longer timeout.
func (v *victim) deceived(lie adversary.Lie, role, layer int, x []float32, n int) (clients []*hostclient.Client, y []float32, stats hostclient.Stats, err error) {
	wait := time.Minute
	if lie.Kind == adversary.Late {
		wait = patience
	}
	for {
		clients = v.dial()
		v.proxies[role].Tell(lie, layer, 1)
		y, stats, err = v.infer(clients, x, n, wait)
		if wait >= time.Minute || v.proxies[role].Told() > 0 || !errors.Is(err, hostclient.ErrTimeout) {
			return clients, y, stats, err
		}
		hangUp(clients)
		wait *= 2
	}
}

// caught returns what is wrong with the host's reaction to a lie of a role's cloud. It returns
// nil if the error has the right type and names that cloud, and no value was returned.
func caught(lie adversary.Lie, role int, y []float32, stats hostclient.Stats, err error) error {
	var wrong *verify.RejectedError
	var liar *hostclient.CloudError
	switch {
	case y != nil || stats.Samples != 0:
		return fmt.Errorf("%d values were returned", len(y))
	case lie.Kind == adversary.Late && err != nil: // others may have been late, too
		if !strings.Contains(err.Error(), fmt.Sprintf("role %d at", role)) {
			return fmt.Errorf("role %d is not named: %w", role, err)
		}
	case !errors.As(err, &liar) || liar.Role != role:
		return fmt.Errorf("role %d is not named: %w", role, err)
	}
	switch {
	case lie.Kind == adversary.Wrong && (!errors.As(err, &wrong) || len(wrong.Samples) == 0 || stats.Rejected != int64(len(wrong.Samples))),
		lie.Kind == adversary.Malformed && !errors.Is(err, hostclient.ErrBadAnswer),
		lie.Kind == adversary.Late && !errors.Is(err, hostclient.ErrTimeout),
		lie.Kind != adversary.Wrong && stats.Rejected != 0:
		return fmt.Errorf("%d answers rejected, and the error is of another kind: %w", stats.Rejected, err)
	}
	return nil
}

// patience is a host's first timeout for a late answer.
const patience = 200 * time.Millisecond

// TestEveryLieIsCaught: for every scheme and layer, the host reports the right error, names the
// lying cloud, and returns no values.
func TestEveryLieIsCaught(t *testing.T) {
	daemons := startDaemons(t)
	const n, layers = 8, 3
	model := chain(t, graph.Shape{H: 6, W: 6, C: 1},
		conv(6), graph.ReLU{}, graph.Reshape{To: graph.Vector(48)}, dense(48, 12), graph.ReLU{}, dense(12, 10))
	x := gaussian(n * 36)
	for _, scheme := range transform.Schemes() {
		t.Run(scheme.String(), func(t *testing.T) {
			v := newVictim(t, daemons, model, scheme, n)
			clients := v.dial()
			honest, _, err := v.infer(clients, x, n, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			hangUp(clients)
			for _, lie := range adversary.Lies() {
				if lie.Name == "another role's answer" && len(v.proxies) == 1 {
					continue
				}
				t.Run(lie.Name, func(t *testing.T) {
					for role, p := range v.proxies {
						for layer := range layers {
							clients, y, stats, err := v.deceived(lie, role, layer, x, n)
							if told := p.Told(); told != 1 {
								t.Errorf("role %d, layer %d: told %d times", role, layer, told)
							}
							if err := caught(lie, role, y, stats, err); err != nil {
								t.Errorf("role %d, layer %d: %v", role, layer, err)
							}
							if lie.Kind == adversary.Wrong {
								if _, _, err := v.infer(clients, x, n, time.Minute); !errors.Is(err, hostclient.ErrQuarantined) {
									t.Errorf("role %d, layer %d: a liar was asked again: %v", role, layer, err)
								}
							}
							hangUp(clients)
							p.BeHonest()
						}
					}
				})
			}
			clients = v.dial()
			defer hangUp(clients)
			if y, stats, err := v.infer(clients, x, n, time.Minute); err != nil || !slices.Equal(y, honest) || stats.Checked != layers*n || stats.Rejected != 0 {
				t.Errorf("honest: %v, %+v, or other values", err, stats)
			}
		})
	}
}

// small is a network of two layers, for the tests that count.
func small(t *testing.T) (model []byte, input int) {
	return chain(t, graph.Shape{H: 4, W: 4, C: 1}, conv(4), graph.ReLU{}, graph.Reshape{To: graph.Vector(12)}, dense(12, 5)), 16
}

// TestForgedAnswers: each of 10,000 forged answers of every kind, for every scheme, layer and
// role in turn, gives the right error and names the right cloud.
func TestForgedAnswers(t *testing.T) {
	forged, workers := 10_000, 8 // more than compute: late answers are waited for
	const n = 3                  // samples in a call
	if testing.Short() {
		forged = 500
	}
	model, input := small(t)
	daemons := startDaemons(t)
	schemes := transform.Schemes()
	type turn struct {
		scheme, role, layer int
		lie                 adversary.Lie
	}
	var turns []turn
	for i := range schemes {
		for role := range schemes[i].Roles() {
			for layer := range 2 {
				for _, lie := range adversary.Lies() {
					if lie.Name == "another role's answer" && schemes[i].Roles() == 1 {
						continue
					}
					turns = append(turns, turn{i, role, layer, lie})
				}
			}
		}
	}
	var next, found atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		victims := make([]*victim, len(schemes))
		for i, scheme := range schemes {
			victims[i] = newVictim(t, daemons, model, scheme, n)
		}
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(forged) && !t.Failed(); i = next.Add(1) - 1 {
				turn := turns[i%int64(len(turns))]
				v := victims[turn.scheme]
				p := v.proxies[turn.role]
				clients, y, stats, err := v.deceived(turn.lie, turn.role, turn.layer, gaussian(n*input), n)
				for range 50 { // with few words there may be none to alias; then no lie was told
					if err != nil || p.Told() != 0 {
						break
					}
					y, stats, err = v.infer(clients, gaussian(n*input), n, time.Minute)
				}
				if told := p.Told(); told != 1 {
					t.Errorf("%v, role %d, layer %d, %s: told %d times", schemes[turn.scheme], turn.role, turn.layer, turn.lie.Name, told)
				}
				if err := caught(turn.lie, turn.role, y, stats, err); err != nil {
					t.Errorf("%v, role %d, layer %d, %s: %v", schemes[turn.scheme], turn.role, turn.layer, turn.lie.Name, err)
				} else {
					found.Add(1)
				}
				hangUp(clients)
				p.BeHonest()
			}
		})
	}
	wg.Wait()
	if found.Load() != int64(forged) {
		t.Errorf("%d of %d forged answers found", found.Load(), forged)
	}
}

// TestHonestAnswers: none of 102,000 honest answers, over all schemes, is rejected.
func TestHonestAnswers(t *testing.T) {
	answers, n := 102_000, 500
	if testing.Short() {
		answers = 12_000
	}
	model, input := small(t)
	daemons := startDaemons(t)
	schemes := transform.Schemes()
	var checked int64
	for _, scheme := range schemes {
		v := newVictim(t, daemons, model, scheme, n)
		clients := v.dial()
		for range answers / len(schemes) / n / 2 { // two layers
			_, stats, err := v.infer(clients, gaussian(n*input), n, time.Minute)
			if err != nil || stats.Rejected != 0 {
				t.Fatalf("%v: %v, %+v", scheme, err, stats)
			}
			checked += stats.Checked
		}
		hangUp(clients)
	}
	if checked != int64(answers) {
		t.Errorf("%d answers checked, want %d", checked, answers)
	}
}
