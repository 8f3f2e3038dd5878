//go:build !purego

package cpuid

import xcpu "golang.org/x/sys/cpu"

// x/sys/cpu reports an instruction set only if the system saves its registers, too.
var avx512 = func() bool {
	x := &xcpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL &&
		x.HasAVX512IFMA && x.HasAVX512VBMI && x.HasAVX512VBMI2 && x.HasAVX512VAES &&
		x.HasAES && x.HasPOPCNT && x.HasBMI2
}()

// x/sys/cpu reports VAES only together with AVX-512.
var vaes = avx2 && xcpu.X86.HasAES && leaf7()&(1<<9) != 0

// leaf7 returns ECX of CPUID's leaf 7, or 0 if there is no such leaf.
func leaf7() (ecx uint32)

var avx2 = xcpu.X86.HasAVX2 && xcpu.X86.HasBMI2 && xcpu.X86.HasPOPCNT
