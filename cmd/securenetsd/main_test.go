package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/internal/manual/manualtest"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"securenetsd": main})
}

func TestPages(t *testing.T) { manualtest.Check(t, newCommand(nil), 10) }

func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

// runScripts runs the scripts in a folder, with more variables.
func runScripts(t *testing.T, dir string, vars ...string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, vars...)
			// A socket's path is short; a test's folder may not be.
			env.Setenv("SOCKET", t.TempDir()+"/s")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serving":   serving,
			"push":      push,
			"stall":     stall,
			"refused":   refused,
			"gone":      gone,
			"status":    status,
			"terminate": terminate,
		},
	})
}

func dial(ts *testscript.TestScript, socket string) *grpc.ClientConn {
	cc, err := wire.Dial("unix:" + socket)
	ts.Check(err)
	ts.Defer(func() { cc.Close() })
	return cc
}

// serving waits until the daemon at a socket serves.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := healthpb.NewHealthClient(dial(ts, args[0]))
	for {
		resp, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		ts.Check(err)
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// refused checks that no one listens at a socket.
func refused(ts *testscript.TestScript, neg bool, args []string) {
	if c, err := net.Dial("unix", args[0]); err == nil {
		c.Close()
		ts.Fatalf("%s accepts", args[0])
	}
}

// gone waits until a socket's file is removed: the drain has begun.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	for range 6000 {
		if _, err := os.Lstat(args[0]); errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s is still there", args[0])
}

// terminate sends SIGTERM to what runs in the background.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}

// status runs a command and checks its exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v, want exit status %s", err, args[0])
	}
}

func model(ts *testscript.TestScript) ([]byte, sealed.Digest) {
	op := plan.Dense(1, 1024)
	m := sealed.Model{Plan: plan.Plan{Ring: ring.Q4(), Ops: []plan.Op{op}}, Weights: []ring.Matrix{ring.NewMatrix(op.Rows(), op.Terms())}}
	b, err := m.Marshal()
	ts.Check(err)
	return b, sealed.Sum(b)
}

// push uploads a model, or checks that it is there already.
func push(ts *testscript.TestScript, neg bool, args []string) {
	b, digest := model(ts)
	client := pb.NewSecureNetsClient(dial(ts, args[0]))
	list, err := client.List(context.Background(), &pb.ListRequest{})
	ts.Check(err)
	if neg != (len(list.Models) == 1) {
		ts.Fatalf("models: %v", list.Models)
	}
	if !neg {
		stream, err := client.Upload(context.Background())
		ts.Check(err)
		ts.Check(stream.Send(&pb.UploadRequest{Digest: digest[:], Size: uint64(len(b)), Data: b}))
		resp, err := stream.CloseAndRecv()
		ts.Check(err)
		if !resp.Complete {
			ts.Fatalf("upload: %v", resp)
		}
	}
}

// stall asks for more than a stream's window holds and reads no answer, which
// keeps a drain from ending.
func stall(ts *testscript.TestScript, neg bool, args []string) {
	_, digest := model(ts)
	stream, err := pb.NewSecureNetsClient(dial(ts, args[0])).Evaluate(context.Background())
	ts.Check(err)
	const rows = 4000
	for id := range uint64(6) {
		req := wire.Request{ID: id, Model: digest[:], Rows: rows, Words: wire.EncodeWords(ring.Q4(), make([]uint32, rows), nil)}
		err := stream.SendMsg(&req)
		req.Free()
		ts.Check(err)
	}
	var resp wire.Response // the first, so that the others are under way
	ts.Check(stream.RecvMsg(&resp))
	if resp.Err != nil {
		ts.Fatalf("%v", strings.TrimSpace(resp.Err.Message))
	}
	resp.Free()
}
