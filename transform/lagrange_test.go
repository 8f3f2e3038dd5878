package transform_test

import (
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

var lagrange = transform.Scheme{Weights: transform.WeightLagrange, Inputs: transform.InputLagrange}

// TestLagrangeIsTheEquation: sealing draws a seed of 32 bytes, and each call another, and
// nothing else. Twice the weights of role 0 are W + R, of role 1 W - R, and role 2 has
// R = PRG(seed, 0). Role 0 gets x + s, role 1 x - s, and role 2 the seed of s.
func TestLagrangeIsTheEquation(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(43, 1))
	const n = 3
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		m := new(big.Int).SetUint64(uint64(r.Modulus()))
		// same reports whether scale·got is a + sign·b modulo M.
		same := func(scale int64, got uint32, a int32, sign int64, b uint32) bool {
			d := new(big.Int).SetInt64(scale * int64(got))
			d.Sub(d, big.NewInt(int64(a)))
			d.Sub(d, new(big.Int).Mul(big.NewInt(sign), big.NewInt(int64(b))))
			return d.Mod(d, m).Sign() == 0 && got < r.Modulus()
		}
		for _, c := range slices.Concat(ops, tiled) {
			w, x := fill(rng, c.op.Rows()*c.op.Terms(), r.Max()), fill(rng, n*c.op.InLen(), r.Max())
			seed := prg.Seed{1, 2, 3}
			layer, err := transform.NewLayer(r, lagrange, c.op)
			if err != nil {
				t.Fatal(err)
			}
			var whats []ring.Matrix
			dealing(t, seed[:], func() { whats, err = layer.Seal(w) })
			if err != nil {
				t.Fatal(err)
			}
			mask := make([]uint32, len(w))
			prg.New(seed).Fill(r, mask, 0)
			for i, a := range w {
				if !same(2, whats[0].Data[i], a, 1, mask[i]) || !same(2, whats[1].Data[i], a, -1, mask[i]) || whats[2].Data[i] != mask[i] {
					t.Fatalf("%v %s: weight %d is not (W + R)/2, (W - R)/2 and R", r, c.name, i)
				}
			}

			seed[0]++
			var call *transform.Call
			dealing(t, seed[:], func() { call, err = layer.Mask(x, n, nil) })
			if err != nil {
				t.Fatal(err)
			}
			masked := call.Masked()
			if got, ok := masked[2].Seed(); !ok || got != seed {
				t.Fatalf("%v %s: role 2 has another seed than was drawn", r, c.name)
			}
			plus, ok0 := masked[0].Words()
			minus, ok1 := masked[1].Words()
			if !ok0 || !ok1 {
				t.Fatalf("%v %s: roles 0 and 1 have no words", r, c.name)
			}
			for i := range n {
				share := make([]uint32, c.op.InLen())
				prg.New(seed).Fill(r, share, uint64(i))
				for j, e := range share {
					a := x[i*c.op.InLen()+j]
					if !same(1, plus.At(i, j), a, 1, e) || !same(1, minus.At(i, j), a, -1, e) {
						t.Fatalf("%v %s: inputs [%d, %d] are not x + s and x - s", r, c.name, i, j)
					}
				}
			}
			call.Close()
		}
	}
}

// TestLagrangeViews: each role's shares of weights and of inputs are uniform whatever these are.
// For two weights and two inputs that are as different as possible, the counts of its words
// differ no more than those of uniform words.
func TestLagrangeViews(t *testing.T) {
	const n, in, out = 32, 2048, 32
	r := ring.Q4()
	for role := range lagrange.Roles() {
		var weights, inputs []ring.Matrix
		for _, value := range []int32{0, 1, r.Max(), -r.Max()} {
			l := seal(t, r, lagrange, plan.Dense(in, out), slices.Repeat([]int32{value}, in*out))
			what := l.whats[role]
			if slices.Equal(what.Row(0), what.Row(1)) {
				t.Errorf("role %d: equal rows of weights give equal words", role)
			}
			wantUniform(t, fmt.Sprintf("role %d, weights of %d", role, value), r, what)
			call, err := l.layer.Mask(slices.Repeat([]int32{value}, n*in), n, nil)
			if err != nil {
				t.Fatal(err)
			}
			x := l.received(t, call.Masked()[role])
			if slices.Equal(x.Row(0), x.Row(1)) {
				t.Errorf("role %d: equal inputs give equal words", role)
			}
			wantUniform(t, fmt.Sprintf("role %d, inputs of %d", role, value), r, x)
			// The shares are independent of each other, as R and s are.
			mixed := ring.NewMatrix(n, in)
			for i := range mixed.Data {
				mixed.Data[i] = r.Sub(what.Data[i], x.Data[i])
			}
			wantUniform(t, fmt.Sprintf("role %d, weights less inputs of %d", role, value), r, mixed)
			weights, inputs = append(weights, what), append(inputs, x)
		}
		for _, views := range [][]ring.Matrix{weights, inputs} {
			for i, a := range views {
				for _, b := range views[:i] {
					apart := ring.NewMatrix(a.Rows, a.Cols)
					for k := range apart.Data {
						apart.Data[k] = r.Sub(a.Data[k], b.Data[k])
					}
					wantUniform(t, fmt.Sprintf("role %d, between two draws", role), r, apart)
				}
			}
		}
	}
}

