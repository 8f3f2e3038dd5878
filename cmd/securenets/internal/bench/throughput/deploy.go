package throughput

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

// deployed is a sealed network that the clouds have.
type deployed struct {
	network  network
	scheme   transform.Scheme
	session  *hostclient.Session
	digest   sealed.Digest // of the first role
	ops      []plan.Op
	mulAdds  int64
	padBytes int64 // of an image
	images   []float32
	input    int // values of an image
}

// prepare has a point's network at the clouds, and its row begun.
func (r *running) prepare(ctx context.Context, p point) error {
	d, err := r.deploy(ctx, p.network, p.scheme)
	if err != nil {
		return err
	}
	d.draw(p.rows)
	r.loads = append(r.loads, &load{
		point: p, figures: map[string]measure.Series{},
		row: Row{
			Side: p.side, Network: p.network.String(), Scheme: p.scheme.String(), Width: p.network.width, Depth: p.network.depth,
			Rows: p.rows, Callers: p.callers, MulAdds: d.mulAdds,
		},
	})
	return nil
}

func (r *running) of(p point) *deployed {
	for _, d := range r.deployed {
		if d.network == p.network && d.scheme == p.scheme {
			return d
		}
	}
	return nil
}

// deploy seals a network and pushes it, once.
func (r *running) deploy(ctx context.Context, n network, scheme transform.Scheme) (*deployed, error) {
	if d := r.of(point{network: n, scheme: scheme}); d != nil {
		return d, nil
	}
	model, err := n.onnx()
	if err != nil {
		return nil, err
	}
	sealedModels, secret, err := hostclient.Seal(ctx, model, hostclient.SealOptions{Scheme: scheme, Multiplier: r.multiply})
	if err != nil {
		return nil, err
	}
	d := &deployed{network: n, scheme: scheme, digest: sealedModels[0].Digest, padBytes: secret.PadBytes()}
	parsed, err := sealed.Parse(sealedModels[0].Bytes)
	if err != nil {
		return nil, err
	}
	d.ops = parsed.Plan.Ops
	for _, op := range d.ops {
		d.mulAdds += op.MulAdds()
	}
	in := secret.Describe().Input
	d.input = in[0] * in[1] * in[2]
	var clients []*hostclient.Client
	for role, m := range sealedModels {
		c, err := r.client(role)
		if err != nil {
			return nil, err
		}
		r.defers(c.Close)
		clients = append(clients, c)
		if secret.Roles() > 1 {
			if err := secret.Bind(role, c.Provider()); err != nil {
				return nil, err
			}
		}
		if r.o.Endpoint != "" { // one of its own keeps nothing
			r.defers(func() error { return remove(c, m.Digest) })
		}
		if err := c.Push(ctx, m, nil); err != nil {
			return nil, err
		}
	}
	d.session, err = hostclient.Open(ctx, secret, sealedModels, clients, hostclient.Options{Multiplier: r.multiply, RequireStock: true})
	if err != nil {
		return nil, err
	}
	r.defers(func() error {
		r.report.checked(d.session.Stats())
		return d.session.Close()
	})
	r.deployed = append(r.deployed, d)
	return d, nil
}

// remove removes a model, or what of it was uploaded, also when the bench was
// interrupted.
func remove(c *hostclient.Client, d sealed.Digest) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.Remove(ctx, d)
	var e *wire.Error
	if errors.As(err, &e) && e.Reason == wire.ReasonModelNotFound { // nothing of it arrived
		return nil
	}
	return err
}

// onnx returns the network's file. Dense layers have random weights, of a variance that
// keeps that of the values (He et al., ICCV 2015).
func (n network) onnx() ([]byte, error) {
	if n.model != "" {
		return models.ONNX(n.model)
	}
	rng := rand.New(rand.NewPCG(7, uint64(n.width)))
	g := &graph.Graph{Input: graph.Vector(n.width)}
	add := func(op graph.Op) {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(len(g.Nodes))}})
		g.Output = graph.Value(len(g.Nodes))
	}
	for layer := range n.depth {
		if layer > 0 {
			add(graph.ReLU{})
		}
		w := make([]float32, n.width*n.width)
		for i := range w {
			w[i] = float32(rng.NormFloat64() * math.Sqrt(2/float64(n.width)))
		}
		add(&graph.Dense{In: n.width, Out: n.width, W: w, B: make([]float32, n.width)})
	}
	return onnx.Marshal(g)
}

// draw has at least so many images to send. What is in them makes no difference to the
// time.
func (d *deployed) draw(n int) {
	rng := rand.New(rand.NewPCG(8, 0))
	for len(d.images) < n*d.input {
		d.images = append(d.images, rng.Float32())
	}
}
