// Package pool reuses the memory of batches. Batches are large and come in few sizes; without
// reuse the runtime would allocate, clear and collect memory for every byte of traffic.
package pool

import (
	"math/bits"
	"sync"
)

// Of lends vectors. Its zero value is ready; it may be used by several goroutines
// at once. Memory that is not used for a while is garbage collected.
type Of[T any] struct {
	classes [(bits.UintSize + 1) * perOctave]sync.Pool
}

// perOctave is the number of size classes per factor of two: a vector is at most 1/perOctave
// larger than requested.
const perOctave = 8

// class returns the number and the capacity of the smallest class for n elements.
func class(n int) (number, capacity int) {
	shift := max(0, bits.Len(uint(n-1))-bits.Len(perOctave))
	steps := (n-1)>>shift + 1 // of 2^shift elements; at most 2·perOctave
	return shift*perOctave + steps, steps << shift
}

// Size returns the capacity, in elements, of what Get(n) returns: at most n + n/8.
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

// Put takes back a vector from Get, which must no longer be used.
func (p *Of[T]) Put(v []T) {
	if cap(v) == 0 {
		return
	}
	i, _ := class(cap(v))
	v = v[:0]
	p.classes[i].Put(&v)
}
