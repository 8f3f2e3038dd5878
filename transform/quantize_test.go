package transform_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// hardRows returns rows of n weights that strain the bound.
func hardRows(rng *rand.Rand, n int) map[string][]float32 {
	row := func(f func(i int) float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(f(i))
		}
		return v
	}
	one := func(x float64) func(int) float64 {
		return func(i int) float64 {
			if i == n/2 {
				return x
			}
			return 0
		}
	}
	return map[string][]float32{
		"normal":    row(func(int) float64 { return 0.05 * rng.NormFloat64() }),
		"heavy":     row(func(int) float64 { return math.Exp(3 * rng.NormFloat64()) }),
		"equal":     row(func(int) float64 { return 1 }),
		"signs":     row(func(i int) float64 { return 1 - 2*float64(i%2) }),
		"ramp":      row(func(i int) float64 { return float64(i) }),
		"zero":      row(func(int) float64 { return 0 }),
		"-0":        row(func(int) float64 { return math.Copysign(0, -1) }),
		"one":       row(one(-0.3)),
		"denormal":  row(func(i int) float64 { return float64(i%5) * 0x1p-149 }),
		"one least": row(one(0x1p-149)),
		"huge":      row(func(int) float64 { return 1e38 }),
		"largest":   row(func(i int) float64 { return math.MaxFloat32 * (1 - 2*float64(i%2)) }),
		"one huge":  row(func(i int) float64 { return one(math.MaxFloat32)(i) + 1e-30 }),
	}
}

// TestWeightsFitTheRing: Σ|W|·XMax <= Max(ring), rows are as fine as that allows, and each
// weight is within half a step of W·Scale.
func TestWeightsFitTheRing(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 1))
	toy, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), toy} {
		for _, n := range []int{1, 2, 3, 25, 400, 4608, 65536} {
			for name, w := range hardRows(rng, n) {
				for _, xmax := range []int32{1, 2, 7, 127, 1023, 2047, 1<<15 - 1, 1<<20 - 1, 1<<30 - 1, r.Max() - 1, r.Max()} {
					if xmax > r.Max() || n > 4608 && xmax > 1<<20 {
						continue
					}
					q, err := transform.QuantizeWeights(r, plan.Dense(n, 1), w, xmax)
					if err != nil {
						t.Fatal(err)
					}
					scale, sum := float64(q.Scale[0]), int64(0)
					for _, e := range q.W {
						sum += max(int64(e), -int64(e))
					}
					id := fmt.Sprintf("%v, %d weights %q, XMax %d", r, n, name, xmax)
					if sum*int64(xmax) > int64(r.Max()) || q.XMax != xmax {
						t.Fatalf("%s: Σ|W| = %d", id, sum)
					}
					if !(scale > 0) || math.IsInf(scale, 0) {
						t.Fatalf("%s: scale %g", id, scale)
					}
					if sum == 0 {
						if scale != 1 {
							t.Fatalf("%s: a row of zeros has scale %g", id, scale)
						}
						if norm := norm1(w); norm > 0 && int64(r.Max()/xmax) > int64(n) {
							t.Fatalf("%s: lost", id)
						}
						continue
					}
					for j, e := range w {
						if d := math.Abs(float64(q.W[j])*scale - float64(e)); d > scale*(0.5+1e-9) {
							t.Fatalf("%s: weight %d is off by %g steps", id, j, d/scale)
						}
					}
					// Rounding costs up to n/2 of B levels, and lowering twice that.
					levels := float64(r.Max() / xmax)
					if float64(sum) < levels-2*float64(n)-levels/1000-1 && norm1(w)/levels > 0x1p-126 {
						t.Fatalf("%s: Σ|W| = %d of %.0f", id, sum, levels)
					}
				}
			}
		}
	}
}

func norm1(w []float32) (s float64) {
	for _, e := range w {
		s += math.Abs(float64(e))
	}
	return s
}

func TestRowsHaveTheirOwnScale(t *testing.T) {
	op := plan.Conv(plan.Conv2D{H: 3, W: 3, C: 4, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2})
	w := []float32{1, 1, 100, 100, 0, 0, -3, 5}
	q, err := transform.QuantizeWeights(ring.Q4(), op, w, 1023)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{1, 100, 0, 4} {
		if want == 0 {
			if q.Scale[i] != 1 || q.W[2*i] != 0 {
				t.Errorf("row of zeros: scale %g", q.Scale[i])
			}
		} else if got := float64(q.Scale[i]) / float64(q.Scale[0]); math.Abs(got/want-1) > 1e-3 {
			t.Errorf("row %d has %g times the scale of row 0, want %g", i, got, want)
		}
	}
}

func TestQuantizeWeightsRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		name string
		op   plan.Op
		w    []float32
		xmax int32
		want error
	}{
		{"too few", plan.Dense(2, 2), make([]float32, 3), 1, transform.ErrShape},
		{"too many", plan.Dense(2, 2), make([]float32, 5), 1, transform.ErrShape},
		{"no operator", plan.Op{}, nil, 1, plan.ErrInvalid},
		{"too long", plan.Dense(65537, 1), make([]float32, 65537), 1, plan.ErrInvalid},
		{"xmax 0", plan.Dense(1, 1), []float32{1}, 0, transform.ErrRange},
		{"xmax negative", plan.Dense(1, 1), []float32{1}, math.MinInt32, transform.ErrRange},
		{"xmax past the ring", plan.Dense(1, 1), []float32{1}, ring.Q4().Max() + 1, transform.ErrRange},
	} {
		if _, err := transform.QuantizeWeights(ring.Q4(), c.op, c.w, c.xmax); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
	for _, bad := range []float32{nan, inf, -inf} {
		w := []float32{1, 2, 3, 4, 123.456, bad}
		_, err := transform.QuantizeWeights(ring.Q4(), plan.Dense(2, 3), w, 1)
		var e *transform.NotFiniteError
		if !errors.As(err, &e) || e.Index != 2 {
			t.Fatalf("%g: error %v, want row 2", bad, err)
		}
		if strings.Contains(err.Error(), "123") || strings.Contains(err.Error(), "NaN") {
			t.Errorf("the error names values: %v", err)
		}
	}
}

func TestQuantizeInputs(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 1))
	for _, n := range []int{1, 3, 400} {
		var x []float32
		var names []string
		for name, row := range hardRows(rng, n) {
			x, names = append(x, row...), append(names, name)
		}
		for _, xmax := range []int32{1, 2, 127, 2047, 1<<20 - 1, 1<<30 - 1, math.MaxInt32} {
			q, scale := make([]int32, len(x)), make([]float32, len(names))
			if err := transform.QuantizeInputs(q, scale, x, len(names), xmax); err != nil {
				t.Fatal(err)
			}
			for s, name := range names {
				id := fmt.Sprintf("%d values %q, XMax %d", n, name, xmax)
				step, most := float64(scale[s]), int32(0)
				if !(step > 0) || math.IsInf(step, 0) {
					t.Fatalf("%s: scale %g", id, step)
				}
				zero := true
				for i, e := range x[s*n : (s+1)*n] {
					got := q[s*n+i]
					if got > xmax || got < -xmax {
						t.Fatalf("%s: %d", id, got)
					}
					if d := math.Abs(float64(got)*step - float64(e)); d > step*(0.5+1e-6) {
						t.Fatalf("%s: value %d is off by %g steps", id, i, d/step)
					}
					most = max(most, got, -got)
					zero = zero && e == 0
				}
				if zero != (most == 0) || zero && step != 1 {
					t.Fatalf("%s: largest %d, scale %g", id, most, step)
				}
				if !zero && name != "denormal" && name != "one least" && float64(most) < float64(xmax)*(1-0x1p-22) {
					t.Fatalf("%s: largest %d", id, most)
				}
			}
		}
	}
}

// TestSamplesAreAlone: a sample's integers do not depend on its batch.
func TestSamplesAreAlone(t *testing.T) {
	x := []float32{1, -2, 3, 1e30, 0, -1e30}
	q, scale := make([]int32, 6), make([]float32, 2)
	if err := transform.QuantizeInputs(q, scale, x, 2, 100); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int32{33, -67, 100, 100, 0, -100} {
		if q[i] != want {
			t.Errorf("value %d: %d, want %d", i, q[i], want)
		}
	}
}

func TestQuantizeInputsRefuses(t *testing.T) {
	for _, c := range []struct{ dst, scale, x, n int }{
		{4, 2, 5, 2}, {3, 2, 4, 2}, {4, 1, 4, 2}, {4, 3, 4, 2}, {4, 2, 4, 0}, {4, 2, 4, -2}, {4, 4, 4, 3},
	} {
		err := transform.QuantizeInputs(make([]int32, c.dst), make([]float32, c.scale), make([]float32, c.x), c.n, 10)
		if !errors.Is(err, transform.ErrShape) {
			t.Errorf("%+v: error %v, want ErrShape", c, err)
		}
	}
	if err := transform.QuantizeInputs(make([]int32, 1), make([]float32, 1), make([]float32, 1), 1, 0); !errors.Is(err, transform.ErrRange) {
		t.Errorf("xmax 0: %v", err)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		x := []float32{1, 2, 3, 4, 5, float32(bad)}
		err := transform.QuantizeInputs(make([]int32, 6), make([]float32, 3), x, 3, 10)
		var e *transform.NotFiniteError
		if !errors.As(err, &e) || e.Index != 2 || e.What != "sample" {
			t.Errorf("%g: error %v, want sample 2", bad, err)
		}
	}
}

