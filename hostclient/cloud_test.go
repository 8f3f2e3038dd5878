package hostclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// cloud is a whole cloud in this process: small, honest until told otherwise.
type cloud struct {
	pb.UnimplementedSecureNetsServer
	addr   string
	dir    string
	server *grpc.Server
	kernel *cpu.Backend

	life    sync.Mutex // of one start or stop at a time
	directs *wire.Greeter
	cut     context.CancelFunc // of direct streams
	mu      sync.Mutex
	models  map[sealed.Digest]*held
	partial map[sealed.Digest][]byte
	late    [][]byte          // parts of an upload, each of which arrives once a host has asked how much is there
	answer  func(*call) error // how calls are answered; nil: honestly
	version string            // that it says it has
	seen    []seen            // what the cloud was sent

	verdict atomic.Uint64 // on memory that is offered
	secure  *tls.Config   // it serves TLS alone; nil: a unix socket
	old     bool          // it knows nothing of direct streams, from its next start on
	streams atomic.Int64  // direct ones, so far

	requests atomic.Int64
	shared   atomic.Int64 // of them, whose words and answers are in shared memory
	uploaded atomic.Int64 // bytes
}

// responder is a stream of gRPC's, or a direct one.
type responder interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// directStream is a direct stream on which a test may send, too.
type directStream struct {
	*wire.DirectStream
	sending sync.Mutex
}

func (d *directStream) SendMsg(m any) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	return d.DirectStream.SendMsg(m)
}

// regionOf returns the memory of a stream, nil for none.
func regionOf(stream responder) *lane.Region {
	if d, ok := stream.(*directStream); ok {
		return d.Region()
	}
	return nil
}

// held is a loaded model.
type held struct {
	size     int
	plan     plan.Plan
	products []plan.Product
}

func (h *held) close() {
	for _, p := range h.products {
		p.Close()
	}
}

// seen is one request as the cloud sees it.
type seen struct {
	layer uint32
	words ring.Matrix // sent, or expanded
	seed  *pb.Seed    // where it was one
}

// call is one request and its right answer.
type call struct {
	*cloud
	stream responder
	req    *wire.Request
	ring   ring.Ring
	y      ring.Matrix
}

// reply sends words as the answer to a request, in shared memory where that has room for
// them.
func (c *call) reply(id uint64, words []uint32) error {
	resp := &wire.Response{ID: id}
	if to := c.req.Answer; to != nil && int(to.Length) == len(words)*c.ring.WordBytes() {
		wire.PutWords(c.ring, c.memory(to), words)
		resp.Shared = to
	} else {
		resp.Words = wire.EncodeWords(c.ring, words, nil)
	}
	defer resp.Free()
	return c.stream.SendMsg(resp)
}

// memory returns a part of the memory that the connection shares.
func (c *call) memory(s *wire.Span) []byte {
	b, ok := regionOf(c.stream).Bytes(s.Offset, s.Length)
	if !ok {
		panic("a part of shared memory that there is not")
	}
	return b
}

func (c *call) honest() error { return c.reply(c.req.ID, c.y.Data) }

// refuse sends an error as the answer.
func (c *call) refuse(e *wire.Error) error {
	return c.stream.SendMsg(&wire.Response{ID: c.req.ID, Err: e.Proto()})
}

// startCloud starts a cloud on a socket of its own.
func startCloud() (*cloud, error) {
	dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
	if err != nil {
		return nil, err
	}
	c := &cloud{
		dir:     dir,
		addr:    "unix:" + filepath.Join(dir, "s"),
		kernel:  cpu.New(cpu.Options{}),
		version: "test",
		models:  map[sealed.Digest]*held{},
		partial: map[sealed.Digest][]byte{},
	}
	return c, c.start()
}

// start serves, again after stop.
func (c *cloud) start() error {
	c.life.Lock()
	defer c.life.Unlock()
	network, at := "unix", strings.TrimPrefix(c.addr, "unix:")
	if c.secure != nil {
		network, at = "tcp", strings.TrimPrefix(c.addr, "tls:")
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return err
	}
	if c.secure != nil {
		c.addr = "tls:" + l.Addr().String()
	}
	var ctx context.Context
	ctx, c.cut = context.WithCancel(context.Background())
	c.directs = wire.NewGreeter(ctx, c.secure, func(s *wire.DirectStream) error {
		c.streams.Add(1)
		return c.serve(&directStream{DirectStream: s})
	})
	c.directs.Terms.Admit = func(int64) lane.Verdict { return lane.Verdict(c.verdict.Load()) }
	var creds credentials.TransportCredentials = c.directs
	switch {
	case c.old && c.secure != nil:
		secure := c.secure.Clone()
		secure.NextProtos = nil
		creds = credentials.NewTLS(secure)
	case c.old:
		creds = insecure.NewCredentials()
	}
	c.server = grpc.NewServer(append(wire.ServerOptions(), grpc.Creds(creds), grpc.WaitForHandlers(true))...)
	pb.RegisterSecureNetsServer(c.server, c)
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(c.server, h)
	go c.server.Serve(l)
	return nil
}

func (c *cloud) stop() {
	c.life.Lock()
	defer c.life.Unlock()
	c.server.Stop()
	c.cut()
	c.directs.Wait()
}

