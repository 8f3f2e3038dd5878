// Package pool lends memory for the daemon's batches, from a backend's Lender or from the
// heap.
package pool

import (
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/kernels"
)

// Words lends vectors. Its zero value is ready; it may be used by several
// goroutines at once.
type Words struct {
	// From, if not nil, is asked first: a backend's devices can access its memory directly. It is
	// bounded; when it has no room, memory comes from the heap.
	From kernels.Lender

	heap pool.Of[uint32]
}

// Get returns a vector of n words with arbitrary content.
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

// Put takes back a vector that Get returned. It must not be used afterwards.
func (p *Words) Put(v []uint32) {
	if cap(v) == 0 || p.From != nil && p.From.Reclaim(v) {
		return
	}
	p.heap.Put(v)
}
