// Package cpuid reports which vector instructions the host's passes may use.
package cpuid

// AVX512 reports whether the processor and the system support the AVX-512 of Ice Lake and Zen
// 4: F, BW, DQ, VL, IFMA, VBMI, VBMI2 and VAES, as well as BMI2 and POPCNT. It is false under
// the build tag purego.
func AVX512() bool { return avx512 }

// AVX2 reports whether the processor and the system support AVX2, BMI2 and POPCNT, as from
// Haswell and Zen on. It is false under the build tag purego.
func AVX2() bool { return avx2 }

// VAES reports whether the processor and the system support AVX2 and AES on two blocks per
// instruction, as from Zen 3 and Alder Lake on. It is false under the build tag purego.
func VAES() bool { return vaes }
