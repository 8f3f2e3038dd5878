//go:build gpu && cgo && linux && amd64

package cuda

import (
	"fmt"
	"math"

	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels/cuda/internal/driver"
	"github.com/securenets/securenets/plan"
)

// variant is a kernel of hopper.cu.
type variant struct {
	name            string
	outs, positions int  // weight rows and positions of a tile
	box, rows       int  // weight rows and positions that the copy engine copies at a time
	stage, ring     int  // rows of a stage in a block, and stages
	cluster         int  // blocks of a tile
	threads         int  // of a block
	fused           bool // takes all primes in a block, and one tile after the other
	// A tile takes set + steps·step microseconds on an H100, to choose among variants.
	set, step float64
}

// variants are the kernels of hopper.cu: fused for large products, then parallel for small ones,
// of which a processor has room for two blocks.
var variants = [...]variant{
	{name: "fused", outs: 192, positions: 256, box: 96, rows: 128, stage: 128 + 192, ring: 5, cluster: 2, threads: 384, fused: true, set: 8, step: 0.6},
	parallel(2, 64, 4, 2.7, 1.17),
	parallel(2, 128, 3, 6, 1.2),
	parallel(1, 256, 2, 10, 1.3),
}

func parallel(groups, positions, ring int, set, step float64) variant {
	return variant{
		name: fmt.Sprintf("parallel%dx%d", groups, positions),
		outs: 64 * groups, positions: positions, box: 64, rows: positions, stage: 64*groups + positions, ring: ring,
		cluster: 4, threads: 128*groups + 32, set: set, step: step,
	}
}

// stageBytes is the number of bytes of each row in a stage.
const stageBytes = 128

// shared returns a block's bytes of shared memory: stages, two barriers for each, and room for
// alignment.
func (v *variant) shared() int { return v.ring*v.stage*stageBytes + v.ring*2*8 + 1024 }

// tiles returns the number of tiles that cover a product, down and across.
func (v *variant) tiles(rows, outs int) (high, wide int) {
	return (rows + v.positions - 1) / v.positions, (outs + v.outs - 1) / v.outs
}

// time estimates the time of a product in microseconds.
func (v *variant) time(r *resident, rows int) float64 {
	high, wide := v.tiles(rows, r.outs)
	tiles, steps, processors := float64(high*wide), float64(r.steps()), r.dev.info.Processors
	if v.fused {
		rounds := math.Ceil(tiles / float64(max(1, processors/v.cluster)))
		return rounds * (v.set + steps*float64(r.images)*v.step)
	}
	// Clusters of four do not fit everywhere.
	rounds := tiles / float64(max(1, 2*(processors/v.cluster-2)))
	if rounds > 1 {
		rounds += 0.3 // as the last round is not full
	}
	return max(1, rounds) * (v.set + steps*v.step)
}

// hopperKernels are the functions of variants.
type hopperKernels [len(variants)]cu.Function

func loadHopper() (k hopperKernels, err error) {
	module, err := cu.LoadData(hopperPTX)
	if err != nil {
		return k, err
	}
	for i := range variants {
		if k[i], err = module.Function(variants[i].name); err != nil {
			return k, fmt.Errorf("kernel %s: %w", variants[i].name, err)
		}
		if err := driver.SetShared(k[i], variants[i].shared()); err != nil {
			return k, err
		}
	}
	return k, nil
}

// choose returns the variant for a number of positions.
func (r *resident) choose(rows int) int {
	whole := r.chunk == 0 || r.chunk == stageBytes // as fused needs the rows of a stage
	if v := r.dev.forced; v != nil && (whole || !variants[*v].fused) {
		return *v
	}
	best := 1
	for i := range variants {
		if (whole || !variants[i].fused) && variants[i].time(r, rows) < variants[best].time(r, rows) {
			best = i
		}
	}
	return best
}

