package ring_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/securenets/securenets/ring"
)

func mustNew(t testing.TB, primes ...uint32) ring.Ring {
	r, err := ring.New(primes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rings are the named ones, the smallest and the largest of each number of
// primes, one with M just above 2^31, and one with M just below a power of 2^8.
func rings(t testing.TB) []ring.Ring {
	return []ring.Ring{
		ring.Q4(), ring.Q3(),
		mustNew(t, 3), mustNew(t, 251),
		mustNew(t, 3, 5), mustNew(t, 5, 3), mustNew(t, 251, 241),
		mustNew(t, 3, 5, 7), mustNew(t, 3, 5, 7, 11),
		mustNew(t, 251, 241, 239, 149), // 2,154,140,809 > 2^31
		mustNew(t, 3, 5, 17),           // 255 = 2^8 - 1
		mustNew(t, 3, 5, 17, 251),      // below 2^16
	}
}

// edges are canonical words at which reductions are most likely to be wrong.
func edges(r ring.Ring) []uint32 {
	m := r.Modulus()
	v := []uint32{0, 1, 2, m / 2, m/2 + 1, m - 2, m - 1, m / 3, 1 << 16 % m, math.MaxInt32 % m, 1 << 31 % m}
	for _, p := range r.Primes() {
		v = append(v, p%m, m-p, m/p%m)
	}
	slices.Sort(v)
	return slices.Compact(v)
}

// mod returns x mod M, in [0, M).
func mod(r ring.Ring, x *big.Int) uint32 {
	return uint32(x.Mod(x, big.NewInt(int64(r.Modulus()))).Uint64())
}

func each(t *testing.T, test func(t *testing.T, r ring.Ring)) {
	for _, r := range rings(t) {
		t.Run(fmt.Sprint(r, r.Primes()), func(t *testing.T) { test(t, r) })
	}
}

// word draws a canonical word, often an edge.
func word(r ring.Ring) *rapid.Generator[uint32] {
	return rapid.OneOf(rapid.SampledFrom(edges(r)), rapid.Uint32Range(0, r.Modulus()-1))
}

func TestNewRefuses(t *testing.T) {
	for _, primes := range [][]uint32{
		nil, {}, {0}, {1}, {2}, {3, 2}, {4}, {9}, {255}, {256}, {257}, {251, 253}, {1 << 31}, {math.MaxUint32},
		{3, 3}, {3, 5, 3}, {3, 5, 7, 11, 13},
	} {
		if r, err := ring.New(primes...); !errors.Is(err, ring.ErrParameters) || r.Valid() {
			t.Errorf("New(%d): ring %v, error %v", primes, r, err)
		}
	}
	if (ring.Ring{}).Valid() {
		t.Error("the zero value is valid")
	}
}

func TestParameters(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		m := big.NewInt(1)
		for _, p := range r.Primes() {
			m.Mul(m, big.NewInt(int64(p)))
		}
		if m.Cmp(big.NewInt(int64(r.Modulus()))) != 0 {
			t.Errorf("M = %d, want %v", r.Modulus(), m)
		}
		if r.BitLen() != m.BitLen() || r.WordBytes() != len(m.Bytes()) || int64(r.Max()) != (m.Int64()-1)/2 {
			t.Errorf("%d bits, %d bytes, lift to %d", r.BitLen(), r.WordBytes(), r.Max())
		}
		if !r.Valid() || mustNew(t, r.Primes()...) != r {
			t.Error("New of a ring's primes is not the ring")
		}
		r.Primes()[0] = 0
		if r.Primes()[0] == 0 {
			t.Error("Primes shares the ring's memory")
		}
	})
	for r, want := range map[ring.Ring]uint32{ring.Q4(): 3_368_562_317, ring.Q3(): 14_457_349} {
		if r.Modulus() != want {
			t.Errorf("M = %d, want %d", r.Modulus(), want)
		}
	}
	if ring.Q4().WordBytes() != 4 || ring.Q3().WordBytes() != 3 {
		t.Error("bytes of a word")
	}
	// Sums of MaxTerms products of residues, signed and unsigned.
	if s := int64(250 * 125 * ring.MaxTerms); s > math.MaxInt32 {
		t.Errorf("%d passes an int32", s)
	}
	if s := int64(250 * 250 * ring.MaxTerms); s > math.MaxUint32 {
		t.Errorf("%d passes a uint32", s)
	}
}

