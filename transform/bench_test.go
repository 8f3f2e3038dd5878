package transform_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// zeroProduct answers without computing.
type zeroProduct struct{}

func (zeroProduct) Evaluate(context.Context, ring.Matrix, ring.Matrix) error { return nil }
func (zeroProduct) Close() error                                             { return nil }

var benched = []struct {
	name string
	op   plan.Op
	n    int
}{
	{"dense 4096x4096 by 32", plan.Dense(4096, 4096), 32},
	{"mnist-cnn conv2 by 256", plan.Conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
}

func BenchmarkMask(b *testing.B) {
	for _, s := range transform.Schemes() {
		for _, c := range benched {
			b.Run(fmt.Sprintf("%v/%s", s, c.name), func(b *testing.B) {
				l, err := transform.NewLayer(ring.Q4(), s, c.op)
				if err != nil {
					b.Fatal(err)
				}
				x := make([]int32, c.n*c.op.InLen())
				words := 0
				for b.Loop() {
					b.StopTimer()
					var pads *transform.Pads
					if s.Inputs == transform.InputPad {
						if pads, err = l.NewPads(b.Context(), zeroProduct{}, c.n); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					call, err := l.Mask(x, c.n, pads)
					if err != nil {
						b.Fatal(err)
					}
					m, _ := call.Masked()[0].Words()
					words = len(m.Data)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(words), "ns/word")
			})
		}
	}
}

func BenchmarkUnmask(b *testing.B) {
	for _, s := range transform.Schemes() {
		for _, c := range benched {
			b.Run(fmt.Sprintf("%v/%s", s, c.name), func(b *testing.B) {
				l, err := transform.NewLayer(ring.Q4(), s, c.op)
				if err != nil {
					b.Fatal(err)
				}
				x := make([]int32, c.n*c.op.InLen())
				var answers []ring.Matrix
				for range s.Roles() {
					answers = append(answers, ring.NewMatrix(l.CloudRows(c.n), l.CloudOp().OutLen()))
				}
				for b.Loop() {
					b.StopTimer()
					var pads *transform.Pads
					if s.Inputs == transform.InputPad {
						if pads, err = l.NewPads(b.Context(), zeroProduct{}, c.n); err != nil {
							b.Fatal(err)
						}
					}
					call, err := l.Mask(x, c.n, pads)
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if _, err := call.Unmask(answers); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(answers[0].Data)), "ns/word")
			})
		}
	}
}

func BenchmarkQuantizeInputs(b *testing.B) {
	const n, each = 32, 4096
	x, q, scale := make([]float32, n*each), make([]int32, n*each), make([]float32, n)
	for i := range x {
		x[i] = float32(i%1000) / 7
	}
	for b.Loop() {
		if err := transform.QuantizeInputs(q, scale, x, n, 2047); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(x)), "ns/word")
}

func BenchmarkChooseXMax(b *testing.B) {
	op := plan.Dense(4096, 1024)
	w := make([]float32, op.In*op.Out)
	for i := range w {
		w[i] = float32(i%1001-500) / 5000
	}
	for b.Loop() {
		transform.ChooseXMax(ring.Q4(), op, w, 0)
	}
}

// BenchmarkCall is the host's online work for a call, from floats to floats, in ns
// per word sent and received.
func BenchmarkCall(b *testing.B) {
	for _, s := range transform.Schemes() {
		for _, c := range benched {
			b.Run(fmt.Sprintf("%v/%s", s, c.name), func(b *testing.B) {
				l, err := transform.NewLayer(ring.Q4(), s, c.op)
				if err != nil {
					b.Fatal(err)
				}
				in, out := c.op.InLen(), c.op.OutLen()
				// With zeros, any answer passes.
				key, err := verify.RestoreKey(verify.DefaultField(), c.op, make([]uint64, out), make([]uint64, in))
				if err != nil {
					b.Fatal(err)
				}
				scale, err := verify.NewScale(make([]float32, c.op.Rows()), nil)
				if err != nil {
					b.Fatal(err)
				}
				x, y := make([]float32, c.n*in), make([]float32, c.n*out)
				for i := range x {
					x[i] = float32(i%1001-500) / 7
				}
				var answers []ring.Matrix
				for range s.Roles() {
					answers = append(answers, ring.NewMatrix(l.CloudRows(c.n), l.CloudOp().OutLen()))
				}
				var state transform.PadsState
				if s.Inputs == transform.InputPad {
					pads, err := l.NewPads(b.Context(), zeroProduct{}, c.n)
					if err != nil {
						b.Fatal(err)
					}
					state = pads.State()
				}
				words := float64(l.CloudRows(c.n) * (l.CloudOp().InLen() + l.CloudOp().OutLen()))
				for b.Loop() {
					b.StopTimer()
					var pads *transform.Pads
					if s.Inputs == transform.InputPad {
						if pads, err = l.RestorePads(state); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					call, err := l.MaskFloats(x, c.n, 2047, key, pads)
					if err != nil {
						b.Fatal(err)
					}
					candidate, err := call.UnmaskDecoded(answers)
					if err != nil {
						b.Fatal(err)
					}
					if err := key.OpenFloats(y, candidate, call.Expected(), call.Scales(), scale); err != nil {
						b.Fatal(err)
					}
					call.Close()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/words, "ns/word")
			})
		}
	}
}