// relativeError measures |ŷ - y| / |y| over a layer of rows x k weights and samples of k inputs,
// where ŷ is computed from the result of quantise.
func relativeError(k, rows int, w, x []float32, quantise func() (qw, qx []int32, ws, xs []float32)) float64 {
	qw, qx, ws, xs := quantise()
	var err2, y2 float64
	for s := range len(x) / k {
		for o := range rows {
			var y float64
			var q int64
			for j := range k {
				y += float64(w[o*k+j]) * float64(x[s*k+j])
				q += int64(qw[o*k+j]) * int64(qx[s*k+j])
			}
			d := float64(q)*float64(ws[o])*float64(xs[s]) - y
			err2, y2 = err2+d*d, y2+y*y
		}
	}
	return math.Sqrt(err2 / y2)
}

// layerData returns weights and inputs, and rms/peak of the inputs.
func layerData(rng *rand.Rand, k, rows, samples int, input, weight func(*rand.Rand) float64) (w, x []float32, rho float64) {
	for range rows * k {
		w = append(w, float32(weight(rng)))
	}
	for range samples {
		var peak, square float64
		for range k {
			e := input(rng)
			x = append(x, float32(e))
			peak, square = max(peak, math.Abs(e)), square+e*e
		}
		rho += math.Sqrt(square/float64(k)) / peak / float64(samples)
	}
	return w, x, rho
}

func normal(rng *rand.Rand) float64 { return rng.NormFloat64() }
func relu(rng *rand.Rand) float64   { return max(0, rng.NormFloat64()) }
func laplace(rng *rand.Rand) float64 {
	return rng.ExpFloat64() * float64(1-2*rng.IntN(2))
}
func sparse(rng *rand.Rand) float64 {
	if rng.IntN(10) > 0 {
		return 0
	}
	return rng.NormFloat64()
}
func few(rng *rand.Rand) float64 {
	if rng.IntN(100) > 0 {
		return 0
	}
	return rng.NormFloat64()
}
func pixels(rng *rand.Rand) float64 { return rng.Float64() }

func ours(t *testing.T, r ring.Ring, k, rows int, w, x []float32, xmax int32) func() (qw, qx []int32, ws, xs []float32) {
	return func() (qw, qx []int32, ws, xs []float32) {
		q, err := transform.QuantizeWeights(r, plan.Dense(k, rows), w, xmax)
		if err != nil {
			t.Fatal(err)
		}
		n := len(x) / k
		qx, xs = make([]int32, len(x)), make([]float32, n)
		if err := transform.QuantizeInputs(qx, xs, x, n, xmax); err != nil {
			t.Fatal(err)
		}
		return q.W, qx, q.Scale, xs
	}
}

// TestChooseXMax compares the choice with the best by measurement.
func TestChooseXMax(t *testing.T) {
	if testing.Short() {
		t.Skip("the same in every build")
	}
	rng := rand.New(rand.NewPCG(13, 1))
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, k := range []int{25, 400, 4608} {
			for _, d := range []struct {
				name          string
				input, weight func(*rand.Rand) float64
			}{
				{"relu x normal", relu, normal}, {"normal x laplace", normal, laplace},
				{"sparse x sparse", sparse, sparse}, {"pixels x normal", pixels, normal},
				{"normal x few", normal, few},
			} {
				if d.name != "relu x normal" && k < 400 {
					continue // too few products to average over
				}
				const rows, samples = 12, 6
				w, x, rho := layerData(rng, k, rows, samples, d.input, d.weight)
				chosen := transform.ChooseXMax(r, plan.Dense(k, rows), w, rho)
				if chosen&(chosen+1) != 0 || chosen < 1 {
					t.Fatalf("XMax %d is not 2^b - 1", chosen)
				}
				best, bestX := math.Inf(1), int32(0)
				for b := 1; b <= 30 && 1<<b-1 <= r.Max(); b++ {
					e := relativeError(k, rows, w, x, ours(t, r, k, rows, w, x, 1<<b-1))
					if e < best {
						best, bestX = e, 1<<b-1
					}
				}
				got := relativeError(k, rows, w, x, ours(t, r, k, rows, w, x, chosen))
				t.Logf("%v %s, K = %d: XMax %d, error %.2e; best %d, %.2e", r, d.name, k, chosen, got, bestX, best)
				if got > 2*best {
					t.Errorf("%v %s, K = %d: XMax %d has error %.2e, %d has %.2e", r, d.name, k, chosen, got, bestX, best)
				}
			}
		}
	}
}

