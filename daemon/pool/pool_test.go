package pool_test

import (
	"testing"

	"github.com/securenets/securenets/daemon/pool"
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

// TestSource: what a source has no room for comes from the heap, and each vector goes
// back to where it is from.
func TestSource(t *testing.T) {
	source := &one{}
	p := pool.Words{From: source}
	a := p.Get(100)
	if source.words == nil || &a[0] != &source.words[0] {
		t.Error("the source is not asked first")
	}
	b := p.Get(100)
	if len(b) != 100 || cap(b) != pool.Size(100) {
		t.Errorf("from the heap: %d words of %d", len(b), cap(b))
	}
	p.Put(b)
	if source.words == nil {
		t.Error("the source got what is not its own")
	}
	p.Put(a)
	if source.words != nil {
		t.Error("the source did not get its own back")
	}
	source.words = make([]uint32, 1) // no room
	for range 10 {
		if c := p.Get(100); &c[0] == &a[0] {
			t.Fatal("the heap has what is the source's")
		}
	}
	if v := p.Get(0); v != nil {
		t.Error("no words have memory")
	}
}
