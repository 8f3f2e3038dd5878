// Package adversary implements a cloud that cheats: a proxy in front of an honest daemon
// that changes answers on their way back. Tests and the demo use it to show that each
// kind of lie is caught. It never runs in production.
//
//	host  ── request ──▶  Proxy  ── request ──▶  honest daemon
//	host  ◀── lie ──────  Proxy  ◀── answer ───  honest daemon
//
// Everything except the answers of Evaluate passes unchanged, as bytes. An honest proxy
// also shows what a cloud sees: Record keeps the words that the proxy receives.
package adversary

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// AnyLayer and Always are wildcards of Tell.
const (
	AnyLayer = -1
	Always   = -1
)

// Proxy forwards calls to an honest daemon and lies as told. It starts honest, and may be used
// by several goroutines at once.
type Proxy struct {
	addr     string
	plan     plan.Plan
	server   *grpc.Server
	upstream *grpc.ClientConn
	running  sync.WaitGroup

	mu      sync.Mutex
	lie     Lie
	layer   int // to lie about
	left    int // lies still to be told
	told    int
	order   int                 // number of calls of Tell
	wrong   [2]int              // wrong words of the last lie, and all words
	answers map[place][]uint32  // the latest honest answers
	latest  map[uint32][]uint32 // the same by layer, of any model
	peer    *Proxy

	recorded uint32 // layer to record
	wanted   int    // words to record
	seen     []uint32
}

// place identifies the product that an answer is of.
type place struct {
	model string // digest
	layer uint32
}

// Start serves a proxy at addr for the daemon at upstream, both "unix:/path".
// p is the plan of the model that is used through it; other models must have the same ring.
// If p has no operators, lies that depend on one are not told.
func Start(addr, upstream string, p plan.Plan) (*Proxy, error) {
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
	proxy := &Proxy{addr: addr, plan: p, upstream: conn, answers: map[place][]uint32{}, latest: map[uint32][]uint32{}}
	proxy.server = grpc.NewServer(append(wire.ServerOptions(),
		grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(proxy.forward))...)
	proxy.running.Go(func() { proxy.server.Serve(listener) })
	return proxy, nil
}

// Addr returns the address that the proxy serves.
func (p *Proxy) Addr() string { return p.addr }

// Conspire lets p use the answers of another cloud, which has another role.
func (p *Proxy) Conspire(with *Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peer = with
}

// Close ends all calls and stops.
func (p *Proxy) Close() error {
	p.server.Stop()
	err := p.upstream.Close()
	p.running.Wait()
	return err
}

// Tell makes the proxy lie the given number of times (or Always), in answers of one layer (or
// AnyLayer) to requests from now on. An answer that the lie would not change does not count:
// the next one is tried. Lies left over from an earlier Tell are dropped.
func (p *Proxy) Tell(l Lie, layer, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lie, p.layer, p.left, p.told = l, layer, times, 0
	p.order++
}

// BeHonest ends lying.
func (p *Proxy) BeHonest() { p.Tell(Lie{}, AnyLayer, 0) }

// Told returns the number of lies told since Tell.
func (p *Proxy) Told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// Wrong returns the number of wrong words in the last lie, and the number of words in the
// right answer.
func (p *Proxy) Wrong() (wrong, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrong[0], p.wrong[1]
}

// Record makes the proxy keep the next words that it receives for a layer, or that seeds
// expand to, at most n.
func (p *Proxy) Record(layer uint32, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recorded, p.wanted, p.seen = layer, n, nil
}

// Seen returns the words kept since Record, in order of arrival.
func (p *Proxy) Seen() []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// forward forwards one call of any method, message by message.
func (p *Proxy) forward(_ any, host grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(host)
	// The daemon's stream ends with the host's context, which gRPC cancels when forward returns.
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	daemon, err := p.upstream.NewStream(host.Context(), desc, method, grpc.ForceCodecV2(codec{}))
	if err != nil {
		return err
	}
	if method == pb.SecureNets_Evaluate_FullMethodName {
		e := evaluation{ctx: host.Context(), proxy: p, asked: map[uint64]question{}}
		p.running.Go(func() { relay(daemon, host, e.request); daemon.CloseSend() })
		return relay(host, daemon, e.response)
	}
	pass := func(*frame) {}
	p.running.Go(func() { relay(daemon, host, pass); daemon.CloseSend() })
	return relay(host, daemon, pass)
}

// question is the proxy's record of a request.
type question struct {
	place
	rows     int
	order    int    // the proxy's order when it came
	previous uint64 // id of the call answered before it
}

