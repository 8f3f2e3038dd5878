// Package cpuid says which vector instructions the host's passes may use.
package cpuid

// AVX512 reports whether the processor and its system have AVX-512 as Ice Lake and Zen 4
// do: F, BW, DQ, VL, IFMA, VBMI, VBMI2 and VAES, as well as BMI2 and POPCNT. It is false
// under the build tag purego.
func AVX512() bool { return avx512 }

// AVX2 reports whether they have AVX2, BMI2 and POPCNT, as Haswell, Zen and later do. It
// is false under the build tag purego.
func AVX2() bool { return avx2 }

// VAES reports whether they have AES of two blocks an instruction beside AVX2, as of Zen 3
// and Alder Lake. It is false under the build tag purego.
func VAES() bool { return vaes }
