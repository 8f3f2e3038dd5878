//go:build unix

package transform

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/securenets/securenets/internal/cpuid/tiertest"
	"github.com/securenets/securenets/internal/fence"
	"github.com/securenets/securenets/ring"
)

func passRings(t testing.TB) []ring.Ring {
	t.Helper()
	rings := []ring.Ring{ring.Q4(), ring.Q3()}
	for _, primes := range [][]uint32{{3, 5}, {3}, {251, 241}, {3, 251, 127, 131}} {
		r, err := ring.New(primes...)
		if err != nil {
			t.Fatal(err)
		}
		rings = append(rings, r)
	}
	return rings
}

// TestTier: what is to test one tier must not pass on another.
func TestTier(t *testing.T) { tiertest.Fastest(t, tiers[0].name) }

// TestPassesByDefinition compares every tier with arithmetic on big integers.
func TestPassesByDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, r := range passRings(t) {
		const n = 200
		m, most := r.Modulus(), int64(r.Max())
		mod := func(v *big.Int) uint32 { return uint32(v.Mod(v, big.NewInt(int64(m))).Uint64()) }
		signed := func(a uint32) int32 {
			if int64(a) > most {
				return int32(int64(a) - int64(m))
			}
			return int32(a)
		}
		word := func() uint32 {
			switch rng.IntN(4) {
			case 0:
				return []uint32{0, 1, m - 1, m / 2, m/2 + 1}[rng.IntN(5)] % m
			default:
				return rng.Uint32N(m)
			}
		}
		a, b, units, from, x := make([]uint32, n), make([]uint32, n), make([]uint32, n), make([]int32, n), make([]int32, n)
		for i, j := range rng.Perm(n) {
			a[i], b[i], units[i], from[i], x[i] = word(), word(), word(), int32(j), signed(word())
		}
		f := newTable(r, from, units)
		product := func(unit uint32, v int64) *big.Int {
			return new(big.Int).Mul(big.NewInt(int64(unit)), big.NewInt(v))
		}
		plus := func(v *big.Int, a uint32) *big.Int { return v.Add(v, big.NewInt(int64(a))) }
		for _, tier := range tiers {
			check := func(name string, got []uint32, want func(i int) uint32) {
				t.Helper()
				for i := range got {
					if got[i] != want(i) {
						t.Fatalf("%s, %v: %s: word %d is %d, want %d", tier.name, r, name, i, got[i], want(i))
					}
				}
			}
			got := slices.Clone(a)
			tier.add(m, got, x)
			check("add", got, func(i int) uint32 { return mod(plus(big.NewInt(int64(x[i])), a[i])) })
			tier.sub(m, got, a, b)
			check("sub", got, func(i int) uint32 { return mod(big.NewInt(int64(a[i]) - int64(b[i]))) })
			copy(got, a)
			tier.subMasked(m, got, x, f, make([]int32, moves))
			check("subMasked", got, func(i int) uint32 { return mod(plus(product(units[i], -int64(x[from[i]])), a[i])) })
			near := min(most, small)
			for i := range x {
				x[i] = int32(int64(x[i]) % (near + 1))
			}
			x[0], x[1] = int32(near), int32(-near)
			copy(got, a)
			tier.subSmall(m, got, x, f, make([]int32, moves))
			check("subSmall", got, func(i int) uint32 { return mod(plus(product(units[i], -int64(x[from[i]])), a[i])) })
			high, low := newMontgomery(r).factor(units[0])
			tier.scale(m, got, a, high, low)
			check("scale", got, func(i int) uint32 { return mod(product(units[0], int64(a[i]))) })
			lifted := make([]int32, n)
			tier.lift(m, lifted, a)
			check("lift", bits32(lifted), func(i int) uint32 { return uint32(signed(a[i])) })
			tier.liftMasked(m, lifted, a, b, f, make([]int32, n))
			check("liftMasked", bits32(lifted), func(i int) uint32 {
				j := from[i]
				return uint32(signed(mod(product(units[j], int64(a[j])-int64(b[j])))))
			})
			if got, want := tier.top(a, 0, math.MaxUint32), slices.Max(a); got != want {
				t.Errorf("%s: the top is %d, want %d", tier.name, got, want)
			}
		}
	}
	for _, tier := range tiers {
		v := []float32{0, 0.5, 1.5, -0.5, -1.5, 2.5, 2.4999, -2.5001, 1 << 30, -(1 << 30), 0x1p-149}
		got := make([]int32, len(v))
		tier.round(got, v, 1)
		if want := []int32{0, 0, 2, 0, -2, 2, 2, -3, 1 << 30, -(1 << 30), 0}; !slices.Equal(got, want) {
			t.Errorf("%s: rounds to %v, want %v", tier.name, got, want)
		}
	}
}

