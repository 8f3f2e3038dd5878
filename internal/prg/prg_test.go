package prg

import (
	"crypto/aes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/securenets/securenets/internal/cpuid/tiertest"
	"github.com/securenets/securenets/ring"
)

func mustRing(t testing.TB, primes ...uint32) ring.Ring {
	t.Helper()
	r, err := ring.New(primes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rings(t testing.TB) map[string]ring.Ring {
	return map[string]ring.Ring{
		"q4":      ring.Q4(),
		"q3":      ring.Q3(),
		"15":      mustRing(t, 3, 5),
		"251*241": mustRing(t, 251, 241), // two bytes
		"3":       mustRing(t, 3),
		"251":     mustRing(t, 251),
	}
}

// slow is PRG(seed, i) by its definition: counter blocks are encrypted one by one and
// incremented byte by byte, and words are read byte by byte.
func slow(seed Seed, r ring.Ring, i uint64, n int) []uint32 {
	block, _ := aes.NewCipher(seed[:])
	var counter [16]byte
	for j := range 8 {
		counter[j] = byte(i >> (56 - 8*j))
	}
	var stream []byte
	next := func() byte {
		if len(stream) == 0 {
			var out [16]byte
			block.Encrypt(out[:], counter[:])
			stream = out[:]
			for j := 15; j >= 0; j-- {
				counter[j]++
				if counter[j] != 0 {
					break
				}
			}
		}
		b := stream[0]
		stream = stream[1:]
		return b
	}
	bits := 0
	for 1<<bits <= uint64(r.Modulus()) {
		bits++
	}
	var words []uint32
	for len(words) < n {
		var w uint64
		for j := range (bits + 7) / 8 {
			w += uint64(next()) << (8 * j)
		}
		w %= 1 << bits
		if w < uint64(r.Modulus()) {
			words = append(words, uint32(w))
		}
	}
	return words
}

// TestTier: what is to test one tier must not pass on another.
func TestTier(t *testing.T) { tiertest.Fastest(t, tiers[0].name) }

func TestFillIsTheDefinition(t *testing.T) {
	seed := Seed{}
	for i := range seed {
		seed[i] = byte(7*i + 1)
	}
	for name, r := range rings(t) {
		for _, i := range []uint64{0, 1, 255, 256, 1<<32 + 5, math.MaxUint64} {
			for _, n := range []int{0, 1, 2, 15, 16, 17, 255, 1535, 1536, 1537, 2048, 6143, 6145, 20000} {
				want := slow(seed, r, i, n)
				for _, tier := range tiers {
					got := make([]uint32, n)
					tier.expand(seed)(got, i, wordsOf(r))
					if !slices.Equal(got, want) {
						t.Fatalf("%s: ring %s, sample %d, %d words: not the definition", tier.name, name, i, n)
					}
				}
			}
		}
	}
}

// TestKnownAnswer fixes the first words for other implementations of the protocol.
// Its keystreams are those of "openssl enc -aes-256-ctr" with the key 00 01 .. 1f.
func TestKnownAnswer(t *testing.T) {
	seed := Seed{}
	for i := range seed {
		seed[i] = byte(i)
	}
	for _, c := range []struct {
		r    ring.Ring
		i    uint64
		want []uint32
	}{
		{ring.Q4(), 0, []uint32{0xb60090f2, 0x6a9af3a9, 0x80772edd, 0xae765df0}},
		{ring.Q3(), 1, []uint32{0xd51d51, 0x689aef, 0xa47d2b, 0xc8919f}},
		{mustRing(t, 3, 5), 0x0102030405060708, []uint32{5, 2, 11, 1, 7, 4, 5, 1}},
	} {
		for _, tier := range tiers {
			got := make([]uint32, len(c.want))
			tier.expand(seed)(got, c.i, wordsOf(c.r))
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, sample %d: got %#v, want %#v", tier.name, c.r, c.i, got, c.want)
			}
		}
	}
}

func TestFillGivesPrefixes(t *testing.T) {
	e := New(NewSeed())
	long := make([]uint32, 9000)
	e.Fill(ring.Q4(), long, 3)
	for _, n := range []int{1, 31, 1000, 8999} {
		short := make([]uint32, n)
		e.Fill(ring.Q4(), short, 3)
		if !slices.Equal(short, long[:n]) {
			t.Errorf("the first %d words depend on how many are asked for", n)
		}
	}
}

// TestFillIsUniform compares counts of residues and of high bits with those expected of
// uniform words, within 6 standard deviations, for a fixed stream.
func TestFillIsUniform(t *testing.T) {
	const n = 1 << 18
	for name, r := range rings(t) {
		v := make([]uint32, n)
		New(Seed{9}).Fill(r, v, 0)
		if err := r.CheckCanonical(v); err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Primes() {
			chi := chiSquare(v, int(p), func(a uint32) int { return int(a % p) })
			if limit := float64(p-1) + 6*math.Sqrt(2*float64(p-1)); chi > limit {
				t.Errorf("ring %s: residues mod %d: chi-square %.0f > %.0f", name, p, chi, limit)
			}
		}
		if m := uint64(r.Modulus()); m > 1<<12 {
			// 64 bins of nearly equal width.
			chi := chiSquare(v, 64, func(a uint32) int { return int(uint64(a) * 64 / m) })
			if limit := 63 + 6*math.Sqrt(2*63); chi > limit {
				t.Errorf("ring %s: high bits: chi-square %.0f > %.0f", name, chi, limit)
			}
		}
	}
}

func chiSquare(v []uint32, bins int, bin func(uint32) int) float64 {
	counts := make([]float64, bins)
	for _, a := range v {
		counts[bin(a)]++
	}
	want, chi := float64(len(v))/float64(bins), 0.0
	for _, c := range counts {
		chi += (c - want) * (c - want) / want
	}
	return chi
}

func TestSamplesAndSeedsDiffer(t *testing.T) {
	a, b := make([]uint32, 64), make([]uint32, 64)
	same := func() bool { return slices.Equal(a, b) }
	New(Seed{1}).Fill(ring.Q4(), a, 0)
	if New(Seed{1}).Fill(ring.Q4(), b, 1); same() {
		t.Error("two samples are alike")
	}
	if New(Seed{2}).Fill(ring.Q4(), b, 0); same() {
		t.Error("two seeds give the same sample")
	}
	if s := NewSeed(); s == NewSeed() || s == (Seed{}) {
		t.Error("seeds repeat")
	}
}

func TestFillConcurrently(t *testing.T) {
	e := New(Seed{3})
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			v := make([]uint32, 5000)
			e.Fill(ring.Q4(), v, i)
			if !slices.Equal(v, slow(Seed{3}, ring.Q4(), i, len(v))) {
				t.Errorf("sample %d differs", i)
			}
		})
	}
	wg.Wait()
}

