//go:build !purego

#include "textflag.h"

// func leaf7() (ecx uint32)
TEXT ·leaf7(SB), NOSPLIT, $0-4
	XORL AX, AX
	XORL CX, CX
	CPUID
	XORL CX, CX
	CMPL AX, $7 // the last leaf there is
	JLT none
	MOVL $7, AX
	CPUID
none:
	MOVL CX, ecx+0(FP)
	RET
