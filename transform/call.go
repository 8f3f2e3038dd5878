package transform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"

	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/verify"
)

// Seed is a key that a cloud expands to words of the ring: docs/spec.md, section 4. It prints
// redacted.
type Seed = prg.Seed

// Expand sets row i of dst to the first dst.Cols words of PRG(seed, first+i) over r, as a cloud does
// that receives a seed; first is 0 where it receives all rows of a batch. It is for clouds other
// than securenetsd, and for tests: a host has no need of it. The error wraps ErrShape where first+i
// passes 2^64-1, and is a *ring.ShapeError where dst is not row-major or of another length.
func Expand(dst ring.Matrix, r ring.Ring, seed Seed, first uint64) error {
	if !r.Valid() {
		return ring.ErrParameters
	}
	if err := dst.Want("what a seed is expanded to", dst.Rows, dst.Cols); err != nil {
		return err
	}
	if dst.Rows > 0 && first > math.MaxUint64-uint64(dst.Rows-1) {
		return fmt.Errorf("%w: %d rows from index %d on", ErrShape, dst.Rows, first)
	}
	e := prg.New(seed)
	for i := range dst.Rows {
		e.Fill(r, dst.Row(i), first+uint64(i))
	}
	return nil
}

// Masked is what one role's cloud receives for a call, and the only thing that a
// transport accepts. It holds words, or a seed that the cloud expands to the rows of a
// batch, from row 0. It prints redacted.
type Masked struct {
	rows, cols int
	words      ring.Matrix
	memory     *memory   // of words
	seed       *prg.Seed // nil if there are words
}

// masks lends memory for masked words and nothing else: what a call leaves there is what
// its cloud has seen.
var masks pool.Of[uint32]

// scratch lends memory for integers that are being masked. None of it leaves the package.
var scratch pool.Of[int32]

// memory is a buffer of words that goes back to masks once nobody holds it.
type memory struct {
	words []uint32
	held  atomic.Int32 // number of holders
}

// newWords returns words of arbitrary content, held by their call.
func newWords(rows, cols int) Masked {
	m := &memory{words: masks.Get(rows * cols)}
	m.held.Store(1)
	return Masked{rows: rows, cols: cols, words: ring.Matrix{Rows: rows, Cols: cols, Data: m.words}, memory: m}
}

func (m *memory) release() {
	switch left := m.held.Add(-1); {
	case left == 0:
		masks.Put(m.words)
	case left < 0:
		panic("transform: masked words released twice")
	}
}

// Hold keeps the words unchanged past the end of their call until release is called, which must
// happen at most once, from any goroutine. Without it the garbage collector frees them. Hold
// must be called before the call's Close.
func (m Masked) Hold() (release func()) {
	if m.memory == nil {
		return func() {}
	}
	m.memory.held.Add(1)
	return m.memory.release
}

// Format prints m redacted, whatever the verb.
func (Masked) Format(f fmt.State, _ rune) { io.WriteString(f, "transform.Masked(redacted)") }

// Rows returns the rows of the batch.
func (m Masked) Rows() int { return m.rows }

// Cols returns the words of a row, sent or expanded.
func (m Masked) Cols() int { return m.cols }

// Words returns the masked rows, or false if the cloud expands a seed.
func (m Masked) Words() (ring.Matrix, bool) { return m.words, m.seed == nil }

// Seed returns the seed, or false if there are words. Expand has the words that it stands for.
func (m Masked) Seed() (Seed, bool) {
	if m.seed == nil {
		return Seed{}, false
	}
	return *m.seed, true
}

// ErrUnmasked reports a call that was unmasked before, or closed.
var ErrUnmasked = errors.New("transform: call unmasked before, or closed")

// Call is the host's secret of one masked call. It prints redacted. The zero value masks
// nothing, and takes no answers.
type Call struct {
	layer    *Layer
	n        int
	masked   []Masked
	done     bool
	scale    []float32 // of samples, for MaskFloats
	expected verify.Expected

	u    [][]uint32 // InputPad: What·r, one per sample
	uy   []uint32   // InputPermute: row i of the batch is row uy[i] of the host's,
	invY []uint32   // and was multiplied by the inverse of invY[i] (F_Y)
}

const redactedCall = "transform.Call(redacted)"

// Format prints c redacted, whatever the verb.
func (Call) Format(f fmt.State, _ rune) { io.WriteString(f, redactedCall) }

