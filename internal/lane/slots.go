package lane

import (
	"slices"
	"sync"
)

// Slots lends parts of a region that is the caller's to divide: the host's. It may be used
// by several goroutines at once. Nil has no room.
type Slots struct {
	region *Region
	mu     sync.Mutex
	spans  spans
}

// NewSlots returns a region's slots. It does not hold the region: each slot does.
func NewSlots(r *Region) *Slots { return &Slots{region: r, spans: spans{{0, r.Size()}}} }

// Slot is a part of a region. Its zero value is none.
type Slot struct {
	Offset int
	Bytes  []byte
	from   *Slots
}

// Get returns a slot of n bytes, and false where there is no room, or the region is not
// mapped any more. It does not wait.
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
		return Slot{}, false // nobody gets one any more
	}
	b, _ := s.region.Bytes(uint64(at), uint64(n))
	return Slot{at, b, s}, true
}

// Put gives a slot back, for others: at neither end may anyone use it any more.
func (v Slot) Put() {
	if v.from == nil {
		return
	}
	v.from.mu.Lock()
	v.from.spans.put(v.Offset, padded(len(v.Bytes)))
	v.from.mu.Unlock()
	v.from.region.Release()
}

// Drop lets go of a slot that the other end may still write to: nobody gets its part of
// the region again.
func (v Slot) Drop() {
	if v.from != nil {
		v.from.region.Release()
	}
}

// padded returns what a slot of n bytes takes, so that the next one is aligned.
func padded(n int) int { return (n + Align - 1) / Align * Align }

// spans are the free parts of a region, by offset, none of them next to another.
type spans []span

type span struct{ at, size int }

// take returns the offset of size bytes of the first span that has them.
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

// put gives back size bytes at an offset that take returned.
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
