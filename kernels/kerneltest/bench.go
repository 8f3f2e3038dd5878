package kerneltest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Bench measures a backend over Q4, in GMAC/s: 10^9 multiply-adds in the ring a
// second, padding counted.
func Bench(b *testing.B, open func(testing.TB) kernels.Backend) {
	for _, bench := range []struct {
		name string
		op   plan.Op
		rows int
	}{
		{"square", plan.Dense(1024, 1024), 1024},
		{"wide", plan.Dense(4096, 4096), 512},
		{"wide", plan.Dense(4096, 4096), 32},
		{"wide", plan.Dense(4096, 4096), 1},
		{"mnist-conv1", conv(plan.Conv2D{H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5}), 256},
		{"mnist-conv2", conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5}), 256},
		{"mnist-dense", plan.Dense(512, 10), 256},
		{"depthwise", conv(plan.Conv2D{H: 28, W: 28, C: 64, OutC: 64, KH: 3, KW: 3, Groups: 64}), 16},
	} {
		b.Run(fmt.Sprintf("%s/%v/batch=%d", bench.name, bench.op, bench.rows), func(b *testing.B) {
			backend := open(b)
			r, op := ring.Q4(), bench.op
			rng := rand.New(rand.NewPCG(0, 0))
			p, err := backend.Load(b.Context(), r, op, uniform(rng, r, op.Rows(), op.Terms()))
			if err != nil {
				b.Fatal(err)
			}
			x, y := uniform(rng, r, bench.rows, op.InLen()), ring.NewMatrix(bench.rows, op.OutLen())
			for b.Loop() {
				if err := p.Evaluate(b.Context(), y, x); err != nil {
					b.Fatal(err)
				}
			}
			muladds := float64(op.MulAdds()) * float64(bench.rows) * float64(b.N)
			b.ReportMetric(muladds/float64(b.Elapsed().Nanoseconds()), "GMAC/s")
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
			if err := backend.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
