package cpu

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels/roofline"
)

// threadTime returns the time that the calling thread has run: on a machine that
// others use too, what a thread does in a second of its own.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkRatio compares one thread's products with a quarter of its rate of
// byte products, and with what it can read, measured between them. It prints
// medians over the rounds.
func BenchmarkRatio(b *testing.B) {
	if !roofline.Available() {
		b.Skip("the limits are those of AVX-512")
	}
	square := func(c, hw int) plan.Op {
		return plan.Conv(plan.Conv2D{
			H: hw, W: hw, C: c, OutC: c, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1,
			Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 1,
		})
	}
	memory := make([]byte, 256<<20)
	for i := range memory {
		memory[i] = byte(i)
	}
	type variant struct {
		tier    tier
		weights string
	}
	var variants []variant
	for _, tier := range tiers {
		variants = append(variants, variant{tier, "q4"}, variant{tier, "small"})
	}
	for _, bench := range []struct {
		name string
		op   plan.Op
		rows int
	}{
		{"square", plan.Dense(1024, 1024), 1024},
		{"wide", plan.Dense(4096, 4096), 512},
		{"wide", plan.Dense(4096, 4096), 32},
		{"wide", plan.Dense(4096, 4096), 8},
		{"wide", plan.Dense(4096, 4096), 1},
		{"conv64", square(64, 56), 32},
		{"conv128", square(128, 28), 32},
		{"conv256", square(256, 14), 32},
		{"conv512", square(512, 7), 32},
		{"mnist-conv1", plan.Conv(plan.Conv2D{H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
		{"mnist-conv2", plan.Conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
		{"mnist-dense", plan.Dense(512, 10), 256},
		{"depthwise", plan.Conv(plan.Conv2D{H: 28, W: 28, C: 64, OutC: 64, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 64}), 4},
		{"grouped", plan.Conv(plan.Conv2D{H: 28, W: 28, C: 64, OutC: 64, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 8}), 4},
	} {
		for _, variant := range variants {
			b.Run(fmt.Sprintf("%s/%s/%s/batch=%d", variant.tier.name, variant.weights, bench.name, bench.rows), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				r, op := ring.Q4(), bench.op
				rng := rand.New(rand.NewPCG(0, 0))
				w, x := ring.NewMatrix(op.Rows(), op.Terms()), ring.NewMatrix(bench.rows, op.InLen())
				for i := range w.Data {
					w.Data[i] = rng.Uint32N(r.Modulus())
					if variant.weights == "small" {
						w.Data[i] = r.FromSigned(int32(int8(w.Data[i])))
					}
				}
				for i := range x.Data {
					x.Data[i] = rng.Uint32N(r.Modulus())
				}
				backend := newBackend(variant.tier, 1)
				p, err := backend.Load(b.Context(), r, op, w)
				if err != nil {
					b.Fatal(err)
				}
				y := ring.NewMatrix(bench.rows, op.OutLen())
				rate := func(work func() float64) float64 {
					start := threadTime(b)
					done := work()
					return done / float64((threadTime(b) - start).Nanoseconds())
				}
				product := func() float64 {
					if err := p.Evaluate(b.Context(), y, x); err != nil {
						b.Fatal(err)
					}
					return float64(op.MulAdds()) * float64(bench.rows)
				}
				var gmacs, vnni, fma, read, ratio []float64
				for b.Loop() {
					read = append(read, rate(func() float64 { return roofline.Read(memory) }))
					product() // brings back what reading drove out of the caches
					before := rate(func() float64 { return roofline.VNNI(100) })
					gmacs = append(gmacs, rate(product))
					vnni = append(vnni, (before+rate(func() float64 { return roofline.VNNI(100) }))/2)
					fma = append(fma, rate(func() float64 { return roofline.FMA(50) }))
					ratio = append(ratio, 4*gmacs[len(gmacs)-1]/vnni[len(vnni)-1])
				}
				median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(gmacs), "GMAC/s")
				b.ReportMetric(median(vnni)/4, "vnni/4")
				b.ReportMetric(median(fma), "fma")
				b.ReportMetric(median(read), "readGB/s")
				b.ReportMetric(median(ratio), "ratio")
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
