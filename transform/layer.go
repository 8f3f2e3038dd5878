package transform

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/parallel"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

var (
	// ErrMasks reports a LayerState whose content is not the masks of its layer.
	ErrMasks = errors.New("transform: not the masks of a layer")
	// ErrUnsupported reports an operator that a scheme cannot mask.
	ErrUnsupported = errors.New("transform: operator not supported by the scheme")
)

// Layer is the host's secret for one masked linear layer. It prints redacted.
// It may be used by several goroutines at once. The zero value has no operator and masks
// nothing.
//
// With y = W x the layer's product,
//
//	What[k, j] = D[E[k]] · W[E[k], U[j]] · F[U[j]]      (What = E D W F U)
//	x'[j]      = F[U[j]]^-1 · x[U[j]]                   (x' = U^-1 F^-1 x)
//	What x'    = E D y
//
// E and U are index vectors: row k of a matrix permuted by E is row E[k] of the original.
// The sizes of the masks depend on the layer:
//
//   - dense: F and U have an entry per input, D and E an entry per output.
//   - convolution that the cloud unrolls: the same per channel, for all positions. With
//     groups, both sides permute the groups alike, and the channels inside each group.
//   - convolution under InputPermute: the host unrolls it, and F and U have an entry per
//     element of a patch.
//
// Under WeightLagrange there are no D, F, E and U: the roles hold (W + R)/2, (W - R)/2
// and R, and x' is x.
type Layer struct {
	ring       ring.Ring
	scheme     Scheme
	op, cloud  plan.Op
	d, f, e, u []uint32 // ones and identities unless under WeightPermute
	in, out    mask
	patch      table // InputPermute: the mask of inputs, for a row of the batch
}

// LayerState is a Layer's content, for the host's secret file alone. It prints redacted.
type LayerState struct {
	Op   plan.Op  // the host's operator
	D, F []uint32 // units of rows and of inputs (channels); nil unless under WeightPermute
	E, U []uint32 // permutations; nil unless under WeightPermute
}

const redactedLayer = "transform.Layer(redacted)"

// Format prints l redacted, whatever the verb.
func (Layer) Format(f fmt.State, _ rune) { io.WriteString(f, redactedLayer) }

// Format prints st redacted, whatever the verb.
func (LayerState) Format(f fmt.State, _ rune) { io.WriteString(f, redactedLayer) }

// MarshalText keeps st out of JSON and structured logs.
func (LayerState) MarshalText() ([]byte, error) { return []byte(redactedLayer), nil }

// newLayer returns a layer without masks.
func newLayer(r ring.Ring, s Scheme, op plan.Op) (*Layer, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if !r.Valid() {
		return nil, ring.ErrParameters
	}
	if err := op.Validate(); err != nil {
		return nil, err
	}
	l := &Layer{ring: r, scheme: s, op: op, cloud: op}
	if l.unrolls() {
		if op.Conv.Groups != 1 {
			return nil, fmt.Errorf("%w %v: a convolution with %d groups", ErrUnsupported, s, op.Conv.Groups)
		}
		l.cloud = plan.Dense(op.Terms(), op.Rows())
	}
	return l, nil
}

// unrolls reports whether the host unrolls a convolution to patches.
func (l *Layer) unrolls() bool {
	return l.scheme.Inputs == InputPermute && l.op.Kind == plan.KindConv2D
}

// groups returns the number of groups, and for each group the number of rows and of inputs that
// have entries in the masks.
func (l *Layer) groups() (n, rows, inputs int) {
	if l.cloud.Kind == plan.KindConv2D {
		c := l.cloud.Conv
		return c.Groups, c.OutC / c.Groups, c.C / c.Groups
	}
	return 1, l.cloud.Out, l.cloud.In
}

// NewLayer draws the masks of a layer from crypto/rand.
func NewLayer(r ring.Ring, s Scheme, op plan.Op) (*Layer, error) {
	l, err := newLayer(r, s, op)
	if err != nil {
		return nil, err
	}
	groups, rows, inputs := l.groups()
	if s.Weights == WeightPermute {
		var src source
		outer := src.permutation(groups)
		l.d, l.f = src.units(r, groups*rows), src.units(r, groups*inputs)
		l.e, l.u = src.within(outer, rows), src.within(outer, inputs)
	}
	l.prepare()
	return l, nil
}