func TestScalar(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		one := func(t interface{ Errorf(string, ...any) }, a, b uint32) {
			x, y := big.NewInt(int64(a)), big.NewInt(int64(b))
			for _, op := range []struct {
				name      string
				got, want uint32
			}{
				{"+", r.Add(a, b), mod(r, new(big.Int).Add(x, y))},
				{"-", r.Sub(a, b), mod(r, new(big.Int).Sub(x, y))},
				{"·", r.Mul(a, b), mod(r, new(big.Int).Mul(x, y))},
				{"0 -", r.Neg(b), mod(r, new(big.Int).Neg(y))},
			} {
				if op.got != op.want {
					t.Errorf("%d %s %d = %d, want %d", a, op.name, b, op.got, op.want)
				}
			}
		}
		words := edges(r)
		if r.Modulus() < 1000 { // all of them
			words = nil
			for a := range r.Modulus() {
				words = append(words, a)
			}
		}
		for _, a := range words {
			for _, b := range words {
				one(t, a, b)
			}
		}
		rapid.Check(t, func(t *rapid.T) { one(t, word(r).Draw(t, "a"), word(r).Draw(t, "b")) })
	})
}

func TestInv(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		m := big.NewInt(int64(r.Modulus()))
		rapid.Check(t, func(t *rapid.T) {
			a := word(r).Draw(t, "a")
			unit := new(big.Int).GCD(nil, nil, big.NewInt(int64(a)), m).Cmp(big.NewInt(1)) == 0
			inv, ok := r.Inv(a)
			if ok != unit || r.IsUnit(a) != unit {
				t.Fatalf("%d: unit %v, Inv says %v, IsUnit %v", a, unit, ok, r.IsUnit(a))
			}
			if ok && (inv >= r.Modulus() || r.Mul(a, inv) != 1) {
				t.Fatalf("%d·%d = %d", a, inv, r.Mul(a, inv))
			}
			if !ok && inv != 0 {
				t.Fatalf("%d is not a unit: inverse %d", a, inv)
			}
		})
	})
}

func TestReduce(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		m := int64(r.Modulus())
		one := func(t interface{ Errorf(string, ...any) }, x int64) {
			if got, want := r.Reduce(x), mod(r, big.NewInt(x)); got != want {
				t.Errorf("Reduce(%d) = %d, want %d", x, got, want)
			}
		}
		for _, x := range []int64{
			0, 1, m, 2 * m, m * m / 2, math.MaxInt32, math.MaxUint32, math.MaxInt64, math.MinInt64, math.MinInt64 + 1,
			math.MaxInt64 / m * m, math.MaxInt64/m*m - 1, math.MinInt64 / m * m, math.MinInt64/m*m + 1,
		} {
			for d := int64(-2); d <= 2; d++ {
				one(t, x+d) // may wrap around, to another extreme
				one(t, -x+d)
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			one(t, rapid.Int64().Draw(t, "x"))
			one(t, rapid.Int64Range(math.MinInt64/m, math.MaxInt64/m).Draw(t, "multiple")*m)
		})
	})
}

