//go:build !amd64 || purego

package cpuid

const avx512, avx2, vaes = false, false, false
