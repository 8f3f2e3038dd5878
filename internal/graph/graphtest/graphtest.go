// Package graphtest evaluates graphs in float64 straight from the operators'
// definitions, as an oracle for tests, and makes graphs and data for them.
package graphtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// A sample is one tensor, addressed as at(y, x, c).
type sample struct {
	graph.Shape
	V []float64 // H, W, C order
}

func newSample(s graph.Shape) sample { return sample{s, make([]float64, s.Len())} }

func (m sample) at(y, x, c int) *float64 { return &m.V[(y*m.W+x)*m.C+c] }

// inside reports whether (y, x) is on the map and not padding.
func (m sample) inside(y, x int) bool { return y >= 0 && y < m.H && x >= 0 && x < m.W }

// wide returns an element of a map that has, along each axis, one extent or counts for all.
func (m sample) wide(y, x, c int) float64 { return *m.at(min(y, m.H-1), min(x, m.W-1), min(c, m.C-1)) }

// Evaluate returns the output of a valid graph for n samples, sample-major and
// H, W, C in order like x.
func Evaluate(g *graph.Graph, x []float32, n int) []float64 {
	shapes, err := g.Shapes()
	if err != nil {
		panic(err)
	}
	var out []float64
	l := g.Input.Len()
	for i := range n {
		values := []sample{newSample(g.Input)}
		for j, v := range x[i*l : (i+1)*l] {
			values[0].V[j] = float64(v)
		}
		for j, node := range g.Nodes {
			in := make([]sample, len(node.Inputs))
			for k, v := range node.Inputs {
				in[k] = values[v]
			}
			values = append(values, evaluate(node.Op, shapes[j+1], in))
		}
		out = append(out, values[g.Output].V...)
	}
	return out
}

