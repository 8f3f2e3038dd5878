package daemon_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 2 * time.Minute

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// running is a daemon that runs in the test's process, on a real socket.
type running struct {
	t       testing.TB
	cfg     config.Config
	backend kernels.Backend
	log     *logBuffer
	logged  int // bytes of the log before the daemon's last start
	stop    context.CancelFunc
	done    chan error
	secure  *tls.Config // of its caller; nil: the caller uses the unix socket
	cc      *grpc.ClientConn
}

// start runs a daemon until the test ends. A nil backend means the CPU backend.
func start(t testing.TB, backend kernels.Backend, change func(*config.Config)) *running {
	t.Helper()
	return startFor(t, nil, backend, change)
}

// startFor is start with a caller who connects by TLS, unless secure is nil.
func startFor(t testing.TB, secure *tls.Config, backend kernels.Backend, change func(*config.Config)) *running {
	t.Helper()
	if backend == nil {
		backend = cpu.New(cpu.Options{Threads: 2})
	}
	dir := t.TempDir()
	d := &running{t: t, backend: backend, cfg: config.Default(), log: new(logBuffer), secure: secure}
	d.cfg.Listen = "unix:" + filepath.Join(dir, "s")
	d.cfg.StateDir = filepath.Join(dir, "state")
	d.cfg.Threads = 2 // products at a time, on any machine
	if change != nil {
		change(&d.cfg)
	}
	d.run()
	t.Cleanup(func() {
		d.wait()
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *running) run() {
	d.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	d.logged = len(d.log.String())
	d.stop, d.done = stop, make(chan error, 1)
	log := slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	run := daemon.Run
	if d.cfg.Validate() != nil { // for a limit that is small enough for a test
		run = daemon.RunUnchecked
	}
	go func() { d.done <- run(ctx, d.cfg, log, d.backend) }()
	d.cc = d.connect()
	d.waitFor(healthpb.HealthCheckResponse_SERVING)
}

// wait stops the daemon, if it runs, and checks that it ends well.
func (d *running) wait() {
	d.t.Helper()
	if d.done == nil {
		return
	}
	d.stop()
	select {
	case err := <-d.done:
		if err != nil {
			d.t.Error(err)
		}
	case <-time.After(patience):
		d.t.Fatal("the daemon does not end")
	}
	d.done = nil
	d.cc.Close()
}

func (d *running) connect() *grpc.ClientConn {
	d.t.Helper()
	var cc *grpc.ClientConn
	var err error
	if d.secure != nil {
		cc, err = wire.DialTLS(d.tlsAddr(), d.secure)
	} else {
		cc, err = wire.Dial(d.cfg.Listen)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { cc.Close() })
	return cc
}

var tlsAddress = regexp.MustCompile(`msg=tls address=(\S+)`)

// tlsAddr returns where the daemon serves TLS.
func (d *running) tlsAddr() string {
	d.t.Helper()
	for ctx := d.ctx(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if found := tlsAddress.FindStringSubmatch(d.log.String()[d.logged:]); found != nil {
			return "tls:" + found[1]
		}
	}
	d.t.Fatal("the log does not say where")
	return ""
}

// connectCut returns a connection and a function that cuts it without gRPC's goodbye.
func (d *running) connectCut() (cc *grpc.ClientConn, cut func()) {
	d.t.Helper()
	conns := make(chan net.Conn, 10)
	cc, err := grpc.NewClient("passthrough:///localhost", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(d.cfg.Listen, "unix:"))
			if err == nil {
				conns <- c
			}
			return c, err
		}))...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { cc.Close() })
	return cc, func() { (<-conns).Close() }
}

func (d *running) ctx() context.Context {
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

func (d *running) waitFor(want healthpb.HealthCheckResponse_ServingStatus) {
	d.t.Helper()
	ctx := d.ctx()
	for {
		resp, err := healthpb.NewHealthClient(d.cc).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			d.t.Fatal(err)
		}
		if resp.Status == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// waitForLog waits until the log contains a text n times.
func (d *running) waitForLog(text string, n int) {
	d.t.Helper()
	for ctx := d.ctx(); strings.Count(d.log.String(), text) < n; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			d.t.Fatalf("the log does not say %q", text)
		}
	}
}

