package pages

import "golang.org/x/sys/unix"

// adviseLarge asks for large pages for b, which spans whole ones: new memory gets them when it
// is first written, and memory that the garbage collector reuses is collapsed into them. If
// the system refuses, reading is only slower.
func adviseLarge(b []byte) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	for i := 0; i < len(b); i += large {
		b[i] = 0
	}
	_ = unix.Madvise(b, unix.MADV_COLLAPSE)
}