// Mask masks n samples of integers, with randomness drawn for this call alone. They are at most
// Quantized.XMax in magnitude, so that products stay in the range of the signed lift; above
// Max(ring) the error wraps ErrRange. Under InputPad it uses up pads, which must be this layer's,
// unused, and for exactly n samples; otherwise the error wraps ErrPads. Under other masks pads is
// nil. On any error nothing is masked and pads are unchanged.
func (l *Layer) Mask(x []int32, n int, pads *Pads) (*Call, error) {
	if err := wantLen("inputs", len(x), n, l.op.InLen()); err != nil {
		return nil, err
	}
	if err := inRange(l.ring, "input", x); err != nil {
		return nil, err
	}
	in, most := l.op.InLen(), l.ring.Max()
	if within(x, small) {
		most = small
	}
	return l.mask(&Call{layer: l, n: n}, pads, tiles{most: most, of: func(i, at, count int) []int32 { return x[i*in+at:][:count] }})
}

// MaskFloats is QuantizeInputs and Mask in one, a tile at a time, without keeping the integers.
// key is the key of the layer's check. The call keeps the sums that the products must have
// under it, and the scales of the samples. It reads each sample once, as it masks it: where x
// holds a NaN or an infinity, the error is a *NotFiniteError and pads are used up. On any other
// error they are unchanged.
func (l *Layer) MaskFloats(x []float32, n int, xmax int32, key *verify.Key, pads *Pads) (*Call, error) {
	in := l.op.InLen()
	if err := wantLen("inputs", len(x), n, in); err != nil {
		return nil, err
	}
	if xmax < 1 || xmax > l.ring.Max() {
		return nil, fmt.Errorf("%w: largest input %d, want 1 to %d", ErrRange, xmax, l.ring.Max())
	}
	if key == nil || key.Op() != l.op {
		return nil, fmt.Errorf("%w: a key of another layer", ErrShape)
	}
	c := &Call{layer: l, n: n, scale: make([]float32, n), expected: key.Expect(n)}
	bad := -1 // the first sample that is not finite
	begin := func(i int) {
		scale, ok := scaleOf(x[i*in:(i+1)*in], xmax)
		if !ok && bad < 0 {
			bad = i
		}
		c.scale[i] = scale
	}
	tile := l.in.tile()
	if l.scheme.Inputs == InputPermute {
		tile = in
	}
	q := scratch.Get(2 * tile)
	defer scratch.Put(q)
	_, err := l.mask(c, pads, tiles{
		most: xmax,
		of: func(i, at, count int) []int32 {
			if at == 0 {
				begin(i)
			}
			round(q[:count], x[i*in+at:][:count], c.scale[i])
			c.expected.Add(i, at, q[:count])
			return q[:count]
		},
		pairs: func(i, at, count int) []int32 {
			if at == 0 {
				begin(i)
				begin(i + 1)
			}
			pass.roundPairs(q[:2*count], x[i*in+at:][:count], x[(i+1)*in+at:][:count], [2]float64{1 / float64(c.scale[i]), 1 / float64(c.scale[i+1])})
			c.expected.AddPairs(i, at, q[:2*count])
			return q[:2*count]
		},
	})
	switch {
	case err != nil:
		return nil, err
	case bad >= 0: // what was masked is left to the garbage collector: no cloud may see it
		return nil, &NotFiniteError{"sample", bad}
	}
	return c, nil
}

// Scales returns the scales of the samples that MaskFloats masked.
func (c *Call) Scales() []float32 { return c.scale }

// Expected returns the sums that the products of MaskFloats' inputs must have.
func (c *Call) Expected() verify.Expected { return c.expected }

// tiles gives the integers of samples, at most most in magnitude. Each is read once, those of a
// sample in order.
type tiles struct {
	most int32
	// of returns elements [at, at+count) of sample i, valid until the next call.
	of func(i, at, count int) []int32
	// pairs returns elements [at, at+count) of samples i and i+1, interleaved: 2·count
	// integers, valid until the next call. It is nil if samples come one at a time.
	pairs func(i, at, count int) []int32
}