// waitForPart waits until so many bytes of an upload are stored, or more.
func (d *running) waitForPart(m *testModel, size int64) {
	d.t.Helper()
	for ctx := d.ctx(); ; time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(filepath.Join(d.cfg.StateDir, "callers", "*", m.digest.String()+".part"))
		if len(found) == 1 {
			if info, err := os.Stat(found[0]); err == nil && info.Size() >= size {
				return
			}
		}
		if ctx.Err() != nil {
			d.t.Fatal("the upload does not arrive")
		}
	}
}

// waitForFigure waits until a metric of the daemon has a value.
func (d *running) waitForFigure(want float64, name string, labels ...string) {
	d.t.Helper()
	for ctx := d.ctx(); ; time.Sleep(time.Millisecond) {
		got := d.scrape().value(name, labels...)
		if got == want {
			return
		}
		if ctx.Err() != nil {
			d.t.Fatalf("%s%q is %v, want %v", name, labels, got, want)
		}
	}
}

// waitForQueue waits until n requests are in the queue.
func (d *running) waitForQueue(requests int) {
	d.t.Helper()
	d.waitForFigure(float64(requests), "securenets_queue_depth")
}

func (d *running) client() pb.SecureNetsClient { return pb.NewSecureNetsClient(d.cc) }

// testModel is a sealed model and the weights to compare its products with.
type testModel struct {
	sealed.Model
	bytes  []byte
	digest sealed.Digest
}

func newModel(t testing.TB, r ring.Ring, ops ...plan.Op) *testModel {
	t.Helper()
	m := &testModel{Model: sealed.Model{Plan: plan.Plan{Ring: r, Ops: ops}}}
	for i, op := range ops {
		m.Weights = append(m.Weights, randomMatrix(r, op.Rows(), op.Terms(), uint64(i)))
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m.bytes, m.digest = b, sealed.Sum(b)
	return m
}

func randomMatrix(r ring.Ring, rows, cols int, seed uint64) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := range m.Data {
		m.Data[i] = rnd.Uint32N(r.Modulus())
	}
	return m
}

// smallModel has a convolution that uses every option, and a dense operator.
func smallModel(t testing.TB) *testModel {
	return newModel(t, ring.Q4(),
		plan.Conv(plan.Conv2D{H: 7, W: 6, C: 4, OutC: 6, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2, Top: 1, Left: 1, Bot: 2, Right: 0, Groups: 2}),
		plan.Dense(37, 11))
}

// send uploads part of a model on a stream of its own.
func send(ctx context.Context, cc *grpc.ClientConn, d sealed.Digest, size, offset int, parts ...[]byte) (*pb.UploadResponse, error) {
	stream, err := pb.NewSecureNetsClient(cc).Upload(ctx)
	if err != nil {
		return nil, err
	}
	req := &pb.UploadRequest{Digest: d[:], Size: uint64(size), Offset: uint64(offset)}
	for i := range max(1, len(parts)) {
		if i < len(parts) {
			req.Data = parts[i]
		}
		if err := stream.Send(req); err != nil {
			break // the response says why
		}
		req = &pb.UploadRequest{}
	}
	resp, err := stream.CloseAndRecv()
	return resp, wire.FromStatus(err)
}

// uploaded is the number of messages that push sends.
const uploaded = 3

func (d *running) push(m *testModel) {
	d.t.Helper()
	third := len(m.bytes) / 3
	resp, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), 0, m.bytes[:third], m.bytes[third:2*third], m.bytes[2*third:])
	if err != nil || !resp.Complete || resp.Received != uint64(len(m.bytes)) {
		d.t.Fatalf("upload: %v, %v", resp, err)
	}
}

// evaluation is an Evaluate stream.
type evaluation struct {
	t      testing.TB
	stream wire.Stream
}

func evaluate(t testing.TB, ctx context.Context, cc *grpc.ClientConn) *evaluation {
	t.Helper()
	stream, err := pb.NewSecureNetsClient(cc).Evaluate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &evaluation{t, stream}
}

// way is the kind of connection of an Evaluate stream.
type way string

const (
	byGRPC   way = "gRPC"
	byDirect way = "direct" // with words in messages
	byTLS    way = "TLS"    // direct
)