// TestBetterThanInt8: at K = 4608 the error is about 1e-3, and at least 4 times below that of
// 8-bit weights and inputs.
func TestBetterThanInt8(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 1))
	const k, rows, samples = 4608, 32, 8
	w, x, rho := layerData(rng, k, rows, samples, relu, normal)
	if math.Abs(rho-transform.RhoReLU) > 0.03 {
		t.Errorf("rms over peak is %.3f, RhoReLU is %g", rho, transform.RhoReLU)
	}
	xmax := transform.ChooseXMax(ring.Q4(), plan.Dense(k, rows), w, transform.RhoReLU)
	exact := relativeError(k, rows, w, x, ours(t, ring.Q4(), k, rows, w, x, xmax))
	int8 := relativeError(k, rows, w, x, func() (qw, qx []int32, ws, xs []float32) {
		round := func(v []float32) (q []int32, scale []float32) {
			for i := 0; i < len(v); i += k {
				var peak float64
				for _, e := range v[i : i+k] {
					peak = max(peak, math.Abs(float64(e)))
				}
				scale = append(scale, float32(peak/127))
				for _, e := range v[i : i+k] {
					q = append(q, int32(math.Round(float64(e)/peak*127)))
				}
			}
			return q, scale
		}
		qw, ws = round(w)
		qx, xs = round(x)
		return
	})
	t.Logf("XMax %d: relative error %.2e, with 8 bits %.2e", xmax, exact, int8)
	if exact > 2e-3 || exact < 0.5e-3 {
		t.Errorf("relative error %.2e", exact)
	}
	if int8 < 4*exact {
		t.Errorf("relative error %.2e, with 8 bits %.2e", exact, int8)
	}
}

func TestChooseXMaxOfOddWeights(t *testing.T) {
	toy, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(15, 1))
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), toy} {
		for name, w := range hardRows(rng, 400) {
			for _, rho := range []float64{0, 1e-9, 0.2, 1, 2, -1, math.NaN(), math.Inf(1)} {
				xmax := transform.ChooseXMax(r, plan.Dense(200, 2), w, rho)
				if xmax < 1 || xmax > r.Max() || xmax&(xmax+1) != 0 {
					t.Errorf("%v %s, rho %g: XMax %d", r, name, rho, xmax)
				}
			}
		}
	}
	for _, w := range [][]float32{nil, {1}, {1, float32(math.NaN())}, {float32(math.Inf(1)), 1}} {
		if xmax := transform.ChooseXMax(ring.Q4(), plan.Dense(2, 1), w, 0.2); xmax != 1 {
			t.Errorf("XMax %d for weights that are refused", xmax)
		}
	}
	if xmax := transform.ChooseXMax(ring.Q4(), plan.Op{}, nil, 0.2); xmax != 1 {
		t.Errorf("XMax %d for no operator", xmax)
	}
}

// TestQuantizeInPlace: the integers are QuantizeWeights', in the memory of the weights, for any
// number of processors. Refused weights are unchanged.
func TestQuantizeInPlace(t *testing.T) {
	rng := rand.New(rand.NewPCG(45, 1))
	op := plan.Dense(513, 700)
	w := make([]float32, op.In*op.Out)
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	xmax := transform.ChooseXMax(ring.Q4(), op, w, 0)
	want, err := transform.QuantizeWeights(ring.Q4(), op, w, xmax)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, n := range []int{1, 3, 8} {
		runtime.GOMAXPROCS(n)
		if got := transform.ChooseXMax(ring.Q4(), op, w, 0); got != xmax {
			t.Errorf("%d processors: bound %d, want %d", n, got, xmax)
		}
		v := slices.Clone(w)
		got, err := transform.QuantizeInPlace(ring.Q4(), op, v, xmax)
		if err != nil || !slices.Equal(got.W, want.W) || !slices.Equal(got.Scale, want.Scale) || got.XMax != xmax {
			t.Errorf("%d processors: other integers, %v", n, err)
		}
		if unsafe.Pointer(&got.W[0]) != unsafe.Pointer(&v[0]) {
			t.Errorf("%d processors: other memory", n)
		}
	}
	w[3] = float32(math.NaN())
	v := slices.Clone(w)
	if _, err := transform.QuantizeInPlace(ring.Q4(), op, v, xmax); err == nil {
		t.Error("NaN")
	}
	if i := slices.IndexFunc(v, func(e float32) bool { return e != e }); i != 3 || v[4] != w[4] || v[len(v)-1] != w[len(v)-1] {
		t.Error("weights that were refused have changed")
	}
}
