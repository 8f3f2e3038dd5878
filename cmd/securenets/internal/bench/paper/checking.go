package paper

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/layer"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// spotPoints are the paper's numbers of entries that are computed again.
var spotPoints = []int{10, 100}

// checking is what checks cost, measured on layers of the network's shapes with weights
// and values drawn at random: on no value of them does a time depend.
type checking struct {
	n      int // samples of a call
	layers []*layer.Call

	// Milliseconds an image, on one thread: of the check, the sums that the host forms as
	// it masks, and those as it unmasks, which all threads share; and of spot checks.
	inputs, answers measure.Series
	spot            []measure.Series // by spotPoints
}

// checkedAs returns the input mask whose checking is that of s. Checks are of the same
// integers whatever they were masked with, and unmasking is no part of checking. Only
// permute, which unrolls convolutions, may cut a batch into other parts than pad does.
func checkedAs(s transform.Scheme) transform.InputMask {
	if s.Roles() > 1 {
		return transform.InputPad
	}
	return s.Inputs
}

func newChecking(ctx context.Context, n *network, s transform.Scheme, samples int) (_ *checking, err error) {
	b := cpu.New(cpu.Options{})
	defer func() { err = errors.Join(err, b.Close()) }()
	c := &checking{n: samples, spot: make([]measure.Series, len(spotPoints))}
	for _, node := range n.local.Graph().Nodes {
		op, ok := node.Op.(graph.Linear)
		if !ok {
			continue
		}
		l, err := layer.New(ctx, b, op.Plan(), samples, s)
		if err != nil {
			return nil, err
		}
		candidate, err := l.First.UnmaskDecoded(l.Answers)
		if err != nil {
			return nil, err
		}
		if l.Y, err = l.Key.Open(candidate, l.X); err != nil {
			return nil, err
		}
		c.layers = append(c.layers, l)
	}
	return c, nil
}

func (c *checking) round() error {
	runtime.GOMAXPROCS(1)
	runtime.GC()
	var inputs, answers time.Duration
	spot := make([]time.Duration, len(spotPoints))
	for _, l := range c.layers {
		expected, in := l.Key.Expect(l.N), len(l.R)
		start := time.Now()
		for i := range l.N {
			expected.Add(i, 0, l.X[i*in:(i+1)*in])
		}
		inputs += time.Since(start)
		candidate := verify.NewCandidate(l.Y, l.N)
		start = time.Now()
		if err := l.Key.OpenFloats(l.Floats, candidate, expected, l.Samples, l.To); err != nil {
			return err
		}
		answers += time.Since(start)
		start = time.Now()
		l.To.Floats(l.Floats, l.Y, l.Samples)
		answers -= time.Since(start)
		// Unmasking counts where it was measured: products are at hand.
		each := len(l.Y) / l.N
		products := verify.LazyCandidate(l.N, each, 1, func(dst, _ []int32, i, at int) { dst[0] = l.Y[i*each+at] })
		for k, points := range spotPoints {
			start = time.Now()
			passed, err := verify.SpotCheck(l.Op, l.W, l.X, products, points)
			spot[k] += time.Since(start)
			if err != nil {
				return err
			}
			if !passed {
				return fmt.Errorf("bench: a right answer fails the spot check")
			}
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 / float64(c.n) }
	c.inputs, c.answers = append(c.inputs, each(inputs)), append(c.answers, each(answers))
	for k, d := range spot {
		c.spot[k] = append(c.spot[k], each(d))
	}
	return nil
}

// instead returns what a check of so many points costs an image more than the real one
// does, on so many threads: less than 0 where that costs more.
func (c *checking) instead(points, threads int) float64 {
	more := -c.inputs.Median() - max(0, c.answers.Median())/float64(threads)
	if k := slices.Index(spotPoints, points); k >= 0 {
		more += c.spot[k].Median()
	}
	return more
}