// evaluation is one Evaluate stream.
type evaluation struct {
	ctx   context.Context // ends when the host hangs up
	proxy *Proxy
	mu    sync.Mutex
	asked map[uint64]question // by id
	last  uint64              // id of the latest answer
}

func (e *evaluation) request(r *wire.Request) {
	q := question{place: place{string(r.Model), r.Layer}, rows: int(r.Rows), order: e.proxy.record(r)}
	e.mu.Lock()
	e.asked[r.ID] = q
	e.mu.Unlock()
}

func (e *evaluation) response(r *wire.Response) {
	e.mu.Lock()
	q := e.asked[r.ID]
	q.previous, e.last = e.last, r.ID
	delete(e.asked, r.ID)
	e.mu.Unlock()
	if e.ctx.Err() != nil {
		return // the host hung up and receives no lie
	}
	if late := e.proxy.answer(q, r); late {
		<-e.ctx.Done()
	}
}

// record keeps the words of a request as Record asked for. It returns the current order.
func (p *Proxy) record(r *wire.Request) (order int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.wanted - len(p.seen); left > 0 && r.Layer == p.recorded {
		words, ok := p.expand(r)
		if r.Seed == nil {
			words, ok = p.decode(r.Words, int(r.Rows))
		}
		if ok {
			p.seen = append(p.seen, words[:min(left, len(words))]...)
		}
	}
	return p.order
}

// expand returns the words of a request's seed, or false if it has none or does not fit the
// layer.
func (p *Proxy) expand(r *wire.Request) ([]uint32, bool) {
	if r.Seed == nil || len(r.Seed.Key) != len(prg.Seed{}) || int(r.Layer) >= len(p.plan.Ops) {
		return nil, false
	}
	in, rows := p.plan.Ops[r.Layer].InLen(), uint64(r.Rows)
	if rows > wire.MaxPayload/uint64(in) {
		return nil, false // every daemon refuses it
	}
	words, seed := make([]uint32, int(rows)*in), prg.New(prg.Seed(r.Seed.Key))
	for i := range rows {
		seed.Fill(p.plan.Ring, words[int(i)*in:][:in], r.Seed.First+i)
	}
	return words, true
}

// answer replaces an answer by a lie, if one is due. It reports whether to send it late.
func (p *Proxy) answer(q question, r *wire.Response) (late bool) {
	words, ok := p.decode(r.Words, q.rows)
	if !ok {
		return false
	}
	peers := p.peers(q.layer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left != 0 && q.order == p.order && (p.layer == AnyLayer || p.layer == int(q.layer)) {
		a := answer{
			ring: p.plan.Ring, rows: q.rows, id: r.ID, words: slices.Clone(words),
			previous: q.previous, older: p.answers[q.place], peers: peers,
		}
		if int(q.layer) < len(p.plan.Ops) {
			a.op = p.plan.Ops[q.layer]
		}
		for from, other := range p.answers {
			switch {
			case from.model != q.model:
				a.models = other
			case from.layer != q.layer:
				a.layers = other
			}
		}
		if p.lie.tell(&a) && (a.late || a.id != r.ID || !slices.Equal(a.words, words)) {
			r.Words.Free()
			r.ID, r.Words, late = a.id, wire.EncodeWords(p.plan.Ring, a.words, nil), a.late
			p.told++
			p.left = max(p.left-1, Always)
			p.wrong = [2]int{0, len(words)}
			for i, w := range words {
				if i >= len(a.words) || a.words[i] != w {
					p.wrong[0]++
				}
			}
		}
	}
	p.answers[q.place], p.latest[q.layer] = words, words
	return late
}

// peers returns the last answer of the peer's daemon for a layer, or nil. It may be of another
// model, as roles may hold different weights.
func (p *Proxy) peers(layer uint32) []uint32 {
	p.mu.Lock()
	peer := p.peer
	p.mu.Unlock()
	if peer == nil {
		return nil
	}
	peer.mu.Lock()
	defer peer.mu.Unlock()
	return peer.latest[layer]
}

// decode returns the words of a batch of rows, or false for messages without valid words: an
// error, a seed, or bytes that the receiver will refuse.
func (p *Proxy) decode(b mem.BufferSlice, rows int) ([]uint32, bool) {
	words := make([]uint32, b.Len()/p.plan.Ring.WordBytes())
	if rows == 0 || len(words) == 0 || len(words)%rows != 0 {
		return nil, false
	}
	return words, wire.DecodeWords(p.plan.Ring, words, b) == nil
}