// RestoreLayer restores a layer from its state. It checks that D and F are units, and E
// and U permutations that keep groups together, all of the right lengths; otherwise its
// error wraps ErrMasks.
func RestoreLayer(r ring.Ring, s Scheme, st LayerState) (*Layer, error) {
	l, err := newLayer(r, s, st.Op)
	if err != nil {
		return nil, err
	}
	groups, rows, inputs := l.groups()
	if s.Weights != WeightPermute {
		if st.D != nil || st.F != nil || st.E != nil || st.U != nil {
			return nil, fmt.Errorf("%w: the scheme has none", ErrMasks)
		}
		l.prepare()
		return l, nil
	}
	for _, c := range []struct {
		name          string
		units, places []uint32
		want          int
	}{{"row", st.D, st.E, groups * rows}, {"input", st.F, st.U, groups * inputs}} {
		if len(c.units) != c.want || len(c.places) != c.want {
			return nil, fmt.Errorf("%w: %d units and %d places of %ss, want %d", ErrMasks, len(c.units), len(c.places), c.name, c.want)
		}
		if i := slices.IndexFunc(c.units, func(a uint32) bool { return a >= r.Modulus() || !r.IsUnit(a) }); i >= 0 {
			return nil, fmt.Errorf("%w: the factor of %s %d is not a unit", ErrMasks, c.name, i)
		}
		if !isPermutation(c.places) {
			return nil, fmt.Errorf("%w: places of %ss are not a permutation", ErrMasks, c.name)
		}
	}
	for g := range groups {
		outer := int(st.E[g*rows]) / rows
		moved := func(size int) func(uint32) bool {
			return func(k uint32) bool { return int(k)/size != outer }
		}
		if slices.ContainsFunc(st.E[g*rows:(g+1)*rows], moved(rows)) ||
			slices.ContainsFunc(st.U[g*inputs:(g+1)*inputs], moved(inputs)) {
			return nil, fmt.Errorf("%w: group %d is split", ErrMasks, g)
		}
	}
	l.d, l.f, l.e, l.u = slices.Clone(st.D), slices.Clone(st.F), slices.Clone(st.E), slices.Clone(st.U)
	l.prepare()
	return l, nil
}

// prepare computes the tables from d, f, e and u, which are nil unless under WeightPermute.
func (l *Layer) prepare() {
	groups, rows, inputs := l.groups()
	if l.scheme.Weights != WeightPermute {
		l.d, l.f = ones(groups*rows), ones(groups*inputs)
		l.e, l.u = identity(groups*rows), identity(groups*inputs)
		l.in, l.out = mask{unit: l.f}, mask{unit: l.d}
		return
	}
	invF := inverses(l.ring, l.f)
	units := make([]uint32, len(l.u))
	for j, i := range l.u {
		units[j] = invF[i]
	}
	negative := make([]uint32, len(units))
	l.ring.SubVec(negative, negative, units)
	if l.scheme.Inputs == InputPermute {
		places := l.places()
		l.patch = newTable(l.ring, places, slices.Concat(negative, make([]uint32, len(places)-len(negative))))
	} else {
		l.in = newMask(l.ring, l.u, negative)
	}
	l.in.unit = units
	invD, ofRow := inverses(l.ring, l.d), make([]uint32, len(l.e))
	for k, o := range l.e {
		ofRow[k] = invD[o]
	}
	l.out = newMask(l.ring, inverse(l.e), ofRow)
	l.out.unit = invD
}

