package transform

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/securenets/securenets/internal/parallel"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Quantized are the integer weights of a layer, with Σ_j |W[i,j]|·XMax <= Max(ring)
// for every row i: products with inputs of at most XMax in magnitude stay in the range of the
// signed lift. It prints redacted.
type Quantized struct {
	W     []int32   // op.Rows() x op.Terms(), row-major
	Scale []float32 // one per row: w ≈ W·Scale
	XMax  int32     // largest magnitude of an input element
}

const redactedQuantized = "transform.Quantized(redacted)"

// Format prints q redacted, whatever the verb.
func (Quantized) Format(f fmt.State, _ rune) { io.WriteString(f, redactedQuantized) }

// MarshalText keeps q out of JSON and structured logs.
func (Quantized) MarshalText() ([]byte, error) { return []byte(redactedQuantized), nil }

// QuantizeWeights returns the integer weights of a layer for inputs of at most
// xmax in magnitude, in [1, Max(ring)]. Each row has its own scale, from its L1
// norm. A row that rounds to zero has scale 1. It refuses weights that are not finite with
// a *NotFiniteError, and otherwise with errors that wrap ring.ErrParameters,
// plan.ErrInvalid, ErrShape or ErrRange.
func QuantizeWeights(r ring.Ring, op plan.Op, w []float32, xmax int32) (*Quantized, error) {
	return QuantizeInPlace(r, op, slices.Clone(w), xmax)
}

// QuantizeInPlace is QuantizeWeights with the integers stored in w's memory, which the caller
// must no longer use unless there is an error.
func QuantizeInPlace(r ring.Ring, op plan.Op, w []float32, xmax int32) (*Quantized, error) {
	if !r.Valid() {
		return nil, ring.ErrParameters
	}
	if err := op.Validate(); err != nil {
		return nil, err
	}
	if err := wantLen("weights", len(w), op.Rows(), op.Terms()); err != nil {
		return nil, err
	}
	if xmax < 1 || xmax > r.Max() {
		return nil, fmt.Errorf("%w: largest input %d, want 1 to %d", ErrRange, xmax, r.Max())
	}
	if i := notFinite(w, op.Terms()); i >= 0 {
		return nil, &NotFiniteError{"weight row", i}
	}
	q := &Quantized{W: ints(w), Scale: make([]float32, op.Rows()), XMax: xmax}
	n := op.Terms()
	parallel.Do(op.Rows(), len(w), func(from, to int) {
		row := make([]int32, n)
		for i := from; i < to; i++ {
			q.Scale[i] = quantizeRow(row, w[i*n:(i+1)*n], int64(r.Max()/xmax))
			copy(q.W[i*n:(i+1)*n], row)
		}
	})
	return q, nil
}

// quantizeRow sets dst to w / scale, rounded to nearest, with Σ |dst| <= budget,
// and returns the scale.
func quantizeRow(dst []int32, w []float32, budget int64) (scale float32) {
	norm := l1(w)
	if norm == 0 {
		clear(dst)
		return 1
	}
	// Before rounding, a scale of norm/budget meets the budget exactly. Rounding adds up to
	// len(w)/2, which exceeds it in half the rows. Each turn then reduces the levels by
	// twice the share of the turn before, to 0 in the end: 14 turns at most.
	levels := float64(budget)
	for cut := 0x1p-12; ; cut *= 2 {
		scale = roundUp(norm / levels)
		if sum := roundTo(dst, w, scale); sum == 0 {
			return 1
		} else if sum <= budget {
			return scale
		}
		levels *= 1 - cut
	}
}

// l1 returns Σ |w|.
func l1(w []float32) float64 {
	var norm float64 // at most 2^16·2^128
	for _, e := range w {
		norm += math.Abs(float64(e))
	}
	return norm
}

// roundUp returns the least float32 that is not below v, +Inf above the largest.
func roundUp(v float64) float32 {
	s := float32(v)
	if float64(s) < v {
		s = math.Nextafter32(s, float32(math.Inf(1)))
	}
	return s
}

// roundTo sets dst to v / scale, rounded to nearest, and returns Σ |dst|.
// |v / scale| must be below 2^31 - 1; a scale of +Inf gives zeros.
func roundTo(dst []int32, v []float32, scale float32) int64 {
	round(dst, v, scale)
	var sum int64 // at most 2^16·2^31 for a row
	for _, q := range dst {
		sum += int64(max(q, -q))
	}
	return sum
}

// round is roundTo without the sum.
func round(dst []int32, v []float32, scale float32) {
	pass.round(dst, v, 1/float64(scale)) // at most 2^149
}

// peak returns max |v|, and false if v holds a NaN or an infinity.
func peak(v []float32) (float32, bool) {
	top := pass.top(bits32(v), 0, 1<<31-1) // non-negative floats are ordered as their bits are
	return math.Float32frombits(top), top < 0x7f800000
}

// notFinite returns the first of the rows of n elements that holds a NaN or an
// infinity, or -1.
func notFinite(v []float32, n int) int {
	for i := 0; i < len(v); i += n {
		if _, ok := peak(v[i : i+n]); !ok {
			return i / n
		}
	}
	return -1
}