func TestSeedPrintsRedacted(t *testing.T) {
	seed := Seed{0xde, 0xad, 0xbe, 0xef}
	type holder struct{ S Seed }
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q", "%o", "%08b"} {
		for _, arg := range []any{seed, &seed, []Seed{seed}, holder{seed}} {
			mustHide(t, fmt.Sprintf(verb, arg))
		}
	}
	text, err := json.Marshal(holder{seed})
	if err != nil {
		t.Fatal(err)
	}
	mustHide(t, string(text))
}

func mustHide(t *testing.T, text string) {
	t.Helper()
	for _, leak := range []string{hex.EncodeToString([]byte{0xde, 0xad}), "DEAD", "222", "336", "11011110", "0xde"} {
		if strings.Contains(text, leak) {
			t.Errorf("a seed shows in %q", text)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	for _, c := range []struct {
		name string
		r    ring.Ring
	}{{"q4", ring.Q4()}, {"q3", ring.Q3()}} {
		for _, n := range []int{64, 4096, 1 << 17} {
			for _, tier := range tiers {
				b.Run(fmt.Sprintf("%s/%s/words=%d", tier.name, c.name, n), func(b *testing.B) {
					e, dst := Expander{tier.expand(NewSeed())}, make([]uint32, n)
					i := uint64(0)
					for b.Loop() {
						e.Fill(c.r, dst, i)
						i++
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/word")
				})
			}
		}
	}
}
