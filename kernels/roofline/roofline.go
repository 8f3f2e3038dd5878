// Package roofline measures the most that one thread of this machine does of the
// work that kernels are made of, to be compared with them in the same run. Its
// loops are written with AVX-512 and AVX2: where there is neither they do and return
// nothing.
package roofline

// Available reports whether there is something to measure.
func Available() bool { return avx2 }

// HasVNNI reports whether that has AVX-512 VNNI.
func HasVNNI() bool { return avx512 }

// loop is about 10 microseconds of a loop of 12 instructions.
const loop = 2000

// VNNI multiplies and adds pairs of bytes for about n times 10 microseconds and
// returns how many pairs. It is 0 without AVX-512 VNNI.
func VNNI(n int) float64 {
	if !avx512 || n <= 0 {
		return 0
	}
	vnni(n * loop)
	return float64(n) * loop * 12 * 64
}

// Words multiplies pairs of words of 16 bits with AVX2, for about n times 10
// microseconds, adds them up in 32 bits and returns how many pairs.
func Words(n int) float64 {
	if !avx2 || n <= 0 {
		return 0
	}
	words(n * loop)
	return float64(n) * loop * 6 * 16
}

// Wide is Words with sums of more than 32 bits: each sum of two products is added to
// one sum whole, modulo 2^32, and to another one without its low half.
func Wide(n int) float64 {
	if !avx2 || n <= 0 {
		return 0
	}
	wide(n * loop)
	return float64(n) * loop * 3 * 16
}

// FMA multiplies and adds pairs of float64 for about n times 10 microseconds and
// returns how many pairs.
func FMA(n int) float64 {
	switch {
	case !avx2 || n <= 0:
		return 0
	case avx512:
		fma512(n * loop)
		return float64(n) * loop * 12 * 8
	}
	fma256(n * loop)
	return float64(n) * loop * 12 * 4
}

// Read reads memory, whole cache lines of it, and returns how many bytes.
func Read(memory []byte) float64 {
	lines := len(memory) / 64
	switch {
	case !avx2 || lines == 0:
		return 0
	case avx512:
		read512(&memory[0], lines)
	default:
		read256(&memory[0], lines)
	}
	return float64(64 * lines)
}
