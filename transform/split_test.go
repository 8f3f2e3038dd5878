package transform_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

var split = []transform.Scheme{
	{Weights: transform.WeightPermute, Inputs: transform.InputSplit},
	{Weights: transform.WeightNone, Inputs: transform.InputSplit},
}

// dealing calls do with crypto/rand returning the given bytes, all of which do must draw.
// Drawing more ends the test's process.
func dealing(t *testing.T, b []byte, do func()) {
	t.Helper()
	defer func(before io.Reader) { rand.Reader = before }(rand.Reader)
	left := bytes.NewReader(b)
	rand.Reader = left
	do()
	if left.Len() > 0 {
		t.Fatalf("%d bytes of %d were not drawn", left.Len(), len(b))
	}
}

// TestSplitIsTheEquation: role 0 gets x' + s, role 1 the seed of s, and a call draws no more than
// these 32 bytes.
func TestSplitIsTheEquation(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(41, 1))
	const n = 3
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, s := range split {
			for _, c := range ops {
				l := seal(t, r, s, c.op, make([]int32, c.op.Rows()*c.op.Terms()))
				x, st := fill(rng, n*c.op.InLen(), 1000), l.layer.State()
				seed := prg.Seed{1, 2, 3}
				var call *transform.Call
				var err error
				dealing(t, seed[:], func() { call, err = l.layer.Mask(x, n, nil) })
				if err != nil {
					t.Fatal(err)
				}
				masked := call.Masked()
				if got, ok := masked[1].Seed(); !ok || got != seed {
					t.Fatalf("%v %s: role 1 has another seed than was drawn", s, c.name)
				}
				xhat, ok := masked[0].Words()
				if !ok {
					t.Fatalf("%v %s: role 0 has no words", s, c.name)
				}
				for i := range n {
					share := make([]uint32, c.op.InLen())
					prg.New(seed).Fill(r, share, uint64(i))
					for j, e := range share {
						// The channel of element j, and its channel in x.
						from, unit := j, uint32(1)
						if st.U != nil {
							k := j % len(st.U)
							from = j - k + int(st.U[k])
							unit, _ = r.Inv(st.F[st.U[k]])
						}
						want := r.Add(e, r.Mul(unit, r.FromSigned(x[i*c.op.InLen()+from])))
						if xhat.At(i, j) != want {
							t.Fatalf("%v %s: xhat[%d, %d] is not x' + s", s, c.name, i, j)
						}
					}
				}
			}
		}
	}
}

// TestSplitViews: each cloud's view is independent of the inputs. Role 1's view is a seed, the
// same for any input; role 0's is uniform for any input.
func TestSplitViews(t *testing.T) {
	const n, in = 32, 2048
	r := ring.Q4()
	for _, s := range split {
		l := seal(t, r, s, plan.Dense(in, 1), make([]int32, in))
		var seeds []prg.Seed
		for _, value := range []int32{0, 1, r.Max(), -r.Max()} {
			call, err := l.layer.Mask(slices.Repeat([]int32{value}, n*in), n, nil)
			if err != nil {
				t.Fatal(err)
			}
			masked := call.Masked()
			x := l.received(t, masked[0])
			if slices.Equal(x.Row(0), x.Row(1)) {
				t.Errorf("%v: equal inputs give equal words", s)
			}
			wantUniform(t, fmt.Sprintf("%v, inputs of %d", s, value), r, x)
			wantUniform(t, fmt.Sprintf("%v, the seed's words", s), r, l.received(t, masked[1]))
			seed, _ := masked[1].Seed()
			if slices.Contains(seeds, seed) {
				t.Errorf("%v: a seed serves two calls", s)
			}
			seeds = append(seeds, seed)
		}
		var first transform.Masked
		for i, value := range []int32{0, r.Max()} {
			var call *transform.Call
			var err error
			dealing(t, make([]byte, 32), func() { call, err = l.layer.Mask(slices.Repeat([]int32{value}, n*in), n, nil) })
			if err != nil {
				t.Fatal(err)
			}
			m := call.Masked()[1]
			if i == 0 {
				first = m
				continue
			}
			a, _ := first.Seed()
			b, _ := m.Seed()
			if a != b || first.Rows() != m.Rows() || first.Cols() != m.Cols() {
				t.Errorf("%v: role 1's view depends on the input", s)
			}
			if _, words := m.Words(); words {
				t.Errorf("%v: role 1 has words", s)
			}
		}
	}
}

