// Package roofline measures the most that one thread of this machine does of the
// work that kernels are made of, to be compared with them in the same run.
package roofline

// Available reports whether the limits can be measured here: they are those of
// AVX-512.
func Available() bool { return available }

// VNNI multiplies and adds pairs of bytes for about n times 10 microseconds and
// returns how many pairs.
func VNNI(n int) float64 {
	vnni(n * 2000)
	return float64(n) * 2000 * 12 * 64
}

// FMA multiplies and adds pairs of float64 for about n times 10 microseconds and
// returns how many pairs.
func FMA(n int) float64 {
	fma(n * 2000)
	return float64(n) * 2000 * 12 * 8
}

// Read reads memory, whole cache lines of it, and returns how many bytes.
func Read(memory []byte) float64 {
	lines := len(memory) / 64
	if lines > 0 {
		read(&memory[0], lines)
	}
	return float64(64 * lines)
}
