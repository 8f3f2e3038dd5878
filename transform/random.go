package transform

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"github.com/securenets/securenets/ring"
)

// source draws from crypto/rand, a block at a time.
type source struct {
	block [4096]byte
	left  []byte
}

// below returns a uniform integer of [0, n), n >= 1: it masks words to the bits of n-1, and
// skips words that are not below n.
func (s *source) below(n uint32) uint32 {
	mask := uint32(1)<<bits.Len32(n-1) - 1 // all ones for 32 bits
	for {
		if len(s.left) == 0 {
			rand.Read(s.block[:]) // never fails: the process would end
			s.left = s.block[:]
		}
		v := binary.LittleEndian.Uint32(s.left) & mask
		s.left = s.left[4:]
		if v < n {
			return v
		}
	}
}

// units returns n uniform units of r.
func (s *source) units(r ring.Ring, n int) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		for !r.IsUnit(v[i]) { // 0 is not a unit
			v[i] = s.below(r.Modulus())
		}
	}
	return v
}

// permutation returns a uniform permutation of 0..n-1 (Fisher and Yates).
func (s *source) permutation(n int) []uint32 {
	v := identity(n)
	for i := n - 1; i > 0; i-- {
		j := s.below(uint32(i + 1))
		v[i], v[j] = v[j], v[i]
	}
	return v
}

// within returns a permutation that permutes blocks of size elements by outer, and the elements
// inside each block: places g·size to (g+1)·size - 1 take the elements of block outer[g].
func (s *source) within(outer []uint32, size int) []uint32 {
	v := make([]uint32, 0, len(outer)*size)
	for _, g := range outer {
		for _, i := range s.permutation(size) {
			v = append(v, g*uint32(size)+i)
		}
	}
	return v
}

func identity(n int) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		v[i] = uint32(i)
	}
	return v
}

func ones(n int) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// inverse returns the inverse permutation of v: its element v[i] is i.
func inverse(v []uint32) []uint32 {
	back := make([]uint32, len(v))
	for i, j := range v {
		back[j] = uint32(i)
	}
	return back
}

// isPermutation reports whether v holds each of 0..n-1 once, n = len(v).
func isPermutation(v []uint32) bool {
	seen := make([]bool, len(v))
	for _, j := range v {
		if uint64(j) >= uint64(len(v)) || seen[j] {
			return false
		}
		seen[j] = true
	}
	return true
}

// inverses returns the inverses of units with a single inversion, that of their product, from
// which one unit after the other is divided out (Montgomery's trick).
func inverses(r ring.Ring, units []uint32) []uint32 {
	inv := make([]uint32, len(units))
	product := uint32(1)
	for i, a := range units {
		inv[i] = product // of the units before i
		product = r.Mul(product, a)
	}
	rest, ok := r.Inv(product)
	if !ok {
		panic("transform: inverse of a non-unit")
	}
	for i := len(units) - 1; i >= 0; i-- {
		inv[i] = r.Mul(inv[i], rest)
		rest = r.Mul(rest, units[i])
	}
	return inv
}
