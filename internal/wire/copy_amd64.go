//go:build !purego

package wire

// copyBlocks copies blocks of 16 words and returns 0 where none is above most.
//
//go:noescape
func copyBlocks(dst *uint32, src *byte, blocks int, most uint32) (large uint32)

// copyBelow copies words from the start of src to dst, as many as it can look at on the way,
// and reports whether all of these are below m. It reads each word once.
func copyBelow(dst []uint32, src []byte, m uint32) (n int, good bool) {
	blocks := len(dst) / 16
	if blocks == 0 {
		return 0, true
	}
	return 16 * blocks, copyBlocks(&dst[0], &src[0], blocks, m-1) == 0
}
