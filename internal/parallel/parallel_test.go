package parallel_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/securenets/securenets/internal/parallel"
)

func TestDo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	for _, n := range []int{0, 1, 2, 3, 4, 1000} {
		for _, words := range []int{0, 1 << 17, 1 << 30} {
			times, calls := make([]int32, n), atomic.Int32{}
			parallel.Do(n, words, func(from, to int) {
				calls.Add(1)
				for i := from; i < to; i++ {
					times[i]++
				}
			})
			for i, k := range times {
				if k != 1 {
					t.Fatalf("%d: %d is done %d times", n, i, k)
				}
			}
			want := max(1, min(n, 3, words>>16))
			if got := int(calls.Load()); got != want {
				t.Errorf("%d words of %d: %d parts, want %d", words, n, got, want)
			}
		}
	}
}