func TestReduceSums(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		one := func(t interface{ Errorf(string, ...any) }, hi, lo uint64) {
			x := new(big.Int).Lsh(new(big.Int).SetUint64(hi), 64)
			want := mod(r, x.Or(x, new(big.Int).SetUint64(lo)))
			got := [3]uint32{2: 7}
			r.ReduceSums(got[:2], []uint64{0, hi, 1}, []uint64{0, lo, 1})
			if got != [3]uint32{0, want, 7} {
				t.Errorf("%d·2^64 + %d = %d, want %d", hi, lo, got, want)
			}
		}
		for _, hi := range []uint64{0, 1, 1<<16 - 1, math.MaxUint32 - 1, math.MaxUint32} {
			for _, lo := range []uint64{0, 1, math.MaxUint32, math.MaxUint64 - 1, math.MaxUint64} {
				one(t, hi, lo)
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			one(t, uint64(rapid.Uint32().Draw(t, "hi")), rapid.Uint64().Draw(t, "lo"))
		})
	})
}

func TestSigned(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		one := func(t interface{ Errorf(string, ...any) }, x int32) {
			a := r.FromSigned(x)
			if want := mod(r, big.NewInt(int64(x))); a != want || r.Reduce(int64(x)) != want {
				t.Errorf("FromSigned(%d) = %d, Reduce %d, want %d", x, a, r.Reduce(int64(x)), want)
			}
			if back := r.Lift(a); back != x {
				t.Errorf("Lift(FromSigned(%d)) = %d", x, back)
			}
		}
		for _, x := range []int32{0, 1, -1, r.Max(), -r.Max(), r.Max() - 1, 1 - r.Max(), r.Max() / 2} {
			one(t, x)
		}
		// Max and -Max are neighbours modulo M.
		if a, b := r.FromSigned(r.Max()), r.FromSigned(-r.Max()); a+1 != b {
			t.Errorf("Max is %d, -Max is %d", a, b)
		}
		rapid.Check(t, func(t *rapid.T) {
			one(t, rapid.Int32Range(-r.Max(), r.Max()).Draw(t, "x"))
			a := word(r).Draw(t, "a")
			if x := r.Lift(a); x < -r.Max() || x > r.Max() || r.FromSigned(x) != a {
				t.Errorf("Lift(%d) = %d", a, x)
			}
		})
	})
}

func TestLiftsToInt8(t *testing.T) {
	r := ring.Q4()
	for x := int32(-300); x <= 300; x++ {
		want := x >= -128 && x <= 127
		if r.LiftsToInt8([]uint32{0, 1, r.FromSigned(x)}) != want || r.LiftsToInt8([]uint32{r.FromSigned(x), 1}) != want {
			t.Errorf("%d: not %v", x, want)
		}
	}
	if !r.LiftsToInt8(nil) {
		t.Error("the empty vector does not")
	}
}

func TestResidues(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		primes := r.Primes()
		res := make([]uint8, len(primes))
		one := func(t interface{ Errorf(string, ...any) }, a uint32) {
			r.Residues(res, a)
			for i, p := range primes {
				if uint32(res[i]) != a%p {
					t.Errorf("%d mod %d = %d", a, p, res[i])
				}
			}
			if back := r.Combine(res); back != a%r.Modulus() {
				t.Errorf("Combine(%d) = %d, want %d", res, back, a)
			}
		}
		for _, p := range primes { // around multiples of a prime, up to 2^32 - 1
			for k := uint32(0); k < 1000; k++ {
				for _, a := range []uint32{k * p, k*p - 1, math.MaxUint32/p*p - k*p, math.MaxUint32/p*p - k*p - 1, math.MaxUint32 - k} {
					one(t, a)
				}
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			one(t, word(r).Draw(t, "a"))
			one(t, rapid.Uint32().Draw(t, "any"))
			// Combine is a ring isomorphism.
			a, b := word(r).Draw(t, "b"), word(r).Draw(t, "c")
			ra, rb := make([]uint8, len(primes)), make([]uint8, len(primes))
			r.Residues(ra, a)
			r.Residues(rb, b)
			for i, p := range primes {
				res[i] = uint8(uint32(ra[i]) * uint32(rb[i]) % p)
			}
			if got := r.Combine(res); got != r.Mul(a, b) {
				t.Errorf("residue by residue, %d·%d = %d, want %d", a, b, got, r.Mul(a, b))
			}
		})
	})
}

