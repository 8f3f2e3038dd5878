package pool_test

import (
	"sync"
	"testing"

	"github.com/securenets/securenets/daemon/pool"
)

func TestLengths(t *testing.T) {
	var p pool.Words
	for _, n := range []int{0, 1, 2, 3, 4, 5, 1000, 1024, 1025, 3, 0} {
		v := p.Get(n)
		if len(v) != n || cap(v) > 2*n {
			t.Errorf("%d words: length %d, capacity %d", n, len(v), cap(v))
		}
		p.Put(v)
	}
}

// TestNotShared: no vector is lent twice at a time.
func TestNotShared(t *testing.T) {
	var p pool.Words
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