// chunked returns how many bytes of channels the copy engine gathers at a time for a
// convolution, or 0 if it cannot gather its patches. The bytes are such that the least is filled up.
func chunked(c plan.Conv2D) int {
	// The last stage has up to three chunks behind the last place, of up to two rows more.
	if c.Groups > 1 || c.C%16 != 0 || max(c.SH, c.SW) > 8 || max((c.KH+2)*c.DH, c.KW*c.DW) > 255 ||
		max(c.Top, c.Left, (c.KH-1)*c.DH-c.Bot, (c.KW-1)*c.DW-c.Right) > 128 || max(c.Bot-(c.KH-1)*c.DH, c.Right-(c.KW-1)*c.DW) > 127 {
		return 0
	}
	best := stageBytes
	for _, n := range []int{64, 32} {
		if fill(c.C, n) < fill(c.C, best) {
			best = n
		}
	}
	return best
}

// gathers is struct Patches of hopper.cu.
type gathers struct {
	perPlace, chunk, kw, dh, dw, outW, positions uint32
	top, left                                    int32
	sh, sw, samples                              uint32
}

// product is struct Product of hopper.cu.
type product struct {
	x, w       driver.TensorMap
	y          cu.DevicePtr
	rows, outs uint32
	high, wide uint32
	steps      uint32
	p          gathers
	r          constants
	_          [32]byte // up to a multiple of 64
}

// steps returns the number of stages of one prime.
func (r *resident) steps() int { return (r.ld + stageBytes - 1) / stageBytes }

// mapWeights describes the weights to the copy engine.
func (r *resident) mapWeights() error {
	for i, box := range boxes {
		var err error
		r.maps[i], err = driver.NewTensorMap(driver.Rows{
			Base: r.weights.at, Bytes: r.ld, Rows: r.pad, Images: r.weightImages(), Stride: r.ld, Image: r.image(), Height: box,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// boxes are the numbers of weight rows that variants copy at a time.
var boxes = [...]int{96, 64}

// multiplyHopper queues the kernel that computes the words of positions: of a tile of
// residues in w.images, or of the samples whose maps' residues are in w.maps.
func (w *worker) multiplyHopper(r *resident, y cu.DevicePtr, rows, pad, samples int) error {
	at := r.choose(rows)
	v := &variants[at]
	s := product{y: y, rows: uint32(rows), outs: uint32(r.outs), steps: uint32(r.steps()), p: gathers{chunk: stageBytes}, r: r.consts}
	var err error
	if r.chunk > 0 {
		c := &r.op
		s.p = gathers{
			perPlace: uint32(fill(c.C, r.chunk) / r.chunk), chunk: uint32(r.chunk), kw: uint32(c.KW), dh: uint32(c.DH), dw: uint32(c.DW),
			outW: uint32(c.OutW()), positions: uint32(c.Positions()), top: int32(c.Top), left: int32(c.Left),
			sh: uint32(c.SH), sw: uint32(c.SW), samples: uint32(samples),
		}
		s.x, err = driver.NewPatchMap(driver.Patches{
			Base: w.maps.at, C: c.C, W: c.W, H: c.H, N: r.images * samples,
			Left: -c.Left, Top: -c.Top, Right: c.Right - (c.KW-1)*c.DW, Bottom: c.Bot - (c.KH-1)*c.DH,
			StepW: c.SW, StepH: c.SH, Channels: r.chunk, Pixels: v.rows,
		})
	} else {
		s.x, err = driver.NewTensorMap(driver.Rows{
			Base: w.images.at, Bytes: r.ld, Rows: pad, Images: r.images, Stride: r.ld, Image: pad * r.ld, Height: v.rows,
		})
	}
	if err != nil {
		return err
	}
	for i, box := range boxes {
		if box == v.box {
			s.w = r.maps[i]
		}
	}
	if r.lift {
		s.r.lift = 1
	}
	high, wide := v.tiles(rows, r.outs)
	s.high, s.wide = uint32(high), uint32(wide)
	clusters := high * wide
	if v.fused {
		clusters = min(clusters, max(1, w.dev.info.Processors/v.cluster))
	}
	return driver.Launch(w.dev.fns.hopper[at], driver.Grid{X: v.cluster * clusters, Threads: v.threads, Shared: v.shared()}, w.stream, driver.Arg(&s))
}
