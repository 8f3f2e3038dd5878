package paper

import (
	"context"
	"runtime"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// outsourced is a network under a scheme, host and daemons on so many threads each.
type outsourced struct {
	*demo.Costs
	network *network
	scheme  transform.Scheme
	in      hostclient.Ring
	threads int

	// Milliseconds an image: elapsed, of a batch as the product runs it, and of
	// processors; and of its parts one after the other.
	total, hostCPU, daemonCPU measure.Series
	host, cloud, transfer     measure.Series
	offline, offlineCPU       measure.Series
	up, down                  int64 // bytes of all batches
	batches                   int
	classified
}

// round runs a batch as the product does, with two parts in work at once, and the same
// parts one after the other, so that times add up. A run that does not count goes before
// each: it connects, and takes memory.
func (o *outsourced) round(ctx context.Context, from int) ([]float32, error) {
	n := o.network
	runtime.GOMAXPROCS(o.threads)
	runtime.GC() // nobody pays for another's garbage
	var offline, took demo.Spent
	var y []float32
	var before, after hostclient.Stats
	run := func(c *demo.Costs, call int) (err error) {
		if o.scheme.Inputs == transform.InputPad {
			if offline, err = c.Precompute(ctx, n.batch()); err != nil {
				return err
			}
		}
		before = c.Session().Stats()
		took, y, err = c.Infer(ctx, from, n.batch(), call)
		after = c.Session().Stats()
		return err
	}
	for range 2 {
		if err := run(o.Costs, n.batch()); err != nil {
			return nil, err
		}
	}
	whole, pads, up, down := took, offline, after.BytesUp-before.BytesUp, after.BytesDown-before.BytesDown
	apart, err := o.Apart(ctx)
	if err != nil {
		return nil, err
	}
	for range 2 {
		if err := run(apart, o.Session().PartSize(n.batch())); err != nil {
			return nil, err
		}
	}
	add := func(s *measure.Series, d time.Duration) { *s = append(*s, n.each(d)) }
	waited, computed := after.Waited-before.Waited, after.Computed-before.Computed
	add(&o.total, whole.Elapsed)
	add(&o.hostCPU, whole.Host)
	if whole.Daemons >= 0 {
		add(&o.daemonCPU, whole.Daemons)
	}
	add(&o.host, took.Elapsed-waited)
	add(&o.cloud, computed)
	add(&o.transfer, waited-computed)
	add(&o.offline, pads.Elapsed)
	add(&o.offlineCPU, pads.Host)
	o.up, o.down, o.batches = o.up+up, o.down+down, o.batches+1
	o.count(from, n.batch(), n.right(from, y))
	return y, nil
}

// remasking is masking all weights anew and sending them, as the paper's host does
// where it keeps nothing.
type remasking struct {
	*outsourced
	ring       ring.Ring
	layers     []plan.Op
	w          [][]int32
	mask, push measure.Series // milliseconds an image of the batch that it is for
	bytes      int
}

// quantise makes the integers of the network's weights, once.
func (r *remasking) quantise() error {
	sent, err := r.Plan()
	if err != nil {
		return err
	}
	r.ring = sent.Ring
	described := r.Description().Layers
	for i, node := range r.network.local.Graph().Nodes {
		op, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		q, err := transform.QuantizeWeights(r.ring, op.Plan(), op.Weights(), described[i].XMax)
		if err != nil {
			return err
		}
		r.layers, r.w = append(r.layers, op.Plan()), append(r.w, q.W)
	}
	return nil
}

func (r *remasking) round(ctx context.Context) error {
	if r.layers == nil {
		if err := r.quantise(); err != nil {
			return err
		}
	}
	runtime.GOMAXPROCS(r.threads)
	runtime.GC()
	start := time.Now()
	model := sealed.Model{Plan: plan.Plan{Ring: r.ring}}
	for i, op := range r.layers {
		masks, err := transform.NewLayer(r.ring, r.scheme, op)
		if err != nil {
			return err
		}
		what, err := masks.Seal(r.w[i])
		if err != nil {
			return err
		}
		model.Plan.Ops, model.Weights = append(model.Plan.Ops, masks.CloudOp()), append(model.Weights, what[0])
	}
	masked := time.Since(start)
	start = time.Now()
	b, err := model.Marshal()
	if err != nil {
		return err
	}
	m := hostclient.SealedModel{Digest: sealed.Sum(b), Bytes: b}
	if err := r.Cloud(0).Push(ctx, m, nil); err != nil {
		return err
	}
	pushed := time.Since(start)
	r.mask, r.push = append(r.mask, r.network.each(masked)), append(r.push, r.network.each(pushed))
	r.bytes = len(b)
	return r.Cloud(0).Remove(ctx, m.Digest)
}