// places returns the places from which a row of the batch takes its words: x'[j] from x[u[j]].
// They are places in a patch or, without padding, in the map, relative to the patch's first
// element. Further places, for zeros, fill up whole vectors.
func (l *Layer) places() []int32 {
	const lanes = 16
	places := make([]int32, (len(l.u)+lanes-1)/lanes*lanes)
	c := l.op.Conv
	for j, i := range l.u {
		places[j] = int32(i)
		if l.unrolls() && !padded(c) {
			i := int(i)
			a, b := i/(c.KW*c.C), i/c.C%c.KW
			places[j] = int32((a*c.DH*c.W+b*c.DW)*c.C + i%c.C)
		}
	}
	return places
}

// State returns the layer's content, sharing its memory.
func (l *Layer) State() LayerState {
	if l.scheme.Weights != WeightPermute {
		return LayerState{Op: l.op}
	}
	return LayerState{Op: l.op, D: l.d, F: l.f, E: l.e, U: l.u}
}

// Op returns the host's operator.
func (l *Layer) Op() plan.Op { return l.op }

// CloudOp returns the operator that the cloud evaluates. It is Op, except that the host
// unrolls a convolution under InputPermute to a dense product with one vector per
// position.
func (l *Layer) CloudOp() plan.Op { return l.cloud }

// CloudRows returns the number of rows of n samples in CloudOp's batch.
func (l *Layer) CloudRows(n int) int {
	if l.unrolls() {
		return n * l.op.Conv.Positions()
	}
	return n
}

// cells calls do for every element of rows [from, to) of What, with its index in What
// (cloud), the index in W of the element that it masks (host), the row of W, which has the
// unit D[row], and the input (channel) j of What, which has the unit F[U[j]].
func (l *Layer) cells(from, to int, do func(cloud, host, row, j int)) {
	_, rows, inputs := l.groups()
	terms := l.op.Terms()
	for k := from; k < to; k++ {
		row, first := int(l.e[k]), k/rows*inputs // the group's first input
		moved := int(l.u[first]) / inputs * inputs
		for t := 0; t < terms; t += inputs {
			for i := range inputs {
				j := first + i
				do(k*terms+t+i, row*terms+t+int(l.u[j])-moved, row, j)
			}
		}
	}
}

