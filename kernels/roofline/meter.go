package roofline

import (
	"runtime"
	"sync"
	"time"

	"github.com/securenets/securenets/kernels/internal/pages"
)

// Rates are the rates of one round, per nanosecond: 1 is 10^9 per second.
type Rates struct {
	Work        float64 // in the work's own unit
	VNNI        float64 // multiply-adds; 0 without AVX-512 VNNI or where AVX2 is measured
	Words, Wide float64 // multiply-adds; 0 where AVX2 is not measured
	FMA         float64 // multiply-adds; 0 where not Available
	Read        float64 // bytes; 0 where not Available
}

// Products returns the rate of multiply-adds modulo M that the rates allow: one takes four
// multiply-adds of bytes, or two of 16-bit words, with wide sums unless weights are signed
// bytes.
func (r Rates) Products(signedBytes bool) float64 {
	if signedBytes {
		return max(r.VNNI/4, r.Words/2)
	}
	return max(r.VNNI/4, r.Wide/2)
}

// Meter compares work with the machine's limits. One thread is measured in its own CPU
// time where the system reports it (Linux): this gives its rate even on a machine that
// others use too. Several threads are measured in elapsed time.
type Meter struct {
	// AVX2 selects AVX2 for the integer multiply-adds that are measured. It is set if
	// there is no AVX-512 VNNI.
	AVX2    bool
	threads int
	memory  []byte
}

// NewMeter returns a meter for work and limits of the given number of threads. Read is
// measured over the given number of bytes, which should be more than the caches hold.
func NewMeter(threads, bytes int) *Meter {
	m := &Meter{AVX2: avx2 && !avx512, threads: threads}
	if avx2 {
		m.memory = Memory(bytes)
	}
	return m
}

// Memory returns the given number of bytes for Read, on large pages if the system grants
// them.
func Memory(bytes int) []byte {
	b := pages.Zeros(bytes)
	for i := range b { // unwritten pages share one page of zeros
		b[i] = byte(i)
	}
	return b
}

// Round measures the limits between calls of work, which returns the amount of work done.
func (m *Meter) Round(work func() float64) Rates {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var r Rates
	each := len(m.memory) / m.threads
	r.Read = m.limit(func(thread int) float64 { return Read(m.memory[thread*each:][:each]) })
	work() // refills the caches after reading
	products := func() {
		if m.AVX2 {
			r.Words += m.limit(func(int) float64 { return Words(100) }) / 2
			r.Wide += m.limit(func(int) float64 { return Wide(100) }) / 2
		} else {
			r.VNNI += m.limit(func(int) float64 { return VNNI(100) }) / 2
		}
	}
	products()
	r.Work = m.rate(work)
	products()
	r.FMA = m.limit(func(int) float64 { return FMA(50) })
	return r
}

// limit returns the total rate of all threads, each of which calls share.
func (m *Meter) limit(share func(thread int) float64) float64 {
	if !avx2 {
		return 0
	}
	return m.rate(func() float64 {
		done := make([]float64, m.threads)
		var wg sync.WaitGroup
		for i := range m.threads - 1 {
			wg.Go(func() { done[i] = share(i) })
		}
		done[m.threads-1] = share(m.threads - 1)
		wg.Wait()
		sum := 0.0
		for _, d := range done {
			sum += d
		}
		return sum
	})
}

func (m *Meter) rate(work func() float64) float64 {
	now := elapsed
	if m.threads == 1 {
		now = ThreadTime
	}
	start := now()
	done := work()
	return done / float64(max(1, now()-start))
}

var began = time.Now()

// elapsed returns the time since the program started.
func elapsed() time.Duration { return time.Since(began) }
