//go:build gpu && cgo && linux && amd64

package cuda

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gorgonia.org/cu"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cuda/internal/driver"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// path is a way to compute products.
type path int

const (
	pathFused path = iota
	pathInt8
	pathFloat64
)

func (p path) String() string { return [...]string{PathFused, PathInt8, PathFloat64}[p] }

// wide reports whether residues are float64.
func (p path) wide() bool { return p == pathFloat64 }

// resident is a weight matrix on a device.
type resident struct {
	dev    *device
	path   path
	op     plan.Conv2D // a dense operator as one of a 1x1 map
	dense  bool
	consts constants
	lift   bool // one image of the weights serves for all primes

	terms, ld int   // elements of a row, and padded
	outs, pad int   // weight rows of a group, and padded
	images    int   // images of x and of sums: one per prime, or per two primes
	element   int64 // bytes of a residue
	weights   memory
	places    memory                       // places of a convolution's terms
	maps      [len(boxes)]driver.TensorMap // of the weights, for the kernels of hopper.cu
	chunk     int                          // 0 if patches are stored before they are multiplied

	// Guarded by dev.mu.
	users int
	used  int64
	gone  bool
}

// Padding: cuBLAS needs byte dimensions in multiples of 4, the copy engine rows of a multiple
// of 16 bytes, combine8 sums in multiples of 4.
const (
	fillTerms = 16
	fillRows  = 4
)

func fill(n, to int) int { return (n + to - 1) / to * to }

// newResident returns the weights of op for a device, not yet loaded.
func (d *device) newResident(r ring.Ring, op plan.Op, lift bool) *resident {
	c := op.AsConv()
	res := &resident{
		dev: d, path: d.path, op: c, dense: op.Kind == plan.KindDense, consts: newConstants(r),
		terms: c.Patch(), ld: fill(c.Patch(), fillTerms), outs: c.OutC / c.Groups, pad: fill(c.OutC/c.Groups, fillRows),
		images: len(r.Primes()), element: 1,
	}
	if res.path.wide() {
		res.images, res.element = (res.images+1)/2, 8
	} else {
		res.lift = lift && c.Groups == 1 // with groups, one image is not evenly spaced over the batch
	}
	switch {
	case res.path == pathFused && c.Groups > 1:
		res.path = pathInt8
	case res.path == pathFused && !res.dense:
		if res.chunk = chunked(c); res.chunk > 0 {
			res.ld = c.KH * c.KW * fill(c.C, res.chunk)
		}
	}
	return res
}

// weightImages returns the number of images of the weights.
func (r *resident) weightImages() int {
	if r.lift {
		return 1
	}
	return r.images
}

// image returns the number of elements in an image of the weights.
func (r *resident) image() int { return r.op.Groups * r.pad * r.ld }

// placed reports whether the places of a convolution's terms are needed on the device.
func (r *resident) placed() bool { return !r.dense && r.chunk == 0 }

// bytes returns the device memory of the weights.
func (r *resident) bytes() int64 {
	n := int64(r.weightImages()) * int64(r.image()) * r.element
	if r.placed() {
		n += int64(r.terms) * 16
	}
	return n
}

// threads is the number of threads in a block of the kernels in kernels.cu.
const threads = 256

// blocks returns how rows of the given number of quads (groups of four columns) are shared
// among threads: 2^shift threads per row, and the grid for all rows.
func blocks(rows int64, quads int) (shift uint32, grid driver.Grid) {
	shift = uint32(min(bits.Len(uint(quads-1)), bits.Len(threads)-1))
	perBlock := int64(threads >> shift)
	return shift, driver.Grid{X: int((rows + perBlock - 1) / perBlock), Threads: threads}
}

// split is struct Split of kernels.cu.
type split struct {
	x, images                cu.DevicePtr
	rows, pad                int64
	terms, ld, groups, shift uint32
	r                        constants
}

// split queues the kernel that computes the residues of a matrix, of rows for each group.
func (w *worker) split(r *resident, images, x cu.DevicePtr, rows, pad, groups int, lift bool) error {
	pieces := 1 // of a row, each filled up
	if r.chunk > 0 {
		pieces = r.op.KH * r.op.KW
	}
	s := split{x: x, images: images, rows: int64(rows) * int64(pieces), pad: int64(pad) * int64(pieces),
		terms: uint32(r.terms / pieces), ld: uint32(r.ld / pieces), groups: uint32(groups), r: r.consts}
	if lift {
		s.r.lift = 1
	}
	fn := w.dev.fns.split8
	if r.path.wide() {
		fn = w.dev.fns.split64
	}
	var grid driver.Grid
	s.shift, grid = blocks(int64(groups)*s.pad, int(s.ld)/4)
	return driver.Launch(fn, grid, w.stream, driver.Arg(&s))
}

