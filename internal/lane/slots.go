package lane

import (
	"slices"
	"sync"
)

// Slots allocates parts of a region: the host does that for both ends. It may be used by
// several goroutines at once. A nil Slots has no room.
type Slots struct {
	region *Region
	mu     sync.Mutex
	spans  spans
}

// NewSlots returns an allocator of r. It does not hold the region: each slot does.
func NewSlots(r *Region) *Slots { return &Slots{region: r, spans: spans{{0, r.Size()}}} }

// Slot is a part of a region. Its zero value is no slot.
type Slot struct {
	Offset int
	Bytes  []byte
	from   *Slots
}

// Get returns a slot of n bytes, or false if there is no room or the region is not mapped
// any more. It does not wait.
func (s *Slots) Get(n int) (Slot, bool) {
	if s == nil || n <= 0 || n > s.region.Size() {
		return Slot{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.spans.take(padded(n))
	if !ok {
		return Slot{}, false
	}
	if !s.region.Hold() {
		return Slot{}, false // the span need not be given back: no Get succeeds any more
	}
	b, _ := s.region.Bytes(uint64(at), uint64(n))
	return Slot{at, b, s}, true
}

// Put gives a slot back for reuse. Neither end may use it any more.
func (v Slot) Put() {
	if v.from == nil {
		return
	}
	v.from.mu.Lock()
	v.from.spans.put(v.Offset, padded(len(v.Bytes)))
	v.from.mu.Unlock()
	v.from.region.Release()
}

// Drop gives up a slot that the other end may still write to. Its part of the region is not
// used again.
func (v Slot) Drop() {
	if v.from != nil {
		v.from.region.Release()
	}
}

// padded returns the bytes that a slot of n bytes occupies: the next slot is then aligned.
func padded(n int) int { return (n + Align - 1) / Align * Align }

// spans are the free parts of a region, ordered by offset. No two are adjacent.
type spans []span

type span struct{ at, size int }

// take allocates size bytes from the first span that is large enough.
func (s *spans) take(size int) (at int, ok bool) {
	for i := range *s {
		free := &(*s)[i]
		if free.size < size {
			continue
		}
		at = free.at
		free.at, free.size = free.at+size, free.size-size
		if free.size == 0 {
			*s = slices.Delete(*s, i, i+1)
		}
		return at, true
	}
	return 0, false
}

// put frees size bytes at an offset that take returned.
func (s *spans) put(at, size int) {
	i, _ := slices.BinarySearchFunc(*s, at, func(f span, at int) int { return f.at - at })
	joins := i > 0 && (*s)[i-1].at+(*s)[i-1].size == at
	if i < len(*s) && at+size == (*s)[i].at {
		if joins {
			size += (*s)[i].size
			*s = slices.Delete(*s, i, i+1)
		} else {
			(*s)[i] = span{at, size + (*s)[i].size}
			return
		}
	}
	if joins {
		(*s)[i-1].size += size
		return
	}
	*s = slices.Insert(*s, i, span{at, size})
}
