//go:build !purego

package roofline

import "golang.org/x/sys/cpu"

var available = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VNNI

//go:noescape
func vnni(n int)

//go:noescape
func fma(n int)

//go:noescape
func read(p *byte, lines int)
