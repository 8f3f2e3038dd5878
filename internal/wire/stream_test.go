package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each request with its own words, sent from the received buffers.
type echo struct {
	pb.UnimplementedSecureNetsServer
}

func (echo) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	receiver, err := wire.NewReceiver(stream.Context())
	if err != nil {
		return err
	}
	for {
		if _, err := receiver.Next(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		var req wire.Request
		if err := receiver.Read(&req); err != nil {
			return err
		}
		resp := wire.Response{ID: req.ID, Words: req.Words, ComputeNS: uint64(req.Rows)}
		if req.Seed != nil {
			resp.Err = (&wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadRequest, Message: "seed"}).Proto()
		}
		err := stream.SendMsg(&resp)
		req.Free()
		if err != nil {
			return err
		}
	}
}

func (echo) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	return nil, (&wire.Error{Code: codes.Unavailable, Reason: wire.ReasonShuttingDown, Message: "soon"}).Status()
}

// evaluateFunc serves Evaluate.
type evaluateFunc func(grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error

type service struct {
	echo
	evaluate evaluateFunc
}

func (s service) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return s.evaluate(stream)
}

// serve runs the echo on a socket and returns its address.
func serve(t testing.TB) string {
	t.Helper()
	return serveWith(t, echo{}.Evaluate)
}

func serveWith(t testing.TB, evaluate evaluateFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(wire.ServerOptions()...)
	pb.RegisterSecureNetsServer(s, service{evaluate: evaluate})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return "unix:" + path
}

func dial(t testing.TB, addr string) pb.SecureNetsClient {
	t.Helper()
	cc, err := wire.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewSecureNetsClient(cc)
}