// eachWay runs a test once for each way.
func eachWay(t *testing.T, test func(t *testing.T, by way)) {
	for _, by := range []way{byGRPC, byDirect, byTLS} {
		t.Run(string(by), func(t *testing.T) { test(t, by) })
	}
}

// start runs a daemon whose caller can connect in this way.
func (by way) start(t testing.TB, backend kernels.Backend, change func(*config.Config)) *running {
	t.Helper()
	if by != byTLS {
		return start(t, backend, change)
	}
	ca, serve := withTLS(t)
	return startFor(t, callerOf(t, ca, tlstest.Leaf{CommonName: "alice"}), backend, func(c *config.Config) {
		serve(c)
		if change != nil {
			change(c)
		}
	})
}

// direct opens a direct stream over TLS that ends with ctx.
func (d *running) direct(ctx context.Context) (*evaluation, *wire.Direct) {
	d.t.Helper()
	s, err := wire.DialDirectTLS(ctx, d.tlsAddr(), d.secure)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(s.Close)
	return &evaluation{d.t, s}, s
}

// open opens a stream that ends with ctx.
func (by way) open(d *running, ctx context.Context) *evaluation {
	d.t.Helper()
	return by.openOn(d, ctx, d.cc)
}

// openOn is open with a given connection for gRPC streams.
func (by way) openOn(d *running, ctx context.Context, cc *grpc.ClientConn) *evaluation {
	d.t.Helper()
	switch by {
	case byDirect:
		return d.evaluateSharedUntil(ctx, lane.Grain).evaluation
	case byTLS:
		e, _ := d.direct(ctx)
		return e
	}
	return evaluate(d.t, ctx, cc)
}

// openApart is open with a connection that has no other stream. It returns functions that
// close the connection, in order or abruptly.
func (by way) openApart(d *running, ctx context.Context) (e *evaluation, leave, cut func()) {
	d.t.Helper()
	switch by {
	case byDirect:
		s := d.evaluateSharedUntil(ctx, lane.Grain)
		return s.evaluation, s.memory.Close, s.memory.Close
	case byTLS:
		e, s := d.direct(ctx)
		return e, s.Close, s.Close
	}
	cc, cut := d.connectCut()
	return evaluate(d.t, ctx, cc), func() { cc.Close() }, cut
}

func (e *evaluation) send(r *wire.Request) {
	e.t.Helper()
	err := e.stream.SendMsg(r)
	r.Free()
	if err != nil && err != io.EOF {
		e.t.Fatal(err)
	}
}

// receive returns the next answer, or the error that ended the stream.
func (e *evaluation) receive() (*wire.Response, error) {
	var r wire.Response
	if err := e.stream.RecvMsg(&r); err != nil {
		return nil, wire.FromStatus(err)
	}
	return &r, nil
}

// request returns a request for seeded rows of a layer.
func (m *testModel) request(layer, rows int, id uint64) *wire.Request {
	x := m.input(layer, rows, id)
	return &wire.Request{ID: id, Model: m.digest[:], Layer: uint32(layer), Rows: uint32(rows),
		Words: wire.EncodeWords(m.Plan.Ring, x.Data, nil)}
}

func (m *testModel) input(layer, rows int, id uint64) ring.Matrix {
	return randomMatrix(m.Plan.Ring, rows, m.Plan.Ops[layer].InLen(), id)
}

// product returns W x, one row for each row of x, by the definition of a layer.
func (m *testModel) product(layer int, x ring.Matrix) ring.Matrix {
	op, w := m.Plan.Ops[layer], m.Weights[layer]
	if op.Kind != plan.KindDense {
		return kernels.Direct(m.Plan.Ring, op, w, x)
	}
	y := ring.NewMatrix(x.Rows, op.OutLen())
	for i := range y.Rows {
		denseRow(y.Row(i), w, x.Row(i), uint64(m.Plan.Ring.Modulus()))
	}
	return y
}