func TestVectors(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		rapid.Check(t, func(t *rapid.T) {
			a := rapid.SliceOfN(word(r), 0, 40).Draw(t, "a")
			b := rapid.SliceOfN(word(r), len(a), len(a)).Draw(t, "b")
			sum, diff := make([]uint32, len(a)), make([]uint32, len(a))
			r.AddVec(sum, a, b)
			r.SubVec(diff, a, b)
			for i := range a {
				if sum[i] != r.Add(a[i], b[i]) || diff[i] != r.Sub(a[i], b[i]) {
					t.Fatalf("at %d", i)
				}
			}
			inPlace := slices.Clone(a)
			r.AddVec(inPlace, inPlace, b)
			if !slices.Equal(inPlace, sum) {
				t.Fatal("AddVec onto a")
			}
			r.SubVec(inPlace, inPlace, b)
			if !slices.Equal(inPlace, a) {
				t.Fatal("a + b - b is not a")
			}
			inPlace = slices.Clone(b)
			r.SubVec(inPlace, a, inPlace)
			if !slices.Equal(inPlace, diff) {
				t.Fatal("SubVec onto b")
			}
		})
	})
}

func TestCheckCanonical(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		m := r.Modulus()
		if err := r.CheckCanonical(nil); err != nil {
			t.Error(err)
		}
		if err := r.CheckCanonical([]uint32{0, m - 1, m / 2}); err != nil {
			t.Error(err)
		}
		for _, bad := range []uint32{m, m + 1, 1 << 31, math.MaxUint32} {
			if bad < m {
				continue
			}
			for at := range 5 {
				v := []uint32{0, m - 1, 1, m - 1, 0, math.MaxUint32}
				v[at] = bad
				e := (*ring.NonCanonicalError)(nil)
				if err := r.CheckCanonical(v); !errors.As(err, &e) || e.Index != at {
					t.Errorf("%d at %d: error %v", bad, at, err)
				}
			}
			for at := range 21 {
				v := slices.Repeat([]uint32{m - 1}, 21)
				v[at] = bad
				e := (*ring.NonCanonicalError)(nil)
				if err := r.CheckCanonical(v); !errors.As(err, &e) || e.Index != at {
					t.Errorf("%d alone at %d: error %v", bad, at, err)
				}
			}
		}
	})
}

// encode is PutWords with math/big.
func encode(r ring.Ring, v []uint32) []byte {
	var out []byte
	for _, a := range v {
		b := big.NewInt(int64(a)).FillBytes(make([]byte, r.WordBytes()))
		slices.Reverse(b)
		out = append(out, b...)
	}
	return out
}

func TestWords(t *testing.T) {
	each(t, func(t *testing.T, r ring.Ring) {
		rapid.Check(t, func(t *rapid.T) {
			v := rapid.SliceOfN(word(r), 0, 40).Draw(t, "v")
			got := make([]byte, len(v)*r.WordBytes())
			r.PutWords(got, v)
			if want := encode(r, v); !bytes.Equal(got, want) {
				t.Fatalf("PutWords(%d) = %x, want %x", v, got, want)
			}
			back := make([]uint32, len(v))
			if err := r.Words(back, got); err != nil || !slices.Equal(back, v) {
				t.Fatalf("Words(%x) = %d, %v, want %d", got, back, err, v)
			}
		})
		top := encode(r, []uint32{0, r.Modulus() - 1, 0})
		if err := r.Words(make([]uint32, 3), top); err != nil {
			t.Error(err)
		}
		e := (*ring.NonCanonicalError)(nil)
		if err := r.Words(make([]uint32, 3), encode(r, []uint32{0, r.Modulus() - 1, r.Modulus()})); !errors.As(err, &e) || e.Index != 2 {
			t.Errorf("word 2 = M: error %v", err)
		}
		ones := bytes.Repeat([]byte{0xff}, 2*r.WordBytes())
		if err := r.Words(make([]uint32, 2), ones); (r.Modulus() != 255) && (!errors.As(err, &e) || e.Index != 0) {
			t.Errorf("words of all ones: error %v", err)
		}
	})
}

