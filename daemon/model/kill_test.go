package model_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// victimEnv makes a run of this test binary a daemon that kills itself. It names its folder, a
// step, and the occurrence of the step at which it dies; without a step it records all steps.
const victimEnv = "SECURENETS_TEST_VICTIM"

// Limits: models of a caller, and memory for one model and one load.
const mostModels = 6

func victimConfig(dir string) config.Config {
	c := config.Default()
	c.Listen, c.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	c.Limits.MaxModelsPerCaller = mostModels
	c.Limits.MaxLoadedBytes = killModel("a").need
	c.DrainTimeoutSeconds = 0
	return c
}

// killable is a model of two layers with the weights to check its answers.
type killable struct {
	sealed.Model
	bytes  []byte
	digest sealed.Digest
	need   int64
}

// killModel returns the model with a name. All have the same size.
func killModel(name string) *killable {
	ops := []plan.Op{plan.Dense(64, 64), plan.Dense(64, 32)}
	k := &killable{Model: sealed.Model{Plan: plan.Plan{Ring: ring.Q4(), Ops: ops}}}
	rnd := rand.New(rand.NewChaCha8(sealed.Sum([]byte(name))))
	for _, op := range ops {
		w := ring.NewMatrix(op.Rows(), op.Terms())
		for i := range w.Data {
			w.Data[i] = rnd.Uint32N(k.Plan.Ring.Modulus())
		}
		k.Weights = append(k.Weights, w)
	}
	b, err := k.Marshal()
	if err != nil {
		panic(err)
	}
	k.bytes, k.digest, k.need = b, sealed.Sum(b), model.NeedOf(int64(len(b)), k.Plan)
	return k
}

