//go:build !amd64 || purego

package wire

// copyBelow is copyBelowGeneric.
func copyBelow(dst []uint32, src []byte, m uint32) bool { return copyBelowGeneric(dst, src, m) }