// mask masks the samples x for call c, and returns c. On any error nothing is masked and pads are
// unchanged.
func (l *Layer) mask(c *Call, pads *Pads, x tiles) (*Call, error) {
	if pads != nil && l.scheme.Inputs != InputPad {
		return nil, fmt.Errorf("%w: scheme %v uses none", ErrPads, l.scheme)
	}
	switch l.scheme.Inputs {
	case InputPad:
		sheet, err := pads.claim(l, c.n)
		if err != nil {
			return nil, err
		}
		c.u = sheet.u
		c.masked = []Masked{l.add(x, c.n, sheet.seed, sheet.first)}
	case InputSplit:
		seed := prg.NewSeed()
		c.masked = []Masked{
			l.add(x, c.n, prg.New(seed), 0),
			{rows: c.n, cols: l.cloud.InLen(), seed: &seed},
		}
	case InputLagrange:
		seed := prg.NewSeed()
		plus, minus := l.around(x, c.n, prg.New(seed))
		c.masked = []Masked{plus, minus, {rows: c.n, cols: l.cloud.InLen(), seed: &seed}}
	case InputPermute:
		var src source
		rows := l.CloudRows(c.n)
		fy := src.units(l.ring, rows)
		c.uy, c.invY = src.permutation(rows), inverses(l.ring, fy)
		c.masked = []Masked{l.permute(x, fy, c.uy)}
	}
	return c, nil
}

// add returns x' + r, n x InLen, where the r of sample i is PRG(seed, first+i).
func (l *Layer) add(x tiles, n int, seed *prg.Expander, first uint64) Masked {
	in, tile := l.cloud.InLen(), l.in.tile()
	xhat, moved := newWords(n, in), scratch.Get(2*moves)
	defer scratch.Put(moved)
	expanded := func(i int) []uint32 {
		row := xhat.words.Row(i)
		seed.Fill(l.ring, row, first+uint64(i))
		return row
	}
	i := 0
	for pairs := x.pairs != nil && l.in.pairs() && x.most <= small; pairs && i+1 < n; i += 2 {
		row0, row1 := expanded(i), expanded(i+1)
		for at := 0; at < in; at += tile {
			count := min(tile, in-at)
			l.in.addPairs(l.ring, row0[at:][:count], row1[at:][:count], x.pairs(i, at, count), moved)
		}
	}
	for ; i < n; i++ {
		row := expanded(i)
		for at := 0; at < in; at += tile {
			count := min(tile, in-at)
			l.in.add(l.ring, row[at:][:count], x.of(i, at, count), x.most, moved)
		}
	}
	return xhat
}

// around returns x + s and x - s, n x InLen, where the s of sample i is PRG(seed, i).
func (l *Layer) around(x tiles, n int, seed *prg.Expander) (plus, minus Masked) {
	in, m := l.cloud.InLen(), l.ring.Modulus()
	tile := min(l.in.tile(), in)
	plus, minus = newWords(n, in), newWords(n, in)
	zero := make([]uint32, tile)
	for i := range n {
		seed.Fill(l.ring, plus.words.Row(i), uint64(i))
		for at := 0; at < in; at += tile {
			count := min(tile, in-at)
			v, p, q := x.of(i, at, count), plus.words.Row(i)[at:][:count], minus.words.Row(i)[at:][:count]
			pass.sub(m, q, zero[:count], p)
			pass.add(m, q, v)
			pass.add(m, p, v)
		}
	}
	return plus, minus
}

// permute returns xhat = U^-1 F^-1 X F_Y U_Y, where a column of the paper's X is a row here:
// row i is row uy[i] of X' multiplied by fy[i]. Rows are computed in order, in memory for
// whole vectors of words, from the integers of all samples.
func (l *Layer) permute(x tiles, fy, uy []uint32) Masked {
	in, each, size := l.cloud.InLen(), l.CloudRows(1), l.op.InLen()
	xhat := newWords(len(uy), in)
	samples := len(uy) / each
	vectors := scratch.Get(samples*size + len(l.patch.from)) // passes may read past the last vector, without using it
	defer scratch.Put(vectors)
	for i := range samples {
		copy(vectors[i*size:], x.of(i, 0, size))
	}
	moved, patch := scratch.Get(moves), scratch.Get(len(l.patch.from))
	defer scratch.Put(moved)
	defer scratch.Put(patch)
	words := make([]uint32, len(l.patch.from))
	k, m := newMontgomery(l.ring), l.ring.Modulus()
	sub := pass.subMasked
	if x.most <= small {
		sub = pass.subSmall
	}
	c, unrolls, padded, width := l.op.Conv, l.unrolls(), padded(l.op.Conv), 1
	if unrolls {
		width = c.OutW()
	}
	for i, from := range uy {
		vector, position := vectors[int(from)/each*size:], int(from)%each
		if padded {
			plan.Patch(patch[:in], &c, vector, position/width, position%width, 0)
			vector = patch
		} else if unrolls {
			vector = vector[(position/width*c.SH*c.W+position%width*c.SW)*c.C:]
		}
		clear(words)
		sub(m, words, vector, l.patch, moved)
		high, low := k.factor(fy[i])
		if row := xhat.words.Row(i); in == len(words) {
			pass.scale(m, row, words, high, low)
		} else { // the row has no room for a whole vector at its end
			pass.scale(m, words, words, high, low)
			copy(row, words)
		}
	}
	return xhat
}

