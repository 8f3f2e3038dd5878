package pages

import "golang.org/x/sys/unix"

// adviseLarge asks for large pages for b, which is made of whole ones and untouched.
// It is advice: without it all is the same but slower.
func adviseLarge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
