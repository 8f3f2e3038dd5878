package transform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/verify"
)

// Masked is what one role's cloud receives for a call, and all that a transport
// accepts. It holds words, or a seed that the cloud expands to rows 0.. of a batch.
// It prints redacted.
type Masked struct {
	rows, cols int
	words      ring.Matrix
	seed       *prg.Seed // nil where there are words
}

func ofWords(m ring.Matrix) Masked { return Masked{rows: m.Rows, cols: m.Cols, words: m} }

// Format prints m redacted, whatever the verb.
func (Masked) Format(f fmt.State, _ rune) { io.WriteString(f, "transform.Masked(redacted)") }

// Rows returns the rows of the batch.
func (m Masked) Rows() int { return m.rows }

// Cols returns the words of a row, sent or expanded.
func (m Masked) Cols() int { return m.cols }

// Words returns the masked rows, or false where the cloud expands a seed.
func (m Masked) Words() (ring.Matrix, bool) { return m.words, m.seed == nil }

// Seed returns the seed, or false where there are words.
func (m Masked) Seed() (prg.Seed, bool) {
	if m.seed == nil {
		return prg.Seed{}, false
	}
	return *m.seed, true
}

// ErrUnmasked reports a call that was unmasked before.
var ErrUnmasked = errors.New("transform: call unmasked before")

// Call is the host's secret of one masked call. It prints redacted.
type Call struct {
	layer  *Layer
	n      int
	masked []Masked
	done   bool

	u    [][]uint32 // InputPad: What·r, one a sample
	uy   []uint32   // InputPermute: row i of the batch is row uy[i] of the host's,
	invY []uint32   // and was multiplied by the inverse of invY[i] (F_Y)
}

const redactedCall = "transform.Call(redacted)"

// Format prints c redacted, whatever the verb.
func (Call) Format(f fmt.State, _ rune) { io.WriteString(f, redactedCall) }

// Mask masks n samples of integers, at most XMax in magnitude, with randomness
// drawn for this call alone. Under InputPad it uses up pads, which must be this
// layer's and hold exactly n samples, and which no other call may use (an error
// wrapping ErrPads); else pads is nil. On any error nothing is masked and pads are
// as they were.
func (l *Layer) Mask(x []int32, n int, pads *Pads) (*Call, error) {
	if err := wantLen("inputs", len(x), n, l.op.InLen()); err != nil {
		return nil, err
	}
	if err := inRange(l.ring, "input", x); err != nil {
		return nil, err
	}
	if pads != nil && l.scheme.Inputs != InputPad {
		return nil, fmt.Errorf("%w: scheme %v has none", ErrPads, l.scheme)
	}
	c := &Call{layer: l, n: n}
	switch l.scheme.Inputs {
	case InputPad:
		sheet, err := pads.claim(l, n)
		if err != nil {
			return nil, err
		}
		c.u = sheet.u
		c.masked = []Masked{ofWords(l.add(x, n, sheet.seed, sheet.first))}
	case InputSplit:
		seed := prg.NewSeed()
		c.masked = []Masked{
			ofWords(l.add(x, n, prg.New(seed), 0)),
			{rows: n, cols: l.cloud.InLen(), seed: &seed},
		}
	case InputPermute:
		var src source
		rows := l.CloudRows(n)
		fy := src.units(l.ring, rows)
		c.uy, c.invY = src.permutation(rows), inverses(l.ring, fy)
		c.masked = []Masked{ofWords(l.permute(x, fy, c.uy))}
	}
	return c, nil
}

// add returns x' + r, n x InLen, the r of sample i being PRG(seed, first+i).
func (l *Layer) add(x []int32, n int, seed *prg.Expander, first uint64) ring.Matrix {
	in := l.cloud.InLen()
	xhat := ring.NewMatrix(n, in)
	for i := range n {
		row := xhat.Row(i)
		seed.Fill(l.ring, row, first+uint64(i))
		l.in.add(l.ring, row, x[i*in:(i+1)*in])
	}
	return xhat
}

// permute returns xhat = U^-1 F^-1 X F_Y U_Y, a column of the paper's X being a
// row here: row i is row uy[i] of X' multiplied by fy[i].
func (l *Layer) permute(x []int32, fy, uy []uint32) ring.Matrix {
	in := l.cloud.InLen()
	xhat := ring.NewMatrix(len(uy), in)
	patch := make([]int32, in)
	k := newMontgomery(l.ring)
	for i, from := range uy {
		vector := patch
		if l.unrolls() {
			each, positions := l.op.InLen(), l.op.Conv.Positions()
			sample := int(from) / positions
			unroll(patch, l.op.Conv, x[sample*each:(sample+1)*each], int(from)%positions)
		} else {
			vector = x[int(from)*in:][:in]
		}
		row := xhat.Row(i) // zero
		l.in.add(l.ring, row, vector)
		high, low := k.factor(fy[i])
		pass.scale(l.ring.Modulus(), row, row, high, low)
	}
	return xhat
}

