// Package pool reuses the memory of batches, which come in few sizes and are
// large: the garbage collector would clear and collect as many bytes as there is
// traffic.
package pool

import (
	"math/bits"
	"sync"
)

// Source has memory to lend; see kernels.Lender.
type Source interface {
	Lend(n int) []uint32
	Reclaim(words []uint32) bool
}

// Words lends vectors. Its zero value is ready; it may be used by several
// goroutines at once.
type Words struct {
	// From, where it is not nil, is asked first: memory that a backend's devices reach
	// by themselves. It is bounded; what it has no room for comes from the heap.
	From Source

	classes [(bits.UintSize + 1) * perOctave]sync.Pool
}

// perOctave classes of sizes share a factor of two, so that a vector is at most
// 1/perOctave larger than it was asked for.
const perOctave = 8

// class returns the number and the capacity of the smallest class for n words.
func class(n int) (number, capacity int) {
	shift := max(0, bits.Len(uint(n-1))-bits.Len(perOctave))
	steps := (n-1)>>shift + 1 // of 2^shift words; at most 2·perOctave
	return shift*perOctave + steps, steps << shift
}

// Size returns the words that Get(n) takes on the heap, at most n + n/8.
func Size(n int) int {
	if n == 0 {
		return 0
	}
	_, c := class(n)
	return c
}

// Get returns a vector of n words, whose content is arbitrary.
func (p *Words) Get(n int) []uint32 {
	if n == 0 {
		return nil
	}
	if p.From != nil {
		if v := p.From.Lend(n); v != nil {
			return v
		}
	}
	i, c := class(n)
	if v, ok := p.classes[i].Get().(*[]uint32); ok {
		return (*v)[:n]
	}
	return make([]uint32, n, c)
}

// Put takes a vector from Get back. No one may use it any more.
func (p *Words) Put(v []uint32) {
	if cap(v) == 0 || p.From != nil && p.From.Reclaim(v) {
		return
	}
	i, _ := class(cap(v))
	v = v[:0]
	p.classes[i].Put(&v)
}
