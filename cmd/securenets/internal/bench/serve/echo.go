package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// EchoOptions say how to measure what a daemon costs beside an echo.
type EchoOptions struct {
	measure.Options
	Threads int // of the daemon that compute, and of the bare kernel
	Callers int
	Rows    int // of a request
	// echo serves the frames elsewhere.
	echo func(ctx context.Context) (*echoProcess, error)
}

// EchoResult says what a daemon costs for requests of mnist-cnn's layers, in turn, beside
// the bare kernel and a process that answers the same requests with as many words and does
// nothing else. Times are processor time in microseconds of a request.
type EchoResult struct {
	CPU     string  `json:"cpu"`
	Threads int     `json:"threads"`
	Rows    int     `json:"rows"`
	Kernel  float64 `json:"kernel_us"`
	// What an echo takes by gRPC, and by direct streams.
	Echo       float64 `json:"echo_us"`
	EchoDirect float64 `json:"echo_direct_us"`
	// The daemon, by direct streams on the socket, with shared memory, and by gRPC.
	Socket EchoLoad `json:"socket"`
	Shared EchoLoad `json:"shared"`
	GRPC   EchoLoad `json:"grpc"`
}

// EchoLoad is a way that requests came, with what the daemon took over the kernel and an
// echo together: one of gRPC's, or one by direct streams.
type EchoLoad struct {
	Load       Row     `json:"load"`
	OverGRPC   float64 `json:"over_kernel_and_grpc_echo"`
	OverDirect float64 `json:"over_kernel_and_direct_echo"`

	overGRPC, overDirect [2]float64 // quartiles
}

// echoSeries are the rounds of an EchoLoad.
type echoSeries struct {
	rows                 []Row
	overGRPC, overDirect measure.Series
}

func (s *echoSeries) add(r Row, kernel, grpc, direct float64) {
	s.rows = append(s.rows, r)
	s.overGRPC, s.overDirect = append(s.overGRPC, r.Daemon/(kernel+grpc)), append(s.overDirect, r.Daemon/(kernel+direct))
}

func (s *echoSeries) load() EchoLoad {
	return EchoLoad{
		Load: medianRow(s.rows), OverGRPC: s.overGRPC.Median(), OverDirect: s.overDirect.Median(),
		overGRPC: s.overGRPC.Spread(), overDirect: s.overDirect.Spread(),
	}
}

// Echo loads a daemon of its own, the bare kernel and an echo in turn.
func Echo(ctx context.Context, o EchoOptions) (*EchoResult, error) {
	rounds := 5
	if o.Quick {
		rounds = 3
	}
	o.echo = echoElsewhere
	return o.measure(ctx, rounds, o.Each(quickBudget, fullBudget))
}

func (o EchoOptions) measure(ctx context.Context, rounds int, budget time.Duration) (_ *EchoResult, err error) {
	w, err := startWatched(ctx, o.Daemon, o.Threads, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	model := traffic.Model(3, traffic.MNIST...)
	first, err := w.store(ctx, model, o.Rows)
	if err != nil {
		return nil, err
	}
	backend, err := cpu.Open(cpu.Options{Threads: o.Threads})
	if err != nil {
		return nil, err
	}
	var layers []*served // each with the bare kernel of one
	defer func() {
		for _, l := range layers {
			err = errors.Join(err, l.product.Close())
		}
		err = errors.Join(err, backend.Close())
	}()
	var asked, echoed []traffic.Target
	for i, op := range model.Plan.Ops {
		p, err := backend.Load(ctx, model.Plan.Ring, op, model.Weights[i])
		if err != nil {
			return nil, err
		}
		layers = append(layers, &served{product: p, op: op, rows: o.Rows, budget: budget})
		t := traffic.Target{Digest: first.Digest, Layer: i, Op: op, X: traffic.Rows(op, o.Rows)}
		echoed = append(echoed, t)
		y := ring.NewMatrix(o.Rows, op.OutLen())
		if err := p.Evaluate(ctx, y, t.X); err != nil {
			return nil, err
		}
		t.Want = y.Data
		asked = append(asked, t)
	}
	echo, err := o.echo(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, echo.stop()) }()

	var kernels, byGRPC, direct measure.Series
	var socket, shared, stock echoSeries
	through := &served{daemon: w.Daemon, budget: budget}
	for round := range rounds {
		o.Progress("echo", round, rounds)
		kernel := 0.0
		for _, l := range layers {
			k, err := l.kernel(ctx, o.Callers)
			if err != nil {
				return nil, err
			}
			kernel += k / float64(len(layers))
		}
		var echoes [2]float64
		for i, way := range []traffic.Way{traffic.GRPC, traffic.Direct} {
			if echoes[i], err = echo.load(ctx, by(way, inTurn(o.Callers, echoed)), budget); err != nil {
				return nil, err
			}
		}
		kernels, byGRPC, direct = append(kernels, kernel), append(byGRPC, echoes[0]), append(direct, echoes[1])
		for _, way := range []struct {
			name string
			by   traffic.Way
			to   *echoSeries
		}{{loadClosed, traffic.Direct, &socket}, {loadShared, traffic.Shared, &shared}, {loadGRPC, traffic.GRPC, &stock}} {
			row, err := through.load(ctx, way.name, by(way.by, inTurn(o.Callers, asked)))
			if err != nil {
				return nil, err
			}
			way.to.add(row, kernel, echoes[0], echoes[1])
		}
	}
	return &EchoResult{
		CPU: measure.Processor(), Threads: o.Threads, Rows: o.Rows,
		Kernel: kernels.Median(), Echo: byGRPC.Median(), EchoDirect: direct.Median(),
		Socket: socket.load(), Shared: shared.load(), GRPC: stock.load(),
	}, nil
}

