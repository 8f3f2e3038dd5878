//go:build gpu && cgo && linux && amd64

package cuda

import (
	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels/cuda/internal/driver"
)

// Sizes of hopper.cu.
const (
	fusedRows    = 128 // positions of a block; a cluster has two blocks
	fusedWide    = 192 // weight rows of a block
	fusedOuts    = fusedWide / 2
	fusedBytes   = 128 // bytes of a row in a stage
	fusedThreads = 384
	fusedStages  = 5
	fusedShared  = fusedStages*(fusedRows+fusedWide)*fusedBytes + fusedStages*2*8 + 1024 // with room for alignment
)

// fusedPays reports whether a product has tiles for at least half of the device. With fewer,
// cuBLAS is faster, as its tiles are smaller.
func (w *worker) fusedPays(r *resident, rows int) bool {
	high, wide := fusedTiles(rows, r.outs)
	return w.dev.eager || 4*high*wide >= w.dev.info.Processors
}

// fusedTiles returns the number of clusters' tiles that cover a product, down and across.
func fusedTiles(rows, outs int) (high, wide int) {
	return (rows + 2*fusedRows - 1) / (2 * fusedRows), (outs + fusedWide - 1) / fusedWide
}

// fused is struct Fused of hopper.cu.
type fused struct {
	x, w       driver.TensorMap
	y          cu.DevicePtr
	rows, outs uint32
	high, wide uint32
	steps, _   uint32
	r          constants
	_          [16]byte // up to a multiple of 64
}

// multiplyFused queues the kernel that computes the words of a tile of positions from residues.
func (w *worker) multiplyFused(r *resident, y cu.DevicePtr, rows, pad int) error {
	x, err := driver.NewTensorMap(driver.Rows{
		Base: w.images.at, Bytes: r.ld, Rows: pad, Images: r.images, Stride: r.ld, Image: pad * r.ld, Height: fusedRows,
	})
	if err != nil {
		return err
	}
	high, wide := fusedTiles(rows, r.outs)
	s := fused{x: x, w: r.weightsMap, y: y, rows: uint32(rows), outs: uint32(r.outs),
		high: uint32(high), wide: uint32(wide), steps: uint32((r.ld + fusedBytes - 1) / fusedBytes), r: r.consts}
	if r.lift {
		s.r.lift = 1
	}
	clusters := min(w.dev.info.Processors/2, high*wide)
	return driver.Launch(w.dev.fns.fused, driver.Grid{X: 2 * clusters, Threads: fusedThreads, Shared: fusedShared}, w.stream, driver.Arg(&s))
}
