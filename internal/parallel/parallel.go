// Package parallel divides loops between goroutines.
package parallel

import (
	"runtime"
	"sync"
)

// Do calls do for consecutive parts of [0, n). It uses several goroutines if the given number
// of words is enough work for them.
func Do(n, words int, do func(from, to int)) {
	const worth = 1 << 16 // least words per goroutine: about 20 us
	k := min(n, runtime.GOMAXPROCS(0), words/worth)
	if k <= 1 {
		do(0, n)
		return
	}
	var wg sync.WaitGroup
	for g := range k {
		wg.Go(func() { do(g*n/k, (g+1)*n/k) })
	}
	wg.Wait()
}
