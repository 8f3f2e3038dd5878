// Package pool lends the memory of the daemon's batches: that of a backend's devices,
// and of the heap.
package pool

import (
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/kernels"
)

// Words lends vectors. Its zero value is ready; it may be used by several
// goroutines at once.
type Words struct {
	// From, where it is not nil, is asked first: memory that a backend's devices reach
	// by themselves. It is bounded; what it has no room for comes from the heap.
	From kernels.Lender

	heap pool.Of[uint32]
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
	return p.heap.Get(n)
}

// Put takes a vector from Get back. No one may use it any more.
func (p *Words) Put(v []uint32) {
	if cap(v) == 0 || p.From != nil && p.From.Reclaim(v) {
		return
	}
	p.heap.Put(v)
}
