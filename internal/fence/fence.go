//go:build unix

// Package fence places test data next to inaccessible memory, so that a read or a write
// past its end faults and ends the test.
package fence

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slice returns n zeroed elements that end, or else begin, where the process may
// neither read nor write. T must hold no pointers.
func Slice[T any](t testing.TB, n int, atEnd bool) []T {
	var zero T
	page := unix.Getpagesize()
	each := int(unsafe.Sizeof(zero))
	size := (n*each + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	for _, side := range [][]byte{all[:page], all[page+size:]} {
		if err := unix.Mprotect(side, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	data := all[page:]
	if atEnd {
		data = data[size-n*each:]
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(data))), n)
}

// Of is Slice with a copy of v in it.
func Of[T any](t testing.TB, v []T, atEnd bool) []T {
	s := Slice[T](t, len(v), atEnd)
	copy(s, v)
	return s
}
