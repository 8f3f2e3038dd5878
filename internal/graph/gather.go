package graph

import (
	"fmt"
	"slices"
)

// Gather puts rows, columns or channels in another order, with some of them more than once or not
// at all: place i of the result is place From[i]. Places in a row, one after the other, are a Slice.
type Gather struct {
	Along string // "H", "W" or "C"
	From  []int
}

func (*Gather) Name() string  { return "gather" }
func (*Gather) InPlace() bool { return false }

func (g *Gather) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	out := s
	along := map[string]*int{"H": &out.H, "W": &out.W, "C": &out.C}[g.Along]
	if along == nil || len(g.From) == 0 {
		return Shape{}, fmt.Errorf("%w: %d places along %.8q", ErrInvalid, len(g.From), g.Along)
	}
	if i := slices.IndexFunc(g.From, func(v int) bool { return v < 0 || v >= *along }); i >= 0 {
		return Shape{}, fmt.Errorf("%w: place %d of %d", ErrInvalid, g.From[i], *along)
	}
	if InOrder(g.From) {
		return Shape{}, fmt.Errorf("%w: places in a row", ErrInvalid)
	}
	*along = len(g.From)
	return out, out.Check()
}

// InOrder reports whether places follow one another.
func InOrder(places []int) bool {
	for i, v := range places {
		if v != places[0]+i {
			return false
		}
	}
	return true
}

func (g *Gather) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s := shapes[0]
	// A sample is a number of blocks, each of so many places of some floats.
	var places, size int
	switch g.Along {
	case "H":
		places, size = s.H, s.W*s.C
	case "W":
		places, size = s.W, s.C
	default:
		places, size = s.C, 1
	}
	for src := range slices.Chunk(in[0][:n*s.Len()], places*size) {
		if size == 1 {
			for i, j := range g.From {
				dst[i] = src[j]
			}
			dst = dst[len(g.From):]
			continue
		}
		for _, j := range g.From {
			copy(dst[:size], src[j*size:])
			dst = dst[size:]
		}
	}
}
