// Package roofline measures the peak rates of one thread of this machine for the
// operations that kernels consist of, so that kernels can be compared with them in the
// same run. Its loops use AVX-512 or AVX2: without both they do nothing and return 0.
package roofline

// Available reports whether there is something to measure.
func Available() bool { return avx2 }

// HasVNNI reports whether the processor has AVX-512 VNNI.
func HasVNNI() bool { return avx512 }

// loop is the number of iterations of 12 instructions that take about 10 microseconds.
const loop = 2000

// VNNI does multiply-adds of bytes for about n times 10 microseconds and returns how
// many. It returns 0 without AVX-512 VNNI.
func VNNI(n int) float64 {
	if !avx512 || n <= 0 {
		return 0
	}
	vnni(n * loop)
	return float64(n) * loop * 12 * 64
}

// Words does multiply-adds of 16-bit words with AVX2, summed in 32 bits, for about n
// times 10 microseconds and returns how many.
func Words(n int) float64 {
	if !avx2 || n <= 0 {
		return 0
	}
	words(n * loop)
	return float64(n) * loop * 6 * 16
}

// Wide is Words with sums of more than 32 bits: each sum of two products is added to one
// sum modulo 2^32, and its high half to another sum.
func Wide(n int) float64 {
	if !avx2 || n <= 0 {
		return 0
	}
	wide(n * loop)
	return float64(n) * loop * 3 * 16
}

// FMA does multiply-adds of float64 for about n times 10 microseconds and returns how
// many.
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

// Read reads memory in whole cache lines and returns how many bytes it read.
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