// denseRow sets y = W x mod M. Large requests call it often, and it shares nothing, so the race
// detector may skip it.
//
//go:norace
func denseRow(y []uint32, w ring.Matrix, x []uint32, modulus uint64) {
	for o := range y {
		var sum uint64 // sum < 2^32, and each addend <= (2^32 - 1)^2
		for i, v := range w.Data[o*w.Cols : (o+1)*w.Cols] {
			sum = (sum + uint64(v)*uint64(x[i])) % modulus
		}
		y[o] = uint32(sum)
	}
}

// check compares an answer with the product of x, computed by definition.
func (m *testModel) check(t testing.TB, r *wire.Response, layer int, x ring.Matrix) {
	t.Helper()
	if r.Err != nil {
		t.Errorf("request %d: %v", r.ID, wire.FromProto(r.Err))
		return
	}
	op := m.Plan.Ops[layer]
	want := m.product(layer, x)
	got := make([]uint32, len(want.Data))
	if err := wire.DecodeWords(m.Plan.Ring, got, r.Words); err != nil || !slices.Equal(got, want.Data) {
		t.Errorf("request %d: wrong product of %d rows with %v: %v", r.ID, x.Rows, op, err)
	}
	r.Free()
}

// works checks on a stream of its own that a good request is answered rightly.
func (d *running) works(m *testModel) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	e := evaluate(d.t, ctx, d.cc)
	e.works(m)
	if err := e.stream.CloseSend(); err != nil {
		d.t.Error(err)
	}
	if _, err := e.receive(); err != io.EOF {
		d.t.Errorf("at the end: %v", err)
	}
}

func (e *evaluation) works(m *testModel) {
	e.t.Helper()
	for layer := range m.Plan.Ops {
		id := rand.Uint64()
		e.send(m.request(layer, 3, id))
		r, err := e.receive()
		if err != nil {
			e.t.Fatal(err)
		}
		if r.ID != id {
			e.t.Errorf("answer %d to request %d", r.ID, id)
		}
		m.check(e.t, r, layer, m.input(layer, 3, id))
	}
}

// expand returns the rows that a seed stands for.
func expand(r ring.Ring, key [32]byte, first uint64, rows, cols int) ring.Matrix {
	x := ring.NewMatrix(rows, cols)
	for i := range rows {
		prg.New(prg.Seed(key)).Fill(r, x.Row(i), first+uint64(i))
	}
	return x
}

// hooked is the cpu's backend with a hook around every product, from the time on
// that a test sets it.
type hooked struct {
	*cpu.Backend
	mu   sync.Mutex
	hook func(ctx context.Context) error
	load func(plan.Op) // before every load
}

func newHooked() *hooked { return &hooked{Backend: cpu.New(cpu.Options{Threads: 2})} }

func (h *hooked) set(hook func(ctx context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = hook
}

func (h *hooked) setLoad(load func(plan.Op)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.load = load
}

// hold makes every product send on begun, a channel with room for some, and then wait until
// resume is closed or has a value for it. When the test ends, nothing waits any more, so its
// daemon can end at once.
func (h *hooked) hold(t testing.TB, room int) (begun, resume chan struct{}) {
	begun, resume = make(chan struct{}, room), make(chan struct{})
	h.set(func(context.Context) error { return pass(t.Context(), begun, resume) })
	return begun, resume
}

// holdLoads is hold for loads.
func (h *hooked) holdLoads(t testing.TB, room int) (begun, resume chan struct{}) {
	begun, resume = make(chan struct{}, room), make(chan struct{})
	h.setLoad(func(plan.Op) { pass(t.Context(), begun, resume) })
	return begun, resume
}

// pass says that something has begun and waits until it may go on, or ctx ends.
func pass(ctx context.Context, begun chan<- struct{}, resume <-chan struct{}) error {
	select {
	case begun <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-resume:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (h *hooked) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	h.mu.Lock()
	load := h.load
	h.mu.Unlock()
	if load != nil {
		load(op)
	}
	p, err := h.Backend.Load(ctx, r, op, w)
	return &hookedProduct{p, h}, err
}

type hookedProduct struct {
	plan.Product
	h *hooked
}

func (p *hookedProduct) Bytes() int64 { return p.Product.(kernels.Sized).Bytes() }

func (p *hookedProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	p.h.mu.Lock()
	hook := p.h.hook
	p.h.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return err
		}
	}
	return p.Product.Evaluate(ctx, y, x)
}
