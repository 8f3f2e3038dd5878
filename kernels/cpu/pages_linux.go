package cpu

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseLarge asks for large pages for b, which is made of whole ones and untouched.
// It is advice: without it all is the same but slower.
func adviseLarge(b []int8) {
	_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b))), len(b)), unix.MADV_HUGEPAGE)
}