// padded reports whether patches hold zeros of padding.
func padded(c plan.Conv2D) bool { return c.Top|c.Left|c.Bot|c.Right != 0 }

// Masked returns what each role's cloud receives. A resend sends the same words: nothing is
// masked twice under one pad.
func (c *Call) Masked() []Masked { return c.masked }

// Close ends the call: its words cannot be sent again, and serve other calls once nobody holds
// them. It must not run concurrently with another method; a second Close does nothing.
// Without it the garbage collector frees the words.
func (c *Call) Close() {
	for _, m := range c.masked {
		if m.memory != nil {
			m.memory.release()
		}
	}
	c.masked, c.done = nil, true
	c.u, c.uy, c.invY = nil, nil, nil
}

// Unmask takes one answer per role, CloudRows(n) x CloudOp().OutLen() canonical words,
// and returns the signed products. They are unmasked when they are checked, so the answers
// must not change until then. Malformed answers are refused with an error wrapping
// ErrShape, a *ring.ShapeError or a *ring.NonCanonicalError, and Unmask may be called
// again with other answers. After a success, or Close, it returns ErrUnmasked.
func (c *Call) Unmask(answers []ring.Matrix) (verify.Candidate, error) {
	if c.done {
		return verify.Candidate{}, ErrUnmasked
	}
	if err := c.checkAnswers(answers); err != nil {
		return verify.Candidate{}, err
	}
	return c.UnmaskDecoded(answers)
}

// UnmaskDecoded is Unmask for answers whose words are known to be canonical, as decoding
// ensures: it does not check them again. A word that is not canonical gives some integer,
// which is checked like any other.
func (c *Call) UnmaskDecoded(answers []ring.Matrix) (verify.Candidate, error) {
	if c.done {
		return verify.Candidate{}, ErrUnmasked
	}
	if err := c.checkShapes(answers); err != nil {
		return verify.Candidate{}, err
	}
	l, u := c.layer, c.u
	var candidate verify.Candidate
	switch l.scheme.Inputs {
	case InputPad:
		candidate = l.lazy(c.n, answers[0], func(i int) []uint32 { return u[i] })
	case InputSplit:
		candidate = l.lazy(c.n, answers[0], answers[1].Row)
	case InputLagrange:
		candidate = l.combine(c.n, answers)
	case InputPermute:
		candidate = l.unpermute(c.n, answers[0], c.uy, c.invY)
	}
	c.done, c.u, c.invY = true, nil, nil
	return candidate, nil
}

// lazy returns the lifts of yhat - u without its mask, where u(i) is row i of u.
func (l *Layer) lazy(n int, yhat ring.Matrix, u func(i int) []uint32) verify.Candidate {
	c := verify.LazyCandidate(n, yhat.Cols, l.out.tile(), func(dst, scratch []int32, i, at int) {
		l.out.lift(l.ring, dst, yhat.Row(i)[at:][:len(dst)], u(i)[at:][:len(dst)], scratch)
	})
	if !l.out.pairs() {
		return c
	}
	return c.InPairs(func(dst, scratch []int32, i, at int) {
		of := func(row []uint32) []uint32 { return row[at:][:len(dst)/2] }
		l.out.liftPairs(l.ring, dst, of(yhat.Row(i)), of(u(i)), of(yhat.Row(i+1)), of(u(i+1)), scratch)
	})
}

// combine returns the lifts of y_0 + y_1 - y_2.
func (l *Layer) combine(n int, y []ring.Matrix) verify.Candidate {
	return verify.LazyCandidate(n, y[0].Cols, l.out.tile(), func(dst, scratch []int32, i, at int) {
		of := func(role int) []uint32 { return y[role].Row(i)[at:][:len(dst)] }
		rest := bits32(dst)
		pass.sub(l.ring.Modulus(), rest, of(2), of(1))
		l.out.lift(l.ring, dst, of(0), rest, scratch)
	})
}

