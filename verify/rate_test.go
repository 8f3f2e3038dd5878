package verify

import (
	"bytes"
	"io"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// forge runs trials of a toy layer over r: a fresh key from source, random weights and inputs
// whose products fit the ring, and a random wrong answer. It returns the number of wrong
// answers that pass. The right answer must always pass.
func forge(t *testing.T, r ring.Ring, f Field, op plan.Op, trials int, rng *mathrand.Rand, source func() io.Reader) int {
	t.Helper()
	passed := 0
	for range trials {
		// One weight per row and inputs of at most Max: |y| <= Max.
		w, x := make([]int32, op.Rows()*op.Terms()), make([]int32, op.InLen())
		for o := range op.Rows() {
			w[o*op.Terms()+rng.IntN(op.Terms())] = int32(rng.IntN(3)) - 1
		}
		element := func() int32 { return r.Lift(rng.Uint32N(r.Modulus())) }
		for i := range x {
			x[i] = element()
		}
		k, err := newKey(f, op, w, source())
		if err != nil {
			t.Fatal(err)
		}
		y := answers(op, w, x, 1)
		if _, err := k.Open(NewCandidate(slices.Clone(y), 1), x); err != nil {
			t.Fatalf("a right answer: %v", err)
		}
		forged := slices.Clone(y)
		for slices.Equal(forged, y) {
			for i := range forged {
				forged[i] = element()
			}
		}
		if _, err := k.Open(NewCandidate(forged, 1), x); err == nil {
			passed++
		}
	}
	return passed
}

// TestFalseAcceptRate measures the false-accept rate over a small ring and field: of random
// wrong answers over Z_15, one in P = 17 passes, within 3 standard deviations. The statistic
// must be able to fail: it does if S is zero half of the time.
func TestFalseAcceptRate(t *testing.T) {
	r, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewField(17)
	if err != nil {
		t.Fatal(err)
	}
	toys := []struct {
		name string
		op   plan.Op
	}{
		{"dense", plan.Dense(3, 4)},
		{"one output", plan.Dense(2, 1)},
		{"conv", plan.Conv(plan.Conv2D{H: 3, W: 3, C: 1, OutC: 1, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
	}
	// deviation returns the deviation of the measured rate from 1/P, in standard deviations.
	deviation := func(op plan.Op, trials int, source func() io.Reader) float64 {
		passed := forge(t, r, f, op, trials, mathrand.New(mathrand.NewPCG(7, 1)), source)
		p := 1 / float64(f.P())
		sigma := math.Sqrt(p * (1 - p) / float64(trials))
		t.Logf("%d of %d wrong answers passed: %.5f, 1/P = %.5f, sigma = %.5f", passed, trials, float64(passed)/float64(trials), p, sigma)
		return (float64(passed)/float64(trials) - p) / sigma
	}
	sound, broken := 150_000, 20_000
	if testing.Short() { // slow under the race detector, which has nothing new to check here
		sound, broken = 15_000, 5_000
	}
	// A fixed stream: the outcome does not depend on luck.
	chacha := mathrand.NewChaCha8([32]byte{1})
	for _, toy := range toys {
		t.Run(toy.name, func(t *testing.T) {
			if d := deviation(toy.op, sound, func() io.Reader { return chacha }); math.Abs(d) > 3 {
				t.Errorf("%.1f standard deviations from 1/P", d)
			}
			coin := mathrand.New(mathrand.NewPCG(8, 1))
			zeroHalfTheTime := func() io.Reader {
				if coin.IntN(2) == 0 {
					return bytes.NewReader(make([]byte, 1<<12))
				}
				return chacha
			}
			if d := deviation(toy.op, broken, zeroHalfTheTime); math.Abs(d) <= 3 {
				t.Errorf("a broken check is %.1f standard deviations from 1/P", d)
			}
		})
	}
}