// unroll sets dst to the patch that the output position (row-major) of a
// convolution contracts: elements (a, b, i) of its KH x KW x C window over x,
// zero outside of the map.
func unroll(dst []int32, c plan.Conv2D, x []int32, position int) {
	p, q := position/c.OutW(), position%c.OutW()
	for a := range c.KH {
		h := p*c.SH + a*c.DH - c.Top
		for b := range c.KW {
			w := q*c.SW + b*c.DW - c.Left
			pixel := dst[(a*c.KW+b)*c.C:][:c.C]
			if h < 0 || h >= c.H || w < 0 || w >= c.W {
				clear(pixel)
				continue
			}
			copy(pixel, x[(h*c.W+w)*c.C:])
		}
	}
}

// Masked returns what each role's cloud is to receive. A resend sends these same
// words: nothing is ever masked again under one pad.
func (c *Call) Masked() []Masked { return c.masked }

// Unmask takes one answer a role, canonical words, CloudRows(n) x CloudOp().OutLen(),
// and returns the signed products. Malformed answers are refused with an error
// wrapping ErrShape, a *ring.ShapeError or a *ring.NonCanonicalError, and the
// call may be unmasked with others; once it succeeded it is over
// (ErrUnmasked). The answers stay as they are, for Liars.
func (c *Call) Unmask(answers []ring.Matrix) (verify.Candidate, error) {
	if c.done {
		return verify.Candidate{}, ErrUnmasked
	}
	if err := c.checkShapes(answers); err != nil {
		return verify.Candidate{}, err
	}
	l, yhat := c.layer, answers[0]
	m, k := l.ring.Modulus(), newMontgomery(l.ring)
	y := make([]int32, len(yhat.Data))
	unmasked := make([]uint32, yhat.Cols) // of one row, but for D and E
	for i := range yhat.Rows {
		for _, answer := range answers {
			if pass.top(answer.Row(i), 0, math.MaxUint32) >= m {
				return verify.Candidate{}, c.checkAnswers(answers) // names the word
			}
		}
		to := i
		switch l.scheme.Inputs {
		case InputPad:
			pass.sub(m, unmasked, yhat.Row(i), c.u[i])
		case InputSplit:
			pass.sub(m, unmasked, yhat.Row(i), answers[1].Row(i))
		case InputPermute:
			high, low := k.factor(c.invY[i])
			pass.scale(m, unmasked, yhat.Row(i), high, low)
			to = int(c.uy[i])
		}
		l.out.lift(l.ring, y[to*yhat.Cols:(to+1)*yhat.Cols], unmasked)
	}
	c.done, c.u, c.invY = true, nil, nil
	return verify.NewCandidate(y, c.n), nil
}

// checkShapes refuses answers whose number or shape is not the call's.
func (c *Call) checkShapes(answers []ring.Matrix) error {
	if len(answers) != len(c.masked) {
		return fmt.Errorf("%w: %d answers from %d roles", ErrShape, len(answers), len(c.masked))
	}
	for role, yhat := range answers {
		if err := yhat.Want("answer", c.layer.CloudRows(c.n), c.layer.cloud.OutLen()); err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
	}
	return nil
}

// checkAnswers is checkShapes, and refuses words that are not canonical.
func (c *Call) checkAnswers(answers []ring.Matrix) error {
	if err := c.checkShapes(answers); err != nil {
		return err
	}
	for role, yhat := range answers {
		if err := c.layer.ring.CheckCanonical(yhat.Data); err != nil {
			return fmt.Errorf("role %d: %w", role, err)
		}
	}
	return nil
}

// Liars returns the roles whose answer is wrong for one sample, which the check
// rejected: it computes What·xhat of that sample for every role with product,
// which must hold What. That takes Roles()·CloudRows(1)·CloudOp().MulAdds()
// multiply-adds. It serves before and after Unmask, and refuses malformed answers
// with Unmask's errors.
func (c *Call) Liars(ctx context.Context, product plan.Product, answers []ring.Matrix, sample int) ([]int, error) {
	if sample < 0 || sample >= c.n {
		return nil, fmt.Errorf("%w: sample %d of %d", ErrShape, sample, c.n)
	}
	if err := c.checkAnswers(answers); err != nil {
		return nil, err
	}
	rows := c.rowsOf(sample)
	x := ring.NewMatrix(len(c.masked)*len(rows), c.layer.cloud.InLen())
	for role, m := range c.masked {
		for k, i := range rows {
			m.row(c.layer.ring, x.Row(role*len(rows)+k), i)
		}
	}
	y := ring.NewMatrix(x.Rows, c.layer.cloud.OutLen())
	if err := product.Evaluate(ctx, y, x); err != nil {
		return nil, fmt.Errorf("liars: %w", err)
	}
	var liars []int
	for role, yhat := range answers {
		for k, i := range rows {
			if !slices.Equal(yhat.Row(i), y.Row(role*len(rows)+k)) {
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

// row sets dst to row i, as the cloud has it.
func (m Masked) row(r ring.Ring, dst []uint32, i int) {
	if m.seed != nil {
		prg.New(*m.seed).Fill(r, dst, uint64(i))
		return
	}
	copy(dst, m.words.Row(i))
}
