package verify

import (
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/securenets/securenets/plan"
)

// lazily returns a candidate that reads y tile by tile, and counts reads.
func lazily(y []int32, n, tile int, reads *atomic.Int64) Candidate {
	each := len(y) / n
	return LazyCandidate(n, each, tile, func(dst, scratch []int32, i, at int) {
		if at%tile != 0 || len(dst) != min(tile, each-at) || len(scratch) != len(dst) {
			panic(fmt.Sprintf("a tile of %d at %d of %d", len(dst), at, each))
		}
		reads.Add(int64(len(dst)))
		copy(scratch, y[i*each+at:])
		copy(dst, scratch)
	})
}

// inPairs is lazily with samples read in pairs where possible.
func inPairs(y []int32, n, tile int, reads *atomic.Int64) Candidate {
	each := len(y) / n
	return lazily(y, n, tile, reads).InPairs(func(dst, scratch []int32, i, at int) {
		if at%tile != 0 || len(dst) != 2*min(tile, each-at) || len(scratch) != len(dst) {
			panic(fmt.Sprintf("a tile of %d at %d of %d, in pairs", len(dst), at, each))
		}
		reads.Add(int64(len(dst)))
		clear(scratch)
		copy(dst, sides(y[i*each+at:][:len(dst)/2], y[(i+1)*each+at:]))
	})
}

// sides interleaves the elements of two samples, as many as the first has.
func sides(first, second []int32) []int32 {
	var v []int32
	for i, e := range first {
		v = append(v, e, second[i])
	}
	return v
}