// patch is struct Patch of kernels.cu.
type patch struct {
	x, images, places                                  cu.DevicePtr
	first, rows, pad                                   int64
	terms, ld, groups, shift                           uint32
	h, w, c, top, left, sh, sw, outW, positions, depth int32
	r                                                  constants
}

// patches queues the kernel that computes the residues of the patches at positions
// [first, first+rows) of maps.
func (w *worker) patches(r *resident, images, x cu.DevicePtr, first, rows, pad int) error {
	c := &r.op
	s := patch{x: x, images: images, places: r.places.at, first: int64(first), rows: int64(rows), pad: int64(pad),
		terms: uint32(r.terms), ld: uint32(r.ld), groups: uint32(c.Groups),
		h: int32(c.H), w: int32(c.W), c: int32(c.C), top: int32(c.Top), left: int32(c.Left), sh: int32(c.SH), sw: int32(c.SW),
		outW: int32(c.OutW()), positions: int32(c.Positions()), depth: int32(c.C / c.Groups), r: r.consts}
	fn := w.dev.fns.patch8
	if r.path.wide() {
		fn = w.dev.fns.patch64
	}
	var grid driver.Grid
	s.shift, grid = blocks(int64(c.Groups)*int64(pad), r.ld/4)
	return driver.Launch(fn, grid, w.stream, driver.Arg(&s))
}

// gather is struct Gather of kernels.cu.
type gather struct {
	maps, images, places                               cu.DevicePtr
	first, rows, pad, step                             int64
	terms, ld, groups, shift                           uint32
	h, w, c, top, left, sh, sw, outW, positions, depth int32
	count, _                                           uint32
}

// bytewise reports whether maps are split first and patches gathered from their residues, 16
// channels at a time. Otherwise patches are split word by word.
func (r *resident) bytewise() bool {
	return r.placed() && r.path == pathInt8 && r.op.C/r.op.Groups%16 == 0
}

// splitMaps queues the kernel that computes the residues of samples' maps, in w.maps.
func (w *worker) splitMaps(r *resident, x cu.DevicePtr, samples int) error {
	rows := int64(samples) * int64(r.op.H) * int64(r.op.W)
	if err := w.grow(&w.maps, int64(r.images)*rows*int64(r.op.C)); err != nil {
		return err
	}
	s := split{x: x, images: w.maps.at, rows: rows, pad: rows, terms: uint32(r.op.C), ld: uint32(r.op.C), groups: 1, r: r.consts}
	var grid driver.Grid
	s.shift, grid = blocks(rows, r.op.C/4)
	return driver.Launch(w.dev.fns.split8, grid, w.stream, driver.Arg(&s))
}

// gather queues the kernel that copies the patches at positions [first, first+rows) of the
// maps in w.maps.
func (w *worker) gather(r *resident, images cu.DevicePtr, first, rows, pad, samples int) error {
	c := &r.op
	s := gather{maps: w.maps.at, images: images, places: r.places.at, first: int64(first), rows: int64(rows), pad: int64(pad),
		step:  int64(samples) * int64(c.H) * int64(c.W) * int64(c.C),
		terms: uint32(r.terms), ld: uint32(r.ld), groups: uint32(c.Groups),
		h: int32(c.H), w: int32(c.W), c: int32(c.C), top: int32(c.Top), left: int32(c.Left), sh: int32(c.SH), sw: int32(c.SW),
		outW: int32(c.OutW()), positions: int32(c.Positions()), depth: int32(c.C / c.Groups), count: uint32(r.images)}
	var grid driver.Grid
	s.shift, grid = blocks(int64(c.Groups)*int64(pad), r.ld/16)
	return driver.Launch(w.dev.fns.gather8, grid, w.stream, driver.Arg(&s))
}

// combine is struct Combine of kernels.cu.
type combine struct {
	sums, y                 cu.DevicePtr
	rows, pad               int64
	outs, ld, groups, shift uint32
	r                       constants
}