func (c *cloud) close() error {
	c.stop()
	for _, m := range c.models {
		m.close()
	}
	return errors.Join(c.kernel.Close(), os.RemoveAll(c.dir))
}

// behave sets how calls are answered from now on; nil: honestly.
func (c *cloud) behave(answer func(*call) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// take returns what the cloud was sent since the last take.
func (c *cloud) take() []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen
	c.seen = nil
	return s
}

// waitAsked waits until the cloud has read a request that no take has returned.
func (c *cloud) waitAsked(ctx context.Context) error {
	for {
		c.mu.Lock()
		n := len(c.seen)
		c.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *cloud) Upload(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	digest := sealed.Digest(first.Digest)
	c.mu.Lock()
	defer c.mu.Unlock()
	asks := true // how much is there
	for req := first; ; {
		if len(req.Data) > 0 && asks {
			if asks = false; first.Offset != uint64(len(c.partial[digest])) {
				return (&wire.Error{Code: codes.FailedPrecondition, Reason: wire.ReasonBadOffset}).Status()
			}
		}
		c.partial[digest] = append(c.partial[digest], req.Data...)
		c.uploaded.Add(int64(len(req.Data)))
		if req, err = stream.Recv(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	b := c.partial[digest]
	resp := &pb.UploadResponse{Received: uint64(len(b))}
	if asks && len(c.late) > 0 {
		c.partial[digest] = append(b, c.late[0]...)
		c.late = c.late[1:]
	}
	if uint64(len(b)) == first.Size {
		if err := c.load(digest, b); err != nil {
			return (&wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadModel, Message: err.Error()}).Status()
		}
		resp.Complete = true
	}
	return stream.SendAndClose(resp)
}

func (c *cloud) load(digest sealed.Digest, b []byte) error {
	if c.models[digest] != nil {
		return nil
	}
	if sealed.Sum(b) != digest {
		return errors.New("another digest")
	}
	m, err := sealed.Parse(b)
	if err != nil {
		return err
	}
	h := &held{size: len(b), plan: m.Plan}
	for i, op := range m.Plan.Ops {
		p, err := c.kernel.Load(context.Background(), m.Plan.Ring, op, m.Weights[i])
		if err != nil {
			return err
		}
		h.products = append(h.products, p)
	}
	c.models[digest] = h
	return nil
}

func (c *cloud) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return c.serve(stream)
}

// serve evaluates the requests of a stream.
func (c *cloud) serve(stream responder) error {
	for {
		req := new(wire.Request)
		if err := stream.RecvMsg(req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.requests.Add(1)
		one, err := c.evaluate(stream, req)
		req.Free()
		if err != nil {
			return err
		}
		c.mu.Lock()
		answer := c.answer
		c.mu.Unlock()
		if answer == nil {
			answer = (*call).honest
		}
		if err := answer(one); err != nil {
			return err
		}
	}
}

func (c *cloud) evaluate(stream responder, req *wire.Request) (*call, error) {
	c.mu.Lock()
	m := c.models[sealed.Digest(req.Model)]
	c.mu.Unlock()
	if m == nil {
		return nil, (&wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "no such model"}).Status()
	}
	op := m.plan.Ops[req.Layer]
	x := ring.NewMatrix(int(req.Rows), op.InLen())
	if req.Seed != nil {
		expand := prg.New(prg.Seed(req.Seed.Key))
		for i := range x.Rows {
			expand.Fill(m.plan.Ring, x.Row(i), req.Seed.First+uint64(i))
		}
	} else {
		words := req.Words
		if req.Shared != nil {
			words = mem.BufferSlice{mem.SliceBuffer((&call{stream: stream}).memory(req.Shared))}
		}
		if err := wire.DecodeWords(m.plan.Ring, x.Data, words); err != nil {
			return nil, err
		}
	}
	if req.Answer != nil && (req.Shared != nil || req.Seed != nil) {
		c.shared.Add(1)
	}
	c.mu.Lock()
	c.seen = append(c.seen, seen{req.Layer, x, req.Seed})
	c.mu.Unlock()
	y := ring.NewMatrix(x.Rows, op.OutLen())
	if err := m.products[req.Layer].Evaluate(stream.Context(), y, x); err != nil {
		return nil, err
	}
	return &call{cloud: c, stream: stream, req: req, ring: m.plan.Ring, y: y}, nil
}

func (c *cloud) List(context.Context, *pb.ListRequest) (*pb.ListResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := new(pb.ListResponse)
	for d, m := range c.models {
		resp.Models = append(resp.Models, &pb.Model{Digest: d[:], Size: uint64(m.size), Layers: uint32(len(m.plan.Ops))})
	}
	slices.SortFunc(resp.Models, func(a, b *pb.Model) int { return slices.Compare(a.Digest, b.Digest) })
	return resp, nil
}

func (c *cloud) Remove(_ context.Context, req *pb.RemoveRequest) (*pb.RemoveResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := sealed.Digest(req.Digest)
	if c.models[d] == nil {
		return nil, (&wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: d.String()}).Status()
	}
	c.models[d].close()
	delete(c.models, d)
	delete(c.partial, d)
	return &pb.RemoveResponse{}, nil
}

func (c *cloud) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	return &pb.InfoResponse{Version: c.version, Backend: "cpu", MaxMessageBytes: wire.MaxMessage}, nil
}
