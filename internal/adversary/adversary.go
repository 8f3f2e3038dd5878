// Package adversary is a cloud that cheats: a proxy in front of an honest
// daemon that changes answers on their way back. Tests and the demo use it to
// show that each kind of lie is caught. It never runs in production.
//
//	host  ── request ──▶  Proxy  ── request ──▶  honest daemon
//	host  ◀── lie ──────  Proxy  ◀── answer ───  honest daemon
//
// All but the answers of Evaluate passes unchanged, as bytes. An honest proxy
// shows what a cloud sees: Record keeps the words that it is sent.
package adversary

import (
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/wire"
)

// AnyLayer and Always are wildcards of Tell.
const (
	AnyLayer = -1
	Always   = -1
)

// Proxy forwards calls to an honest daemon and lies as it is told. It starts
// honest, and may be used by several goroutines at once.
type Proxy struct {
	addr     string
	ring     ring.Ring
	server   *grpc.Server
	upstream *grpc.ClientConn
	running  sync.WaitGroup

	mu      sync.Mutex
	lie     Lie
	layer   int // where to lie
	left    int // lies to be told yet
	told    int
	answers map[uint32][]uint32 // the latest honest one of each layer

	recorded uint32 // layer
	wanted   int    // words of it
	seen     []uint32
}

// Start serves a proxy at addr for the daemon at upstream, both "unix:/path".
// The words of every model that is used through it are of ring r.
func Start(addr, upstream string, r ring.Ring) (*Proxy, error) {
	path, err := wire.SocketPath(addr)
	if err != nil {
		return nil, fmt.Errorf("adversary: %w", err)
	}
	conn, err := wire.Dial(upstream)
	if err != nil {
		return nil, fmt.Errorf("adversary: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("adversary: %w", err)
	}
	p := &Proxy{addr: addr, ring: r, upstream: conn, answers: map[uint32][]uint32{}}
	p.server = grpc.NewServer(append(wire.ServerOptions(),
		grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(p.forward))...)
	p.running.Go(func() { p.server.Serve(listener) })
	return p, nil
}

// Addr returns the address that the proxy serves.
func (p *Proxy) Addr() string { return p.addr }

// Close ends all calls and stops.
func (p *Proxy) Close() error {
	p.server.Stop()
	err := p.upstream.Close()
	p.running.Wait()
	return err
}

// Tell has the proxy lie the given number of times (or Always), in answers of
// one layer (or AnyLayer). An answer that the lie would leave as it is does not
// count: the next one is tried. What an earlier Tell left is dropped.
func (p *Proxy) Tell(l Lie, layer, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lie, p.layer, p.left, p.told = l, layer, times, 0
}

// BeHonest ends lying.
func (p *Proxy) BeHonest() { p.Tell(Lie{}, AnyLayer, 0) }

// Told returns how many lies were told since Tell.
func (p *Proxy) Told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// Record has the proxy keep the next words that it is sent for a layer, at most n.
func (p *Proxy) Record(layer uint32, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recorded, p.wanted, p.seen = layer, n, nil
}

// Seen returns the words kept since Record, in the order in which they came.
func (p *Proxy) Seen() []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// forward passes one call of any method on, message by message.
func (p *Proxy) forward(_ any, host grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(host)
	// The daemon's stream ends with the host's context: gRPC ends that when forward returns.
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	daemon, err := p.upstream.NewStream(host.Context(), desc, method, grpc.ForceCodecV2(codec{}))
	if err != nil {
		return err
	}
	if method == pb.SecureNets_Evaluate_FullMethodName {
		e := evaluation{proxy: p, asked: map[uint64]question{}}
		p.running.Go(func() { relay(daemon, host, e.request); daemon.CloseSend() })
		return relay(host, daemon, e.response)
	}
	pass := func(*frame) {}
	p.running.Go(func() { relay(daemon, host, pass); daemon.CloseSend() })
	return relay(host, daemon, pass)
}

// question is what the proxy remembers of a request.
type question struct {
	layer uint32
	rows  int
}

// evaluation is one Evaluate stream.
type evaluation struct {
	proxy *Proxy
	mu    sync.Mutex
	asked map[uint64]question // by id
}

func (e *evaluation) request(r *wire.Request) {
	e.mu.Lock()
	e.asked[r.ID] = question{r.Layer, int(r.Rows)}
	e.mu.Unlock()
	e.proxy.record(r)
}

func (e *evaluation) response(r *wire.Response) {
	e.mu.Lock()
	q := e.asked[r.ID]
	delete(e.asked, r.ID)
	e.mu.Unlock()
	e.proxy.answer(q, r)
}

// record keeps the words of a request that are wanted.
func (p *Proxy) record(r *wire.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.wanted - len(p.seen); left > 0 && r.Layer == p.recorded {
		if words, ok := p.decode(r.Words, int(r.Rows)); ok {
			p.seen = append(p.seen, words[:min(left, len(words))]...)
		}
	}
}

// answer puts a lie in the place of an answer, where one is due.
func (p *Proxy) answer(q question, r *wire.Response) {
	words, ok := p.decode(r.Words, q.rows)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left != 0 && (p.layer == AnyLayer || p.layer == int(q.layer)) {
		a := answer{ring: p.ring, rows: q.rows, words: words, older: p.answers[q.layer]}
		for layer, other := range p.answers {
			if layer != q.layer {
				a.other = other
			}
		}
		if lie := p.lie.tell(a); lie != nil && !slices.Equal(lie, words) {
			r.Words.Free()
			r.Words = wire.EncodeWords(p.ring, lie, nil)
			p.told++
			p.left = max(p.left-1, Always)
		}
	}
	p.answers[q.layer] = words
}

// decode returns the words of a batch of rows, and false for what is none: an
// error, a seed, and what the other side is to refuse.
func (p *Proxy) decode(b mem.BufferSlice, rows int) ([]uint32, bool) {
	words := make([]uint32, b.Len()/p.ring.WordBytes())
	if rows == 0 || len(words) == 0 || len(words)%rows != 0 {
		return nil, false
	}
	return words, wire.DecodeWords(p.ring, words, b) == nil
}
