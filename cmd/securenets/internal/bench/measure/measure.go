// Package measure holds what benchmarks share: their options, rounds and figures, and the
// description of the machine.
package measure

import (
	"math"
	"time"
)

// Options say what to measure.
type Options struct {
	Quick bool // measure less, in seconds
	// Budget is how long each load or shape is measured for; 0: as long as the benchmark says.
	// Tests of the commands, which look at no figure, make it short.
	Budget   time.Duration
	Progress func(label string, done, total int)
	// Daemon is the path of securenetsd, for what is measured through one; "" for not.
	Daemon string
}

// Each returns how long to measure each load or shape for, of what a benchmark says.
func (o Options) Each(quick, full time.Duration) time.Duration {
	switch {
	case o.Budget > 0:
		return o.Budget
	case o.Quick:
		return quick
	}
	return full
}

// Rounds calls round until the budget is spent, and often enough for a median.
func Rounds(budget time.Duration, round func() error) error {
	const least = 5
	start := time.Now()
	for i := 1; i <= least || time.Since(start) < budget; i++ {
		if err := round(); err != nil {
			return err
		}
	}
	return nil
}

// Micros returns microseconds.
func Micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// SameBits reports whether two results are the same, bit for bit.
func SameBits(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}
