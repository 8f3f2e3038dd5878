package onnx

import (
	"fmt"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Matrix products: of a value and weights, and of two values.

// gemm reads Y = alpha X W + beta C.
func (p *parser) gemm(n *node) (operand, error) {
	alpha, beta := n.float("alpha", 1), n.float("beta", 1)
	if n.int("transA", 0) != 0 {
		return operand{}, p.refuse(n, "transA=1")
	}
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	if x.rank() != 2 {
		return x, fmt.Errorf("%w: input of rank %d, want 2", ErrInvalid, x.rank())
	}
	d, err := p.matrix(n, n.int("transB", 0) != 0)
	if err != nil {
		return x, err
	}
	if read := d.From; alpha != 1 {
		d.From = func(dst []float32) error {
			err := read(dst)
			for i := range dst {
				dst[i] *= alpha
			}
			return err
		}
	}
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		if d.B, err = p.channels(n, t, graph.Vector(d.Out), axesC); err != nil {
			return x, err
		}
		for i := range d.B {
			d.B[i] *= beta
		}
	}
	return p.overLast(n, d, x)
}

// matMul reads X W over the last axis of X, or a product of two values.
func (p *parser) matMul(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if y, err := p.operand(n, 1); err != nil || x.known && y.known {
		if err != nil {
			return x, err
		}
		return p.product(n)
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	d, err := p.matrix(n, false)
	if err != nil {
		return x, err
	}
	return p.overLast(n, d, x)
}

// matrix returns input 1 of n, a constant matrix, as weights: out x in. In the
// file it is in x out, unless transposed says out x in.
func (p *parser) matrix(n *node, transposed bool) (*graph.Dense, error) {
	t, err := p.constant(n, 1)
	if err != nil {
		return nil, err
	}
	if len(t.dims) != 2 {
		return nil, p.refuse(n, "weights of rank %d", len(t.dims))
	}
	if t.of != nil {
		t, transposed = t.of, !transposed
	}
	d := &graph.Dense{In: int(t.dims[0]), Out: int(t.dims[1])}
	arrange := func(dst []float32, first int, lines []float32) { // lines are of an input each
		n := len(lines) / d.Out
		for o := range d.Out {
			row := dst[o*d.In+first:][:n]
			for i := range row {
				row[i] = lines[i*d.Out+o]
			}
		}
	}
	if transposed {
		d.In, d.Out = d.Out, d.In
		arrange = func(dst []float32, first int, lines []float32) { copy(dst[first*d.In:], lines) }
	}
	d.From, err = p.weights(n, t, int(t.dims[1]), arrange)
	return d, err
}

// overLast applies d over the last dimension of x: as a dense layer to vectors, and as a
// convolution of 1 x 1 to what has more dimensions.
func (p *parser) overLast(n *node, d *graph.Dense, x operand) (operand, error) {
	x, last, err := p.lastAlongC(n, x)
	if err != nil {
		return x, err
	}
	y, err := p.apply(overPositions(d, x.shape), x.axes, x)
	if err != nil || x.split == nil {
		return y, err
	}
	return p.resized(y, x, last, axisC), nil
}

// overPositions returns d as an operator of a map: of every position.
func overPositions(d *graph.Dense, s graph.Shape) graph.Op {
	if s.H == 1 && s.W == 1 {
		return d
	}
	return &graph.Conv2D{From: d.From, B: d.B, Geometry: plan.Conv2D{
		H: s.H, W: s.W, C: d.In, OutC: d.Out, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1,
	}}
}

// product reads a MatMul of two values: of matrices of their last two dimensions, one for
// each element of the others.
func (p *parser) product(n *node) (operand, error) {
	a, err := p.viewed(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.viewed(n, 1)
	if err != nil {
		return b, err
	}
	r, s, t := a.rank(), a.view(), b.view()
	if r < 3 || r != b.rank() {
		return a, p.refuse(n, "values of ranks %d and %d", r, b.rank())
	}
	rows, cols := r-2, r-1
	for i := range r {
		x, y := s.size(i), t.size(i)
		switch {
		case i >= rows && (x.batch || y.batch):
			return a, p.refuse(n, "across samples")
		case i < rows && !p.same(x, y):
			return a, p.refuse(n, "values of unlike shapes")
		}
	}
	if !p.sameSamples(s, t) {
		return a, p.refuse(n, "across samples")
	}
	if !p.same(s.size(cols), t.size(rows)) {
		return a, fmt.Errorf("%w: products of %d elements and of %d", ErrInvalid, s.size(cols).n, t.size(rows).n)
	}
	// The second is taken as its columns are in memory, side by side or not.
	op := graph.Product{Transposed: b.split == nil && b.axes[rows-1] == axisC}
	if along := t.axesOf(b.shape)[axisC]; b.split != nil && len(along) > 0 {
		last := t.dims[rows]
		op.Transposed = len(last) > 0 && last[len(last)-1] == along[len(along)-1]
	}
	lead := s.others(rows, cols)
	if a, err = p.placed(a, []int{cols}, lead, []int{rows}); err != nil {
		return a, err
	}
	if op.Transposed {
		b, err = p.placed(b, []int{rows}, lead, []int{cols})
	} else {
		b, err = p.placed(b, []int{cols}, lead, []int{rows})
	}
	if err != nil {
		return a, err
	}
	if a.split == nil {
		return p.apply(op, a.axes, a, b)
	}
	y, err := p.apply(op, nil, a.bare(), b)
	if err != nil {
		return a, err
	}
	return p.resized(y, a, cols, axisC), nil
}