func evaluate(op graph.Op, shape graph.Shape, in []sample) sample {
	x, y := in[0], newSample(shape)
	// each calls f for every element of y.
	each := func(f func(p, q, c int) float64) {
		for p := range y.H {
			for q := range y.W {
				for c := range y.C {
					*y.at(p, q, c) = f(p, q, c)
				}
			}
		}
	}
	pointwise := func(f func(float64) float64) {
		each(func(p, q, c int) float64 { return f(*x.at(p, q, c)) })
	}
	switch op := op.(type) {
	case *graph.Dense:
		each(func(_, _, o int) float64 {
			s := bias(op, o)
			for i := range op.In {
				s += float64(op.W[o*op.In+i]) * x.V[i]
			}
			return s
		})
	case *graph.Conv2D:
		g := op.Geometry
		per := g.C / g.Groups
		each(func(p, q, o int) float64 {
			s := bias(op, o)
			for a := range g.KH {
				for b := range g.KW {
					for i := range per {
						w := op.W[((o*g.KH+a)*g.KW+b)*per+i]
						r, c := p*g.SH+a*g.DH-g.Top, q*g.SW+b*g.DW-g.Left
						if x.inside(r, c) {
							s += float64(w) * *x.at(r, c, o/(g.OutC/g.Groups)*per+i)
						}
					}
				}
			}
			return s
		})
	case graph.ReLU:
		pointwise(func(v float64) float64 { return math.Max(v, 0) })
	case graph.LeakyReLU:
		pointwise(func(v float64) float64 {
			if v < 0 {
				return float64(op.Alpha) * v
			}
			return v
		})
	case graph.Clip:
		pointwise(func(v float64) float64 { return math.Min(math.Max(v, float64(op.Min)), float64(op.Max)) })
	case graph.Sigmoid:
		pointwise(func(v float64) float64 { return 1 - 1/(math.Exp(v)+1) })
	case graph.Tanh:
		pointwise(func(v float64) float64 { return 1 - 2/(math.Exp(2*v)+1) })
	case graph.Square:
		pointwise(func(v float64) float64 { return v * v })
	case graph.MaxPool:
		each(func(p, q, c int) float64 {
			top := math.Inf(-1)
			window(op.Pool, x, p, q, func(r, s int) { top = math.Max(top, *x.at(r, s, c)) })
			return top
		})
	case graph.AvgPool:
		each(func(p, q, c int) float64 {
			sum, n := 0.0, 0
			window(op.Pool, x, p, q, func(r, s int) { sum += *x.at(r, s, c); n++ })
			if op.CountPad {
				n = op.KH * op.KW
			}
			return sum / float64(n)
		})
	case graph.SumPool:
		each(func(p, q, c int) float64 {
			sum := 0.0
			window(op.Pool, x, p, q, func(r, s int) { sum += *x.at(r, s, c) })
			return sum
		})
	case *graph.Affine:
		each(func(p, q, c int) float64 {
			v := *x.at(p, q, c)
			if op.Scale != nil {
				v *= float64(op.Scale[c])
			}
			if op.Shift != nil {
				v += float64(op.Shift[c])
			}
			return v
		})
	case graph.Add:
		each(func(p, q, c int) float64 { return *x.at(p, q, c) + in[1].wide(p, q, c) })
	case graph.Sub:
		each(func(p, q, c int) float64 { return *x.at(p, q, c) - in[1].wide(p, q, c) })
	case graph.Mul:
		each(func(p, q, c int) float64 { return *x.at(p, q, c) * in[1].wide(p, q, c) })
	case graph.Div:
		each(func(p, q, c int) float64 { return *x.at(p, q, c) / in[1].wide(p, q, c) })
	case graph.Step:
		pointwise(func(v float64) float64 {
			if v > 0 {
				return 1
			}
			return 0
		})
	case graph.Select:
		each(func(p, q, c int) float64 {
			if x.wide(p, q, c) > 0 {
				return in[1].wide(p, q, c)
			}
			return in[2].wide(p, q, c)
		})
	case graph.Max:
		each(func(p, q, c int) float64 { return math.Max(*x.at(p, q, c), in[1].wide(p, q, c)) })
	case graph.Min:
		each(func(p, q, c int) float64 { return math.Min(*x.at(p, q, c), in[1].wide(p, q, c)) })
	case *graph.Gather:
		each(func(p, q, c int) float64 {
			i := map[string]*int{"H": &p, "W": &q, "C": &c}[op.Along]
			*i = op.From[*i]
			return *x.at(p, q, c)
		})
	case graph.Resize:
		each(func(p, q, c int) float64 {
			sum := 0.0
			rows := interpolated(op, p, x.H, y.H, op.ScaleH)
			cols := interpolated(op, q, x.W, y.W, op.ScaleW)
			for r, v := range rows {
				for s, w := range cols {
					sum += v * w * *x.at(r, s, c)
				}
			}
			return sum
		})
	case graph.ELU:
		pointwise(func(v float64) float64 {
			if v < 0 {
				return float64(op.Alpha) * (math.Exp(v) - 1)
			}
			return v
		})
	case graph.Softplus:
		pointwise(func(v float64) float64 {
			if v > 40 {
				return v // to the last digit
			}
			return math.Log(1 + math.Exp(v))
		})
	case graph.Erf:
		pointwise(func(v float64) float64 { return 1 - math.Erfc(v) })
	case graph.Exp:
		pointwise(func(v float64) float64 { return math.Cosh(v) + math.Sinh(v) })
	case graph.Log:
		pointwise(func(v float64) float64 { return math.Log2(v) * math.Ln2 })
	case graph.Abs:
		pointwise(func(v float64) float64 { return math.Max(v, -v) })
	case graph.Reciprocal:
		pointwise(func(v float64) float64 { return math.Pow(v, -1) })
	case graph.Sqrt:
		pointwise(func(v float64) float64 { return math.Pow(v, 0.5) })
	case graph.LogSoftmax:
		each(func(p, q, c int) float64 {
			sum, top := 0.0, math.Inf(-1)
			for i := range x.C {
				top = math.Max(top, *x.at(p, q, i))
			}
			for i := range x.C {
				sum += math.Exp(*x.at(p, q, i) - top)
			}
			return *x.at(p, q, c) - top - math.Log(sum)
		})
	case graph.ChannelMean:
		each(func(p, q, _ int) float64 {
			sum := 0.0
			for i := range x.C {
				sum += *x.at(p, q, i)
			}
			return sum / float64(x.C)
		})
	case *graph.PReLU:
		each(func(p, q, c int) float64 {
			v := *x.at(p, q, c)
			if v < 0 {
				return float64(op.Slope[c]) * v
			}
			return v
		})
	case graph.Product:
		each(func(p, q, c int) float64 {
			sum := 0.0
			for i := range x.C {
				b := in[1].at
				if op.Transposed {
					sum += *x.at(p, q, i) * *b(p, c, i)
				} else {
					sum += *x.at(p, q, i) * *b(p, i, c)
				}
			}
			return sum
		})
	case *graph.Recurrence:
		recurrence(op, x, y)
	case *graph.ElementAffine:
		each(func(p, q, c int) float64 {
			v, e := *x.at(p, q, c), op.Extent
			i := (p%e.H*e.W+q%e.W)*e.C + c%e.C
			if op.Scale != nil {
				v *= float64(op.Scale[i])
			}
			if op.Shift != nil {
				v += float64(op.Shift[i])
			}
			return v
		})
	case *graph.Transpose:
		each(func(p, q, c int) float64 {
			k := (c*y.H+p)*y.W + q // in C, H, W order
			index := make([]int, len(op.Dims))
			for i := len(op.Perm) - 1; i >= 0; i-- {
				index[op.Perm[i]] = k % op.Dims[op.Perm[i]]
				k /= op.Dims[op.Perm[i]]
			}
			for a, i := range index {
				k = k*op.Dims[a] + i
			}
			return *x.at(k/x.W%x.H, k%x.W, k/x.W/x.H)
		})
	case graph.Slice:
		each(func(p, q, c int) float64 { return *x.at(p+op.H.From, q+op.W.From, c+op.C.From) })
	case graph.Pad:
		each(func(p, q, c int) float64 {
			p, q, c = p-op.Before.H, q-op.Before.W, c-op.Before.C
			if !x.inside(p, q) || c < 0 || c >= x.C {
				return float64(op.Value)
			}
			return *x.at(p, q, c)
		})
	case graph.Concat, graph.Outputs:
		each(func(p, q, c int) float64 {
			k := 0
			for ; c >= in[k].C; k++ {
				c -= in[k].C
			}
			return *in[k].at(p, q, c)
		})
	case graph.Reshape:
		each(func(p, q, c int) float64 {
			k := (c*y.H+p)*y.W + q // in C, H, W order
			return *x.at(k/x.W%x.H, k%x.W, k/x.W/x.H)
		})
	case *graph.Embedding:
		each(func(p, q, c int) float64 {
			return float64(op.Table[int(*x.at(p, q/x.C, q%x.C))*op.Width+c])
		})
	case graph.CumSum:
		each(func(p, q, c int) float64 {
			sum := 0.0
			for i := range c + 1 {
				sum += *x.at(p, q, i)
			}
			return sum
		})
	case graph.Softmax:
		each(func(p, q, c int) float64 {
			sum := 0.0
			if math.IsInf(*x.at(p, q, c), -1) {
				return 0
			}
			for i := range x.C {
				sum += math.Exp(*x.at(p, q, i) - *x.at(p, q, c))
			}
			return 1 / sum
		})
	default:
		panic(fmt.Sprintf("graphtest: no definition of %s", op.Name()))
	}
	return y
}