// combine queues the kernel that computes words from sums.
func (w *worker) combine(r *resident, y, sums cu.DevicePtr, rows, pad int) error {
	s := combine{sums: sums, y: y, rows: int64(rows), pad: int64(pad), outs: uint32(r.outs), ld: uint32(r.pad), groups: uint32(r.op.Groups), r: r.consts}
	fn, quads := w.dev.fns.combine8, r.op.Groups*fill(r.outs, 4)/4
	if r.path.wide() {
		fn, quads = w.dev.fns.combine64, r.op.Groups*r.outs
	}
	var grid driver.Grid
	s.shift, grid = blocks(int64(rows), quads)
	return driver.Launch(fn, grid, w.stream, driver.Arg(&s))
}

// load loads the weights on the device, and makes room for them if needed. It runs on w's thread.
func (r *resident) load(w *worker, words []uint32) error {
	for first := true; ; first = false {
		err := r.loadOnce(w, words)
		if !errors.Is(err, kernels.ErrOutOfMemory) {
			return err
		}
		if more, e := w.makeRoom(); e != nil || !more && !first { // w's own buffers are freed even so
			return errors.Join(err, e)
		}
	}
}

func (r *resident) loadOnce(w *worker, words []uint32) (err error) {
	loaded := false
	defer func() {
		if !loaded { // after an error or a panic
			w.stream.Synchronize() // queued work uses the memory to be freed
			err = errors.Join(r.dev.check(err), r.free())
		}
	}()
	image := int64(r.weightImages()) * int64(r.image()) * r.element
	if r.weights, err = r.dev.alloc(forWeights, image); err != nil {
		return err
	}
	if r.placed() {
		if err := r.loadPlaces(w); err != nil {
			return err
		}
	}
	// Rows are uploaded in parts; with several groups all rows at once.
	part := min(max(1, stagedBytes/(wordBytes*r.terms)), r.outs)
	if r.op.Groups > 1 {
		part = r.outs
	}
	if r.op.Groups == 1 {
		for from := 0; from < r.outs; from += part {
			n := min(part, r.outs-from)
			rows := n
			if from+n == r.outs {
				rows = r.pad - from // with rows of zeros as padding
			}
			if err := w.loadRows(r, words[from*r.terms:(from+n)*r.terms], from, n, rows); err != nil {
				return err
			}
		}
	} else if err := w.loadGroups(r, words); err != nil {
		return err
	}
	if r.path == pathFused {
		err = r.mapWeights()
	}
	loaded = err == nil
	return err
}

// stagedBytes is roughly the number of bytes that are staged at a time.
const stagedBytes = 8 << 20

// loadRows splits n rows of weights into each image, from row from on.
func (w *worker) loadRows(r *resident, words []uint32, from, n, rows int) error {
	if err := w.grow(&w.x, int64(len(words))*wordBytes); err != nil {
		return err
	}
	if err := w.upload(w.x.at, words, false); err != nil {
		return err
	}
	// split makes images of this part alone. They are then copied into the whole images.
	part := int64(rows*r.ld) * r.element
	if err := w.grow(&w.images, int64(r.weightImages())*part); err != nil {
		return err
	}
	if err := w.split(r, w.images.at, w.x.at, n, rows, 1, r.lift); err != nil {
		return err
	}
	for i := range r.weightImages() {
		to := r.weights.at + cu.DevicePtr((int64(i)*int64(r.image())+int64(from*r.ld))*r.element)
		if err := cu.MemcpyDtoDAsync(to, w.images.at+cu.DevicePtr(int64(i)*part), part, w.stream); err != nil {
			return err
		}
	}
	return w.stream.Synchronize() // before staging memory is overwritten
}

// loadGroups splits weights of several groups, which are small enough to load at once.
func (w *worker) loadGroups(r *resident, words []uint32) error {
	if err := w.grow(&w.x, int64(len(words))*wordBytes); err != nil {
		return err
	}
	if err := w.upload(w.x.at, words, false); err != nil {
		return err
	}
	if err := w.split(r, r.weights.at, w.x.at, r.outs, r.pad, r.op.Groups, false); err != nil {
		return err
	}
	return w.stream.Synchronize()
}

