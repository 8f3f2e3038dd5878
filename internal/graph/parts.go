package graph

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/securenets/securenets/plan"
)

// Part is one of several inputs, which a graph has one after the other, or the only one, if
// it is of integers.
type Part struct {
	Name  string
	Shape Shape
	// Each element is an integer of From to Below-1; or a float, where both are 0.
	From, Below int
	// Type is "int64", "int32", "uint8" or "bool", as whoever gives the integers has them; or nothing,
	// which is "int64" of integers.
	Type string `json:",omitempty"`
}

// An IntegerError reports an element of an input that is not one of the integers that it may be. Its
// text leaves it to others to name the sample.
type IntegerError struct {
	Sample  int
	Part    string
	Element int // in the part
	From    int
	Below   int
}

func (e *IntegerError) Error() string {
	return fmt.Sprintf("element %d of input %q is no integer of %d to %d", e.Element, e.Part, e.From, e.Below-1)
}

// CheckInput returns an *IntegerError unless the integers in x, samples in C, H, W order, are what
// the parts say.
func (g *Graph) CheckInput(x []float32) error {
	if len(g.Parts) == 0 {
		return nil
	}
	for sample := range len(x) / g.Input.Len() {
		for _, p := range g.Parts {
			own := x[:p.Shape.Len()]
			x = x[len(own):]
			if p.From == p.Below {
				continue
			}
			for i, v := range own {
				if !(v >= float32(p.From) && v < float32(p.Below) && float32(int(v)) == v) {
					return &IntegerError{sample, p.Name, i, p.From, p.Below}
				}
			}
		}
	}
	return nil
}

// checkParts returns an error unless the parts make up the input.
func (g *Graph) checkParts() error {
	total := 0
	names := map[string]bool{}
	for i, p := range g.Parts {
		if err := p.Shape.Check(); err != nil {
			return fmt.Errorf("input %d: %w", i, err)
		}
		if !named(p.Name) || names[p.Name] {
			return fmt.Errorf("%w: inputs without a name that can be shown, or two of one", ErrInvalid)
		}
		names[p.Name] = true
		// Floats have one form. Without overflow: what is least has no negative.
		if p.From > p.Below || p.From == p.Below && p.From != 0 || p.From < -MaxInteger || p.Below > MaxInteger+1 {
			return fmt.Errorf("%w: integers of %d to %d", ErrInvalid, p.From, p.Below-1)
		}
		switch {
		case p.Type == "", p.From != p.Below && (p.Type == "int64" || p.Type == "int32"), p.Type == "bool" && p.From == 0 && p.Below == 2,
			p.Type == "uint8" && 0 <= p.From && p.From < p.Below && p.Below <= 256:
		default:
			return fmt.Errorf("%w: integers of %d to %d as %.16q", ErrInvalid, p.From, p.Below-1, p.Type)
		}
		if total += p.Shape.Len(); total > plan.MaxExtent {
			break
		}
	}
	if len(g.Parts) > 0 && total != g.Input.Len() || len(g.Parts) == 1 && g.Parts[0].Shape != g.Input {
		return fmt.Errorf("%w: inputs of %d elements in all for %v", ErrInvalid, total, g.Input)
	}
	return nil
}

// maxName bounds the bytes of a name.
const maxName = 1 << 10

// named reports whether a name of an input or an output may be shown to people as it is: text without
// what moves a cursor or the direction of writing, or ends a line.
func named(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Outputs is the Concat that makes one vector of a network's several outputs. It is a graph's output
// where the graph has Results, and only there, so that programs that know of one output alone refuse
// the graph.
type Outputs struct{}

func (Outputs) Name() string                        { return "outputs" }
func (Outputs) InPlace() bool                       { return false }
func (Outputs) OutShape(in ...Shape) (Shape, error) { return Concat{}.OutShape(in...) }
func (Outputs) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	Concat{}.Apply(dst, n, shapes, in...)
}

// Result is one of several outputs, which a graph has one after the other.
type Result struct {
	Name string
	Dims []int // of a sample, in the model's order; none of a single number
}

// Len returns the elements of one sample.
func (r Result) Len() int {
	n := 1
	for _, d := range r.Dims {
		n *= d
	}
	return n
}

// maxResultDims bounds the dimensions of a Result.
const maxResultDims = 16

// checkResults returns an error unless the results make up the output, which Outputs is.
func (g *Graph) checkResults(shapes []Shape) error {
	for i, n := range g.Nodes {
		last := len(g.Results) > 0 && Value(i+1) == g.Output
		if (n.Op == Op(Outputs{})) != last || last && len(n.Inputs) != len(g.Results) {
			return fmt.Errorf("%w: node %d (%s) of a graph of %d outputs", ErrInvalid, i, n.Op.Name(), len(g.Results))
		}
	}
	if len(g.Results) == 0 {
		return nil
	}
	if g.Output == 0 || len(g.Results) == 1 {
		return fmt.Errorf("%w: one output among several", ErrInvalid)
	}
	output, of := shapes[g.Output], g.Nodes[g.Output-1].Inputs
	names := map[string]bool{}
	for i, r := range g.Results {
		if !named(r.Name) || names[r.Name] {
			return fmt.Errorf("%w: outputs without a name that can be shown, or two of one", ErrInvalid)
		}
		names[r.Name] = true
		if len(r.Dims) > maxResultDims {
			return fmt.Errorf("%w: output %d of %d dimensions", ErrInvalid, i, len(r.Dims))
		}
		n := 1
		for _, d := range r.Dims {
			if d <= 0 || d > output.Len()/n {
				return fmt.Errorf("%w: output %d of dimensions %d", ErrInvalid, i, r.Dims)
			}
			n *= d
		}
		if shapes[of[i]] != Vector(n) {
			return fmt.Errorf("%w: output %d of dimensions %d is %v", ErrInvalid, i, r.Dims, shapes[of[i]])
		}
	}
	return nil
}

// MaxInteger is the largest magnitude of integers up to which float32 has all of them.
const MaxInteger = 1 << 24