// interpolated returns how much each of n elements counts in element i of m.
func interpolated(op graph.Resize, i, n, m int, scale float32) []float64 {
	var at float64
	switch op.Places {
	case "asymmetric":
		at = float64(i) / float64(scale)
	case "align_corners":
		if m > 1 {
			at = float64(i*(n-1)) / float64(m-1)
		}
	default:
		if at = (float64(i)+0.5)/float64(scale) - 0.5; op.Places == "pytorch_half_pixel" && m == 1 {
			at = 0
		}
	}
	// A number is not told from what it is but for rounding.
	if whole := math.Round(2*at) / 2; math.Abs(at-whole) < 1e-5 {
		at = whole
	}
	counts := make([]float64, n)
	add := func(i int, v float64) { counts[max(0, min(i, n-1))] += v }
	switch down := int(math.Floor(at)); op.Mode {
	case "nearest":
		add(int(map[string]float64{
			"floor": math.Floor(at), "ceil": math.Ceil(at),
			"round_prefer_floor": math.Ceil(at - 0.5), "round_prefer_ceil": math.Floor(at + 0.5),
		}[op.Rounding]), 1)
	case "linear":
		for k := range 2 {
			add(down+k, 1-math.Abs(at-float64(down+k)))
		}
	default: // Keys' kernel
		for k := -1; k <= 2; k++ {
			const a = -0.75
			switch d := math.Abs(at - float64(down+k)); {
			case d <= 1:
				add(down+k, (a+2)*d*d*d-(a+3)*d*d+1)
			case d < 2:
				add(down+k, a*d*d*d-5*a*d*d+8*a*d-4*a)
			}
		}
	}
	return counts
}

