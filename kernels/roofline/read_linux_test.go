package roofline

import (
	"testing"

	"github.com/securenets/securenets/internal/fence"
)

// TestReadStaysInside: memory is read to its last whole line and no further.
func TestReadStaysInside(t *testing.T) {
	for _, lines := range []int{1, 2, 64, 65} {
		for _, atEnd := range []bool{false, true} {
			Read(fence.Slice[byte](t, 64*lines, atEnd))
		}
	}
}