// TestOpenFloats: for any tiles, floats are those of the products that Open returns, and none is
// returned if any product is wrong.
func TestOpenFloats(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(9, 1))
	for _, c := range ops {
		t.Run(c.name, func(t *testing.T) {
			const n = 5
			in, out, rows := c.op.InLen(), c.op.OutLen(), c.op.Rows()
			w, x := signed(rng, rows*c.op.Terms(), 1000), signed(rng, n*in, 1000)
			w[0], x[0] = 1, 1 // of one element each the product is not zero, which no sums are
			k, err := NewKey(DefaultField(), c.op, w)
			if err != nil {
				t.Fatal(err)
			}
			y := answers(c.op, w, x, n)
			row, bias, sample := make([]float32, rows), make([]float32, rows), make([]float32, n)
			for _, v := range [][]float32{row, bias, sample} {
				for i := range v {
					v[i] = float32(rng.ExpFloat64())
				}
			}
			scale, err := NewScale(row, bias)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]float32, n*out)
			for i := range want {
				product := float32(y[i]) * float32(row[i%rows]*sample[i/out])
				want[i] = float32(product) + bias[i%rows]
			}
			expected := k.Expect(n)
			for i := range n {
				// In two parts, the second first.
				part := x[i*in : (i+1)*in]
				expected.Add(i, in/2, part[in/2:])
				expected.Add(i, 0, part[:in/2])
			}
			paired := k.Expect(n)
			for i := 0; i < n-1; i += 2 {
				a, b := x[i*in:(i+1)*in], x[(i+1)*in:(i+2)*in]
				paired.AddPairs(i, in/2, sides(a[in/2:], b[in/2:]))
				paired.AddPairs(i, 0, sides(a[:in/2], b))
			}
			paired.Add(n-1, 0, x[(n-1)*in:])
			if !slices.Equal(paired.sums, expected.sums) {
				t.Fatal("AddPairs gives other sums")
			}
			dst := make([]float32, n*out)
			for _, read := range []func([]int32, int, int, *atomic.Int64) Candidate{lazily, inPairs} {
				for _, tile := range []int{1, 3, out, out + 1} {
					var reads atomic.Int64
					clear(dst)
					if err := k.OpenFloats(dst, read(y, n, tile, &reads), expected, sample, scale); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(dst, want) {
						t.Fatalf("tiles of %d: other floats", tile)
					}
					if reads.Load() != int64(n*out) {
						t.Errorf("tiles of %d: %d elements read of %d", tile, reads.Load(), n*out)
					}
					if got, err := k.Open(read(y, n, tile, &reads), x); err != nil || !slices.Equal(got, y) {
						t.Errorf("tiles of %d: Open: %v", tile, err)
					}
				}
			}
			if scale.Floats(dst, y, sample); !slices.Equal(dst, want) {
				t.Error("Floats gives others")
			}

			zero := func(id string) {
				t.Helper()
				if slices.ContainsFunc(dst, func(v float32) bool { return v != 0 }) {
					t.Errorf("%s: values come out", id)
				}
			}
			for i := range y {
				for _, d := range []int32{1, math.MinInt32} {
					bad := slices.Clone(y)
					bad[i] += d
					for _, c := range []Candidate{NewCandidate(bad, n), inPairs(bad, n, out, new(atomic.Int64))} {
						copy(dst, want)
						err := k.OpenFloats(dst, c, expected, sample, scale)
						var e *RejectedError
						if !errors.As(err, &e) || !slices.Equal(e.Samples, []int{i / out}) {
							t.Fatalf("element %d off by %d: %v", i, d, err)
						}
						zero(fmt.Sprintf("element %d off by %d", i, d))
					}
				}
			}

			other, err := NewKey(DefaultField(), c.op, w)
			if err != nil {
				t.Fatal(err)
			}
			wrongScale, err := NewScale(append(row, 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			short := k.Expect(n - 1)
			for name, bad := range map[string]struct {
				key      *Key
				dst      []float32
				n        int
				expected Expected
				sample   []float32
				scale    Scale
				want     func(error) bool
			}{
				"another key's sums":      {other, dst, n, expected, sample, scale, func(err error) bool { return errors.Is(err, ErrKey) }},
				"no sums":                 {k, dst, n, Expected{}, sample, scale, func(err error) bool { return errors.Is(err, ErrKey) }},
				"sums without terms":      {k, dst, n, k.Expect(n), sample, scale, func(err error) bool { return errors.Is(err, ErrRejected) }},
				"sums of fewer samples":   {k, dst, n, short, sample, scale, isLength},
				"fewer outputs":           {k, dst[1:], n, expected, sample, scale, isLength},
				"fewer scales of samples": {k, dst, n, expected, sample[1:], scale, isLength},
				"scales of more rows":     {k, dst, n, expected, sample, wrongScale, isLength},
				"fewer products":          {k, dst, n - 1, expected, sample, scale, isLength},
			} {
				copy(dst, want)
				err := bad.key.OpenFloats(bad.dst, NewCandidate(y[:bad.n*out], bad.n), bad.expected, bad.sample, bad.scale)
				if !bad.want(err) {
					t.Errorf("%s: error %v", name, err)
				}
				if len(bad.dst) == len(dst) {
					zero(name)
				}
			}
		})
	}
}

func isLength(err error) bool { return errors.As(err, new(*LengthError)) }

// TestOpenFloatsInParallel has enough work for several goroutines, with wrong samples in all of
// their parts.
func TestOpenFloatsInParallel(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(10, 1))
	op, n := plan.Dense(3, 700), 401
	w, x := signed(rng, op.In*op.Out, 1000), signed(rng, n*op.In, 1000)
	k, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	y := answers(op, w, x, n)
	expected, sample := k.Expect(n), slices.Repeat([]float32{1}, n)
	for i := range n {
		expected.Add(i, 0, x[i*op.In:(i+1)*op.In])
	}
	scale, err := NewScale(slices.Repeat([]float32{1}, op.Out), nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong, want := slices.Clone(y), []int{0, 199, 200, 399}
	for _, i := range want {
		wrong[i*op.Out+i]++
	}
	var reads atomic.Int64
	for _, read := range []func([]int32, int, int, *atomic.Int64) Candidate{lazily, inPairs} {
		dst := make([]float32, len(y))
		if err := k.OpenFloats(dst, read(y, n, 64, &reads), expected, sample, scale); err != nil {
			t.Fatal(err)
		}
		for i, v := range y {
			if dst[i] != float32(v) {
				t.Fatalf("element %d is %v, want %d", i, dst[i], v)
			}
		}
		var e *RejectedError
		if err := k.OpenFloats(dst, read(wrong, n, 64, &reads), expected, sample, scale); !errors.As(err, &e) || !slices.Equal(e.Samples, want) {
			t.Errorf("got %v, want samples %v", err, want)
		}
		if slices.ContainsFunc(dst, func(v float32) bool { return v != 0 }) {
			t.Error("values are returned")
		}
	}
}