func bias(l graph.Linear, row int) float64 {
	if b := l.Bias(); b != nil {
		return float64(b[row])
	}
	return 0
}

// window calls f for what of window (p, q) is on the map.
func window(g graph.Pool, x sample, p, q int, f func(y, x int)) {
	for a := range g.KH {
		for b := range g.KW {
			if r, c := p*g.SH+a-g.Top, q*g.SW+b-g.Left; x.inside(r, c) {
				f(r, c)
			}
		}
	}
}

// Run returns what Evaluate does, computed in float32: elementary operators by
// their Apply, in place where they and LastUses allow it, linear ones directly.
func Run(g *graph.Graph, x []float32, n int) []float32 {
	shapes, err := g.Shapes()
	if err != nil {
		panic(err)
	}
	values := make([][]float32, len(g.Nodes)+1)
	values[0] = append([]float32(nil), x...)
	dies := g.LastUses()
	for i, node := range g.Nodes {
		in := make([]graph.Shape, len(node.Inputs))
		data := make([][]float32, len(node.Inputs))
		for j, v := range node.Inputs {
			in[j], data[j] = shapes[v], values[v]
		}
		var dst []float32
		switch op := node.Op.(type) {
		case graph.Elementary:
			if op.InPlace() && slices.Contains(dies[i], node.Inputs[0]) {
				dst = data[0]
			} else {
				dst = make([]float32, n*shapes[i+1].Len())
			}
			op.Apply(dst, n, in, data...)
		default:
			l := in[0].Len()
			for s := range n {
				m := newSample(in[0])
				for j, v := range data[0][s*l : (s+1)*l] {
					m.V[j] = float64(v)
				}
				for _, v := range evaluate(op, shapes[i+1], []sample{m}).V {
					dst = append(dst, float32(v))
				}
			}
		}
		values[i+1] = dst
		for _, v := range dies[i] {
			values[v] = nil
		}
	}
	return values[g.Output]
}

// Normal returns n draws of a normal distribution with the given deviation.
func Normal(r *rand.Rand, n int, deviation float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * deviation)
	}
	return v
}

// Dense returns a random layer with a bias.
func Dense(r *rand.Rand, in, out int) *graph.Dense {
	return &graph.Dense{In: in, Out: out, W: Normal(r, in*out, 1/math.Sqrt(float64(in))), B: Normal(r, out, 0.1)}
}

// Conv returns a random convolution with a bias.
func Conv(r *rand.Rand, g plan.Conv2D) *graph.Conv2D {
	return &graph.Conv2D{
		Geometry: g,
		W:        Normal(r, g.OutC*g.Patch(), 1/math.Sqrt(float64(g.Patch()))),
		B:        Normal(r, g.OutC, 0.1),
	}
}