// QuantizeInputs sets dst to the integers of n samples of x, at most xmax in
// magnitude, with one scale per sample: x ≈ dst·scale. A sample of zeros has scale 1. It
// refuses values that are not finite with a *NotFiniteError naming the sample; dst and scale
// must then not be used.
func QuantizeInputs(dst []int32, scale, x []float32, n int, xmax int32) error {
	if n < 1 || len(x)%n != 0 || len(scale) != n || len(dst) != len(x) {
		return fmt.Errorf("%w: %d samples in %d values, for %d integers and %d scales", ErrShape, n, len(x), len(dst), len(scale))
	}
	if xmax < 1 {
		return fmt.Errorf("%w: largest input %d", ErrRange, xmax)
	}
	each := len(x) / n
	for i := range scale {
		sample := x[i*each : (i+1)*each]
		s, ok := scaleOf(sample, xmax)
		if !ok {
			return &NotFiniteError{"sample", i}
		}
		scale[i] = s
		round(dst[i*each:(i+1)*each], sample, s)
	}
	return nil
}

// scaleOf returns the scale of a sample x, 1 for zeros, and false if x holds a NaN or an infinity.
func scaleOf(x []float32, xmax int32) (float32, bool) {
	top, ok := peak(x)
	if !ok || top == 0 {
		return 1, ok
	}
	// top/scale is at most xmax, before and so after rounding.
	return roundUp(float64(top) / float64(xmax)), true
}

// RhoReLU is the ratio of the root mean square to the peak of a few thousand
// normal values after a ReLU: sqrt(1/2) over about 3.6 standard deviations.
const RhoReLU = 0.2

// ChooseXMax returns the largest input magnitude 2^b - 1, b in 1..30, that
// predicts the least relative error of the layer's products. rho is the ratio of
// the root mean square to the peak of the layer's inputs within a sample:
// calibrated, or RhoReLU.
//
// The model: Max(ring) bounds the product of the ranges of weights and inputs. Let dw and dx
// be the rounding errors of weights and inputs, independent of each other and of mean zero.
// Then over a row the error Σ dw·x + w·dx has the variance |dw|²·ms(x) + |w|²·ms(dx), where
// ms is the mean square, and the product itself |w|²·ms(x) for uncorrelated inputs. So the
// squared relative error is
//
//	|dW|² / |W|²  +  1 / (12·XMax²·rho²)
//
// because dx is uniform over a step of peak/XMax, with variance (peak/XMax)²/12 (less with
// inputs of zero, whose error is 0), and ms(x) = (rho·peak)². The first term, over all rows,
// is measured by rounding the rows at that XMax. It grows as XMax², as the weights' steps grow
// as XMax; the second falls as XMax^-2.
//
// A rho outside (0, 1] counts as RhoReLU. For weights that QuantizeWeights refuses, the
// result is 1.
func ChooseXMax(r ring.Ring, op plan.Op, w []float32, rho float64) int32 {
	if !r.Valid() || op.Validate() != nil || len(w) != op.Rows()*op.Terms() || notFinite(w, op.Terms()) >= 0 {
		return 1
	}
	if !(rho > 0 && rho <= 1) {
		rho = RhoReLU
	}
	n, limit := op.Terms(), float64(r.Max())
	var norm2, steps2 float64 // |W|², and Σ of the squared steps at XMax = 1
	for i := range op.Rows() {
		row := w[i*n : (i+1)*n]
		for _, e := range row {
			norm2 += float64(e) * float64(e)
		}
		step := l1(row) / limit
		steps2 += float64(n) * step * step
	}
	largest := min(30, bits.Len32(uint32(r.Max())+1)-1) // 2^b - 1 <= Max
	if norm2 == 0 {
		return 1<<largest - 1
	}

	inputs := func(b int) float64 {
		x := float64(int32(1)<<b-1) * rho
		return 1 / (12 * x * x)
	}
	errs := make([]float64, op.Rows()) // by row, so that the sum does not depend on the number of goroutines
	weights := func(b int) float64 {
		parallel.Do(op.Rows(), len(w), func(from, to int) {
			rounded := make([]int32, n)
			for i := from; i < to; i++ {
				row := w[i*n : (i+1)*n]
				scale := quantizeRow(rounded, row, int64(r.Max()/(1<<b-1)))
				errs[i] = 0
				for j, e := range row {
					d := float64(rounded[j])*float64(scale) - float64(e)
					errs[i] += d * d
				}
			}
		})
		var err2 float64
		for _, e := range errs {
			err2 += e
		}
		return err2 / norm2
	}
	// If steps have the variance step²/12, both terms are equal at XMax^4 =
	// |W|² / (steps2·rho²). Search from there each way, until one term alone exceeds the
	// least sum.
	start := int(math.Round(math.Log2(norm2/(steps2*rho*rho)) / 4))
	start = min(max(start, 1), largest)
	best := start
	least := inputs(best) + weights(best)
	for b := start + 1; b <= largest; b++ {
		e := weights(b)
		if e >= least {
			break
		}
		if e += inputs(b); e < least {
			best, least = b, e
		}
	}
	for b := start - 1; b >= 1 && inputs(b) < least; b-- {
		if e := inputs(b) + weights(b); e < least {
			best, least = b, e
		}
	}
	return 1<<best - 1
}
