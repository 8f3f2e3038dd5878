package graph

import (
	"fmt"
	"math"

	"github.com/securenets/securenets/plan"
)

// Embedding puts rows of a table in the place of their numbers, as a network of text begins: an
// input of H x W x C numbers becomes H x (W·C) rows of Width channels. The table is a secret of
// the model, as weights are, and so are the numbers: both stay on the host. A number that no row
// has gives NaN, which no layer takes; Graph.CheckInput refuses it before.
type Embedding struct {
	Rows, Width int
	Table       []float32 `json:"-"` // Rows x Width, row-major
	From        Source    `json:"-"` // what reads Table where that is nil, or nil
}

func (*Embedding) Name() string  { return "embedding" }
func (*Embedding) InPlace() bool { return false }

func (e *Embedding) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	if e.Rows <= 0 || e.Rows > MaxInteger || e.Width <= 0 || e.Width > plan.MaxExtent/e.Rows {
		return Shape{}, fmt.Errorf("%w: a table of %d x %d", ErrInvalid, e.Rows, e.Width)
	}
	if e.Table != nil && len(e.Table) != e.Rows*e.Width {
		return Shape{}, fmt.Errorf("%w: %d elements in a table of %d x %d", ErrInvalid, len(e.Table), e.Rows, e.Width)
	}
	if s.Len() > plan.MaxExtent/e.Width {
		return Shape{}, fmt.Errorf("%w: %d rows of %d elements are too many", ErrInvalid, s.Len(), e.Width)
	}
	return Shape{s.H, s.W * s.C, e.Width}, nil
}

// Embeddings returns the operators of the graph that have a table.
func (g *Graph) Embeddings() (all []*Embedding) {
	for _, n := range g.Nodes {
		if e, ok := n.Op.(*Embedding); ok {
			all = append(all, e)
		}
	}
	return all
}

// Load reads the table if it is kept elsewhere, and checks that it is finite.
func (e *Embedding) Load() error {
	if e.Table == nil {
		if e.From == nil {
			return fmt.Errorf("%w: an embedding without its table", ErrInvalid)
		}
		table := make([]float32, e.Rows*e.Width)
		if err := e.From(table); err != nil {
			return err
		}
		e.Table = table
	}
	if i := notFinite(e.Table); i >= 0 {
		return fmt.Errorf("%w: element %d of a table", ErrNotFinite, i)
	}
	return nil
}

func (e *Embedding) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	for _, v := range in[0][:n*shapes[0].Len()] {
		row := dst[:e.Width]
		dst = dst[e.Width:]
		if i := int(v); v >= 0 && v < float32(e.Rows) && float32(i) == v {
			copy(row, e.Table[i*e.Width:])
			continue
		}
		for c := range row {
			row[c] = float32(math.NaN())
		}
	}
}
