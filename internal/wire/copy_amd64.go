//go:build !purego

package wire

// copyBlocks copies blocks of 16 words. It returns 0 if no word is above most.
//
//go:noescape
func copyBlocks(dst *uint32, src *byte, blocks int, most uint32) (large uint32)

// copyBelow copies the first n words of src to dst, a multiple of 16, and reports whether all
// of them are below m. It reads each word once.
func copyBelow(dst []uint32, src []byte, m uint32) (n int, good bool) {
	blocks := len(dst) / 16
	if blocks == 0 {
		return 0, true
	}
	return 16 * blocks, copyBlocks(&dst[0], &src[0], blocks, m-1) == 0
}
