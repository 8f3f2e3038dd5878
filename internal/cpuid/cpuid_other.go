//go:build !amd64 || purego

package cpuid

const avx512 = false
