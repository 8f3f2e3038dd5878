package pool_test

import (
	"testing"

	"github.com/securenets/securenets/daemon/pool"
	heap "github.com/securenets/securenets/internal/pool"
)

// one lends one vector at a time.
type one struct{ words []uint32 }

func (o *one) Lend(n int) []uint32 {
	if o.words != nil {
		return nil
	}
	o.words = make([]uint32, n)
	return o.words
}

func (o *one) Reclaim(words []uint32) bool {
	if o.words == nil || &o.words[0] != &words[0] {
		return false
	}
	o.words = nil
	return true
}

// TestLender: what a lender has no room for comes from the heap, and each vector goes
// back to where it is from.
func TestLender(t *testing.T) {
	lender := &one{}
	p := pool.Words{From: lender}
	a := p.Get(100)
	if lender.words == nil || &a[0] != &lender.words[0] {
		t.Error("the lender is not asked first")
	}
	b := p.Get(100)
	if len(b) != 100 || cap(b) != heap.Size(100) {
		t.Errorf("from the heap: %d words of %d", len(b), cap(b))
	}
	p.Put(b)
	if lender.words == nil {
		t.Error("the lender got what is not its own")
	}
	p.Put(a)
	if lender.words != nil {
		t.Error("the lender did not get its own back")
	}
	lender.words = make([]uint32, 1) // no room
	for range 10 {
		if c := p.Get(100); &c[0] == &a[0] {
			t.Fatal("the heap has what is the lender's")
		}
	}
	if v := p.Get(0); v != nil {
		t.Error("no words have memory")
	}
}
