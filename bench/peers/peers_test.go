package main

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/plan"
)

// small are shapes of odd sizes, and one column.
func small() []*shape {
	return []*shape{
		newShape("dense", plan.Dense(53, 37), 29),
		newShape("column", plan.Dense(53, 37), 1),
		newShape("conv", conv(5, 3), 2),
	}
}

// TestPeers: every peer that was built in multiplies, as its own check and as a
// changed result of its show.
func TestPeers(t *testing.T) {
	for _, p := range peers {
		for _, s := range small() {
			loaded, err := p.load(s)
			if err != nil {
				t.Fatalf("%s, %s: %v", p.name, s.name, err)
			}
			if err := loaded.check(rand.New(rand.NewPCG(5, 6))); err != nil {
				t.Errorf("%s, %s: %v", p.name, s.name, err)
			}
			if err := loaded.close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCheck: a product that is wrong everywhere by a little is seen.
func TestCheck(t *testing.T) {
	s := small()[0]
	rng := rand.New(rand.NewPCG(7, 8))
	d := s.bytes()
	d.run = func() error { return nil }
	if d.check(rng) == nil {
		t.Error("zeros pass for a product")
	}
	f := s.float64s()
	run := func(add float64, modulus int64) func() error {
		return func() error {
			for i := range f.m {
				for j := range f.n {
					var sum int64
					for k := range f.k {
						sum += int64(f.w[i*f.k+k]) * int64(f.x[k*f.n+j])
					}
					if modulus > 0 {
						sum %= modulus
					}
					f.y[i*f.n+j] = float64(sum) + add
				}
			}
			return nil
		}
	}
	for _, modulus := range []int64{0, prime23} {
		f.modulus = modulus
		f.run = run(0, modulus)
		if err := f.check(rng); err != nil {
			t.Errorf("modulo %d: %v", modulus, err)
		}
		f.run = run(1e6, modulus)
		if f.check(rng) == nil {
			t.Errorf("modulo %d: a wrong product passes", modulus)
		}
	}
}

// TestKnown: every peer is among those whose absence would be told.
func TestKnown(t *testing.T) {
	for _, p := range peers {
		if !slices.ContainsFunc(known, func(k struct{ peer, needs string }) bool { return k.peer == p.name }) {
			t.Errorf("%s is not known", p.name)
		}
	}
}

func TestQuartiles(t *testing.T) {
	s := series{5, 1, 4, 2, 3}
	if s.median() != 3 || s.spread() != [2]float64{2, 4} {
		t.Errorf("median %v, spread %v", s.median(), s.spread())
	}
	if s := (series{2, 1, 3}); s.spread() != [2]float64{1, 3} {
		t.Errorf("of three: spread %v", s.spread())
	}
}

// TestNPY: the product's own reader reads what is written.
func TestNPY(t *testing.T) {
	m := &dataset.Images{N: 3, C: 2, H: 1, W: 2, Data: []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}
	got, err := dataset.ReadNPY(bytes.NewReader(npy(m, 2)))
	if err != nil {
		t.Fatal(err)
	}
	if got.N != 2 || got.C != 2 || got.H != 1 || got.W != 2 || !slices.Equal(got.Data, m.Data[:8]) {
		t.Errorf("%+v", got)
	}
}