// loadPlaces loads the places of the terms, or of every 16 terms, on the device: struct place
// of kernels.cu, each relative to its patch's corner.
func (r *resident) loadPlaces(w *worker) (err error) {
	c := &r.op
	depth, step := c.C/c.Groups, 1
	if r.bytewise() {
		step = 16
	}
	words := make([]uint32, 0, 4*r.terms/step)
	for a := range c.KH {
		for b := range c.KW {
			for i := 0; i < depth; i += step {
				row, column := a*c.DH, b*c.DW
				words = append(words, uint32((row*c.W+column)*c.C+i), uint32(row), uint32(column), 0)
			}
		}
	}
	if r.places, err = r.dev.alloc(forWeights, int64(len(words))*wordBytes); err != nil {
		return err
	}
	if err := w.upload(r.places.at, words, false); err != nil {
		return err
	}
	return w.stream.Synchronize()
}

// free frees the weights. It runs on a worker.
func (r *resident) free() error {
	if !r.dev.usable() {
		return nil // freed with their context
	}
	err := errors.Join(r.dev.free(&r.weights), r.dev.free(&r.places))
	if errors.Is(err, kernels.ErrDeviceLost) {
		return nil
	}
	return err
}

// Bounds of a part of a batch.
const (
	partBytes = 4 << 20   // bytes of words each way, unless rows are longer
	partRows  = 256       // least number of positions, so that products are large enough
	fewBytes  = 1 << 20   // and the same for the first and the last part, and where a batch has
	fewRows   = 128       // only a few
	partMost  = 64 << 20  // bytes each way, a limit to partRows
	tileBytes = 128 << 20 // bytes of residues and sums, on a device with enough memory
)

// cut cuts a batch of rows into parts, and returns where they end. Nothing overlaps with copying in
// the first part and copying out the last, so that parts grow at the start and shrink at the end.
func (r *resident) cut(rows int) (ends []int) {
	positions := r.op.Positions()
	bytes := wordBytes * max(r.op.H*r.op.W*r.op.C, positions*r.op.OutC)
	samples := func(of, least int) int {
		return max(1, of/bytes, min((least+positions-1)/positions, partMost/bytes))
	}
	few := samples(min(fewBytes, r.dev.partBytes), fewRows)
	each := min(samples(r.dev.partBytes, partRows), max((rows+3)/4, few))
	first, last := 0, rows
	for size := max(each/4, few); size < each && last-first >= 2*size+each; size *= 2 {
		first += size
		last -= size
		ends = append(ends, first, last+size)
	}
	for parts := (last - first + each - 1) / each; parts > 0; parts-- {
		first += (last - first) / parts
		ends = append(ends, first)
	}
	slices.Sort(ends)
	return ends
}

// tile returns the number of positions that are multiplied at a time.
func (r *resident) tile() int {
	if r.chunk > 0 {
		return fillRows // it stores no tiles
	}
	each := int64(r.images*r.op.Groups) * int64(r.ld) * r.element
	if r.path != pathFused {
		each += int64(r.images*r.op.Groups*r.pad) * 4 * max(1, r.element/4)
	}
	return max(fillRows, int(r.dev.tileBytes/each))
}

// evaluate computes rows of y from rows of x and waits for them. If the device has no room, it
// makes some, then takes smaller tiles, then fewer rows at a time. It runs on w's thread.
func (w *worker) evaluate(r *resident, y, x ring.Matrix, pinnedY, pinnedX bool) error {
	tile := r.tile()
	for {
		err := w.dev.check(w.part(r, y, x, pinnedY, pinnedX, tile))
		if err == nil {
			return nil
		}
		// Queued work still uses the buffers, and y and x.
		if e := w.stream.Synchronize(); e != nil && !errors.Is(err, kernels.ErrDeviceLost) {
			return errors.Join(w.dev.check(e), err)
		}
		if !errors.Is(err, kernels.ErrOutOfMemory) {
			return err
		}
		more, e := w.makeRoom()
		if e != nil {
			return w.dev.check(e)
		}
		switch {
		case more:
		case tile > fillRows:
			tile = max(fillRows, min(tile, x.Rows*r.op.Positions())/2)
		case x.Rows > 1:
			half := x.Rows / 2
			if err := w.evaluate(r, y.RowRange(0, half), x.RowRange(0, half), pinnedY, pinnedX); err != nil {
				return err
			}
			return w.evaluate(r, y.RowRange(half, y.Rows), x.RowRange(half, x.Rows), pinnedY, pinnedX)
		default:
			return err
		}
	}
}

