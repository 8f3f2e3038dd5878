package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// benches are the measured products.
var benches = []struct {
	name string
	op   plan.Op
	rows int
}{
	{"square", plan.Dense(1024, 1024), 1024},
	{"wide", plan.Dense(4096, 4096), 512},
	{"wide", plan.Dense(4096, 4096), 32},
	{"wide", plan.Dense(4096, 4096), 8},
	{"wide", plan.Dense(4096, 4096), 1},
	{"conv64", conv(56, 64, 64, 3, 1, 1), 32},
	{"conv128", conv(28, 128, 128, 3, 1, 1), 32},
	{"conv256", conv(14, 256, 256, 3, 1, 1), 32},
	{"conv512", conv(7, 512, 512, 3, 1, 1), 32},
	{"mnist-conv1", conv(28, 1, 16, 5, 0, 1), 256},
	{"mnist-conv2", conv(12, 16, 32, 5, 0, 1), 256},
	{"mnist-dense", plan.Dense(512, 10), 256},
	{"grouped", conv(28, 64, 64, 3, 1, 8), 4},
	{"depthwise", conv(28, 64, 64, 3, 1, 64), 4},
}

// conv returns a convolution of a square map, kernel and padding.
func conv(size, in, out, kernel, pad, groups int) plan.Op {
	return plan.Conv(plan.Conv2D{
		H: size, W: size, C: in, OutC: out, KH: kernel, KW: kernel, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: pad, Left: pad, Bot: pad, Right: pad, Groups: groups,
	})
}

// processTime returns the CPU time of all threads of the process.
func processTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkRatio compares one thread's products with the peak rates of its multiply-adds (of
// bytes, or of 16-bit words for AVX2) and of reading, measured in the same rounds. It prints
// medians over the rounds.
func BenchmarkRatio(b *testing.B) {
	if !roofline.Available() {
		b.Skip("the limits are those of AVX-512 and AVX2")
	}
	meter := roofline.NewMeter(1, 512<<20)
	type variant struct {
		tier    tier
		weights string
	}
	var variants []variant
	for _, tier := range tiers {
		variants = append(variants, variant{tier, "q4"}, variant{tier, "small"})
	}
	for _, bench := range benches {
		for _, variant := range variants {
			b.Run(fmt.Sprintf("%s/%s/%s/batch=%d", variant.tier.name, variant.weights, bench.name, bench.rows), func(b *testing.B) {
				r, op := ring.Q4(), bench.op
				rng := rand.New(rand.NewPCG(0, 0))
				w, x := uniform(rng, op.Rows(), op.Terms()), uniform(rng, bench.rows, op.InLen())
				if variant.weights == "small" {
					for i, a := range w.Data {
						w.Data[i] = r.FromSigned(int32(int8(a)))
					}
				}
				backend := newBackend(variant.tier, 1)
				p, err := backend.Load(b.Context(), r, op, w)
				if err != nil {
					b.Fatal(err)
				}
				y := ring.NewMatrix(bench.rows, op.OutLen())
				product := func() float64 {
					if err := p.Evaluate(b.Context(), y, x); err != nil {
						b.Fatal(err)
					}
					return float64(op.MulAdds()) * float64(bench.rows)
				}
				meter.AVX2 = !roofline.HasVNNI() || variant.tier.name == "avx2"
				var gmacs, limit, fma, read, ratio []float64
				for b.Loop() {
					r := meter.Round(product)
					most := r.Products(variant.weights == "small")
					gmacs, limit, fma, read = append(gmacs, r.Work), append(limit, most), append(fma, r.FMA), append(read, r.Read)
					ratio = append(ratio, r.Work/most)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(gmacs), "GMAC/s")
				b.ReportMetric(median(limit), "limit")
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

// BenchmarkThreads compares two threads with one, in elapsed time and in total CPU time. If
// two threads take c times the CPU time of one, two idle processors are 2/c times as fast.
func BenchmarkThreads(b *testing.B) {
	for _, bench := range benches {
		b.Run(fmt.Sprintf("%s/batch=%d", bench.name, bench.rows), func(b *testing.B) {
			var products [2]plan.Product
			rng := rand.New(rand.NewPCG(0, 0))
			w, x := uniform(rng, bench.op.Rows(), bench.op.Terms()), uniform(rng, bench.rows, bench.op.InLen())
			for i := range products {
				p, err := newBackend(tiers[0], i+1).Load(b.Context(), ring.Q4(), bench.op, w)
				if err != nil {
					b.Fatal(err)
				}
				products[i] = p
			}
			y := ring.NewMatrix(bench.rows, bench.op.OutLen())
			var elapsed, running []float64 // time of one thread divided by that of two
			for b.Loop() {
				var e, r [2]float64
				for i, p := range products {
					start, ran := time.Now(), processTime(b)
					if err := p.Evaluate(b.Context(), y, x); err != nil {
						b.Fatal(err)
					}
					e[i], r[i] = time.Since(start).Seconds(), (processTime(b) - ran).Seconds()
				}
				elapsed, running = append(elapsed, e[0]/e[1]), append(running, 2*r[0]/r[1])
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(elapsed), "elapsed")
			b.ReportMetric(median(running), "running")
			for _, p := range products {
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func uniform(rng *rand.Rand, rows, cols int) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = rng.Uint32N(ring.Q4().Modulus())
	}
	return m
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
