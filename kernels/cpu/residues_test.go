package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// everyPrime returns the odd primes below 2^8: a ring's primes are among them.
func everyPrime() (primes []uint32) {
	for p := uint32(3); p < 1<<8; p += 2 {
		if _, err := ring.New(p); err == nil {
			primes = append(primes, p)
		}
	}
	return primes
}

func mustRing(t testing.TB, primes ...uint32) ring.Ring {
	t.Helper()
	r, err := ring.New(primes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSplitBounds: for every prime and every possible v, the reduced byte is congruent to v
// and at most the prime.
func TestSplitBounds(t *testing.T) {
	for _, p := range everyPrime() {
		c := splittings(mustRing(t, p), 1)[0]
		for v := uint32(0); v <= 1020*p; v++ {
			if r := uint32(splitOne(int32(v), c)); r > p || r%p != v%p {
				t.Fatalf("modulo %d, %d becomes %d", p, v, r)
			}
		}
		for range 1000 {
			a := rand.Uint32()
			v := int64(c.bias) + int64(dotBytes(a, c.powers))
			if v < 0 || v > int64(1020*p) || uint32(v)%p != a%p {
				t.Fatalf("modulo %d, the bytes of %d give %d", p, a, v)
			}
		}
	}
}

// TestPairBounds: residues modulo two primes are right and at most maxWord, at the
// ends of the ring and beside the multiples of half the modulus, for every two primes,
// alone and beside the two that make the ring as large as it gets.
func TestPairBounds(t *testing.T) {
	primes := everyPrime()
	for i, p := range primes {
		for _, q := range primes[:i] {
			rings := []ring.Ring{mustRing(t, p, q)}
			for _, rest := range [][]uint32{{251, 241}, {239, 233}} {
				if !slices.Contains(rest, p) && !slices.Contains(rest, q) {
					rings = append(rings, mustRing(t, p, q, rest[0], rest[1]))
				}
			}
			for _, r := range rings {
				c, m := splittings(r, 2)[0], p*q
				check := func(a uint32) {
					if a >= r.Modulus() {
						return
					}
					if v := splitPair(a, c); v < -maxWord || v > maxWord || (int64(a)-int64(v))%int64(m) != 0 {
						t.Fatalf("modulo %d of %v, %d becomes %d", m, r, a, v)
					}
				}
				for a := range uint32(300) {
					check(a)
					check(r.Modulus() - 1 - a)
					half := m/2 + rand.Uint32N(max(1, r.Modulus()/m))*m
					check(half + a - 150)
				}
			}
		}
	}
}

// TestReconstruction takes long sums whose words are at the ends of the ring, where an inexact
// quotient shows first.
func TestReconstruction(t *testing.T) {
	const terms = 999
	for _, r := range []ring.Ring{
		ring.Q4(), ring.Q3(), mustRing(t, 3, 5), mustRing(t, 251), mustRing(t, 3, 5, 7, 11),
		mustRing(t, 251, 3), mustRing(t, 127, 131, 251, 13),
	} {
		rng := rand.New(rand.NewPCG(9, uint64(r.Modulus())))
		m := r.Modulus()
		for _, tier := range tiers {
			for round := range 20 {
				targets := []uint32{0, 1, 2, m / 2, m/2 + 1, m - 2, m - 1}
				w, x := ring.NewMatrix(len(targets), terms+1), ring.NewMatrix(1, terms+1)
				for i := range x.Data {
					x.Data[i] = rng.Uint32N(m)
				}
				x.Data[terms] = 1
				for j, target := range targets {
					sum, row := uint32(0), w.Row(j)
					for k := range terms {
						row[k] = rng.Uint32N(m)
						if round%2 == 0 {
							row[k] = m/2 + rng.Uint32N(2)
						}
						sum = r.Add(sum, r.Mul(row[k], x.Data[k]))
					}
					row[terms] = r.Sub(target%m, sum)
				}
				p, err := newBackend(tier, 1).Load(t.Context(), r, plan.Dense(terms+1, len(targets)), w)
				if err != nil {
					t.Fatal(err)
				}
				y := ring.NewMatrix(1, len(targets))
				if err := p.Evaluate(t.Context(), y, x); err != nil {
					t.Fatal(err)
				}
				for j, target := range targets {
					if y.Data[j] != target%m {
						t.Fatalf("%s over %v: %d, want %d", tier.name, r, y.Data[j], target%m)
					}
				}
			}
		}
	}
}

// TestLongSums: sums of the largest possible products do not overflow, with residues at both
// ends of their range modulo each prime and modulo two of them.
func TestLongSums(t *testing.T) {
	const terms = ring.MaxTerms
	r := ring.Q4()
	words := []uint32{r.FromSigned(-128), r.FromSigned(127)}
	for width := 1; width <= 2; width++ {
		for above := range uint32(2) {
			residues := make([]uint8, len(r.Primes()))
			for i, m := range moduli(r, width) {
				for j, p := range r.Primes()[i*width : (i+1)*width] {
					residues[i*width+j] = uint8((m/2 + above) % p)
				}
			}
			words = append(words, r.Combine(residues))
		}
	}
	op := plan.Dense(terms, 2)
	for _, tier := range tiers {
		for i := 0; i < len(words); i += 2 {
			w, x := ring.NewMatrix(2, terms), ring.NewMatrix(len(words), terms)
			for k := range terms {
				w.Row(0)[k], w.Row(1)[k] = words[i], words[i+1]
				for j, word := range words {
					x.Row(j)[k] = word
				}
			}
			p, err := newBackend(tier, 1).Load(t.Context(), r, op, w)
			if err != nil {
				t.Fatal(err)
			}
			y := ring.NewMatrix(x.Rows, 2)
			if err := p.Evaluate(t.Context(), y, x); err != nil {
				t.Fatal(err)
			}
			for j, word := range words {
				for k := range 2 {
					if want := r.Mul(r.Mul(words[i+k], word), terms); y.Row(j)[k] != want {
						t.Errorf("%s: %d times %d, %d times: %d, want %d", tier.name, words[i+k], word, terms, y.Row(j)[k], want)
					}
				}
			}
		}
	}
}

// TestSmall: weights that lift to 8 bits are packed as one image, others as one per modulus,
// and both give the right words.
func TestSmall(t *testing.T) {
	r, op := ring.Q4(), plan.Dense(70, 50)
	rng := rand.New(rand.NewPCG(10, 0))
	w, x := ring.NewMatrix(50, 70), ring.NewMatrix(30, 70)
	for i := range w.Data {
		w.Data[i] = r.FromSigned(int32(int8(rng.Uint32())))
	}
	for i := range x.Data {
		x.Data[i] = rng.Uint32N(r.Modulus())
	}
	w.Data[0], w.Data[1] = r.FromSigned(-128), r.FromSigned(127)
	for _, test := range []struct {
		word   int32
		images int
	}{{127, 1}, {-128, 1}, {128, 4}, {-129, 4}} {
		w.Data[len(w.Data)-1] = r.FromSigned(test.word)
		for width, twin := range twins {
			p := newResidues(twin, r, op)
			p.pack(r, w)
			if want := (test.images + width - 1) / width; p.images != want {
				t.Errorf("with a weight of %d, residues of %d bytes: %d images, want %d", test.word, width, p.images, want)
			}
		}
		for _, tier := range tiers {
			for _, rows := range []int{1, 2, 30} {
				y, want := ring.NewMatrix(rows, 50), ring.NewMatrix(rows, 50)
				for backend, y := range map[*Backend]ring.Matrix{newBackend(tier, 1): y, newBackend(portable, 1): want} {
					p, err := backend.Load(t.Context(), r, op, w)
					if err != nil {
						t.Fatal(err)
					}
					if err := p.Evaluate(t.Context(), y, x.RowRange(0, rows)); err != nil {
						t.Fatal(err)
					}
				}
				for i := range want.Data {
					if y.Data[i] != want.Data[i] {
						t.Fatalf("%s, with a weight of %d, %d rows: word %d is %d, want %d",
							tier.name, test.word, rows, i, y.Data[i], want.Data[i])
					}
				}
			}
		}
	}
}

// TestCut: spans cover the positions in order and are evenly spaced, and those of a line have
// nearly equal lengths.
func TestCut(t *testing.T) {
	for _, test := range []struct {
		at   []int
		want string
	}{
		{[]int{5}, "[{0 1 0}]"},
		{[]int{0, 8, 16, 100, 108, 116}, "[{0 3 8} {3 3 8}]"},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, "[{0 6 1} {6 7 1}]"},
		{[]int{0, 7, 9}, "[{0 2 7} {2 1 0}]"},
	} {
		st := stage{at: test.at}
		st.cut()
		if got := fmt.Sprint(st.spans); got != test.want {
			t.Errorf("%v: %s, want %s", test.at, got, test.want)
		}
	}
}
