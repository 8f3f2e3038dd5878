// Package traffic is a load generator: callers ask a daemon for products, in closed loops
// or at random times, and the latency of every answer is measured. It neither masks nor
// checks.
package traffic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Target is what requests ask for: rows of an operator of a model.
type Target struct {
	Digest sealed.Digest
	Layer  int
	Op     plan.Op
	X      ring.Matrix
	Want   []uint32 // the answer; nil: it is not compared
	Every  int      // one of so many answers is; 0: each
}

// Caller is who asks, over a connection and stream of its own.
type Caller struct {
	Targets []Target // in turn
	Rate    float64  // requests a second, at random times (Poisson); 0: closed loop
	Depth   int      // of a closed loop: requests without an answer
	By      Way
}

// Way is how words come to a daemon.
type Way int

const (
	Direct Way = iota // in messages of a direct stream
	Shared            // in memory that a direct stream shares, as far as it has room
	GRPC              // in messages of gRPC
)

// memory returns the bytes that a closed loop shares, if it does: room for all that it
// has open.
func (t Caller) memory() int64 {
	if t.By != Shared {
		return 0
	}
	most := 0
	for _, of := range t.Targets {
		up, down := ring.Q4().WordBytes()*len(of.X.Data), ring.Q4().WordBytes()*of.X.Rows*of.Op.OutLen()
		most = max(most, up+down+2*lane.Align)
	}
	return (int64(t.Depth*most) + lane.Grain - 1) / lane.Grain * lane.Grain
}

// Answer is one to a request.
type Answer struct {
	Caller         int
	Of             int       // its target, of the caller's
	Due            time.Time // when the request was to be sent
	Done           time.Time
	Queue, Compute time.Duration // by the daemon's account
	Refused        bool          // OVERLOADED, with a time to come back
}

// errWrong reports a daemon that multiplies wrongly.
var errWrong = errors.New("bench: a wrong answer")

// errNotShared reports a daemon that takes no memory.
var errNotShared = errors.New("bench: the daemon shares no memory")

// Dialer opens streams to the daemon that is asked.
type Dialer struct {
	direct func(ctx context.Context, memory int64) (*wire.Direct, error)
	grpc   func() (*grpc.ClientConn, error)
}

// Unix connects to a daemon on a unix socket.
func Unix(addr string) Dialer {
	return Dialer{
		func(ctx context.Context, memory int64) (*wire.Direct, error) {
			return wire.DialDirect(ctx, addr, memory)
		},
		func() (*grpc.ClientConn, error) { return wire.Dial(addr) },
	}
}

// TLS connects to a daemon elsewhere, which shares no memory.
func TLS(addr string, config *tls.Config) Dialer {
	return Dialer{
		func(ctx context.Context, _ int64) (*wire.Direct, error) { return wire.DialDirectTLS(ctx, addr, config) },
		func() (*grpc.ClientConn, error) { return wire.DialTLS(addr, config) },
	}
}

// open opens a stream for a caller, with a connection of its own.
func (d Dialer) open(ctx context.Context, t Caller) (stream wire.Stream, slots *lane.Slots, end func(), err error) {
	if t.By != GRPC {
		direct, err := d.direct(ctx, t.memory())
		if err != nil {
			return nil, nil, nil, fmt.Errorf("bench: a direct stream: %w", err)
		}
		if t.By == Shared && direct.Slots == nil {
			direct.Close()
			return nil, nil, nil, fmt.Errorf("%w: %v", errNotShared, direct.Verdict)
		}
		return direct, direct.Slots, direct.Close, nil
	}
	conn, err := d.grpc()
	if err != nil {
		return nil, nil, nil, err
	}
	stream, err = onto(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, nil, nil, err
	}
	return stream, nil, func() { conn.Close() }, nil
}

// onto opens a stream of gRPC's on a connection.
func onto(ctx context.Context, conn *grpc.ClientConn) (wire.Stream, error) {
	return conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.SecureNets_Evaluate_FullMethodName)
}