// unpermute returns the lifts of yhat without its masks: its row i is row uy[i] of the host's
// divided by invY[i], the inverse of its unit.
func (l *Layer) unpermute(n int, yhat ring.Matrix, uy, invY []uint32) verify.Candidate {
	m, k, each, cols := l.ring.Modulus(), newMontgomery(l.ring), l.CloudRows(1), yhat.Cols
	tile := min(l.out.tile(), each*cols) // whole rows
	back, zero := inverse(uy), make([]uint32, tile)
	return verify.LazyCandidate(n, each*cols, tile, func(dst, scratch []int32, i, at int) {
		words := bits32(dst)
		for j, row := range back[i*each+at/cols:][:len(dst)/cols] {
			high, low := k.factor(invY[row])
			pass.scale(m, words[j*cols:][:cols], yhat.Row(int(row)), high, low)
		}
		l.out.lift(l.ring, dst, words, zero[:len(dst)], scratch)
	})
}

// checkShapes refuses answers whose number or shape is not the call's, and all answers to a
// call without masked inputs.
func (c *Call) checkShapes(answers []ring.Matrix) error {
	if len(answers) != len(c.masked) || len(answers) == 0 {
		return fmt.Errorf("%w: %d answers from %d roles", ErrShape, len(answers), len(c.masked))
	}
	for role, yhat := range answers {
		if err := yhat.Want("answer", c.layer.CloudRows(c.n), c.layer.cloud.OutLen()); err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
	}
	return nil
}

// checkAnswers is checkShapes that also refuses words that are not canonical.
func (c *Call) checkAnswers(answers []ring.Matrix) error {
	if err := c.checkShapes(answers); err != nil {
		return err
	}
	r := c.layer.ring
	for role, yhat := range answers {
		if pass.top(yhat.Data, 0, math.MaxUint32) < r.Modulus() {
			continue
		}
		return fmt.Errorf("role %d: %w", role, r.CheckCanonical(yhat.Data)) // names the word
	}
	return nil
}

// Liars returns the roles whose answer is wrong for one sample that the check rejected.
// It computes What·xhat of that sample for every role with products, which must hold each
// role's What. That takes Roles()·CloudRows(1)·CloudOp().MulAdds() multiply-adds. It may be
// called before and after Unmask, until Close, and refuses malformed answers with Unmask's
// errors.
func (c *Call) Liars(ctx context.Context, products []plan.Product, answers []ring.Matrix, sample int) ([]int, error) {
	if sample < 0 || sample >= c.n {
		return nil, fmt.Errorf("%w: sample %d of %d", ErrShape, sample, c.n)
	}
	if err := c.checkAnswers(answers); err != nil {
		return nil, err
	}
	if len(products) != len(c.masked) {
		return nil, fmt.Errorf("%w: %d products for %d roles", ErrShape, len(products), len(c.masked))
	}
	rows := c.rowsOf(sample)
	x, y := ring.NewMatrix(len(rows), c.layer.cloud.InLen()), ring.NewMatrix(len(rows), c.layer.cloud.OutLen())
	var liars []int
	for role, m := range c.masked {
		for k, i := range rows {
			m.row(c.layer.ring, x.Row(k), i)
		}
		if err := products[role].Evaluate(ctx, y, x); err != nil {
			return nil, fmt.Errorf("liars: role %d: %w", role, err)
		}
		for k, i := range rows {
			if !slices.Equal(answers[role].Row(i), y.Row(k)) {
				liars = append(liars, role)
				break
			}
		}
	}
	return liars, nil
}

// rowsOf returns the rows of the masked batch that come from a sample.
func (c *Call) rowsOf(sample int) []int {
	if c.layer.scheme.Inputs != InputPermute {
		return []int{sample}
	}
	var rows []int
	each := c.layer.CloudRows(1)
	for i, from := range c.uy {
		if int(from)/each == sample {
			rows = append(rows, i)
		}
	}
	return rows
}

// row sets dst to row i as the cloud receives or expands it.
func (m Masked) row(r ring.Ring, dst []uint32, i int) {
	if m.seed != nil {
		prg.New(*m.seed).Fill(r, dst, uint64(i))
		return
	}
	copy(dst, m.words.Row(i))
}
