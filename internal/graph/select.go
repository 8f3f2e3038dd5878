package graph

import "fmt"

// Select is, element by element, its second input where the first is above 0, and its third
// elsewhere. Along each axis, an extent of 1 counts for all of the others'.
type Select struct{}

func (Select) Name() string  { return "select" }
func (Select) InPlace() bool { return false }

func (Select) OutShape(in ...Shape) (Shape, error) {
	var out Shape
	for _, s := range in {
		out = Shape{max(out.H, s.H), max(out.W, s.W), max(out.C, s.C)}
	}
	for _, s := range in {
		if len(in) != 3 || !s.Suits(out) {
			return Shape{}, fmt.Errorf("%w: inputs of %v, want three of one shape or of 1 along an axis", ErrInvalid, in)
		}
	}
	return out, out.Check()
}

func (op Select) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	out, err := op.OutShape(shapes...)
	if err != nil {
		panic(err) // the graph was validated
	}
	for i := range n {
		for y := range out.H {
			for x := range out.W {
				var rows [3][]float32
				var steps [3]int
				for k, s := range shapes {
					rows[k] = in[k][((i*s.H+y%s.H)*s.W+x%s.W)*s.C:][:s.C]
					if s.C > 1 {
						steps[k] = 1
					}
				}
				for c := range out.C {
					k := 2
					if rows[0][c*steps[0]] > 0 {
						k = 1
					}
					dst[c] = rows[k][c*steps[k]]
				}
				dst = dst[out.C:]
			}
		}
	}
}