func TestWordsPanics(t *testing.T) {
	r := ring.Q4()
	for name, call := range map[string]func(){
		"PutWords, short": func() { r.PutWords(make([]byte, 7), make([]uint32, 2)) },
		"PutWords, long":  func() { r.PutWords(make([]byte, 9), make([]uint32, 2)) },
		"Words, short":    func() { _ = r.Words(make([]uint32, 2), make([]byte, 7)) },
		"Words, long":     func() { _ = r.Words(make([]uint32, 2), make([]byte, 9)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

// FuzzWords: Words accepts exactly the bytes that PutWords writes.
func FuzzWords(f *testing.F) {
	all := rings(f)
	for i, r := range all {
		f.Add(uint8(i), encode(r, edges(r)))
		f.Add(uint8(i), encode(r, []uint32{r.Modulus() - 1, r.Modulus()}))
	}
	f.Fuzz(func(t *testing.T, which uint8, src []byte) {
		r := all[int(which)%len(all)]
		n := len(src) / r.WordBytes()
		src = src[:n*r.WordBytes()]
		v := make([]uint32, n)
		err := r.Words(v, src)
		first := slices.IndexFunc(v, func(a uint32) bool { return a >= r.Modulus() })
		if err != nil {
			e := (*ring.NonCanonicalError)(nil)
			if !errors.As(err, &e) || e.Index != first {
				t.Fatalf("error %v, the first bad word is %d", err, first)
			}
			return
		}
		if first >= 0 {
			t.Fatalf("word %d = %d is taken", first, v[first])
		}
		back := make([]byte, len(src))
		if r.PutWords(back, v); !bytes.Equal(back, src) {
			t.Fatalf("%x comes back as %x", src, back)
		}
	})
}

func TestErrorsNameNoValue(t *testing.T) {
	err := ring.Q4().CheckCanonical([]uint32{0, 4_000_000_000})
	if got, want := err.Error(), "ring: word 1 is not canonical"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func BenchmarkResidues(b *testing.B) {
	r, v := ring.Q4(), make([]uint32, 4096)
	for i := range v {
		v[i] = r.Reduce(int64(i) * 1_000_003)
	}
	res := make([]uint8, ring.MaxPrimes)
	b.SetBytes(int64(4 * len(v)))
	for b.Loop() {
		for _, a := range v {
			r.Residues(res, a)
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	r, res := ring.Q4(), []uint8{250, 1, 238, 17}
	b.SetBytes(4 * 4096)
	for b.Loop() {
		for range 4096 {
			res[1] = uint8(r.Combine(res) & 127)
		}
	}
}

func BenchmarkVec(b *testing.B) {
	r, a := ring.Q4(), make([]uint32, 4096)
	for i := range a {
		a[i] = r.Reduce(int64(i) * 1_000_003)
	}
	hi, lo := make([]uint64, len(a)), make([]uint64, len(a))
	for i := range lo {
		hi[i], lo[i] = uint64(i), uint64(i)*0x9e3779b97f4a7c15
	}
	out, wire := make([]uint32, len(a)), make([]byte, 4*len(a))
	q3, a3, wire3 := ring.Q3(), make([]uint32, len(a)), make([]byte, 3*len(a))
	for name, run := range map[string]func(){
		"add":        func() { r.AddVec(out, a, a) },
		"sub":        func() { r.SubVec(out, a, a) },
		"reducesums": func() { r.ReduceSums(out, hi, lo) },
		"canonical":  func() { _ = r.CheckCanonical(a) },
		"putwords":   func() { r.PutWords(wire, a) },
		"words":      func() { _ = r.Words(out, wire) },
		"putwords3":  func() { q3.PutWords(wire3, a3) },
		"words3":     func() { _ = q3.Words(out, wire3) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(4 * len(a)))
			for b.Loop() {
				run()
			}
		})
	}
}
