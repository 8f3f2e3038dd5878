package hostclient_test

import (
	"math/rand/v2"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// mnistCNN has the paper's shape: two convolutions of 5x5 and a dense layer.
func mnistCNN() *graph.Graph {
	rnd := rand.New(rand.NewPCG(4, 4))
	pool := graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}}
	kernel := plan.Conv2D{KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	first, second := kernel, kernel
	first.H, first.W, first.C, first.OutC = 28, 28, 1, 16
	second.H, second.W, second.C, second.OutC = 12, 12, 16, 32
	return chain(graph.Shape{H: 28, W: 28, C: 1},
		conv(rnd, first), graph.ReLU{}, pool, conv(rnd, second), graph.ReLU{}, pool,
		graph.Reshape{To: graph.Vector(512)}, dense(rnd, 512, 10), graph.Softmax{})
}

// BenchmarkInfer is all of a batch of 256 images, host and cloud in one process,
// with pads in stock.
func BenchmarkInfer(b *testing.B) {
	const n = 256
	for _, scheme := range schemes {
		b.Run(scheme.String(), func(b *testing.B) {
			g := mnistCNN()
			_, _, _, s := setup(b, g, scheme, hostclient.Options{})
			x := gaussian(rand.New(rand.NewPCG(5, 5)), n*g.Input.Len())
			for b.Loop() {
				b.StopTimer()
				if err := s.Precompute(b.Context(), n); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				infer(b, s, x, n)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/sample")
		})
	}
}
