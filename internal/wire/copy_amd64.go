//go:build !purego

package wire

// copyBlocks copies blocks of 16 words and returns 0 where none is above most.
//
//go:noescape
func copyBlocks(dst *uint32, src *byte, blocks int, most uint32) (large uint32)

// copyBelow copies 4-byte words of the wire, as many as dst has, and reports whether all of
// them are below m. It reads each word once, so that what it has looked at is what
// it has copied, whoever writes to src meanwhile.
func copyBelow(dst []uint32, src []byte, m uint32) bool {
	blocks := len(dst) / 16
	good := true
	if blocks > 0 {
		good = copyBlocks(&dst[0], &src[0], blocks, m-1) == 0
	}
	return copyBelowGeneric(dst[16*blocks:], src[64*blocks:], m) && good
}
