package hostclient

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/transform"
)

// transport is what a connection costs one of its ends, in nanoseconds of CPU time,
// where no memory is shared.
type transport struct {
	message float64 // a request and its answer, however short
	word    float64 // a word sent or received
}

// measureTransport measures a connection to the echo at addr, in another process.
// Without an address it starts one in this process: both ends do the same, so that
// each has half of what the process spends.
func measureTransport(ctx context.Context, r ring.Ring, addr string) (_ transport, err error) {
	ends := 1.0 // in this process
	if addr == "" {
		ends = 2
		dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
		if err != nil {
			return transport{}, err
		}
		defer os.RemoveAll(dir)
		addr = scheme + filepath.Join(dir, "s")
		l, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			return transport{}, err
		}
		server := newEcho()
		go server.Serve(l)
		defer server.Stop()
	}
	client, err := Dial(addr, SharedMemory(0))
	if err != nil {
		return transport{}, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	const short, rows, cols = 32, 256, 4096 // 4 MiB
	small, err := echoed(ctx, client, r, 1, 1, short)
	if err != nil {
		return transport{}, err
	}
	large, err := echoed(ctx, client, r, rows, cols, 2)
	if err != nil {
		return transport{}, err
	}
	return transport{message: small / ends, word: max(0, large-small) / ends / (2 * rows * cols)}, nil
}

// ServeEcho answers requests that come in at l with the words that they hold, until
// ctx ends: the far end that SealOptions.Echo asks for, in a process of its own.
func ServeEcho(ctx context.Context, l net.Listener) error {
	server := newEcho()
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(l)
}

func newEcho() *grpc.Server {
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true))...)
	pb.RegisterSecureNetsServer(server, echo{})
	return server
}

// echoed returns the CPU time of a call that sends rows of words and has them back:
// the median over rounds of so many calls.
func echoed(ctx context.Context, c *Client, r ring.Ring, rows, cols, calls int) (float64, error) {
	// Nothing but masking makes what a client sends.
	layer, err := transform.NewLayer(r, transform.Scheme{Weights: transform.WeightNone, Inputs: transform.InputSplit}, plan.Dense(cols, cols))
	if err != nil {
		return 0, err
	}
	call, err := layer.Mask(make([]int32, rows*cols), rows, nil)
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for i := range 1 + placeRounds {
		err := timed(&took, func() error {
			for range calls {
				if _, err := c.evaluate(ctx, r, sealed.Digest{}, echoLayer(r), call.Masked()[0], ring.NewMatrix(rows, cols)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if i == 0 {
			took = took[:0] // it connects
		}
	}
	return float64(median(took)) / float64(calls), nil
}

// echo answers every request with its words, decoded and encoded as a host does. A
// layer is the ring of so many primes, which is how its caller and it know.
type echo struct {
	pb.UnimplementedSecureNetsServer
}

// echoLayer names a ring to an echo.
func echoLayer(r ring.Ring) int { return len(r.Primes()) }

func echoRing(layer uint32) (ring.Ring, error) {
	for _, name := range Rings() {
		if r, err := name.ring(); err == nil && echoLayer(r) == int(layer) {
			return r, nil
		}
	}
	return ring.Ring{}, status.Errorf(codes.NotFound, "no ring of %d primes", layer)
}

func (echo) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	for {
		req := new(wire.Request)
		if err := stream.RecvMsg(req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		r, err := echoRing(req.Layer)
		if err != nil {
			req.Free()
			return err
		}
		words := make([]uint32, req.Words.Len()/r.WordBytes())
		err = wire.DecodeWords(r, words, req.Words)
		req.Free()
		if err != nil {
			return err
		}
		resp := &wire.Response{ID: req.ID, Words: wire.EncodeWords(r, words, nil)}
		err = stream.SendMsg(resp)
		resp.Free()
		if err != nil {
			return err
		}
	}
}
