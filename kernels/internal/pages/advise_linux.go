package pages

import "golang.org/x/sys/unix"

// adviseLarge asks for large pages for b, which is made of whole ones: for those that
// are new when they are first written, and to have those that the garbage collector
// reuses put together. It is advice: without it all is the same but slower.
func adviseLarge(b []byte) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	for i := 0; i < len(b); i += large {
		b[i] = 0
	}
	_ = unix.Madvise(b, unix.MADV_COLLAPSE)
}
