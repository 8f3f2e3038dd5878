package cpu_test

import (
	"context"
	"testing"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels/cpu"
)

func BenchmarkX(b *testing.B) {
	for _, c := range []struct {
		op plan.Op
		n  int
	}{{plan.Dense(1024, 1024), 1024}, {plan.Dense(4096, 4096), 32}, {plan.Dense(4096, 4096), 1},
		{plan.Conv(plan.Conv2D{H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
		{plan.Conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
		{plan.Dense(512, 10), 256},
	} {
		b.Run(c.op.String(), func(b *testing.B) {
			be := cpu.New(cpu.Options{Threads: 1})
			w := ring.NewMatrix(c.op.Rows(), c.op.Terms())
			for i := range w.Data {
				w.Data[i] = uint32(i*77777777) % 3368562317
			}
			p, err := be.Load(context.Background(), ring.Q4(), c.op, w)
			if err != nil {
				b.Fatal(err)
			}
			x := ring.NewMatrix(c.n, c.op.InLen())
			y := ring.NewMatrix(c.n, c.op.OutLen())
			for i := range x.Data {
				x.Data[i] = uint32(i*77777777) % 3368562317
			}
			for b.Loop() {
				if err := p.Evaluate(context.Background(), y, x); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.op.MulAdds())*float64(c.n)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GMAC/s")
		})
	}
}
