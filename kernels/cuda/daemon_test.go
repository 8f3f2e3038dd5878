//go:build gpu && cgo && linux && amd64

package cuda

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda/internal/fake"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// TestDaemon: whichever call of the driver fails, a daemon answers correctly or with a typed
// error, answers correctly afterwards, and has freed everything when it ends.
func TestDaemon(t *testing.T) {
	machine(t, fake.Hopper(2))
	step := 3
	if testing.Short() {
		step = 17
	}
	model := sealed.Model{Plan: plan.Plan{Ring: ring.Q4()}}
	for _, l := range layers {
		model.Plan.Ops = append(model.Plan.Ops, l.op)
		model.Weights = append(model.Weights, l.w)
	}
	b, err := model.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{fake.OutOfMemory, fake.LaunchLost} {
		for n := 1; ; n += step {
			if name := daemonWith(t, b, n, code); name == "" {
				if n == 1 {
					t.Error("nothing failed")
				}
				break
			}
		}
	}
}

// daemonWith runs a daemon in which call n after its start fails, and returns the call's name.
func daemonWith(t *testing.T, model []byte, n, code int) string {
	o := options(PathAuto)
	o.Streams = 2
	processor := cpu.New(cpu.Options{Threads: 1})
	o.Fallback = processor
	back, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg, slog.New(slog.DiscardHandler), back) }()
	conn, err := wire.Dial(cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for {
		resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			break
		}
		time.Sleep(time.Millisecond)
	}

	fake.Fail("", n, code, fake.Any)
	digest := sealed.Sum(model)
	typed := func(what string, err error) {
		if err != nil && !errors.As(err, new(*wire.Error)) {
			t.Errorf("call %d, %s: %s: %v", n, fake.Failed(), what, err)
		}
	}
	err = uploadModel(ctx, conn, digest, model)
	typed("upload", err)
	if err != nil { // refused, but the devices still work: the next upload succeeds
		if err := uploadModel(ctx, conn, digest, model); err != nil {
			t.Errorf("call %d, %s: second upload: %v", n, fake.Failed(), err)
		}
	}
	typed("evaluate", evaluateAll(ctx, conn, digest))
	name := fake.Failed()
	if name != "" {
		if err := evaluateAll(ctx, conn, digest); err != nil {
			t.Errorf("after call %d, %s: %v", n, name, err)
		}
	}
	fake.Fail("", 0, 0, fake.Any)
	stop()
	if err := <-done; err != nil {
		t.Errorf("call %d, %s: %v", n, name, err)
	}
	if err := errors.Join(back.Close(), processor.Close()); err != nil {
		t.Errorf("call %d, %s: close: %v", n, name, err)
	}
	if left := fake.Alive().Left(); left != (fake.Counts{}) {
		t.Fatalf("call %d, %s: left %+v", n, name, left)
	}
	return name
}

func uploadModel(ctx context.Context, conn *grpc.ClientConn, digest sealed.Digest, b []byte) error {
	stream, err := pb.NewSecureNetsClient(conn).Upload(ctx)
	if err != nil {
		return wire.FromStatus(err)
	}
	_ = stream.Send(&pb.UploadRequest{Digest: digest[:], Size: uint64(len(b)), Data: b}) // CloseAndRecv returns the error
	_, err = stream.CloseAndRecv()
	return wire.FromStatus(err)
}

// evaluateAll evaluates every layer, several at a time, and compares the words.
func evaluateAll(ctx context.Context, conn *grpc.ClientConn, digest sealed.Digest) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.SecureNets_Evaluate_FullMethodName)
	if err != nil {
		return wire.FromStatus(err)
	}
	const times = 2
	for i := range times * len(layers) {
		l := layers[i%len(layers)]
		req := wire.Request{ID: uint64(i + 1), Model: digest[:], Layer: uint32(i % len(layers)), Rows: uint32(l.x.Rows), Words: wire.EncodeWords(ring.Q4(), l.x.Data, nil)}
		err := stream.SendMsg(&req)
		req.Free()
		if err != nil {
			return wire.FromStatus(err)
		}
	}
	var failed error
	for range times * len(layers) {
		var resp wire.Response
		if err := stream.RecvMsg(&resp); err != nil {
			return wire.FromStatus(err)
		}
		if resp.Err != nil {
			failed = wire.FromProto(resp.Err)
			continue
		}
		want := layers[int(resp.ID-1)%len(layers)].want
		y := make([]uint32, len(want.Data))
		err := wire.DecodeWords(ring.Q4(), y, resp.Words)
		resp.Free()
		if err != nil {
			return err
		}
		if !slices.Equal(y, want.Data) {
			return errors.New("wrong words")
		}
	}
	return errors.Join(failed, stream.CloseSend())
}