// TestLagrangeTwoRoles: any two roles together have the weights and the inputs, as the scheme's
// guarantee says.
func TestLagrangeTwoRoles(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(44, 1))
	r, op := ring.Q4(), plan.Dense(40, 3)
	w, x := fill(rng, 120, r.Max()), fill(rng, 40, r.Max())
	l := seal(t, r, lagrange, op, w)
	call, err := l.layer.Mask(x, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var xs [][]uint32
	for _, m := range call.Masked() {
		xs = append(xs, l.received(t, m).Data)
	}
	half, _ := r.Inv(2)
	for i, a := range w {
		p, q, m := l.whats[0].Data[i], l.whats[1].Data[i], l.whats[2].Data[i]
		if r.Lift(r.Add(p, q)) != a || r.Lift(r.Sub(r.Mul(2, p), m)) != a || r.Lift(r.Add(r.Mul(2, q), m)) != a {
			t.Fatalf("weight %d is not what two roles have", i)
		}
	}
	for i, a := range x {
		p, q, s := xs[0][i], xs[1][i], xs[2][i]
		if r.Lift(r.Mul(half, r.Add(p, q))) != a || r.Lift(r.Sub(p, s)) != a || r.Lift(r.Add(q, s)) != a {
			t.Fatalf("input %d is not what two roles have", i)
		}
	}
}

// TestLagrangeDrawsAnew: no mask of weights or inputs serves twice, even if a restored layer
// seals the same weights.
func TestLagrangeDrawsAnew(t *testing.T) {
	op := plan.Dense(8, 4)
	l := seal(t, ring.Q4(), lagrange, op, make([]int32, 32))
	again, err := transform.RestoreLayer(ring.Q4(), lagrange, l.layer.State())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	drawn := func(role int, words []uint32) {
		t.Helper()
		key := fmt.Sprint(role, words)
		if seen[key] {
			t.Errorf("role %d has words twice", role)
		}
		seen[key] = true
	}
	for role, what := range l.whats {
		drawn(role, what.Data)
	}
	for _, layer := range []*transform.Layer{l.layer, again} {
		for range 4 {
			whats, err := layer.Seal(make([]int32, 32))
			if err != nil {
				t.Fatal(err)
			}
			for role, what := range whats {
				drawn(role, what.Data)
			}
			call, err := layer.Mask(make([]int32, 16), 2, nil)
			if err != nil {
				t.Fatal(err)
			}
			for role, m := range call.Masked() {
				x := l.received(t, m)
				drawn(role, x.Row(0))
				drawn(role, x.Row(1))
			}
		}
	}
	if len(seen) != 3*(1+8+16) {
		t.Errorf("%d draws", len(seen))
	}
}

// TestLagrangeRolesAreFixed: no role's answer can replace another's, and the check detects
// errors of two roles unless they cancel out, which gives the right product.
func TestLagrangeRolesAreFixed(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(45, 1))
	r, op := ring.Q4(), plan.Dense(8, 4)
	w, x := fill(rng, 32, 1000), fill(rng, 16, 1000)
	l := seal(t, r, lagrange, op, w)
	for _, c := range []struct {
		name   string
		change func(a []ring.Matrix) []ring.Matrix
		liars  []int
		right  bool
	}{
		{"roles 0 and 2 turned", func(a []ring.Matrix) []ring.Matrix { return []ring.Matrix{a[2], a[1], a[0]} }, []int{0, 2}, false},
		{"roles 1 and 2 turned", func(a []ring.Matrix) []ring.Matrix { return []ring.Matrix{a[0], a[2], a[1]} }, []int{1, 2}, false},
		{"roles 0 and 1 turned", func(a []ring.Matrix) []ring.Matrix { return []ring.Matrix{a[1], a[0], a[2]} }, []int{0, 1}, true},
		{"0 and 1 add", func(a []ring.Matrix) []ring.Matrix { return added(r, a, 7, 7, 0) }, []int{0, 1}, false},
		{"1 and 2 add", func(a []ring.Matrix) []ring.Matrix { return added(r, a, 0, 7, 7) }, []int{1, 2}, true},
		{"all add", func(a []ring.Matrix) []ring.Matrix { return added(r, a, 7, 7, 14) }, []int{0, 1, 2}, true},
	} {
		call, err := l.layer.Mask(x, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers := c.change(l.answers(t, call))
		wantLiars(t, l, call, answers, 0, c.liars)
		candidate, err := call.Unmask(answers)
		if err != nil {
			t.Fatal(err)
		}
		y, err := l.key.Open(candidate, x)
		if (err == nil) != c.right {
			t.Errorf("%s: %v", c.name, err)
		}
		for i, want := range oracle(op, w, x[:8]) {
			if err == nil && int64(y[i]) != want.Int64() {
				t.Errorf("%s: output %d: %d, want %v", c.name, i, y[i], want)
			}
		}
	}
}

// added adds numbers to the first word of each role's answer.
func added(r ring.Ring, answers []ring.Matrix, numbers ...uint32) []ring.Matrix {
	for role, a := range answers {
		a.Data[0] = r.Add(a.Data[0], numbers[role])
	}
	return answers
}

func TestLagrangeHasNoPads(t *testing.T) { wantNoPads(t, lagrange) }
