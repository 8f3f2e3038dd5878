// Package roofline measures the most that one thread of this machine does of the
// work that kernels are made of, to be compared with them in the same run. Its
// loops are written with AVX-512: where there is none they do and return nothing.
package roofline

// Available reports whether there is something to measure.
func Available() bool { return available }

// loop is about 10 microseconds of a loop of 12 instructions.
const loop = 2000

// VNNI multiplies and adds pairs of bytes for about n times 10 microseconds and
// returns how many pairs.
func VNNI(n int) float64 {
	if !available || n <= 0 {
		return 0
	}
	vnni(n * loop)
	return float64(n) * loop * 12 * 64
}

// FMA multiplies and adds pairs of float64 for about n times 10 microseconds and
// returns how many pairs.
func FMA(n int) float64 {
	if !available || n <= 0 {
		return 0
	}
	fma(n * loop)
	return float64(n) * loop * 12 * 8
}

// Read reads memory, whole cache lines of it, and returns how many bytes.
func Read(memory []byte) float64 {
	lines := len(memory) / 64
	if !available || lines == 0 {
		return 0
	}
	read(&memory[0], lines)
	return float64(64 * lines)
}