// TestSmallBound: for integers of magnitude small and units of all sizes, all remainders fit an
// int32. For integers a few times as large some would not.
func TestSmallBound(t *testing.T) {
	const n = 1 << 17
	r := ring.Q4() // the largest ring
	rng := rand.New(rand.NewPCG(2, 1))
	units, from, x, dst := make([]uint32, n), make([]int32, n), make([]int32, n), make([]uint32, n)
	for i := range n {
		units[i], from[i] = rng.Uint32N(r.Modulus()), int32(i)
		x[i] = (small - rng.Int32N(1<<10)) * (1 - 2*rng.Int32N(2))
		dst[i] = rng.Uint32N(r.Modulus())
	}
	places := newTable(r, from, units)
	want := slices.Clone(dst)
	generic.subMasked(r.Modulus(), want, x, places, nil)
	for _, tier := range tiers {
		for _, near := range []bool{false, true} {
			got := slices.Clone(dst)
			places.near = near
			tier.subSmall(r.Modulus(), got, x, places, make([]int32, moves))
			if !slices.Equal(got, want) {
				t.Errorf("%s, near %v: other words", tier.name, near)
			}
		}
		got0, got1, pairs := slices.Clone(dst), slices.Clone(dst), make([]int32, 2*n)
		for i, e := range x {
			pairs[2*i], pairs[2*i+1] = e, e
		}
		tier.subPairs(r.Modulus(), got0, got1, pairs, places, make([]int32, 2*moves))
		if !slices.Equal(got0, want) || !slices.Equal(got1, want) {
			t.Errorf("%s, in pairs: other words", tier.name)
		}
	}
}