// Seal returns the masked weight matrix of every role, for w of op.Rows() x op.Terms(),
// row-major, at most Max(ring) in magnitude. Under WeightLagrange each role has its own
// matrix, drawn anew each time. Under other masks all roles hold the same What, and the
// matrices share memory.
func (l *Layer) Seal(w []int32) ([]ring.Matrix, error) {
	whats := make([]ring.Matrix, l.scheme.Roles())
	at := 0
	err := l.SealRows(w, func(rows []ring.Matrix) error {
		for role := range whats {
			if role > 0 && l.scheme.Weights != WeightLagrange {
				whats[role] = whats[0]
				continue
			}
			if at == 0 {
				whats[role] = ring.NewMatrix(l.op.Rows(), l.op.Terms())
			}
			copy(whats[role].Data[at:], rows[role].Data)
		}
		at += len(rows[0].Data)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return whats, nil
}

// sealWords is the number of words of a role's matrix that SealRows makes at once, unless a
// row has more.
const sealWords = 1 << 18

// SealRows is Seal some rows at a time: it calls use with the next ones of every role's
// matrix, from the first on, and returns its error. Their memory is lent until use
// returns. Under WeightLagrange it holds R as a whole.
func (l *Layer) SealRows(w []int32, use func(rows []ring.Matrix) error) error {
	if err := wantLen("weights", len(w), l.op.Rows(), l.op.Terms()); err != nil {
		return err
	}
	if err := inRange(l.ring, "weight", w); err != nil {
		return err
	}
	if l.scheme.Weights == WeightLagrange {
		return l.share(w, use)
	}
	r, terms := l.ring, l.op.Terms()
	what := ring.NewMatrix(l.sealed(), terms)
	return l.blocks(func(k, n int) error {
		parallel.Do(n, 4*n*terms, func(from, to int) { // a word takes about as long as 4 words elsewhere
			l.cells(k+from, k+to, func(cloud, host, row, j int) {
				unit := r.Mul(l.d[row], l.f[l.u[j]])
				what.Data[cloud-k*terms] = r.Mul(unit, r.FromSigned(w[host]))
			})
		})
		return use(slices.Repeat([]ring.Matrix{what.RowRange(0, n)}, l.scheme.Roles()))
	})
}

// sealed returns the number of rows of a role's matrix that SealRows makes at once.
func (l *Layer) sealed() int { return min(l.op.Rows(), max(1, sealWords/l.op.Terms())) }

// blocks calls do for all rows, a block at a time: n rows, of which the first is k.
func (l *Layer) blocks(do func(k, n int) error) error {
	for k := 0; k < l.op.Rows(); k += l.sealed() {
		if err := do(k, min(l.sealed(), l.op.Rows()-k)); err != nil {
			return err
		}
	}
	return nil
}

// share is SealRows for (W + R)/2, (W - R)/2 and R = PRG(seed, 0), row-major, where the seed is
// not kept.
func (l *Layer) share(w []int32, use func(rows []ring.Matrix) error) error {
	r, terms := l.ring, l.op.Terms()
	half := r.Modulus()/2 + 1 // 1/2: M is odd
	mask := ring.NewMatrix(l.op.Rows(), terms)
	prg.New(prg.NewSeed()).Fill(r, mask.Data, 0)
	plus, minus := ring.NewMatrix(l.sealed(), terms), ring.NewMatrix(l.sealed(), terms)
	return l.blocks(func(k, n int) error {
		w, mask := w[k*terms:], mask.RowRange(k, k+n)
		parallel.Do(n, 4*n*terms, func(from, to int) {
			for i := from * terms; i < to*terms; i++ {
				e, m := r.FromSigned(w[i]), mask.Data[i]
				plus.Data[i], minus.Data[i] = r.Mul(half, r.Add(e, m)), r.Mul(half, r.Sub(e, m))
			}
		})
		return use([]ring.Matrix{plus.RowRange(0, n), minus.RowRange(0, n), mask})
	})
}

// Unseal recovers the integer weights from the masked matrices of all roles, as Seal
// returns them. Its error wraps ErrShape or is a *ring.ShapeError for a wrong number or
// shape of matrices, is a *ring.NonCanonicalError for words that are not canonical, and
// wraps ErrMasks for matrices that no one Seal returns together.
func (l *Layer) Unseal(whats []ring.Matrix) ([]int32, error) {
	if len(whats) != l.scheme.Roles() {
		return nil, fmt.Errorf("%w: masked weights of %d roles for %d", ErrShape, len(whats), l.scheme.Roles())
	}
	for role, what := range whats {
		if err := what.Want("masked weights", l.op.Rows(), l.op.Terms()); err != nil {
			return nil, fmt.Errorf("role %d: %w", role, err)
		}
		if err := l.ring.CheckCanonical(what.Data); err != nil {
			return nil, fmt.Errorf("role %d: %w", role, err)
		}
	}
	r, w := l.ring, make([]int32, len(whats[0].Data))
	if l.scheme.Weights == WeightLagrange {
		plus, minus, mask := whats[0].Data, whats[1].Data, whats[2].Data
		for i := range w {
			if r.Sub(plus[i], minus[i]) != mask[i] {
				return nil, fmt.Errorf("%w: the roles' weights do not belong together", ErrMasks)
			}
			w[i] = r.Lift(r.Add(plus[i], minus[i]))
		}
		return w, nil
	}
	for _, what := range whats[1:] {
		if !slices.Equal(what.Data, whats[0].Data) {
			return nil, fmt.Errorf("%w: the roles' weights do not belong together", ErrMasks)
		}
	}
	l.cells(0, l.op.Rows(), func(cloud, host, row, j int) {
		unit := r.Mul(l.out.unit[row], l.in.unit[j])
		w[host] = r.Lift(r.Mul(unit, whats[0].Data[cloud]))
	})
	return w, nil
}

// inRange returns an error wrapping ErrRange unless all of v are at most
// Max(ring) in magnitude.
func inRange(r ring.Ring, what string, v []int32) error {
	if !within(v, r.Max()) {
		return fmt.Errorf("%w: a %s above %d in magnitude", ErrRange, what, r.Max())
	}
	return nil
}

// within reports whether all of v are at most most in magnitude.
func within(v []int32, most int32) bool {
	return pass.top(bits32(v), uint32(most), math.MaxUint32) <= 2*uint32(most) // e + most mod 2^32
}

// mask is a permutation with units, applied to every vector of a sequence of vectors
// of one length: y[i] = unit[i] · x[from[i]]. Without WeightPermute it is y = x, and
// its table is empty.
//
// Short vectors are repeated in the table, so that loops over them are long. The table for
// inputs holds the units' negatives, as a pass that subtracts is shorter; the table for
// outputs holds unit[i] at place from[i], as it multiplies before it moves.
type mask struct {
	unit  []uint32
	table table
}

func newMask(r ring.Ring, from, unit []uint32) mask {
	const long = 1024
	var places []int32
	var units []uint32
	for len(places) == 0 || len(places)+len(from) <= long {
		base := uint32(len(places))
		for _, j := range from {
			places = append(places, int32(base+j))
		}
		units = append(units, unit...)
	}
	return mask{unit, newTable(r, places, units)}
}

// tile returns the elements of a tile, a whole number of vectors: few enough to stay in the
// first-level cache through all steps, or in the second if one vector is long.
func (m mask) tile() int {
	const words = 2048
	n := len(m.table.from)
	if n == 0 {
		return words
	}
	return max(1, words/n) * n
}

// add sets dst += mask of x, for signed x of at most most in magnitude and canonical
// dst of the same length, a multiple of the mask's. It uses moved, which has moves
// elements.
func (m mask) add(r ring.Ring, dst []uint32, x []int32, most int32, moved []int32) {
	if m.table.from == nil {
		pass.add(r.Modulus(), dst, x)
		return
	}
	sub := pass.subMasked
	if most <= small {
		sub = pass.subSmall
	}
	for len(dst) > 0 {
		n := min(len(dst), len(m.table.from)) // whole vectors
		sub(r.Modulus(), dst[:n], x[:n], m.table, moved)
		dst, x = dst[n:], x[n:]
	}
}

// pairs reports whether to use addPairs and liftPairs for two samples.
func (m mask) pairs() bool { return pass.pairs && m.table.from != nil && !(pass.near && m.table.near) }

// addPairs is add for two samples at once, with x interleaved and at most small in magnitude.
// It uses moved, which has 2·moves elements.
func (m mask) addPairs(r ring.Ring, dst0, dst1 []uint32, x []int32, moved []int32) {
	for len(dst0) > 0 {
		n := min(len(dst0), len(m.table.from)) // whole vectors
		pass.subPairs(r.Modulus(), dst0[:n], dst1[:n], x[:2*n], m.table, moved)
		dst0, dst1, x = dst0[n:], dst1[n:], x[2*n:]
	}
}

// liftPairs is lift for two samples at once, with interleaved integers.
func (m mask) liftPairs(r ring.Ring, dst []int32, v0, w0, v1, w1 []uint32, moved []int32) {
	for len(dst) > 0 {
		n := min(len(v0), len(m.table.from)) // whole vectors
		pass.liftPairs(r.Modulus(), dst[:2*n], v0[:n], w0[:n], v1[:n], w1[:n], m.table, moved[:2*n])
		dst, v0, w0, v1, w1 = dst[2*n:], v0[n:], w0[n:], v1[n:], w1[n:]
	}
}

// lift sets dst to the signed lift of the mask of v - w, canonical and of the same
// length, a multiple of the mask's. It uses moved, which is as long.
func (m mask) lift(r ring.Ring, dst []int32, v, w []uint32, moved []int32) {
	if m.table.from == nil {
		pass.sub(r.Modulus(), bits32(dst), v, w)
		pass.lift(r.Modulus(), dst, bits32(dst))
		return
	}
	for len(dst) > 0 {
		n := min(len(dst), len(m.table.from)) // whole vectors
		pass.liftMasked(r.Modulus(), dst[:n], v[:n], w[:n], m.table, moved)
		dst, v, w = dst[n:], v[n:], w[n:]
	}
}
