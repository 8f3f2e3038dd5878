package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// target is what requests ask for: rows of an operator of a model.
type target struct {
	digest sealed.Digest
	layer  int
	op     plan.Op
	x      ring.Matrix
	want   []uint32 // the answer; nil: it is not compared
}

// traffic is that of one caller, over a connection and stream of its own.
type traffic struct {
	targets []target // in turn
	rate    float64  // requests a second, at random times (Poisson); 0: closed loop
	depth   int      // of a closed loop: requests without an answer
}

// answer is one to a request.
type answer struct {
	caller         int
	of             int       // its target, of the caller's
	due            time.Time // when the request was to be sent
	done           time.Time
	queue, compute time.Duration // by the daemon's account
	refused        bool          // OVERLOADED, with a time to come back
}

// errWrong reports a daemon that multiplies wrongly.
var errWrong = errors.New("bench: a wrong answer")

// drive has callers ask a daemon on a unix socket until a time, and returns what was
// answered.
func drive(ctx context.Context, addr string, callers []traffic, until time.Time) ([]answer, error) {
	return dialer(func() (*grpc.ClientConn, error) { return wire.Dial(addr) }).drive(ctx, callers, until)
}

// dialer connects to the daemon that is asked.
type dialer func() (*grpc.ClientConn, error)

func (d dialer) drive(ctx context.Context, callers []traffic, until time.Time) ([]answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  []answer
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

func (t traffic) drive(ctx context.Context, dial dialer, caller int, until time.Time) ([]answer, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.SecureNets_Evaluate_FullMethodName)
	if err != nil {
		return nil, err
	}
	c := &client{traffic: t, stream: stream, caller: caller, until: until}
	if t.rate == 0 {
		return c.closed()
	}
	return c.open(rand.New(rand.NewPCG(6, uint64(caller))))
}

// client is one caller at work.
type client struct {
	traffic
	stream grpc.ClientStream
	caller int
	until  time.Time
	y      []uint32

	mu  sync.Mutex
	due []time.Time // of requests, by id
}

// send sends a request that was due at a time. A stream that has ended says why when
// it is received from.
func (c *client) send(due time.Time) error {
	c.mu.Lock()
	id := len(c.due)
	c.due = append(c.due, due)
	c.mu.Unlock()
	t := c.targets[id%len(c.targets)]
	req := wire.Request{ID: uint64(id), Model: t.digest[:], Layer: uint32(t.layer), Rows: uint32(t.x.Rows), Words: wire.EncodeWords(ring.Q4(), t.x.Data, nil)}
	err := c.stream.SendMsg(&req)
	req.Free()
	if err == io.EOF {
		err = nil
	}
	return err
}

// receive returns the next answer, io.EOF after the last.
func (c *client) receive() (answer, error) {
	var resp wire.Response
	if err := c.stream.RecvMsg(&resp); err != nil {
		return answer{}, wire.FromStatus(err)
	}
	defer resp.Free()
	c.mu.Lock()
	if resp.ID >= uint64(len(c.due)) {
		c.mu.Unlock()
		return answer{}, errWrong
	}
	a := answer{caller: c.caller, of: int(resp.ID % uint64(len(c.targets))), due: c.due[resp.ID], queue: time.Duration(resp.QueueNS), compute: time.Duration(resp.ComputeNS)}
	c.mu.Unlock()
	if resp.Err != nil {
		var e *wire.Error
		if err := wire.FromProto(resp.Err); !errors.As(err, &e) || e.Reason != wire.ReasonOverloaded || e.RetryAfter == 0 {
			return answer{}, err
		}
		a.refused = true
	} else {
		t := c.targets[a.of]
		c.y = slices.Grow(c.y[:0], t.x.Rows*t.op.OutLen())[:t.x.Rows*t.op.OutLen()]
		if err := wire.DecodeWords(ring.Q4(), c.y, resp.Words); err != nil {
			return answer{}, err
		}
		if t.want != nil && !slices.Equal(c.y, t.want) {
			return answer{}, fmt.Errorf("%w of %v", errWrong, t.op)
		}
	}
	a.done = time.Now()
	return a, nil
}

// closed asks again at every answer.
func (c *client) closed() (all []answer, err error) {
	for range c.depth {
		if err := c.send(time.Now()); err != nil {
			return nil, err
		}
	}
	for open := c.depth; open > 0; open-- {
		a, err := c.receive()
		if err != nil {
			return nil, err
		}
		all = append(all, a)
		if a.done.Before(c.until) {
			if err := c.send(a.done); err != nil {
				return nil, err
			}
			open++
		}
	}
	return all, c.stream.CloseSend()
}

// open asks at times that do not depend on the answers.
func (c *client) open(rng *rand.Rand) (all []answer, err error) {
	sent := make(chan error, 1)
	go func() {
		var err error
		due := time.Now()
		for err == nil {
			due = due.Add(time.Duration(rng.ExpFloat64() / c.rate * float64(time.Second)))
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

// randomModel returns a sealed model with weights that are drawn at random.
func randomModel(seed uint64, ops ...plan.Op) sealed.Model {
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

// randomRows returns rows of an operator's input.
func randomRows(op plan.Op, rows int) ring.Matrix {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(5, 0))
	x := ring.NewMatrix(rows, op.InLen())
	for i := range x.Data {
		x.Data[i] = rng.Uint32N(r.Modulus())
	}
	return x
}