// inTurn returns callers who ask for several targets, each beginning with another one.
func inTurn(callers int, of []traffic.Target) []traffic.Caller {
	all := make([]traffic.Caller, callers)
	for i := range all {
		at := i % len(of)
		all[i] = traffic.Caller{Targets: append(append([]traffic.Target(nil), of[at:]...), of[:at]...), Depth: 1}
	}
	return all
}

// echoProcess answers as FramesCommand does.
type echoProcess struct {
	addr string
	cpu  func() (time.Duration, error) // of the process, so far
	stop func() error
}

// load returns the processor time of a request, once requests have come for a while.
func (e *echoProcess) load(ctx context.Context, callers []traffic.Caller, budget time.Duration) (float64, error) {
	return again(standstill, func() (float64, error) { return e.once(ctx, callers, budget) })
}

func (e *echoProcess) once(ctx context.Context, callers []traffic.Caller, budget time.Duration) (float64, error) {
	type reading struct {
		at  time.Time
		cpu time.Duration
		err error
	}
	begin := time.Now().Add(budget / 4)
	end := begin.Add(budget)
	readings := make(chan reading, 2)
	go func() {
		for _, at := range []time.Time{begin, end} {
			time.Sleep(time.Until(at))
			cpu, err := e.cpu()
			readings <- reading{time.Now(), cpu, err}
		}
	}()
	answers, err := traffic.Unix(e.addr).Drive(ctx, callers, end.Add(budget/20))
	from, to := <-readings, <-readings
	if err := errors.Join(err, from.err, to.err); err != nil {
		return 0, err
	}
	n := 0
	for _, a := range answers {
		if !a.Done.Before(from.at) && !a.Done.After(to.at) {
			n++
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("%w in %v: an echo", errNoAnswer, budget)
	}
	return measure.Micros(to.cpu-from.cpu) / float64(n), nil
}

// FramesCommand is the name of the hidden command that answers frames, with an address.
const FramesCommand = "frames"

// echoElsewhere has another process of this program answer.
func echoElsewhere(ctx context.Context) (*echoProcess, error) {
	p, err := peer.Start(ctx, FramesCommand)
	if err != nil {
		return nil, err
	}
	return &echoProcess{addr: p.Addr, cpu: func() (time.Duration, error) { return cputime.Of(p.PID) }, stop: p.Stop}, nil
}

// Frames is what FramesCommand does: it answers frames until ctx ends.
func Frames(ctx context.Context, l net.Listener) error {
	f := frames{ops: traffic.MNIST}
	greeter := wire.NewGreeter(ctx, nil, func(stream *wire.DirectStream) error { return f.serve(stream) })
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.Creds(greeter))...)
	pb.RegisterSecureNetsServer(server, f)
	defer context.AfterFunc(ctx, server.Stop)()
	err := server.Serve(l)
	greeter.Wait()
	return err
}

// frames answers a request for rows of an operator with as many words as its product has,
// and looks at none.
type frames struct {
	pb.UnimplementedSecureNetsServer
	ops []plan.Op
}

func (f frames) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return f.serve(stream)
}

// serve serves a stream of gRPC's, or a direct one.
func (f frames) serve(stream wire.ServerStream) error {
	answers := make([][]uint32, len(f.ops)) // zeros, which nobody changes
	for {
		r := new(wire.Request)
		if err := stream.RecvMsg(r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if int(r.Layer) >= len(f.ops) {
			return errors.New("bench: no such layer")
		}
		n := int(r.Rows) * f.ops[r.Layer].OutLen()
		r.Free()
		if len(answers[r.Layer]) < n {
			answers[r.Layer] = make([]uint32, n)
		}
		resp := &wire.Response{ID: r.ID, Words: wire.EncodeWords(ring.Q4(), answers[r.Layer][:n], nil)}
		err := stream.SendMsg(resp)
		resp.Free()
		if err != nil {
			return err
		}
	}
}

// CSV writes the loads.
func (r *EchoResult) CSV(w io.Writer) error {
	return render.CSV(w, columns, []Row{r.Socket.Load, r.Shared.Load, r.GRPC.Load})
}

// Table writes the figures for people.
func (r *EchoResult) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprint(t, "\tCPU per request\trequests per second\tover kernel and gRPC echo\tover kernel and direct echo\n")
	row := func(name string, l EchoLoad) {
		fmt.Fprintf(t, "daemon, %s\t%.1f us\t%.0f\t%.2f (%.2f-%.2f)\t%.2f (%.2f-%.2f)\n", name, l.Load.Daemon, l.Load.Goodput,
			l.OverGRPC, l.overGRPC[0], l.overGRPC[1], l.OverDirect, l.overDirect[0], l.overDirect[1])
	}
	row("gRPC", r.GRPC)
	row("direct, socket", r.Socket)
	row("direct, shared memory", r.Shared)
	fmt.Fprintf(t, "bare kernel\t%.1f us\n", r.Kernel)
	fmt.Fprintf(t, "bare echo of the same frames, gRPC\t%.1f us\n", r.Echo)
	fmt.Fprintf(t, "bare echo of the same frames, direct\t%.1f us\n", r.EchoDirect)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
Requests have %d row(s) for mnist-cnn's three layers in turn, and come from %d callers; answers are compared
with the product. The bare kernel computes products of as many rows as all callers ask for at a time, on %d
thread(s). The echo is another process, which answers with as many words and looks at none. Direct streams
are how hosts ask, with shared memory where the daemon is on their machine; stock clients use gRPC.
Each figure is the CPU time of that process: medians over rounds, in which all take turns.
`, r.Rows, r.Socket.Load.Callers, r.Threads)
	return err
}
