// Package pool reuses the memory of batches, which come in few sizes and are
// large: the garbage collector would clear and collect as many bytes as there is
// traffic.
package pool

import (
	"math/bits"
	"sync"
)

// Words lends vectors. Its zero value is ready; it may be used by several
// goroutines at once.
type Words struct {
	classes [bits.UintSize]sync.Pool // class i: vectors of capacity 2^i
}

// Get returns a vector of n words, whose content is arbitrary.
func (p *Words) Get(n int) []uint32 {
	if n == 0 {
		return nil
	}
	class := bits.Len(uint(n - 1))
	if v, ok := p.classes[class].Get().(*[]uint32); ok {
		return (*v)[:n]
	}
	return make([]uint32, n, 1<<class)
}

// Put takes a vector from Get back. No one may use it any more.
func (p *Words) Put(v []uint32) {
	if cap(v) == 0 {
		return
	}
	v = v[:0]
	p.classes[bits.Len(uint(cap(v)-1))].Put(&v)
}
