package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// daemonCallers is how many callers keep a request in flight each.
const daemonCallers = 8

// throughDaemon measures a dense layer through a daemon of its own, and compares it with
// what was measured from pinned memory.
func (sc scope) throughDaemon(ctx context.Context, binary string, measured []DeviceRow) (rows []DeviceRow, err error) {
	dir, err := os.MkdirTemp("", "securenets-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("backend = \"cuda\"\n[cuda]\npinned_bytes = 1073741824\n"), 0o600); err != nil {
		return nil, err
	}
	d, err := child.Start(binary, filepath.Join(dir, "daemon"), "--config", config)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	if err := d.Ready(ctx); err != nil {
		d.ShowLog(os.Stderr)
		return nil, err
	}
	conn, err := wire.Dial(d.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	op, r, rng := sc.served[0].op, ring.Q4(), rand.New(rand.NewPCG(4, 0)) // all have it
	w := ring.NewMatrix(op.Rows(), op.Terms())
	for i := range w.Data {
		w.Data[i] = rng.Uint32N(r.Modulus())
	}
	model := sealed.Model{Plan: plan.Plan{Ring: r, Ops: []plan.Op{op}}, Weights: []ring.Matrix{w}}
	b, err := model.Marshal()
	if err != nil {
		return nil, err
	}
	digest := sealed.Sum(b)
	if err := upload(ctx, conn, digest, b); err != nil {
		return nil, err
	}
	for _, s := range sc.served {
		row := s.row("q4", inDaemon)
		elapsed, socket, calls, err := load(ctx, d.Addr, digest, s, max(sc.budget, 200*time.Millisecond))
		if err != nil {
			return nil, err
		}
		row.set(series{elapsed.Seconds() / float64(calls)})
		row.Socket = socket
		for _, m := range measured {
			if m.Where == pinned && m.Shape == s.name {
				row.Ratio = row.GMACs / m.GMACs
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// upload sends a sealed model.
func upload(ctx context.Context, conn *grpc.ClientConn, digest sealed.Digest, b []byte) error {
	stream, err := pb.NewSecureNetsClient(conn).Upload(ctx)
	if err != nil {
		return err
	}
	const part = 4 << 20
	first := &pb.UploadRequest{Digest: digest[:], Size: uint64(len(b))}
	for m := first; ; m = new(pb.UploadRequest) {
		n := min(part, len(b))
		m.Data, b = b[:n], b[n:]
		if err := stream.Send(m); err != nil || len(b) == 0 {
			break // CloseAndRecv has the reason
		}
	}
	_, err = stream.CloseAndRecv()
	return wire.FromStatus(err)
}

// load has callers evaluate a shape for a time, one request after the other each. It
// returns the time it took, the part of requests' time that was not their product's,
// and how many there were.
func load(ctx context.Context, addr string, digest sealed.Digest, s shape, budget time.Duration) (elapsed time.Duration, socket float64, calls int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg              sync.WaitGroup
		mu              sync.Mutex
		total, computed time.Duration
		errs            []error
	)
	start := time.Now()
	for range daemonCallers {
		wg.Go(func() {
			n, t, c, err := call(ctx, addr, digest, s, start.Add(budget))
			if err != nil {
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			calls, total, computed, errs = calls+n, total+t, computed+c, append(errs, err)
		})
	}
	wg.Wait()
	elapsed = time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return 0, 0, 0, err
	}
	return elapsed, float64(total-computed) / float64(total), calls, nil
}

// call is one caller: it returns how many requests it made, how long they took, and
// how long of it their products did.
func call(ctx context.Context, addr string, digest sealed.Digest, s shape, until time.Time) (calls int, total, computed time.Duration, err error) {
	conn, err := wire.Dial(addr)
	if err != nil {
		return 0, 0, 0, err
	}
	defer conn.Close()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.SecureNets_Evaluate_FullMethodName)
	if err != nil {
		return 0, 0, 0, err
	}
	r, rng := ring.Q4(), rand.New(rand.NewPCG(5, 0))
	x, y := make([]uint32, s.n*s.op.InLen()), make([]uint32, s.n*s.op.OutLen())
	for i := range x {
		x[i] = rng.Uint32N(r.Modulus())
	}
	for time.Now().Before(until) {
		start := time.Now()
		req := wire.Request{ID: uint64(calls + 1), Model: digest[:], Rows: uint32(s.n), Words: wire.EncodeWords(r, x, nil)}
		err := stream.SendMsg(&req)
		req.Free()
		if err != nil {
			return 0, 0, 0, err
		}
		var resp wire.Response
		if err := stream.RecvMsg(&resp); err != nil {
			return 0, 0, 0, wire.FromStatus(err)
		}
		if resp.Err != nil {
			return 0, 0, 0, wire.FromProto(resp.Err)
		}
		if err := wire.DecodeWords(r, y, resp.Words); err != nil {
			return 0, 0, 0, err
		}
		calls++
		total += time.Since(start)
		computed += time.Duration(resp.ComputeNS)
		resp.Free()
	}
	return calls, total, computed, stream.CloseSend()
}
