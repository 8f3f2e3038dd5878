package transform

import (
	"errors"
	"fmt"
	"io"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/verify"
)

// Masked is what one role's cloud receives for a call, and all that a transport
// accepts. It holds words, or a seed that the cloud expands to rows 0.. of a batch.
// It prints redacted.
type Masked struct {
	rows  int
	words ring.Matrix
	seed  *prg.Seed // nil where there are words
}

// Format prints m redacted, whatever the verb.
func (Masked) Format(f fmt.State, _ rune) { io.WriteString(f, "transform.Masked(redacted)") }

// Rows returns the rows of the batch.
func (m Masked) Rows() int { return m.rows }

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

// Mask masks n samples of integers, at most XMax in magnitude. Under InputPad it
// uses up pads, which must be this layer's and hold exactly n samples, and which
// no other call may use (an error wrapping ErrPads); else pads is nil. On any
// error nothing is masked and pads are as they were.
func (l *Layer) Mask(x []int32, n int, pads *Pads) (*Call, error) {
	if err := wantLen("inputs", len(x), n, l.op.InLen()); err != nil {
		return nil, err
	}
	if err := inRange(l.ring, "input", x); err != nil {
		return nil, err
	}
	c := &Call{layer: l, n: n}
	var xhat ring.Matrix
	if l.scheme.Inputs == InputPad {
		sheet, err := pads.claim(l, n)
		if err != nil {
			return nil, err
		}
		c.u = sheet.u
		xhat = l.pad(x, n, sheet)
	} else {
		if pads != nil {
			return nil, fmt.Errorf("%w: scheme %v has none", ErrPads, l.scheme)
		}
		var src source
		rows := l.CloudRows(n)
		fy := src.units(l.ring, rows)
		c.uy, c.invY = src.permutation(rows), inverses(l.ring, fy)
		xhat = l.permute(x, fy, c.uy)
	}
	c.masked = []Masked{{rows: xhat.Rows, words: xhat}}
	return c, nil
}

// pad returns xhat = x' + r, n x InLen.
func (l *Layer) pad(x []int32, n int, s *sheet) ring.Matrix {
	in := l.cloud.InLen()
	xhat := ring.NewMatrix(n, in)
	for i := range n {
		row := xhat.Row(i)
		s.seed.Fill(l.ring, row, s.first+uint64(i))
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
		scale(l.ring, row, fy[i])
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
// (ErrUnmasked). The answers' memory is overwritten.
func (c *Call) Unmask(answers []ring.Matrix) (verify.Candidate, error) {
	l := c.layer
	if c.done {
		return verify.Candidate{}, ErrUnmasked
	}
	if len(answers) != len(c.masked) {
		return verify.Candidate{}, fmt.Errorf("%w: %d answers from %d roles", ErrShape, len(answers), len(c.masked))
	}
	yhat := answers[0]
	if err := yhat.Want("answer", l.CloudRows(c.n), l.cloud.OutLen()); err != nil {
		return verify.Candidate{}, err
	}
	if err := l.ring.CheckCanonical(yhat.Data); err != nil {
		return verify.Candidate{}, err
	}
	y := make([]int32, len(yhat.Data))
	for i := range yhat.Rows {
		row, to := yhat.Row(i), i
		if l.scheme.Inputs == InputPad {
			l.ring.SubVec(row, row, c.u[i])
		} else {
			scale(l.ring, row, c.invY[i])
			to = int(c.uy[i])
		}
		l.out.lift(l.ring, y[to*len(row):(to+1)*len(row)], row)
	}
	c.done, c.u, c.uy, c.invY = true, nil, nil, nil
	return verify.NewCandidate(y, c.n), nil
}