// TestVictim is the daemon that is killed, in a process of its own; otherwise it does nothing.
func TestVictim(t *testing.T) {
	args := strings.Split(os.Getenv(victimEnv), "\n")
	if len(args) != 3 {
		return
	}
	at, err := strconv.Atoi(args[2])
	if err != nil {
		t.Fatal(err)
	}
	steps, err := os.OpenFile(filepath.Join(args[0], "steps"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	model.SetStep(func(name string) {
		mu.Lock()
		defer mu.Unlock()
		if args[1] == "" {
			fmt.Fprintln(steps, name)
		}
		if name == args[1] {
			if at--; at == 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	})
	backend := cpu.New(cpu.Options{Threads: 1})
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := daemon.Run(t.Context(), victimConfig(args[0]), log, backend); err != nil {
		t.Fatal(err)
	}
}

// caller runs a script against a daemon and remembers the answers.
type caller struct {
	t      *testing.T
	client pb.SecureNetsClient
	has    map[string]bool // names of models that the daemon has acknowledged
	doubt  string          // the model of a call that was not answered
}

func (c *caller) upload(ctx context.Context, k *killable, to int) error {
	stream, err := c.client.Upload(ctx)
	if err != nil {
		return err
	}
	resp, err := func() (*pb.UploadResponse, error) {
		if err := stream.Send(&pb.UploadRequest{Digest: k.digest[:], Size: uint64(len(k.bytes))}); err != nil {
			return stream.CloseAndRecv()
		}
		return stream.CloseAndRecv()
	}()
	if err != nil || resp.Complete {
		return wire.FromStatus(err)
	}
	from := int(resp.Received)
	if stream, err = c.client.Upload(ctx); err != nil {
		return err
	}
	req := &pb.UploadRequest{Digest: k.digest[:], Size: uint64(len(k.bytes)), Offset: uint64(from)}
	for part := range slices.Chunk(k.bytes[from:to], 9000) {
		req.Data = part
		if stream.Send(req) != nil {
			break // the answer says why
		}
		req = &pb.UploadRequest{}
	}
	if resp, err = stream.CloseAndRecv(); err != nil {
		return wire.FromStatus(err)
	}
	if resp.Received != uint64(to) || resp.Complete != (to == len(k.bytes)) {
		c.t.Errorf("upload of %d bytes: %v", to, resp)
	}
	return nil
}

// evaluate checks the products of all layers.
func (c *caller) evaluate(ctx context.Context, k *killable) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.client.Evaluate(ctx)
	if err != nil {
		return err
	}
	for layer, op := range k.Plan.Ops {
		x := ring.NewMatrix(2, op.InLen())
		for i := range x.Data {
			x.Data[i] = rand.Uint32N(k.Plan.Ring.Modulus())
		}
		req := &wire.Request{Model: k.digest[:], Layer: uint32(layer), Rows: 2, Words: wire.EncodeWords(k.Plan.Ring, x.Data, nil)}
		err := stream.SendMsg(req)
		req.Free()
		var r wire.Response
		if err2 := stream.RecvMsg(&r); err2 != nil {
			return errors.Join(wire.FromStatus(err2), err)
		}
		if r.Err != nil {
			return wire.FromProto(r.Err)
		}
		want := kernels.Direct(k.Plan.Ring, op, k.Weights[layer], x)
		got := make([]uint32, len(want.Data))
		if err := wire.DecodeWords(k.Plan.Ring, got, r.Words); err != nil || !slices.Equal(got, want.Data) {
			c.t.Errorf("a wrong answer of layer %d: %v", layer, err)
		}
		r.Free()
	}
	return nil
}

func (c *caller) remove(ctx context.Context, k *killable) error {
	_, err := c.client.Remove(ctx, &pb.RemoveRequest{Digest: k.digest[:]})
	return wire.FromStatus(err)
}

// reason returns the reason of an error from the daemon, "" for other errors.
func reason(err error) wire.Reason {
	var e *wire.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Reason
}

// script makes a daemon do everything that it does with models, until a call is not answered.
// Models a and b are stored; d is stored and damaged.
func (c *caller) script(ctx context.Context) {
	half := len(killModel("c").bytes) / 2
	evaluate := func(name string) func() error {
		return func() error { return c.evaluate(ctx, killModel(name)) }
	}
	for _, step := range []struct {
		name string // of the model
		call func() error
		has  bool // afterwards
	}{
		{"a", evaluate("a"), true},
		{"b", evaluate("b"), true}, // evicts a
		{"c", func() error { return c.upload(ctx, killModel("c"), half) }, false},
		{"c", func() error { return c.upload(ctx, killModel("c"), len(killModel("c").bytes)) }, true},
		{"c", evaluate("c"), true},
		{"a", evaluate("a"), true},
		{"d", evaluate("d"), false},
		{"e", func() error { return c.upload(ctx, killModel("e"), half) }, false},
		{"e", func() error { return c.remove(ctx, killModel("e")) }, false},
		{"a", func() error { return c.remove(ctx, killModel("a")) }, false},
		{"b", evaluate("b"), true},
		{"b", func() error { return c.remove(ctx, killModel("b")) }, false},
	} {
		err := step.call()
		if step.name == "d" && reason(err) == wire.ReasonModelNotFound {
			err = nil
		}
		if err != nil && (reason(err) != "" || ctx.Err() == nil) {
			// An error with a reason means that the script is wrong. Otherwise the daemon's process
			// has ended, which is noticed a moment later.
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
			if reason(err) != "" || ctx.Err() == nil {
				c.t.Errorf("%s: %v", step.name, err)
			}
		}
		if err != nil {
			c.doubt = step.name
			return
		}
		c.has[step.name] = step.has
	}
}

// TestKilled kills a daemon at every step of upload, load, eviction and removal, and checks the
// next daemon: every acknowledged model is there, whole, and gives right answers; no model is
// half there; and the limits count only what is there.
func TestKilled(t *testing.T) {
	template := t.TempDir()
	d := victimConfig(template)
	prepare(t, d)
	steps := map[string]int{}
	v := newVictim(t, template, "", 0)
	c := v.script()
	v.end()
	if c.doubt != "" {
		t.Fatalf("the daemon ended at %s", c.doubt)
	}
	text, err := os.ReadFile(filepath.Join(v.dir, "steps"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		steps[strings.TrimSpace(line)]++
	}
	for _, want := range []string{
		"upload: file made", "upload: bytes written", "upload: bytes durable", "upload: renamed", "upload: name durable", "upload: visible",
		"load: file read", "load: weights of a layer", "load: done", "evict: chosen", "evict: weights freed", "damaged: renamed", "damaged: put aside",
		"remove: .safetensors removed", "remove: .part removed", "remove: durable", "remove: invisible",
	} {
		if steps[want] == 0 {
			t.Errorf("the script does not come to %q", want)
		}
	}
	times := 20
	if testing.Short() {
		times = 1
		t.Log("short: once at each step, not 20 times")
	}
	hits := 0
	for step, comes := range steps {
		// The number of some steps varies, as loads at the start may or may not happen.
		hit := 0
		for try := 0; hit < times; try++ {
			if try > 3*times {
				t.Fatalf("%s: the daemon comes to it in %d of %d runs", step, hit, try)
			}
			v := newVictim(t, template, step, 1+try%comes)
			c := v.script()
			if v.end() {
				hit++
			}
			c.verify(v.dir)
			if t.Failed() {
				t.Fatalf("killed at %q, time %d, with %q in doubt: %s", step, 1+try%comes, c.doubt, v.stderr.String())
			}
			if err := os.RemoveAll(v.dir); err != nil {
				t.Fatal(err)
			}
		}
		hits += hit
	}
	t.Logf("killed %d times at %d steps", hits, len(steps))
}

// prepare stores the models that a script begins with.
func prepare(t *testing.T, c config.Config) {
	t.Helper()
	run(t, c, func(c *caller) {
		for _, name := range []string{"a", "b", "d"} {
			if err := c.upload(t.Context(), killModel(name), len(killModel(name).bytes)); err != nil {
				t.Fatal(err)
			}
		}
	})
	damaged := bytes.Clone(killModel("d").bytes)
	damaged[len(damaged)-1] ^= 1
	if err := os.WriteFile(modelPath(c.StateDir, "d", ".safetensors"), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
}

func modelPath(state, name, suffix string) string {
	return filepath.Join(state, "callers", string(model.User(uint32(os.Geteuid()))), killModel(name).digest.String()+suffix)
}

// run runs a daemon in this process while f runs.
func run(t *testing.T, cfg config.Config, f func(*caller)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	backend := cpu.New(cpu.Options{Threads: 1})
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg, slog.New(slog.DiscardHandler), backend) }()
	cc := dial(t, ctx, cfg.Listen)
	f(&caller{t: t, client: pb.NewSecureNetsClient(cc), has: map[string]bool{}})
	cc.Close()
	stop()
	if err := errors.Join(<-done, backend.Close()); err != nil {
		t.Error(err)
	}
}

// dial connects to a daemon once it listens, or ctx ends.
func dial(t *testing.T, ctx context.Context, addr string) *grpc.ClientConn {
	t.Helper()
	for ctx.Err() == nil {
		if c, err := net.Dial("unix", strings.TrimPrefix(addr, "unix:")); err == nil {
			c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	cc, err := wire.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

// victim is a daemon in another process.
type victim struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	ended  context.Context
	stderr bytes.Buffer
}

func newVictim(t *testing.T, template, step string, at int) *victim {
	t.Helper()
	dir, err := os.MkdirTemp("", "sn") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, dir: dir, cmd: exec.Command(os.Args[0], "-test.run=^TestVictim$")}
	if err := os.CopyFS(filepath.Join(dir, "state"), os.DirFS(filepath.Join(template, "state"))); err != nil {
		t.Fatal(err)
	}
	v.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%s\n%d", victimEnv, dir, step, at))
	v.cmd.Stdout, v.cmd.Stderr = &v.stderr, &v.stderr
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.ended = ctx
	go func() { v.cmd.Wait(); cancel() }()
	t.Cleanup(func() { v.cmd.Process.Kill(); <-v.ended.Done(); os.RemoveAll(dir) })
	return v
}

func (v *victim) script() *caller {
	cc := dial(v.t, v.ended, victimConfig(v.dir).Listen)
	defer cc.Close()
	c := &caller{t: v.t, client: pb.NewSecureNetsClient(cc), has: map[string]bool{"a": true, "b": true}}
	c.script(v.ended)
	return c
}

// end waits for the daemon's end and kills it if it has not reached its step. It reports
// whether it has.
func (v *victim) end() bool {
	itself := true
	select {
	case <-v.ended.Done():
	case <-time.After(50 * time.Millisecond): // for work in progress after the last answer
		itself = v.ended.Err() != nil
		v.cmd.Process.Kill()
		<-v.ended.Done()
	}
	if s, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		v.t.Fatalf("the daemon ended with %v: %s", v.cmd.ProcessState, v.stderr.String())
	}
	return itself
}

// verify checks what a killed daemon has left, by running another.
func (c *caller) verify(dir string) {
	cfg := victimConfig(dir)
	t := c.t
	run(t, cfg, func(now *caller) {
		ctx := t.Context()
		resp, err := now.client.List(ctx, &pb.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		listed := map[string]bool{}
		for _, m := range resp.Models {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				if k := killModel(name); bytes.Equal(m.Digest, k.digest[:]) && m.Size == uint64(len(k.bytes)) && m.Layers == 2 {
					listed[name] = true
				}
			}
		}
		if len(listed) != len(resp.Models) {
			t.Errorf("a model that is none: %v", resp.Models)
		}
		for _, name := range []string{"a", "b", "c", "e"} {
			if listed[name] != c.has[name] && name != c.doubt {
				t.Errorf("model %s is listed: %v", name, listed[name])
			}
			if listed[name] {
				if err := now.evaluate(ctx, killModel(name)); err != nil {
					t.Errorf("model %s: %v", name, err)
				}
			}
		}
		if err := now.evaluate(ctx, killModel("d")); reason(err) != wire.ReasonModelNotFound {
			t.Errorf("damaged: %v", err)
		}
		// An unfinished upload resumes where it stopped, unless it was removed.
		for _, name := range []string{"c", "e"} {
			if !listed[name] && (c.has[name] || name == c.doubt) {
				if err := now.upload(ctx, killModel(name), len(killModel(name).bytes)); err != nil {
					t.Errorf("upload of %s: %v", name, err)
				}
				if err := now.evaluate(ctx, killModel(name)); err != nil {
					t.Errorf("model %s: %v", name, err)
				}
				listed[name] = true
			}
		}
		delete(listed, "d")
		// All files are accounted for: models, the damaged one, unfinished uploads.
		entries, err := os.ReadDir(filepath.Dir(modelPath(cfg.StateDir, "a", "")))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			ok := e.Name() == filepath.Base(modelPath("", "d", ".bad"))
			for name := range listed {
				ok = ok || listed[name] && e.Name() == filepath.Base(modelPath("", name, ".safetensors"))
			}
			for _, name := range []string{"c", "e"} {
				ok = ok || !listed[name] && e.Name() == filepath.Base(modelPath("", name, ".part"))
			}
			if !ok {
				t.Errorf("%s is left behind", e.Name())
			}
		}
		// Limits count what is there, and nothing else.
		there := 0
		for _, is := range listed {
			if is {
				there++
			}
		}
		for i := there; i <= mostModels; i++ {
			k := killModel(fmt.Sprint(i))
			err := now.upload(ctx, k, len(k.bytes))
			if i < mostModels && err != nil || i == mostModels && reason(err) != wire.ReasonTooLarge {
				t.Errorf("model %d of %d: %v", i+1, mostModels, err)
			}
		}
	})
}