// TestSplitRolesAreFixed: exchanged answers are rejected. Liars names both roles, also for equal
// errors, which cancel out.
func TestSplitRolesAreFixed(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(42, 1))
	op := plan.Dense(8, 4)
	for _, s := range split {
		w, x := fill(rng, 32, 1000), fill(rng, 16, 1000)
		l := seal(t, ring.Q4(), s, op, w)
		call, err := l.layer.Mask(x, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers := l.answers(t, call)
		turned := []ring.Matrix{answers[1], answers[0]}
		wantLiars(t, l, call, turned, 0, []int{0, 1})
		c, err := call.Unmask(turned)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.key.Open(c, x); err == nil {
			t.Errorf("%v: answers of turned roles pass", s)
		}

		// With equal errors the product is right, and passes.
		if call, err = l.layer.Mask(x, 2, nil); err != nil {
			t.Fatal(err)
		}
		answers = l.answers(t, call)
		for _, a := range answers {
			a.Data[3] = ring.Q4().Add(a.Data[3], 7)
		}
		wantLiars(t, l, call, answers, 0, []int{0, 1})
		if c, err = call.Unmask(answers); err != nil {
			t.Fatal(err)
		}
		y, err := l.key.Open(c, x)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range oracle(op, w, x[:8]) {
			if int64(y[i]) != want.Int64() {
				t.Errorf("%v: output %d: %d, want %v", s, i, y[i], want)
			}
		}
	}
}

func TestSplitHasNoPads(t *testing.T) { wantNoPads(t, split...) }

func wantNoPads(t *testing.T, schemes ...transform.Scheme) {
	op := plan.Dense(3, 2)
	other := seal(t, ring.Q4(), transform.DefaultScheme(), op, make([]int32, 6))
	for _, s := range schemes {
		l := seal(t, ring.Q4(), s, op, make([]int32, 6))
		if _, err := l.layer.NewPads(t.Context(), l.prod, 1); !errors.Is(err, transform.ErrPads) {
			t.Errorf("%v: pads: %v", s, err)
		}
		if _, err := l.layer.Mask(make([]int32, 3), 1, other.pads(t, transform.DefaultScheme(), 1)); !errors.Is(err, transform.ErrPads) {
			t.Errorf("%v: Mask with pads: %v", s, err)
		}
	}
}

// TestExpand: the words are those of the vectors, and rows have indices of their own.
func TestExpand(t *testing.T) {
	text, err := os.ReadFile("../docs/vectors/prg.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			Name, Seed, Index string
			Ring              []uint32
			Words             []uint32
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors.Cases) < 2 {
		t.Fatalf("%d cases, %v", len(vectors.Cases), err)
	}
	for _, c := range vectors.Cases {
		r, err := ring.New(c.Ring...)
		if err != nil {
			t.Fatal(err)
		}
		var seed transform.Seed
		if n, err := hex.Decode(seed[:], []byte(c.Seed)); err != nil || n != len(seed) {
			t.Fatalf("%s: seed of %d bytes, %v", c.Name, n, err)
		}
		index, err := strconv.ParseUint(c.Index, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for before := range min(3, index+1) { // rows
			got := ring.NewMatrix(int(before)+1, len(c.Words))
			if err := transform.Expand(got, r, seed, index-before); err != nil || !slices.Equal(got.Row(int(before)), c.Words) {
				t.Errorf("%s, behind %d rows: %d, %v, want %d", c.Name, before, got.Row(int(before)), err, c.Words)
			}
		}
	}

	last := ring.NewMatrix(2, 3)
	if err := transform.Expand(last, ring.Q4(), transform.Seed{}, math.MaxUint64); !errors.Is(err, transform.ErrShape) {
		t.Errorf("two rows from the last index on: %v", err)
	}
	if err := transform.Expand(last, ring.Q4(), transform.Seed{}, math.MaxUint64-1); err != nil {
		t.Errorf("up to the last index: %v", err)
	}
	for _, dst := range []ring.Matrix{last.T(), {Rows: 2, Cols: 3, Data: make([]uint32, 5)}, {Rows: -1, Cols: -1, Data: make([]uint32, 1)}} {
		if shape := new(ring.ShapeError); !errors.As(transform.Expand(dst, ring.Q4(), transform.Seed{}, 0), &shape) {
			t.Errorf("%dx%d %v of %d words is filled", dst.Rows, dst.Cols, dst.Order, len(dst.Data))
		}
	}
}