// TestStream sends vectors of many sizes through a server and back, many at a
// time, each released once.
func TestStream(t *testing.T) {
	client := dial(t, serve(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := ring.Q4()
	sizes := []int{0, 1, 255, 256, 300, 4095, 4096, 5000, 16384, 100_001, wire.MaxPayload / 4}

	var streams sync.WaitGroup
	for range 2 {
		streams.Go(func() {
			stream, err := client.Evaluate(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			want := make([][]uint32, len(sizes))
			released := make(chan int, 2*len(sizes)) // room for words that are released twice
			for i, n := range sizes {
				want[i] = randomWords(r, n)
			}
			var send sync.WaitGroup
			send.Go(func() {
				for i, v := range want {
					req := wire.Request{ID: uint64(i), Model: []byte("m"), Rows: uint32(len(v)),
						Words: wire.EncodeWords(r, v, func() { released <- i })}
					if err := stream.SendMsg(&req); err != nil {
						t.Error(err)
					}
					req.Free()
				}
				if err := stream.CloseSend(); err != nil {
					t.Error(err)
				}
			})
			for i, v := range want {
				var resp wire.Response
				if err := stream.RecvMsg(&resp); err != nil {
					t.Error(err)
					return
				}
				got := make([]uint32, len(v))
				if err := wire.DecodeWords(r, got, resp.Words); err != nil || !slices.Equal(got, v) {
					t.Errorf("%d words came back otherwise: %v", len(v), err)
				}
				if resp.ID != uint64(i) || resp.ComputeNS != uint64(len(v)) || resp.Err != nil {
					t.Errorf("request %d of %d words: response %d, %d ns, error %v", i, len(v), resp.ID, resp.ComputeNS, resp.Err)
				}
				resp.Free()
			}
			send.Wait()
			if err := stream.RecvMsg(new(wire.Response)); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
			count := make([]int, len(sizes))
			for range len(sizes) - 1 { // gRPC may forget one (see EncodeWords), and release others late
				select {
				case i := <-released:
					count[i]++
				case <-ctx.Done():
				}
			}
			for len(released) > 0 {
				count[<-released]++
			}
			if slices.Max(count) > 1 || ctx.Err() != nil {
				t.Errorf("released %v times", count)
			}
		})
	}
	streams.Wait()
}

// TestStockClient: a client that uses only the generated code.
func TestStockClient(t *testing.T) {
	path, err := wire.SocketPath(serve(t))
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewSecureNetsClient(cc).Evaluate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]byte, 100_000)
	words[99_999] = 7
	for _, req := range []*pb.EvaluateRequest{
		{Id: 5, Rows: 6, Input: &pb.EvaluateRequest_Words{Words: words}},
		{Id: 6, Input: &pb.EvaluateRequest_Seed{Seed: &pb.Seed{First: 1}}},
	} {
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := stream.Recv()
	if err != nil || resp.Id != 5 || resp.ComputeNs != 6 || !reflect.DeepEqual(resp.GetWords(), words) {
		t.Errorf("response %d: %v", resp.GetId(), err)
	}
	resp, err = stream.Recv()
	if err != nil || resp.Id != 6 || resp.GetError().GetReason() != "BAD_REQUEST" {
		t.Errorf("response %v: %v", resp, err)
	}
}

// TestUnreadMessages: a message that a server has announced but not read stays with the client.
func TestUnreadMessages(t *testing.T) {
	read := make(chan struct{})
	client := dial(t, serveWith(t, func(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		receiver, err := wire.NewReceiver(stream.Context())
		if err != nil {
			return err
		}
		for {
			size, err := receiver.Next()
			if err == io.EOF {
				return nil
			}
			<-read
			var req wire.Request
			if err := errors.Join(err, receiver.Read(&req)); err != nil {
				return err
			}
			req.Free()
			if err := stream.SendMsg(&wire.Response{ID: uint64(size)}); err != nil {
				return err
			}
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := client.Evaluate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const n = 1 << 20
	released := make(chan struct{}, 1)
	req := wire.Request{Words: wire.EncodeWords(ring.Q4(), make([]uint32, n/4), func() { released <- struct{}{} })}
	if err := stream.SendMsg(&req); err != nil {
		t.Fatal(err)
	}
	req.Free()
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-released:
		t.Error("a server that does not read has the message")
	case <-time.After(50 * time.Millisecond):
	}
	close(read)
	resp := wire.Response{}
	if err := stream.RecvMsg(&resp); err != nil || resp.ID < n || resp.ID > n+100 {
		t.Errorf("message of %d bytes, %v", resp.ID, err)
	}
	if err := stream.RecvMsg(&resp); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestNoStream(t *testing.T) {
	if _, err := wire.NewReceiver(t.Context()); !errors.Is(err, wire.ErrStream) {
		t.Errorf("error %v", err)
	}
}

func TestStatusOverTheWire(t *testing.T) {
	client := dial(t, serve(t))
	_, err := client.Info(t.Context(), &pb.InfoRequest{})
	var e *wire.Error
	if !errors.As(wire.FromStatus(err), &e) || e.Reason != wire.ReasonShuttingDown || e.Code != codes.Unavailable {
		t.Errorf("error %v", err)
	}
}

// TestTooLarge: neither side sends or accepts more than MaxMessage, and words that were
// not sent are released too.
func TestTooLarge(t *testing.T) {
	client := dial(t, serve(t))
	stream, err := client.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	released := 0
	req := wire.Request{Words: wire.EncodeWords(ring.Q4(), make([]uint32, wire.MaxMessage/4), func() { released++ })}
	if err := stream.SendMsg(&req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v", err)
	}
	req.Free()
	if released != 1 {
		t.Errorf("released %d times", released)
	}
	stream, err = client.Evaluate(t.Context(), grpc.MaxCallSendMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.EvaluateRequest{Input: &pb.EvaluateRequest_Words{Words: make([]byte, wire.MaxMessage)}}); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v", err)
	}
}

// BenchmarkEcho is 4 MiB up and the same down; MB/s counts one direction. It
// compares our messages with the generated ones.
func BenchmarkEcho(b *testing.B) {
	r := ring.Q4()
	v, got := randomWords(r, 1<<20), make([]uint32, 1<<20)
	run := func(name string, echo func(stream grpc.BidiStreamingClient[pb.EvaluateRequest, pb.EvaluateResponse]) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(4 * len(v)))
			stream, err := dial(b, serve(b)).Evaluate(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := echo(stream); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("wire", func(stream grpc.BidiStreamingClient[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		req := wire.Request{Words: wire.EncodeWords(r, v, nil)}
		if err := stream.SendMsg(&req); err != nil {
			return err
		}
		req.Free()
		var resp wire.Response
		if err := stream.RecvMsg(&resp); err != nil {
			return err
		}
		defer resp.Free()
		return wire.DecodeWords(r, got, resp.Words)
	})
	run("protobuf", func(stream grpc.BidiStreamingClient[pb.EvaluateRequest, pb.EvaluateResponse]) error {
		b := make([]byte, 4*len(v))
		r.PutWords(b, v)
		if err := stream.Send(&pb.EvaluateRequest{Input: &pb.EvaluateRequest_Words{Words: b}}); err != nil {
			return err
		}
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		return r.Words(got, resp.GetWords())
	})
}
