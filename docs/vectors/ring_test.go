package vectors_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/ring"
)

type ringCase struct {
	Name  string   `json:"name"`
	Ring  []uint32 `json:"ring"` // primes
	Op    string   `json:"op"`
	A     *int64   `json:"a,omitempty"`
	B     *int64   `json:"b,omitempty"`
	Words []uint32 `json:"words,omitempty"`
	Hex   string   `json:"hex,omitempty"`
	Want  any      `json:"want,omitempty"`
	Error string   `json:"error,omitempty"`
	Index *int     `json:"index,omitempty"` // of the word that is not canonical
}

func ringCases(t *testing.T) (cases []any) {
	number := func(a uint32) *int64 { v := int64(a); return &v }
	rng := random(1)

	for _, c := range []struct {
		name   string
		primes []uint32
	}{
		{"q4", []uint32{251, 241, 239, 233}},
		{"q3", []uint32{251, 241, 239}},
		{"toy", []uint32{3, 5}},
		{"one prime", []uint32{3}},
		{"no primes", []uint32{}},
		{"even", []uint32{2, 3}},
		{"no prime", []uint32{251, 255}},
		{"one", []uint32{1}},
		{"a prime of nine bits", []uint32{257}},
		{"a prime twice", []uint32{251, 241, 251}},
		{"five primes", []uint32{3, 5, 7, 11, 13}},
	} {
		r, err := ring.New(c.primes...)
		if err != nil {
			if !errors.Is(err, ring.ErrParameters) {
				t.Fatal(err)
			}
			cases = append(cases, ringCase{Name: c.name, Ring: c.primes, Op: "ring", Error: "no ring"})
			continue
		}
		cases = append(cases, ringCase{Name: c.name, Ring: c.primes, Op: "ring",
			Want: map[string]any{"modulus": r.Modulus(), "bits": r.BitLen(), "word_bytes": r.WordBytes()}})
	}

	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), newRing(t, 3, 5)} {
		m := r.Modulus()
		add := func(c ringCase) {
			c.Ring = r.Primes()
			if c.Name == "" {
				c.Name = fmt.Sprintf("%v, %s %d", r, c.Op, len(cases))
			}
			cases = append(cases, c)
		}
		pairs := [][2]uint32{{0, 0}, {0, m - 1}, {m - 1, 1}, {m - 1, m - 1}, {m / 2, m/2 + 1}, {1, m - 1}}
		for range 6 {
			pairs = append(pairs, [2]uint32{rng.Uint32N(m), rng.Uint32N(m)})
		}
		for _, p := range pairs {
			a, b := number(p[0]), number(p[1])
			add(ringCase{Op: "add", A: a, B: b, Want: r.Add(p[0], p[1])})
			add(ringCase{Op: "sub", A: a, B: b, Want: r.Sub(p[0], p[1])})
			add(ringCase{Op: "mul", A: a, B: b, Want: r.Mul(p[0], p[1])})
		}
		top := r.Primes()[0]
		for _, a := range []uint32{0, 1, 2, m - 1, m / 2, top, m - top, m / top, rng.Uint32N(m), rng.Uint32N(m)} {
			residues := make([]uint8, len(r.Primes()))
			r.Residues(residues, a)
			if r.Combine(residues) != a {
				t.Fatalf("%d does not come back from its residues", a)
			}
			wide := make([]int, len(residues)) // bytes would be encoded as text
			for i, e := range residues {
				wide[i] = int(e)
			}
			add(ringCase{Op: "residues", A: number(a), Want: wide})
			add(ringCase{Op: "lift", A: number(a), Want: r.Lift(a)})
			signed := int64(r.Lift(a))
			add(ringCase{Op: "from_signed", A: &signed, Want: r.FromSigned(int32(signed))})
			c := ringCase{Op: "inverse", A: number(a)}
			if inv, ok := r.Inv(a); ok {
				c.Want = inv
			} else {
				c.Error = "no unit"
			}
			add(c)
		}

		words := []uint32{0, 1, m - 1, m / 2, rng.Uint32N(m)}
		b := make([]byte, len(words)*r.WordBytes())
		r.PutWords(b, words)
		add(ringCase{Op: "words", Hex: hexOf(b), Want: words})
		full := uint32(math.MaxUint32) >> (32 - 8*r.WordBytes())
		for _, c := range []struct {
			at  int
			bad uint32
		}{{0, m}, {2, m + 1}, {4, full}} {
			at, bad := c.at, c.bad
			if bad > full {
				continue
			}
			spoilt, index := append([]byte(nil), b...), at
			for j := range r.WordBytes() {
				spoilt[at*r.WordBytes()+j] = byte(bad >> (8 * j))
			}
			var e *ring.NonCanonicalError
			if err := r.Words(make([]uint32, len(words)), spoilt); !errors.As(err, &e) || e.Index != at {
				t.Fatalf("word %d: %v", at, err)
			}
			add(ringCase{Name: fmt.Sprintf("%v, word %d is %d", r, at, bad), Op: "words", Hex: hexOf(spoilt), Error: "NON_CANONICAL", Index: &index})
		}
	}
	return cases
}

type prgCase struct {
	Name  string   `json:"name"`
	Ring  []uint32 `json:"ring"`
	Seed  string   `json:"seed"`
	Index uint64   `json:"index,string"`
	Words []uint32 `json:"words"` // the first ones
	// Of the first Count words, as bytes on the wire.
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"`
}

func prgCases(t *testing.T) (cases []any) {
	rng := random(2)
	counting := make([]byte, 32)
	for i := range counting {
		counting[i] = byte(i)
	}
	seeds := [][]byte{counting, make([]byte, 32), seedBytes(rng)}
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), newRing(t, 251, 241), newRing(t, 3, 5)} {
		for s, seed := range seeds {
			for _, index := range []uint64{0, 1, 255, 0x0102030405060708, math.MaxUint64} {
				words := make([]uint32, 40)
				prg.New(prg.Seed(seed)).Fill(r, words, index)
				count := len(words)
				if s == 0 && index == 1 {
					count = 2000
				}
				all := make([]uint32, count)
				prg.New(prg.Seed(seed)).Fill(r, all, index)
				b := make([]byte, count*r.WordBytes())
				r.PutWords(b, all)
				cases = append(cases, prgCase{
					Name: fmt.Sprintf("%v, seed %d, sample %d", r, s, index), Ring: r.Primes(), Seed: hex.EncodeToString(seed),
					Index: index, Words: words[:12], Count: count, SHA256: sum(b),
				})
			}
		}
	}
	return cases
}