// Chain returns the graph that applies ops one after the other.
func Chain(input graph.Shape, ops ...graph.Op) *graph.Graph {
	g := &graph.Graph{Input: input, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	return g
}

// Random returns a random valid graph of nodes operators of any kind, and a few
// more where their results have to be brought together. Its maps are small.
func Random(r *rand.Rand, nodes int) *graph.Graph {
	g := &graph.Graph{Input: graph.Shape{H: 1 + r.IntN(7), W: 1 + r.IntN(7), C: 1 + r.IntN(5)}}
	if r.IntN(4) == 0 {
		g.Input = graph.Vector(1 + r.IntN(9))
	}
	shapes, unread := []graph.Shape{g.Input}, []graph.Value{0}
	add := func(op graph.Op, inputs ...graph.Value) graph.Value {
		var in []graph.Shape
		for _, v := range inputs {
			in = append(in, shapes[v])
		}
		out, err := op.OutShape(in...)
		if err != nil {
			panic(err)
		}
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: inputs})
		shapes = append(shapes, out)
		unread = slices.DeleteFunc(unread, func(v graph.Value) bool { return slices.Contains(inputs, v) })
		unread = append(unread, graph.Value(len(g.Nodes)))
		return graph.Value(len(g.Nodes))
	}
	for range nodes {
		x := graph.Value(len(g.Nodes)) // mostly the last value
		if r.IntN(4) == 0 {
			x = graph.Value(r.IntN(len(shapes)))
		}
		op := Op(r, shapes[x])
		inputs := []graph.Value{x}
		// like adds up to n values that suit x to the inputs.
		like := func(n int, suits func(graph.Shape) bool) {
			for range n {
				if v := r.IntN(len(shapes)); suits(shapes[v]) {
					inputs = append(inputs, graph.Value(v))
				}
			}
		}
		switch p := op.(type) {
		case graph.Product: // of what is not large
			by := graph.Value(r.IntN(len(shapes)))
			if _, err := p.OutShape(shapes[x], shapes[by]); err != nil {
				by, op = x, graph.Product{Transposed: true}
			}
			inputs = []graph.Value{add(graph.Clip{Min: -1, Max: 1}, x), by}
			if by == x {
				inputs[1] = inputs[0]
			}
		case graph.Add, graph.Sub, graph.Mul, graph.Max, graph.Min:
			like(8, func(s graph.Shape) bool { return len(inputs) < 2 && s.Suits(shapes[x]) })
			if len(inputs) < 2 {
				inputs = append(inputs, x)
			}
			if _, ok := op.(graph.Mul); ok && inputs[1] == x {
				op = graph.Square{}
				inputs = inputs[:1]
			}
		case graph.Select:
			inputs = slices.Repeat(inputs, 3)
			for i := range inputs {
				if v := r.IntN(len(shapes)); shapes[v].Suits(shapes[x]) {
					inputs[i] = graph.Value(v)
				}
			}
		case graph.Div: // by what is not near 0
			by := graph.Value(r.IntN(len(shapes)))
			if !shapes[by].Suits(shapes[x]) {
				by = x
			}
			inputs = append(inputs, add(graph.Clip{Min: 0.5, Max: 2}, by))
		case graph.Sqrt, graph.Log, graph.Exp, graph.Reciprocal: // of what is not near 0, nor large
			inputs[0] = add(graph.Clip{Min: 0.25, Max: 4}, x)
		case graph.Concat:
			like(2, func(s graph.Shape) bool { return s.H == shapes[x].H && s.W == shapes[x].W })
		}
		add(op, inputs...)
	}
	if len(unread) > 1 {
		leaves := slices.Clone(unread)
		for i, v := range leaves {
			leaves[i] = add(graph.Reshape{To: graph.Vector(shapes[v].Len())}, v)
		}
		var join graph.Op = graph.Concat{}
		if g.Input.C%2 == 0 { // several outputs
			join = graph.Outputs{}
			for i, v := range unread {
				s := shapes[v]
				g.Results = append(g.Results, graph.Result{Name: fmt.Sprint("output ", i), Dims: []int{s.C, s.H, s.W}})
			}
		}
		add(join, leaves...)
	}
	g.Output = graph.Value(len(g.Nodes))
	return g
}

