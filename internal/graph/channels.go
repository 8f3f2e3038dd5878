package graph

import (
	"math"
	"slices"
)

// Functions of the channels of every position.
type (
	// Softmax is exp(x_i)/Σ exp(x_j): exactly 0 where x_i is negative infinity, and for all
	// channels of a position where all are.
	Softmax struct{ unary }
	// LogSoftmax is x_i - log Σ exp(x_j).
	LogSoftmax struct{ unary }
	// CumSum is the sum of a channel and of those before it.
	CumSum struct{ unary }
	// ChannelMean is the mean: one channel.
	ChannelMean struct{}
)

func (Softmax) Name() string     { return "softmax" }
func (LogSoftmax) Name() string  { return "log_softmax" }
func (CumSum) Name() string      { return "cum_sum" }
func (ChannelMean) Name() string { return "channel_mean" }

func (ChannelMean) InPlace() bool { return false }

func (ChannelMean) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	s.C = 1
	return s, nil
}

// Apply subtracts the largest channel first, so that no exponential overflows.
func (Softmax) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for src := in[0][:len(dst)]; len(src) > 0; src, dst = src[c:], dst[c:] {
		top := slices.Max(src[:c])
		if negativeInfinity(top) {
			clear(dst[:c])
			continue
		}
		sum := 0.0 // in [1, c]
		for i, v := range src[:c] {
			e := math.Exp(float64(v) - float64(top))
			dst[i] = float32(e)
			sum += e
		}
		for i := range dst[:c] {
			dst[i] = float32(float64(dst[i]) / sum)
		}
	}
}

// Apply subtracts the largest channel first, as that of Softmax does.
func (LogSoftmax) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for src := in[0][:len(dst)]; len(src) > 0; src, dst = src[c:], dst[c:] {
		top := slices.Max(src[:c])
		sum := 0.0 // in [1, c]
		for _, v := range src[:c] {
			sum += math.Exp(float64(v) - float64(top))
		}
		log := math.Log(sum)
		for i, v := range src[:c] {
			dst[i] = float32(float64(v) - float64(top) - log)
		}
	}
}

func (CumSum) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for i, v := range in[0][:len(dst)] {
		if dst[i] = v; i%c > 0 {
			dst[i] += dst[i-1]
		}
	}
}

func (ChannelMean) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for i := range dst {
		sum := 0.0
		for _, v := range in[0][i*c:][:c] {
			sum += float64(v)
		}
		dst[i] = float32(sum / float64(c))
	}
}