// one returns the key of a layer that repeats its one input, the right products of n samples of
// 1, and the other arguments of OpenFloats.
func one(t *testing.T, size, n int) (k *Key, y []int32, expected Expected, sample []float32, to Scale) {
	t.Helper()
	op := plan.Dense(1, size)
	k, err := NewKey(DefaultField(), op, slices.Repeat([]int32{1}, size))
	if err != nil {
		t.Fatal(err)
	}
	expected = k.Expect(n)
	for i := range n {
		expected.Add(i, 0, []int32{1})
	}
	if to, err = NewScale(slices.Repeat([]float32{1}, size), nil); err != nil {
		t.Fatal(err)
	}
	return k, slices.Repeat([]int32{1}, size*n), expected, slices.Repeat([]float32{1}, n), to
}

// TestOpenFloatsPanics: values read before a candidate panics are not returned, and samples of
// another length are refused.
func TestOpenFloatsPanics(t *testing.T) {
	const size, n = 6, 2
	k, y, expected, sample, to := one(t, size, n)
	dst := make([]float32, size*n)
	c := LazyCandidate(n, size, 4, func(part, _ []int32, i, at int) {
		if i == 1 && at == 4 {
			panic("no more")
		}
		copy(part, y[i*size+at:])
	})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		k.OpenFloats(dst, c, expected, sample, to)
	}()
	if slices.ContainsFunc(dst, func(v float32) bool { return v != 0 }) {
		t.Error("values are returned")
	}
	long := append(slices.Clone(y), y...)
	if err := k.OpenFloats(dst, NewCandidate(long, n), expected, sample, to); !isLength(err) {
		t.Errorf("samples twice as long: %v", err)
	}
}

// TestTilesAreLentOnce: no other check gets a tile before its own is done with it.
func TestTilesAreLentOnce(t *testing.T) {
	const size, n = 64, 3
	k, y, expected, sample, to := one(t, size, n)
	dst, inside := make([]float32, size*n), make([]float32, size*n)
	inner := LazyCandidate(n, size, 16, func(part, scratch []int32, i, at int) {
		for _, v := range [][]int32{part, scratch} {
			for j := range v {
				v[j] = -1
			}
		}
	})
	outer := LazyCandidate(n, size, 16, func(part, scratch []int32, i, at int) {
		copy(part, y[i*size+at:])
		copy(scratch, part)
		// A pool lends the latest returned memory first.
		if err := k.OpenFloats(inside, inner, expected, sample, to); !errors.Is(err, ErrRejected) {
			t.Error(err)
		}
		if !slices.Equal(part, scratch) || part[0] != 1 {
			t.Error("another check has the tile")
		}
	})
	if err := k.OpenFloats(dst, outer, expected, sample, to); err != nil {
		t.Error(err)
	}
}

func TestNewScaleRefuses(t *testing.T) {
	for _, c := range []struct{ row, bias []float32 }{{nil, nil}, {nil, []float32{1}}, {[]float32{1}, []float32{1, 2}}, {[]float32{1, 2}, []float32{}}} {
		if _, err := NewScale(c.row, c.bias); !isLength(err) {
			t.Errorf("%d scales and %d biases: error %v", len(c.row), len(c.bias), err)
		}
	}
}
