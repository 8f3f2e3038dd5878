package pool_test

import (
	"sync"
	"testing"

	"github.com/securenets/securenets/internal/pool"
)

// TestSizes: a vector has the requested length and the capacity Size, at most an eighth more,
// and Put vectors serve every size of their class.
func TestSizes(t *testing.T) {
	var p pool.Of[uint32]
	check := func(n int) {
		v := p.Get(n)
		if len(v) != n || cap(v) != pool.Size(n) || cap(v) > n+n/8 || pool.Size(cap(v)) != cap(v) {
			t.Errorf("%d words: length %d, capacity %d, told %d", n, len(v), cap(v), pool.Size(n))
		}
		p.Put(v)
	}
	for n := range 5000 {
		check(n)
	}
	for n := 5000; n < 1<<20; n += n/9 + 1 {
		check(n)
		check(n - 1)
	}
}

// TestNotShared: no vector is lent to two at a time.
func TestNotShared(t *testing.T) {
	var p pool.Of[uint32]
	var wg sync.WaitGroup
	for id := range uint32(8) {
		wg.Go(func() {
			for i := range 2000 {
				v := p.Get(1 + i%70)
				for k := range v {
					v[k] = id
				}
				for _, w := range v {
					if w != id {
						t.Error("a vector is lent twice")
						return
					}
				}
				p.Put(v)
			}
		})
	}
	wg.Wait()
}