// Drive has callers ask until a time, and returns what was answered.
func (d Dialer) Drive(ctx context.Context, callers []Caller, until time.Time) ([]Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  []Answer
		errs []error
	)
	for i, t := range callers {
		wg.Go(func() {
			got, err := t.drive(ctx, d, i, until)
			if err != nil {
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, got...), append(errs, err)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, nil
}

func (t Caller) drive(ctx context.Context, dial Dialer, caller int, until time.Time) ([]Answer, error) {
	stream, slots, end, err := dial.open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer end()
	c := &client{Caller: t, stream: stream, index: caller, until: until, memory: slots, slots: map[uint64][2]lane.Slot{}}
	if t.Rate == 0 {
		return c.closed()
	}
	return c.open(rand.New(rand.NewPCG(6, uint64(caller))))
}

// client is one caller at work.
type client struct {
	Caller
	stream wire.Stream
	index  int
	until  time.Time
	y      []uint32
	memory *lane.Slots // nil: words are in messages

	mu    sync.Mutex
	due   []time.Time             // of requests, by id
	slots map[uint64][2]lane.Slot // of requests without an answer: words and answer
}

// send sends a request that was due at a time. A stream that has ended says why when
// it is received from.
func (c *client) send(due time.Time) error {
	c.mu.Lock()
	id := len(c.due)
	c.due = append(c.due, due)
	c.mu.Unlock()
	t := c.Targets[id%len(c.Targets)]
	req := wire.Request{ID: uint64(id), Model: t.Digest[:], Layer: uint32(t.Layer), Rows: uint32(t.X.Rows)}
	if c.memory == nil || !c.share(t, &req) {
		req.Words = wire.EncodeWords(ring.Q4(), t.X.Data, nil)
	}
	err := c.stream.SendMsg(&req)
	req.Free()
	if err == io.EOF {
		err = nil
	}
	return err
}

// share puts a request's words in shared memory, and has its answer put there. Of one
// target there is room (see Caller.memory); of several there may be none, in pieces of
// other sizes.
func (c *client) share(t Target, req *wire.Request) bool {
	var parts [2]lane.Slot
	for i, words := range []int{len(t.X.Data), t.X.Rows * t.Op.OutLen()} {
		var ok bool
		if parts[i], ok = c.memory.Get(ring.Q4().WordBytes() * words); !ok {
			parts[0].Put()
			return false
		}
	}
	wire.PutWords(ring.Q4(), parts[0].Bytes, t.X.Data)
	span := func(s lane.Slot) *wire.Span {
		return &wire.Span{Offset: uint64(s.Offset), Length: uint64(len(s.Bytes))}
	}
	req.Shared, req.Answer = span(parts[0]), span(parts[1])
	c.mu.Lock()
	c.slots[req.ID] = parts
	c.mu.Unlock()
	return true
}

// receive returns the next answer, io.EOF after the last.
func (c *client) receive() (Answer, error) {
	var resp wire.Response
	if err := c.stream.RecvMsg(&resp); err != nil {
		return Answer{}, wire.FromStatus(err)
	}
	defer resp.Free()
	c.mu.Lock()
	if resp.ID >= uint64(len(c.due)) {
		c.mu.Unlock()
		return Answer{}, errWrong
	}
	a := Answer{Caller: c.index, Of: int(resp.ID % uint64(len(c.Targets))), Due: c.due[resp.ID], Queue: time.Duration(resp.QueueNS), Compute: time.Duration(resp.ComputeNS)}
	parts := c.slots[resp.ID]
	delete(c.slots, resp.ID)
	c.mu.Unlock()
	defer parts[0].Put()
	defer parts[1].Put()
	if resp.Err != nil {
		var e *wire.Error
		if err := wire.FromProto(resp.Err); !errors.As(err, &e) || e.Reason != wire.ReasonOverloaded || e.RetryAfter == 0 {
			return Answer{}, err
		}
		a.Refused = true
	} else {
		t := c.Targets[a.Of]
		c.y = slices.Grow(c.y[:0], t.X.Rows*t.Op.OutLen())[:t.X.Rows*t.Op.OutLen()]
		words := resp.Words
		if parts[1].Bytes != nil {
			if resp.Shared == nil {
				return Answer{}, errNotShared
			}
			words = mem.BufferSlice{mem.SliceBuffer(parts[1].Bytes)}
		}
		if err := wire.DecodeWords(ring.Q4(), c.y, words); err != nil {
			return Answer{}, err
		}
		if t.Want != nil && resp.ID%uint64(max(1, t.Every)) == 0 && !slices.Equal(c.y, t.Want) {
			return Answer{}, fmt.Errorf("%w of %v", errWrong, t.Op)
		}
	}
	a.Done = time.Now()
	return a, nil
}

// closed asks again at every answer.
func (c *client) closed() (all []Answer, err error) {
	for range c.Depth {
		if err := c.send(time.Now()); err != nil {
			return nil, err
		}
	}
	for open := c.Depth; open > 0; open-- {
		a, err := c.receive()
		if err != nil {
			return nil, err
		}
		all = append(all, a)
		if a.Done.Before(c.until) {
			if err := c.send(a.Done); err != nil {
				return nil, err
			}
			open++
		}
	}
	return all, c.stream.CloseSend()
}

// open asks at times that do not depend on the answers.
func (c *client) open(rng *rand.Rand) (all []Answer, err error) {
	sent := make(chan error, 1)
	go func() {
		var err error
		due := time.Now()
		for err == nil {
			due = due.Add(time.Duration(rng.ExpFloat64() / c.Rate * float64(time.Second)))
			if due.After(c.until) || time.Now().After(c.until) {
				break
			}
			time.Sleep(time.Until(due))
			err = c.send(due)
		}
		sent <- errors.Join(err, c.stream.CloseSend())
	}()
	for {
		a, err := c.receive()
		if err == io.EOF {
			return all, <-sent
		}
		if err != nil {
			return nil, err // with the stream's context, the sender ends
		}
		all = append(all, a)
	}
}

// Once asks for each target once, one after the other.
func Once(ctx context.Context, conn *grpc.ClientConn, targets []Target) error {
	stream, err := onto(ctx, conn)
	if err != nil {
		return err
	}
	c := &client{Caller: Caller{Targets: targets}, stream: stream}
	for range targets {
		if err := c.send(time.Now()); err != nil {
			return err
		}
		if _, err := c.receive(); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

// MNIST are the layers of mnist-cnn: products of unlike sizes.
var MNIST = []plan.Op{
	plan.Conv(plan.Conv2D{H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	plan.Conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	plan.Dense(512, 10),
}

// Upload sends a sealed model.
func Upload(ctx context.Context, conn *grpc.ClientConn, digest sealed.Digest, b []byte) error {
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

// Model returns a sealed model with weights that are drawn at random.
func Model(seed uint64, ops ...plan.Op) sealed.Model {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(4, seed))
	m := sealed.Model{Plan: plan.Plan{Ring: r, Ops: ops}}
	for _, op := range ops {
		w := ring.NewMatrix(op.Rows(), op.Terms())
		for i := range w.Data {
			w.Data[i] = rng.Uint32N(r.Modulus())
		}
		m.Weights = append(m.Weights, w)
	}
	return m
}

// Rows returns rows of an operator's input.
func Rows(op plan.Op, rows int) ring.Matrix {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(5, 0))
	x := ring.NewMatrix(rows, op.InLen())
	for i := range x.Data {
		x.Data[i] = rng.Uint32N(r.Modulus())
	}
	return x
}