// part computes rows of y from rows of x.
func (w *worker) part(r *resident, y, x ring.Matrix, pinnedY, pinnedX bool, tile int) error {
	if err := w.grow(&w.x, int64(len(x.Data))*wordBytes); err != nil {
		return err
	}
	if err := w.grow(&w.y, int64(len(y.Data))*wordBytes); err != nil {
		return err
	}
	if err := w.upload(w.x.at, x.Data, pinnedX); err != nil {
		return err
	}
	if err := w.multiply(r, w.y.at, w.x.at, x.Rows, tile); err != nil {
		return err
	}
	return w.download(y.Data, w.y.at, pinnedY)
}

// multiply queues the product of samples of x on the device, in tiles of positions.
func (w *worker) multiply(r *resident, y, x cu.DevicePtr, samples, tile int) error {
	positions := samples * r.op.Positions()
	if r.chunk > 0 {
		if err := w.splitMaps(r, x, samples); err != nil {
			return err
		}
		return w.multiplyHopper(r, y, positions, 0, samples)
	}
	tile = min(tile, fill(positions, fillRows))
	if err := w.grow(&w.images, int64(r.images*r.op.Groups)*int64(fill(tile, fillRows))*int64(r.ld)*r.element); err != nil {
		return err
	}
	if r.bytewise() {
		if err := w.splitMaps(r, x, samples); err != nil {
			return err
		}
	}
	for first := 0; first < positions; first += tile {
		rows := min(tile, positions-first)
		pad := fill(rows, fillRows)
		var err error
		switch {
		case r.dense:
			err = w.split(r, w.images.at, x+cu.DevicePtr(first*r.terms*wordBytes), rows, pad, 1, false)
		case r.bytewise():
			err = w.gather(r, w.images.at, first, rows, pad, samples)
		default:
			err = w.patches(r, w.images.at, x, first, rows, pad)
		}
		if err != nil {
			return err
		}
		out := y + cu.DevicePtr(first*r.op.OutC*wordBytes)
		switch {
		case r.path == pathFused:
			err = w.multiplyHopper(r, out, rows, pad, 0)
		case r.path.wide():
			err = w.multiplyFloat64(r, out, rows, pad)
		default:
			err = w.multiplyInt8(r, out, rows, pad)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// multiplyInt8 queues the product of a tile's residues, then the words from its sums.
func (w *worker) multiplyInt8(r *resident, y cu.DevicePtr, rows, pad int) error {
	if err := w.openBLAS(); err != nil {
		return err
	}
	batch := r.images * r.op.Groups
	if err := w.grow(&w.sums, 4*int64(batch)*int64(pad)*int64(r.pad)); err != nil {
		return err
	}
	stepB := int64(r.pad) * int64(r.ld)
	if r.lift {
		stepB = 0
	}
	if err := driver.Multiply(w.blas, driver.Gemm{
		Type: driver.Int8, M: pad, N: r.pad, K: r.ld, Batch: batch,
		A: w.images.at, LDA: r.ld, StepA: int64(pad) * int64(r.ld),
		B: r.weights.at, LDB: r.ld, StepB: stepB,
		C: w.sums.at, LDC: r.pad, StepC: int64(pad) * int64(r.pad),
	}); err != nil {
		return err
	}
	return w.combine(r, y, w.sums.at, rows, pad)
}

// multiplyFloat64 does the same for residues modulo pairs of primes.
func (w *worker) multiplyFloat64(r *resident, y cu.DevicePtr, rows, pad int) error {
	if err := w.openBLAS(); err != nil {
		return err
	}
	batch := r.images * r.op.Groups
	if err := w.grow(&w.sums, 8*int64(batch)*int64(pad)*int64(r.pad)); err != nil {
		return err
	}
	a, b, c := pad*r.ld, r.pad*r.ld, pad*r.pad
	for i := range batch {
		// In cuBLAS' column order: C^T = W X^T.
		w.blas.Dgemm(blas.Trans, blas.NoTrans, r.pad, pad, r.ld, 1,
			driver.Floats(r.weights.at+cu.DevicePtr(8*i*b), b), r.ld,
			driver.Floats(w.images.at+cu.DevicePtr(8*i*a), a), r.ld, 0,
			driver.Floats(w.sums.at+cu.DevicePtr(8*i*c), c), r.pad)
	}
	if err := w.blas.Err(); err != nil {
		return errors.Join(fmt.Errorf("product in float64: %w", err), w.closeBLAS())
	}
	return w.combine(r, y, w.sums.at, rows, pad)
}
