//go:build !purego

package roofline

import "golang.org/x/sys/cpu"

var (
	avx512 = avx2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512VNNI
	avx2   = cpu.X86.HasAVX2 && cpu.X86.HasFMA
)

//go:noescape
func vnni(n int)

//go:noescape
func words(n int)

//go:noescape
func wide(n int)

//go:noescape
func fma512(n int)

//go:noescape
func fma256(n int)

//go:noescape
func read512(p *byte, lines int)

//go:noescape
func read256(p *byte, lines int)