// Op returns a random operator that suits an input of shape s.
func Op(r *rand.Rand, s graph.Shape) graph.Op {
	kh, kw := 1+r.IntN(s.H), 1+r.IntN(s.W)
	pool := graph.Pool{
		KH: kh, KW: kw, SH: 1 + r.IntN(3), SW: 1 + r.IntN(3),
		Top: r.IntN(kh), Left: r.IntN(kw), Bot: r.IntN(kh), Right: r.IntN(kw),
	}
	switch r.IntN(44) {
	case 0:
		return graph.ReLU{}
	case 1:
		return graph.LeakyReLU{Alpha: r.Float32()}
	case 2:
		return graph.Clip{Min: -r.Float32(), Max: r.Float32()}
	case 3:
		return graph.Sigmoid{}
	case 4:
		return graph.Tanh{}
	case 5:
		return graph.Square{}
	case 6:
		return graph.Softmax{}
	case 7:
		return graph.Add{}
	case 8:
		return graph.Concat{}
	case 9:
		return graph.MaxPool{Pool: pool}
	case 10:
		return graph.AvgPool{Pool: pool, CountPad: r.IntN(2) == 0}
	case 11:
		return graph.SumPool{Pool: pool}
	case 12:
		a := &graph.Affine{Scale: Normal(r, s.C, 1), Shift: Normal(r, s.C, 1)}
		switch r.IntN(3) {
		case 0:
			a.Scale = nil
		case 1:
			a.Shift = nil
		}
		return a
	case 13:
		dims := []int{s.H, s.W, s.C}
		r.Shuffle(3, func(i, j int) { dims[i], dims[j] = dims[j], dims[i] })
		if r.IntN(3) == 0 {
			dims = []int{1, 1, s.Len()}
		}
		return graph.Reshape{To: graph.Shape{H: dims[0], W: dims[1], C: dims[2]}}
	case 14:
		return graph.Sub{}
	case 15:
		return graph.Mul{}
	case 16:
		return graph.Div{}
	case 17:
		return graph.ELU{Alpha: r.Float32()}
	case 18:
		return graph.Softplus{}
	case 19:
		return graph.Erf{}
	case 20:
		return graph.Sqrt{}
	case 21:
		return graph.LogSoftmax{}
	case 22:
		return graph.ChannelMean{}
	case 23:
		return &graph.PReLU{Slope: Normal(r, s.C, 1)}
	case 24:
		return transpose(r, s)
	case 25:
		part := func(extent int) graph.Range {
			from := r.IntN(extent)
			return graph.Range{From: from, To: from + 1 + r.IntN(extent-from)}
		}
		op := graph.Slice{H: part(s.H), W: part(s.W), C: part(s.C)}
		if r.IntN(2) == 0 {
			op.H, op.W = graph.Range{To: s.H}, graph.Range{To: s.W}
		}
		if _, err := op.OutShape(s); err != nil { // of everything
			return graph.Erf{}
		}
		return op
	case 26:
		op := graph.Pad{Value: r.Float32()}
		for _, p := range []*int{&op.Before.H, &op.Before.W, &op.Before.C, &op.After.H, &op.After.W, &op.After.C} {
			*p = r.IntN(3)
		}
		if r.IntN(2) == 0 {
			op.Value, op.Before.C, op.After.C = 0, 0, 0
		}
		op.After.W++
		return op
	case 27:
		return graph.Exp{}
	case 28:
		return graph.Log{}
	case 29:
		return graph.Abs{}
	case 30:
		return graph.Reciprocal{}
	case 31:
		return graph.Max{}
	case 32:
		return graph.Min{}
	case 33:
		op := &graph.Gather{Along: string("HWC"[r.IntN(3)])}
		for range 2 + r.IntN(5) {
			op.From = append(op.From, r.IntN(map[string]int{"H": s.H, "W": s.W, "C": s.C}[op.Along]))
		}
		if graph.InOrder(op.From) {
			return graph.Erf{}
		}
		return op
	case 34, 35, 36:
		return resize(r, s)
	case 37:
		return graph.Step{}
	case 38:
		return graph.Select{}
	case 39:
		return graph.Product{Transposed: r.IntN(2) == 0}
	case 40:
		divisor := func(n int) int {
			d := 1 + r.IntN(n)
			for n%d != 0 {
				d--
			}
			return d
		}
		e := graph.Shape{H: divisor(s.H), W: divisor(s.W), C: divisor(s.C)}
		a := &graph.ElementAffine{Extent: e, Scale: Normal(r, e.Len(), 1), Shift: Normal(r, e.Len(), 1)}
		switch r.IntN(3) {
		case 0:
			a.Scale = nil
		case 1:
			a.Shift = nil
		}
		return a
	}
	bias := r.IntN(3) > 0
	if s == graph.Vector(s.C) && r.IntN(2) == 0 {
		d := Dense(r, s.C, 1+r.IntN(5))
		if !bias {
			d.B = nil
		}
		return d
	}
	groups := 1
	if s.C%2 == 0 {
		groups += r.IntN(2)
	}
	c := Conv(r, plan.Conv2D{
		H: s.H, W: s.W, C: s.C, OutC: groups * (1 + r.IntN(2)), KH: kh, KW: kw, SH: pool.SH, SW: pool.SW, DH: 1, DW: 1,
		Top: pool.Top, Left: pool.Left, Bot: pool.Bot, Right: pool.Right, Groups: groups,
	})
	if !bias {
		c.B = nil
	}
	return c
}

