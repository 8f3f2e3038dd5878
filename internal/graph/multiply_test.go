package graph_test

import (
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
)

// Layers in floats agree with their definition in float64, on both sides of the sizes that divide
// the work; a batch gives exactly what its samples give.
func TestMultiply(t *testing.T) {
	r := source(71)
	unbiased := graphtest.Dense(r, 513, 33)
	unbiased.B = nil
	ops := []graph.Linear{
		unbiased, graphtest.Dense(r, 1, 1), graphtest.Dense(r, 256, 32), graphtest.Dense(r, 600, 67),
		graphtest.Conv(r, plan.Conv2D{H: 32, W: 32, C: 256, OutC: 5, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 1}),
		graphtest.Conv(r, plan.Conv2D{H: 70, W: 70, C: 1, OutC: 2, KH: 2, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
		graphtest.Conv(r, plan.Conv2D{H: 1, W: 40, C: 30, OutC: 50, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
		graphtest.Conv(r, plan.Conv2D{H: 9, W: 8, C: 6, OutC: 12, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2, Top: 2, Left: 1, Right: 2, Groups: 3}),
		graphtest.Conv(r, plan.Conv2D{H: 9, W: 8, C: 80, OutC: 70, KH: 1, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2}),
		graphtest.Conv(r, plan.Conv2D{H: 9, W: 8, C: 40, OutC: 40, KH: 3, KW: 3, SH: 1, SW: 2, DH: 1, DW: 1, Top: 1, Bot: 1, Groups: 40}),
	}
	for _, op := range ops {
		in, out := op.Plan().InLen(), op.Plan().OutLen()
		n := 2
		if in == 1 {
			n = 5000
		}
		input := graph.Vector(in)
		if c, ok := op.(*graph.Conv2D); ok {
			input = graph.Shape{H: c.Geometry.H, W: c.Geometry.W, C: c.Geometry.C}
		}
		x, y := graphtest.Normal(r, n*in, 1), make([]float32, n*out)
		graph.Multiply(op, op.Weights(), y, n, x)
		near(t, op.Plan(), y, graphtest.Evaluate(graphtest.Chain(input, op), x, n))
		single := make([]float32, n*out)
		for i := range n {
			graph.Multiply(op, op.Weights(), single[i*out:][:out], 1, x[i*in:][:in])
		}
		if !slices.Equal(y, single) {
			t.Errorf("%v: a batch differs from its samples", op.Plan())
		}
	}
}

func BenchmarkMultiply(b *testing.B) {
	const tokens, in, out = 128, 768, 3072
	op := graphtest.Conv(source(72), plan.Conv2D{H: 1, W: tokens, C: in, OutC: out, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})
	x, y := graphtest.Normal(source(73), tokens*in, 1), make([]float32, tokens*out)
	for b.Loop() {
		graph.Multiply(op, op.W, y, 1, x)
	}
	b.ReportMetric(float64(b.N)*tokens*in*out/b.Elapsed().Seconds()/1e9, "GMAC/s")
}
