// Package pool reuses the memory of batches. These are large and come in few sizes;
// without reuse the garbage collector would clear and collect as many bytes as there is
// traffic.
package pool

import (
	"math/bits"
	"sync"
)

// Of lends vectors. Its zero value is ready; it may be used by several goroutines
// at once. What is not used for a while goes back to the garbage collector.
type Of[T any] struct {
	classes [(bits.UintSize + 1) * perOctave]sync.Pool
}

// perOctave classes of sizes share a factor of two, so that a vector is at most
// 1/perOctave larger than it was asked for.
const perOctave = 8

// class returns the number and the capacity of the smallest class for n elements.
func class(n int) (number, capacity int) {
	shift := max(0, bits.Len(uint(n-1))-bits.Len(perOctave))
	steps := (n-1)>>shift + 1 // of 2^shift words; at most 2·perOctave
	return shift*perOctave + steps, steps << shift
}

// Size returns the elements that Get(n) takes in memory, at most n + n/8.
func Size(n int) int {
	if n == 0 {
		return 0
	}
	_, c := class(n)
	return c
}

// Get returns a vector of n elements, whose content is arbitrary.
func (p *Of[T]) Get(n int) []T {
	if n == 0 {
		return nil
	}
	i, c := class(n)
	if v, ok := p.classes[i].Get().(*[]T); ok {
		return (*v)[:n]
	}
	return make([]T, n, c)
}

// Put takes a vector from Get back. No one may use it any more.
func (p *Of[T]) Put(v []T) {
	if cap(v) == 0 {
		return
	}
	i, _ := class(cap(v))
	v = v[:0]
	p.classes[i].Put(&v)
}
