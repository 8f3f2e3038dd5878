package cpu

import (
	"context"
	"math"
	"slices"
	"unsafe"

	"github.com/securenets/securenets/kernels/internal/pages"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// A vectorUnit multiplies residues of 8 or 16 bits: an exact integer product for each
// modulus, then the words from these sums. The moduli are the ring's primes, or products of
// two of them. Both routines have a twin in Go that gives the same bytes.
type vectorUnit struct {
	name  string
	width int     // bytes of a residue: 1 modulo a prime, 2 modulo two primes
	ahead uintptr // distance in bytes at which weights are prefetched
	// split writes a residue of src[j] modulo modulus i to element j of the plane at
	// dst[i·plane], for each modulus of c. Residues of 8 bits are unsigned and at most the
	// prime; those of 16 bits are signed and at most maxWord in magnitude.
	split func(dst []uint8, plane int, src []uint32, c []splitting)
	// multiply computes a tile.
	multiply func(t *tile)
}

// A tile has at most maxRows rows of x and maxLanes weight rows. A panel with at most
// maxLanes/2 weight rows is half as wide.
const (
	maxRows  = 12
	maxLanes = 32
	maxWord  = 31100 // magnitude of a residue of 16 bits: see splitting
)

// A tile is the argument of a vectorUnit: rows of x by one panel. It computes sums for
// primes moduli from modulus prime on; then, if crt is set, the words from the sums of all
// moduli.
//
//	sums[p][i][j]      = Σ_k w[j, k]·x[i, k] modulo modulus p, not reduced
//	y[i·yStride/4 + j] = Σ_k w[j, k]·x[i, k] mod M, for the lanes j of mask
//
// The residues of row i of x modulo the first modulus are runs of 4·steps bytes, which begin
// at x[i·stride + runs[r]]; those modulo the next modulus lie plane bytes further on. The
// panel holds, step by step and lane by lane, a weight for each of the step's elements; those
// modulo the next modulus lie image bytes further on. Weights beyond a run's true length are
// 0, so x may hold anything there.
type tile struct {
	sums      *tileSums
	w         []int8
	x         []uint8
	y         []uint32
	runs      []int
	crt       *reconstruction
	steps     int // in a run
	stride    int // bytes, row to row of x
	plane     int // bytes, modulus to modulus of x
	image     int // bytes, modulus to modulus of w; 0 if all share one image
	weight    int // bytes of a weight: 1, or 2 for residues of 16 bits
	prime     int // number of the modulus that w and x begin with
	primes    int // number of moduli
	pitch     int // bytes, modulus to modulus of sums
	rows      int // of x, 1 to maxRows
	words     int // rows of y
	lanes     int // maxLanes or half of it
	yStride   int // bytes, row to row of y
	mask      int // bit j: lane j exists
	ahead     uintptr
	aheadStep int // bytes to prefetch a step, from address ahead on
	part      part
}

// sum returns the place of a sum, with prime counted from t.prime on.
func (t *tile) sum(prime, row, lane int) *uint32 {
	at := (t.prime+prime)*t.pitch/rowBytes + row
	return &t.sums[at/maxRows][at%maxRows][lane]
}

// tileSums are the sums of a tile by prime, row and lane, each plus 2^31, which makes it an
// unsigned word.
//
// Sums of products of 16-bit residues need two words. They are taken in parts v that are
// below 2^31 in magnitude, such as the products of two pairs of residues:
//
//	low  = Σ v mod 2^32                in the first maxPairs of the primes' places
//	high = 2^31 + Σ floor(v / 2^16)    in the others
//
// so that Σ v = 2^16·(high - 2^31) + (low - 2^16·high mod 2^32), as there are at
// most 2^16 parts, and only 2^15 if each is of two products.
type tileSums [ring.MaxPrimes][maxRows][maxLanes]uint32

const (
	rowBytes = 4 * maxLanes       // of a row of sums
	maxPairs = ring.MaxPrimes / 2 // number of 16-bit moduli
)

// partSteps is the maximum number of steps in a part. A part is multiplied for all rows of a
// tile before the next one, so that its share of the panel stays in the first-level cache.
// The bound also keeps a sum of 16-bit residues times signed bytes below 2^31 in magnitude.
const partSteps = 256

// A part of a tile is some of its runs, or partSteps of one.
type part struct {
	runs   *int
	count  int // runs
	steps  int // in a run
	later  int // 0 for the first part of a tile, which sets the sums
	fetch  uintptr
	stride int // bytes to prefetch a step, from address fetch on
}

// splitting has the constants of one prime p for reducing words:
//
//	v = 510·p + Σ_j (byte j of the word)·(256^j mod p, centred)   0 <= v <= 1020·p
//	r = v - p·floor(v·inverse)                                    0 <= r <= p
//
// or of a modulus m of two primes, for words a < M, with every step in float32:
//
//	q = round((a - 2^31)·inverse + half)    off a/m by less than 1/2 + 768/m
//	r = a - m·q                             |r| < m/2 + 768 < maxWord
//
// The errors of a - 2^31, of inverse and of the product are below 128 each, those of
// half and of the sum below 128 and 256, in units of 1/m.
type splitting struct {
	powers  uint32  // 256^j mod p, centred, one per byte
	bias    uint32  // 510·p
	inverse float32 // 1/p, rounded down, or 1/m
	minus   uint32  // -p, in the low half, or -m
	half    float32 // 2^31/m
}

// reconstruction has the constants for computing words from sums s_i. With e_i the inverse
// of M/p_i modulo p_i, and the bytes of s_i + 2^31,
//
//	c_i = bias_i + Σ_j (byte j)·(powers_i, byte j) ≡ e_i·s_i (mod p_i)
//	y   = Σ_i c_i·M/p_i mod M
//
// and for sums of 16-bit residues, with f_j = e_i·256^j mod m_i, centred,
//
//	c_i = bias_i + Σ_j (byte j of low - 2^16·high)·f_j + Σ_j (byte j of high)·f_{j+2}
type reconstruction struct {
	powers  [ring.MaxPrimes]uint32 // e_i·256^j mod p_i, centred, one per byte
	pairs   [maxPairs][4]uint32    // f_0 and f_2, f_1 and f_3, f_2 and f_4, f_3 and f_5, in halves
	bias    [ring.MaxPrimes]int32  // -e_i·2^31 mod p_i, or -e_i·2^47 mod m_i
	inverse [ring.MaxPrimes]float32
	rest    [ring.MaxPrimes]uint32 // M/p_i
	modulus uint32
	down    float32 // -2^-10
}

// moduli returns the moduli of residues of width bytes: r's primes, or the products of two
// of them, in order.
func moduli(r ring.Ring, width int) (m []uint32) {
	for pair := range slices.Chunk(r.Primes(), width) {
		product := uint32(1)
		for _, p := range pair {
			product *= p
		}
		m = append(m, product)
	}
	return m
}

// powersOf returns the bytes (first·256^j mod p, centred), j = 0 to 3.
func powersOf(first, p uint32) (powers uint32) {
	for j := range 4 {
		powers |= uint32(uint8(centre(first%p, p))) << (8 * j)
		first = first % p * 256
	}
	return powers
}

// centre returns the int8 congruent to a <= p < 2^8 in [-(p-1)/2, (p-1)/2].
func centre(a, p uint32) int8 {
	if a > p/2 {
		return int8(int32(a) - int32(p))
	}
	return int8(a)
}

// pairsOf returns first·256^j and first·256^(j+2) mod m, centred, in the two halves of a word.
func pairsOf(first, m uint32, j int) (pair uint32) {
	for i := range 2 {
		f := uint64(first) << (8 * (j + 2*i)) % uint64(m)
		if f > uint64(m/2) {
			f -= uint64(m)
		}
		pair |= uint32(uint16(f)) << (16 * i)
	}
	return pair
}

func splittings(r ring.Ring, width int) (c []splitting) {
	for _, m := range moduli(r, width) {
		inverse := float32(1 / float64(m))
		if width == 2 {
			c = append(c, splitting{inverse: inverse, minus: -m, half: float32((1 << 31) / float64(m))})
			continue
		}
		if float64(inverse)*float64(m) > 1 {
			inverse = math.Nextafter32(inverse, 0)
		}
		c = append(c, splitting{powers: powersOf(1, m), bias: 510 * m, inverse: inverse, minus: uint32(uint16(-m))})
	}
	return c
}

func newReconstruction(r ring.Ring, width int) *reconstruction {
	c := &reconstruction{modulus: r.Modulus(), down: -1.0 / (1 << 10)}
	for i, m := range moduli(r, width) {
		unit := make([]uint8, len(r.Primes()))
		for j := i * width; j < min((i+1)*width, len(unit)); j++ {
			unit[j] = 1
		}
		c.rest[i] = r.Modulus() / m
		e := r.Combine(unit) / c.rest[i] // e_i·M/m_i is the word that is 1 mod m_i and 0 mod the others
		c.inverse[i] = 1 / float32(m)
		bias := uint64(e) << 31 % uint64(m)
		if width == 1 {
			c.powers[i] = powersOf(e, m)
		} else {
			for j := range c.pairs[i] {
				c.pairs[i][j] = pairsOf(e, m, j)
			}
			bias = bias << 16 % uint64(m)
		}
		c.bias[i] = int32((uint64(m) - bias) % uint64(m))
	}
	return c
}

// residues is a weight matrix in panels of residues modulo each modulus. If all weights lift
// to 8 bits, one image of these bytes serves for all moduli.
type residues struct {
	unit   vectorUnit
	op     plan.Conv2D
	split  []splitting
	crt    *reconstruction
	line   int     // bytes of a row of the map with its padding
	runs   [][]int // offsets in bytes from a position's first byte, for each group
	steps  int     // in a run
	images int
	weight int // bytes of a weight
	rows   int // weight rows of a group
	packed []int8
}

// loadResidues returns the loader of a tier.
func loadResidues(unit vectorUnit) func(ring.Ring, plan.Op, ring.Matrix) weights {
	return func(r ring.Ring, op plan.Op, w ring.Matrix) weights {
		p := newResidues(unit, r, op)
		p.pack(r, w)
		return p
	}
}

func newResidues(unit vectorUnit, r ring.Ring, op plan.Op) *residues {
	c := op.AsConv()
	p := &residues{unit: unit, op: c, split: splittings(r, unit.width), crt: newReconstruction(r, unit.width), rows: c.OutC / c.Groups}
	line := (c.Left + c.W + c.Right) * c.C
	p.line = line * unit.width

	// A run is a part of a patch that is contiguous in the map, too.
	depth, along, down := c.C/c.Groups, 1, 1 // along and down: kernel columns and rows of a run
	if c.Groups == 1 && c.DW == 1 {
		along = c.KW
		if c.DH == 1 && line == c.KW*c.C {
			down = c.KH
		}
	}
	p.steps = (down*along*depth*unit.width + 3) / 4
	for g := range c.Groups {
		var runs []int
		for a := 0; a < c.KH; a += down {
			for b := 0; b < c.KW; b += along {
				runs = append(runs, (a*c.DH*line+b*c.DW*c.C+g*depth)*unit.width)
			}
		}
		p.runs = append(p.runs, runs)
	}
	return p
}

// pack packs the weights in panels.
func (p *residues) pack(r ring.Ring, w ring.Matrix) {
	p.images, p.weight = len(p.split), p.unit.width
	if r.LiftsToInt8(w.Data) {
		p.images, p.weight = 1, 1
	}
	p.packed = alignedBytes(p.op.Groups * p.groupBytes())

	runs, primes, step := len(p.runs[0]), r.Primes(), p.stepBytes()
	small := p.weight < p.unit.width || p.images == 1 && p.unit.width == 1
	length := w.Cols / runs
	row := make([]uint8, p.images*p.imageSteps()*step) // the ends of runs stay 0
	for o := range w.Rows {
		for run := range runs {
			words, dst := w.Row(o)[run*length:][:length], row[run*step*p.steps:]
			if small {
				for k, a := range words {
					dst[k] = uint8(r.Lift(a))
				}
				continue
			}
			p.unit.split(dst, step*p.imageSteps(), words, p.split)
			if p.unit.width == 2 {
				continue
			}
			for i, prime := range primes {
				image := dst[i*step*p.imageSteps():][:length]
				for k, a := range image {
					image[k] = uint8(centre(uint32(a), prime))
				}
			}
		}
		panel, lanes := p.panel(o/p.rows, o%p.rows/maxLanes)
		lane := panel[o%p.rows%maxLanes*step:]
		for k, a := range row {
			lane[k/step*lanes*step+k%step] = int8(a)
		}
	}
}

// stepBytes returns the bytes of a step's weights in one lane.
func (p *residues) stepBytes() int { return 4 / p.unit.width * p.weight }

// imageSteps returns the number of steps of one modulus.
func (p *residues) imageSteps() int { return len(p.runs[0]) * p.steps }

// groupBytes returns the bytes of the panels of one group.
func (p *residues) groupBytes() int {
	lanes := p.rows / maxLanes * maxLanes
	if rest := p.rows % maxLanes; rest > 0 {
		lanes += panelLanes(rest)
	}
	return lanes * p.stepBytes() * p.images * p.imageSteps()
}

// panelLanes returns the lanes of a panel with rows weight rows.
func panelLanes(rows int) int {
	if rows <= maxLanes/2 {
		return maxLanes / 2
	}
	return maxLanes
}

// panel returns panel i of group g and its lanes.
func (p *residues) panel(g, i int) ([]int8, int) {
	lanes := panelLanes(min(maxLanes, p.rows-i*maxLanes))
	image := p.stepBytes() * p.images * p.imageSteps()
	return p.packed[g*p.groupBytes()+i*maxLanes*image:][:lanes*image], lanes
}

func (p *residues) bytes() int64 { return int64(len(p.packed)) }

func (p *residues) panels() int { return p.op.Groups * ((p.rows + maxLanes - 1) / maxLanes) }

// Sizes for a second-level cache of 1 MiB or more.
const (
	stageBytes     = 1 << 19 // residues of x that are staged, and read again for every panel
	denseBytes     = 3 << 17 // the same with one position per sample: panels need more room
	stagePositions = 96      // least number of positions, as long as one plane fits
	bandFrom       = 3 << 18 // staged bytes and a panel, above which panels are taken in bands
	bandBytes      = 1 << 18 // sums of a band
)

// high returns the number of positions to stage: whole samples, or whole lines of one. Long
// positions may exceed the budget, as the weights are read again for every stage.
func (p *residues) high() int {
	c := &p.op
	budget := stageBytes
	if c.Positions() == 1 {
		budget = denseBytes
	}
	rows := budget / len(p.split) / p.line // rows of maps
	kernel := (c.KH-1)*c.DH + 1
	if sample := (c.OutH()-1)*c.SH + kernel; sample <= rows || c.Positions() == 1 {
		least := min(stagePositions, budget/p.line/sample)
		return max(rows/sample*c.Positions(), least, maxRows)
	}
	return max(maxRows, max(1, (rows-kernel)/c.SH+1)*c.OutW())
}

// stage is a part of x as residues modulo each modulus.
type stage struct {
	bytes []uint8 // a plane for each modulus
	plane int
	at    []int // offset of each position's first byte
	spans []span
	sums  []tileSums // for each panel of a band and each span
	tile  tile
}

// A span is a run of evenly spaced positions, the rows of a tile.
type span struct{ first, rows, stride int }

// take stages positions [i0, i1) of the batch x: the rows of each sample's map that they
// need, with padding.
func (p *residues) take(s *scratch, x ring.Matrix, i0, i1 int) {
	c, st := &p.op, &s.stage
	positions, width := c.Positions(), c.OutW()
	top := func(line int) int { return line*c.SH - c.Top } // first row of the map, negative in the padding
	height := func(lines int) int { return (lines-1)*c.SH + (c.KH-1)*c.DH + 1 }

	// pitch returns the bytes for some lines of one sample. Samples of one position lie an
	// odd number of cache lines apart, so that the rows of a tile do not compete for the same
	// cache sets.
	pitch := func(lines int) int {
		n := height(lines) * p.line
		if positions == 1 {
			n = (n+63)&^63 | 64
		}
		return n
	}
	// lines returns the lines [p0, p1) of a sample that [i0, i1) covers.
	lines := func(sample int) (p0, p1 int) {
		from, to := max(i0, sample*positions), min(i1, (sample+1)*positions)
		return (from - sample*positions) / width, (to - sample*positions + width - 1) / width
	}
	first, last := i0/positions, (i1-1)/positions
	st.plane = 0
	for sample := first; sample <= last; sample++ {
		p0, p1 := lines(sample)
		st.plane += pitch(p1 - p0)
	}
	// The last run may end 3 bytes past its elements.
	if n := len(p.split)*st.plane + 3; cap(st.bytes) < n {
		st.bytes = make([]uint8, n)
	}
	st.bytes = st.bytes[:cap(st.bytes)]

	st.at = st.at[:0]
	base := 0
	for sample := first; sample <= last; sample++ {
		p0, p1 := lines(sample)
		p.splitRows(st, base, x.Row(sample), top(p0), height(p1-p0))
		from, to := max(i0, sample*positions), min(i1, (sample+1)*positions)
		line, q, step := base+(from%positions/width-p0)*c.SH*p.line, from%positions%width, c.SW*c.C*p.unit.width
		for range to - from {
			st.at = append(st.at, line+q*step)
			if q++; q == width {
				line, q = line+c.SH*p.line, 0
			}
		}
		base += pitch(p1 - p0)
	}
	st.cut()
}

// splitRows splits rows of a sample's map, from row h on, and clears their padding.
func (p *residues) splitRows(st *stage, base int, x []uint32, h, rows int) {
	c := &p.op
	words := c.W * c.C
	padded := p.line > words*p.unit.width
	for end := h + rows; h < end; {
		n := 1
		inside := h >= 0 && h < c.H
		if inside && !padded {
			n = min(end, c.H) - h // contiguous rows
		}
		if !inside || padded {
			for i := range p.split {
				clear(st.bytes[i*st.plane+base:][:p.line])
			}
		}
		if inside {
			p.unit.split(st.bytes[base+c.Left*c.C*p.unit.width:], st.plane, x[h*words:(h+n)*words], p.split)
		}
		h += n
		base += n * p.line
	}
}

// cut groups evenly spaced positions into spans of at most maxRows, nearly equal in length.
func (st *stage) cut() {
	st.spans = st.spans[:0]
	for i := 0; i < len(st.at); {
		end, stride := i+1, 0
		if end < len(st.at) {
			stride = st.at[end] - st.at[i]
			for end < len(st.at) && st.at[end]-st.at[end-1] == stride {
				end++
			}
		}
		for parts := (end - i + maxRows - 1) / maxRows; parts > 0; parts-- {
			rows := (end - i) / parts
			st.spans = append(st.spans, span{i, rows, stride})
			i += rows
		}
	}
}

// multiply takes panels one by one, or if much is staged, in bands of one group, as large as
// the sums of all spans fit in bandBytes.
func (p *residues) multiply(ctx context.Context, s *scratch, y []uint32, from, to int) {
	st := &s.stage
	high := 1
	panel := p.stepBytes() * maxLanes * p.images * p.imageSteps()
	if len(st.spans) > 1 && panel+len(p.split)*st.plane > bandFrom {
		high = max(1, bandBytes/(len(st.spans)*int(unsafe.Sizeof(tileSums{}))))
	}
	perGroup := p.panels() / p.op.Groups
	for from < to && ctx.Err() == nil {
		g, first := from/perGroup, from%perGroup
		n := min(to-from, perGroup-first, high)
		p.band(st, y[g*p.rows:], g, first, n)
		from += n
	}
}

// band computes n panels of group g: all primes at once if n is 1, else one prime after the
// other, so that only one plane of the stage is in use at a time.
func (p *residues) band(st *stage, y []uint32, g, first, n int) {
	t := &st.tile
	t.runs, t.steps, t.weight, t.yStride = p.runs[g], p.steps, p.weight, 4*p.op.OutC
	primes, sums := len(p.split), 1 // primes at once; tiles whose sums are kept
	if n > 1 {
		primes, sums = 1, n*len(st.spans)
	}
	if len(st.sums) < sums {
		st.sums = make([]tileSums, sums)
	}
	// With one image, the residues of a single row modulo each prime become the rows of a
	// tile: weights are then read once and not once for each prime.
	single := p.images == 1 && len(st.at) == 1
	for t.prime = 0; t.prime < len(p.split); t.prime += primes {
		t.crt = nil
		if t.prime+primes == len(p.split) {
			t.crt = p.crt
		}
		for i := range n {
			panel, lanes := p.panel(g, first+i)
			rows := min(maxLanes, p.rows-(first+i)*maxLanes)
			image := p.stepBytes() * lanes * p.imageSteps()
			t.lanes, t.mask, t.image = lanes, 1<<rows-1, image
			if p.images == 1 {
				t.image = 0
			}
			t.w = panel[t.prime*t.image:]

			// Weights that are used for the first time come from memory. A single span
			// that uses them once prefetches them some way ahead; otherwise each span
			// prefetches its share of the weights that follow.
			ahead, chunk := uintptr(unsafe.Pointer(&t.w[0])), image
			if n == 1 {
				chunk = len(panel)
			}
			switch {
			case len(st.spans) == 1 && (single || p.images > 1):
				ahead += p.unit.ahead
			case i+1 < n || t.crt != nil:
				ahead += uintptr(len(panel))
			default:
				ahead += uintptr(t.image - (n-1)*len(panel))
			}
			for k, span := range st.spans {
				t.sums = &st.sums[(i*len(st.spans)+k)%sums]
				t.x = st.bytes[t.prime*st.plane+st.at[span.first]:]
				t.y = y[span.first*p.op.OutC+(first+i)*maxLanes:]
				t.rows, t.stride, t.words = span.rows, span.stride, span.rows
				t.primes, t.plane, t.pitch = primes, st.plane, len(t.sums[0])*rowBytes
				if single {
					t.rows, t.stride = len(p.split), st.plane
					t.primes, t.pitch = 1, rowBytes
				}
				t.aheadStep = chunk / len(st.spans) / (t.primes * p.imageSteps())
				t.ahead = ahead + uintptr(k*(chunk/len(st.spans)))
				p.unit.multiply(t)
			}
		}
	}
}

// alignedBytes is pages.Zeros for signed bytes.
func alignedBytes(n int) []int8 {
	b := pages.Zeros(n)
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