// FuzzPasses compares every tier with the generic one. All memory is fenced on one side, and
// words beside the result on the other must not change.
func FuzzPasses(f *testing.F) {
	for n := range uint16(35) {
		f.Add(uint64(n), 5*n, uint8(n), n%2 == 0, n%4 < 2)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, which uint8, atEnd, near bool) {
		rings := passRings(t)
		r, size := rings[int(which)%len(rings)], int(n%1500)
		rng := rand.New(rand.NewPCG(seed, 0))
		m, most := r.Modulus(), r.Max()
		words := func() []uint32 {
			v := fence.Slice[uint32](t, size, atEnd)
			for i := range v {
				if v[i] = rng.Uint32N(m); rng.IntN(4) == 0 {
					v[i] = []uint32{0, m - 1, m / 2, m/2 + 1}[rng.IntN(4)] % m
				}
			}
			return v
		}
		dst, a, b := words(), words(), words()
		x, from := fence.Slice[int32](t, size, atEnd), fence.Slice[int32](t, size, atEnd)
		for i, j := range rng.Perm(size) {
			x[i], from[i] = lift(m, rng.Uint32N(m)), int32(j)
		}
		if near {
			for at := 0; at < size; at += 32 {
				for i, j := range rng.Perm(min(32, size-at)) {
					from[at+i] = int32(at + j)
				}
			}
		}
		places := newTable(r, from, words())
		places.high, places.low = fence.Of(t, places.high, atEnd), fence.Of(t, places.low, atEnd)
		places.unit, places.ratio = fence.Of(t, places.unit, atEnd), fence.Of(t, places.ratio, atEnd)
		high, low := newMontgomery(r).factor(rng.Uint32N(m))
		v := fence.Slice[float32](t, size, atEnd)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		inverse := float64(int(1) << rng.IntN(28))

		// run applies one pass to copies of dst, and compares.
		run := func(name string, of func(p passes, dst []uint32)) {
			want := slices.Clone(dst)
			of(generic, want)
			const guard = 0xa5a5a5a5
			for _, tier := range tiers {
				all := fence.Slice[uint32](t, size+16, atEnd)
				for i := range all {
					all[i] = guard
				}
				got, beside := all[16:], all[:16]
				if !atEnd {
					got, beside = all[:size], all[size:]
				}
				copy(got, dst)
				of(tier, got)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %s of %d words over %v: differs from the twin's", tier.name, name, size, r)
				}
				if slices.ContainsFunc(beside, func(a uint32) bool { return a != guard }) {
					t.Errorf("%s: %s of %d words: wrote beside them", tier.name, name, size)
				}
			}
		}
		signed := func(v []uint32) []int32 { return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(v))), len(v)) }
		run("add", func(p passes, dst []uint32) { p.add(m, dst, x) })
		run("sub", func(p passes, dst []uint32) { p.sub(m, dst, a, b) })
		run("sub in place", func(p passes, dst []uint32) { p.sub(m, dst, dst, b) })
		few, bound := fence.Slice[int32](t, size, atEnd), min(small, most)
		for i, e := range x {
			if few[i] = e % (bound + 1); rng.IntN(4) == 0 {
				few[i] = []int32{bound, -bound}[rng.IntN(2)]
			}
		}
		run("subSmall", func(p passes, dst []uint32) { p.subSmall(m, dst, few, places, fence.Slice[int32](t, moves, atEnd)) })
		run("lift", func(p passes, dst []uint32) { p.lift(m, signed(dst), a) })
		run("subMasked", func(p passes, dst []uint32) { p.subMasked(m, dst, x, places, fence.Slice[int32](t, moves, atEnd)) })
		run("liftMasked", func(p passes, dst []uint32) {
			p.liftMasked(m, signed(dst), a, b, places, fence.Slice[int32](t, size, atEnd))
		})
		// Passes over pairs are compared with those over single samples.
		sides := func(first, second []int32) []int32 {
			v := fence.Slice[int32](t, 2*size, atEnd)
			for i := range first {
				v[2*i], v[2*i+1] = first[i], second[i]
			}
			return v
		}
		c, d, v1 := words(), words(), fence.Slice[float32](t, size, atEnd)
		for i := range v1 {
			v1[i] = float32(rng.NormFloat64())
		}
		other, inverse1 := fence.Slice[int32](t, size, atEnd), inverse/3
		for i := range other {
			other[i] = few[size-1-i]
		}
		want0, want1 := slices.Clone(a), slices.Clone(b)
		generic.subSmall(m, want0, few, places, nil)
		generic.subSmall(m, want1, other, places, nil)
		lift0, lift1 := make([]int32, size), make([]int32, size)
		generic.liftMasked(m, lift0, a, b, places, make([]int32, size))
		generic.liftMasked(m, lift1, c, d, places, make([]int32, size))
		round0, round1 := make([]int32, size), make([]int32, size)
		generic.round(round0, v, inverse)
		generic.round(round1, v1, inverse1)
		const guard = 0x5a5a5a5a
		guarded := func(v []uint32) (got, beside []uint32) {
			all := slices.Repeat([]uint32{guard}, len(v)+16)
			all = fence.Of(t, all, atEnd)
			if got, beside = all[16:], all[:16]; !atEnd {
				got, beside = all[:len(v)], all[len(v):]
			}
			copy(got, v)
			return got, beside
		}
		check := func(name string, got, beside, want []uint32) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s of %d over %v: differs from those of single ones", name, size, r)
			}
			if slices.ContainsFunc(beside, func(a uint32) bool { return a != guard }) {
				t.Errorf("%s of %d: wrote beside them", name, size)
			}
		}
		for _, tier := range tiers {
			got0, beside0 := guarded(a)
			got1, beside1 := guarded(b)
			tier.subPairs(m, got0, got1, sides(few, other), places, fence.Slice[int32](t, 2*moves, atEnd))
			check(tier.name+": subPairs, first", got0, beside0, want0)
			check(tier.name+": subPairs, second", got1, beside1, want1)
			got, beside := guarded(make([]uint32, 2*size))
			tier.liftPairs(m, signed(got), a, b, c, d, places, fence.Slice[int32](t, 2*size, atEnd))
			check(tier.name+": liftPairs", got, beside, bits32(sides(lift0, lift1)))
			got, beside = guarded(make([]uint32, 2*size))
			tier.roundPairs(signed(got), v, v1, [2]float64{inverse, inverse1})
			check(tier.name+": roundPairs", got, beside, bits32(sides(round0, round1)))
		}
		run("scale", func(p passes, dst []uint32) { p.scale(m, dst, a, high, low) })
		run("scale in place", func(p passes, dst []uint32) { p.scale(m, dst, dst, high, low) })
		run("round", func(p passes, dst []uint32) { p.round(signed(dst), v, inverse) })
		for _, tier := range tiers {
			for _, c := range []struct{ bias, mask uint32 }{{0, math.MaxUint32}, {uint32(most), math.MaxUint32}, {0, 1<<31 - 1}} {
				if got, want := tier.top(dst, c.bias, c.mask), generic.top(dst, c.bias, c.mask); got != want {
					t.Errorf("%s: the top of %d words is %d, want %d", tier.name, size, got, want)
				}
			}
		}
	})
}
