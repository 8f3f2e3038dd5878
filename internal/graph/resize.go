package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/plan"
)

// Resize changes the rows and columns of a map, as ONNX defines it: each element of the result is
// interpolated at a place of the map. Past an end of it are copies of the last element.
type Resize struct {
	H, W int // of the result
	// Places are computed with these: both are the quotients of the extents, or both extents of the
	// result are those of the map times these, rounded down.
	ScaleH, ScaleW float32
	Mode           string // one of ResizeModes
	Places         string // one of ResizePlaces
	Rounding       string // of the mode "nearest", one of ResizeRoundings; otherwise ""
}

var (
	// ResizeModes are interpolations. The cubic one is that with a = -3/4.
	ResizeModes = []string{"nearest", "linear", "cubic"}
	// ResizePlaces say where element i of m is, that are made of n: at
	//
	//	half_pixel          (i + 1/2)/scale - 1/2
	//	pytorch_half_pixel  the same, and at 0 where m is 1
	//	asymmetric          i/scale
	//	align_corners       i (n - 1)/(m - 1), and at 0 where m is 1
	ResizePlaces = []string{"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"}
	// ResizeRoundings say which element is nearest to a place: the first two to one in the
	// middle between two.
	ResizeRoundings = []string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}
)

// maxResized bounds the rows and the columns of the result, for each of which there are weights.
const maxResized = 1 << 22

func (Resize) Name() string  { return "resize" }
func (Resize) InPlace() bool { return false }

// Scaled returns what becomes of n elements by scale, or 0 where that is no extent.
func Scaled(n int, scale float32) int {
	if m := float32(n) * scale; m >= 1 && m <= plan.MaxExtent {
		return int(m)
	}
	return 0
}

// bySizes reports whether the scales are the quotients of the extents.
func (r Resize) bySizes(s Shape) bool {
	return r.ScaleH == float32(r.H)/float32(s.H) && r.ScaleW == float32(r.W)/float32(s.W)
}

func (r Resize) OutShape(in ...Shape) (Shape, error) {
	s, err := finite(in, r.ScaleH, r.ScaleW)
	if err != nil {
		return Shape{}, err
	}
	if !slices.Contains(ResizeModes, r.Mode) || !slices.Contains(ResizePlaces, r.Places) ||
		(r.Mode == "nearest") != slices.Contains(ResizeRoundings, r.Rounding) || r.Mode != "nearest" && r.Rounding != "" {
		return Shape{}, fmt.Errorf("%w: unknown mode, places or rounding of a resize", ErrInvalid)
	}
	out := Shape{r.H, r.W, s.C}
	if err := out.Check(); err != nil {
		return Shape{}, err
	}
	if max(r.H, r.W) > maxResized {
		return Shape{}, fmt.Errorf("%w: resized to %v", ErrInvalid, out)
	}
	if !r.bySizes(s) && (r.H != Scaled(s.H, r.ScaleH) || r.W != Scaled(s.W, r.ScaleW)) {
		return Shape{}, fmt.Errorf("%w: %v to %v by %v, %v", ErrInvalid, s, out, r.ScaleH, r.ScaleW)
	}
	if out == s {
		return Shape{}, fmt.Errorf("%w: resized to what it is", ErrInvalid)
	}
	return out, nil
}

// place returns where element i of m is, that are made of n. Each step is rounded as runtimes
// do, for what is nearest may hang on it.
func (r Resize) place(i, n, m int, scale float32) float32 {
	x := float32(i)
	switch {
	case r.Places == "asymmetric":
		return x / scale
	case r.Places == "half_pixel" || r.Places == "pytorch_half_pixel" && m > 1:
		x = (x + 0.5) / scale
		return x - 0.5
	case m > 1:
		x *= float32(n - 1)
		return x / float32(m-1)
	}
	return 0
}

// taps are, for each element of an axis, the elements that it is the weighted sum of, as many for
// each.
type taps struct {
	n      int
	at     []int32
	weight []float32
}

// taps returns those of m elements that are made of n.
func (r Resize) taps(n, m int, scale float32) taps {
	t := taps{n: map[string]int{"nearest": 1, "linear": 2, "cubic": 4}[r.Mode]}
	t.at, t.weight = make([]int32, 0, t.n*m), make([]float32, 0, t.n*m)
	add := func(at int, weight float32) {
		t.at, t.weight = append(t.at, int32(min(max(at, 0), n-1))), append(t.weight, weight)
	}
	for i := range m {
		x := min(max(r.place(i, n, m, scale), -float32(n)), 2*float32(n)) // far enough past the ends
		down := math.Floor(float64(x))
		at, f := int(down), float32(float64(x)-down)
		switch r.Mode {
		case "nearest":
			if r.up(f) {
				at++
			}
			add(at, 1)
		case "linear":
			add(at, 1-f)
			add(at+1, f)
		case "cubic":
			const a = -0.75
			near := func(d float32) float32 { return ((a+2)*d-(a+3))*d*d + 1 }
			far := func(d float32) float32 { return ((a*d-5*a)*d+8*a)*d - 4*a }
			add(at-1, far(1+f))
			add(at, near(f))
			add(at+1, near(1-f))
			add(at+2, far(2-f))
		}
	}
	return t
}

// up reports whether an element is nearest from f after one, and before the next.
func (r Resize) up(f float32) bool {
	const middle = 1e-6 // off it by less, a place is in the middle, as it is to onnxruntime
	switch r.Rounding {
	case "ceil":
		return f > 0
	case "round_prefer_floor":
		return f > 0.5+middle
	case "round_prefer_ceil":
		return f >= 0.5-middle
	}
	return false
}

// Apply makes a row of the map's columns first, of the rows that one of the result is of.
func (r Resize) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s := shapes[0]
	rows, cols := r.taps(s.H, r.H, r.ScaleH), r.taps(s.W, r.W, r.ScaleW)
	width, made := s.W*s.C, make([]float32, s.W*s.C)
	for i := range n {
		src := in[0][i*s.Len():][:s.Len()]
		for y := range r.H {
			row := rows.sum(made, src, y, width)
			for x := range r.W {
				d := dst[:s.C]
				if v := cols.sum(d, row, x, s.C); cols.n == 1 {
					copy(d, v)
				}
				dst = dst[s.C:]
			}
		}
	}
}

// sum returns element i, each being size floats: those of src where it is one of them, or
// else dst.
func (t taps) sum(dst, src []float32, i, size int) []float32 {
	part := func(k int) []float32 { return src[int(t.at[i*t.n+k])*size:][:size] }
	if t.n == 1 {
		return part(0)
	}
	a, b := part(0), part(1)
	v, w := t.weight[i*t.n], t.weight[i*t.n+1]
	for j := range dst {
		dst[j] = float32(v*a[j]) + float32(w*b[j])
	}
	for k := 2; k < t.n; k++ {
		a, v := part(k), t.weight[i*t.n+k]
		for j := range dst {
			dst[j] += float32(v * a[j])
		}
	}
	return dst
}