// resize returns a random Resize, or another operator where that would change nothing.
func resize(r *rand.Rand, s graph.Shape) graph.Op {
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	op := graph.Resize{Mode: pick(graph.ResizeModes), Places: pick(graph.ResizePlaces)}
	if op.Mode == "nearest" {
		op.Rounding = pick(graph.ResizeRoundings)
	}
	op.H, op.W = 1+r.IntN(9), 1+r.IntN(9)
	op.ScaleH, op.ScaleW = float32(op.H)/float32(s.H), float32(op.W)/float32(s.W)
	if r.IntN(2) == 0 {
		scales := []float32{1, 2, 3, 1.5, 1.25, 2.5}
		op.ScaleH, op.ScaleW = scales[r.IntN(len(scales))], scales[r.IntN(len(scales))]
		op.H, op.W = graph.Scaled(s.H, op.ScaleH), graph.Scaled(s.W, op.ScaleW)
	}
	if _, err := op.OutShape(s); err != nil {
		return graph.Abs{}
	}
	return op
}

// transpose returns a random Transpose or Reshape of a sample: of its axes, divided at random.
func transpose(r *rand.Rand, s graph.Shape) graph.Op {
	var dims []int
	for _, d := range []int{s.C, s.H, s.W} {
		for f := 2; f <= d && r.IntN(2) == 0; f++ {
			if d%f == 0 && len(dims) < 5 {
				dims, d = append(dims, f), d/f
			}
		}
		dims = append(dims, d)
	}
	perm := r.Perm(len(dims))
	to := []int{s.C, s.H, s.W}
	r.Shuffle(3, func(i, j int) { to[i], to[j] = to[j], to[i] })
	if r.IntN(2) == 0 { // as the shuffle of a network does
		perm = slices.Sorted(slices.Values(perm))
		perm[0], perm[1] = perm[1], perm[0]
		to = []int{s.C, s.H, s.W}
	}
	return graph.NewTranspose(dims, perm, graph.Shape{H: to[1], W: to[2], C: to[0]})
}

// MNIST returns mnist-cnn, as graph.Simplify leaves it, with random weights.
func MNIST(r *rand.Rand) *graph.Graph {
	conv := func(h, in, out int) *graph.Conv2D {
		return Conv(r, plan.Conv2D{H: h, W: h, C: in, OutC: out, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})
	}
	pool := graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}}
	return Chain(graph.Shape{H: 28, W: 28, C: 1},
		conv(28, 1, 16), pool, graph.ReLU{},
		conv(12, 16, 32), pool, graph.ReLU{},
		graph.Reshape{To: graph.Vector(512)}, Dense(r, 512, 10), graph.Softmax{})
}
