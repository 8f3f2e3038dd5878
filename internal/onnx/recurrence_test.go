package onnx

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// A layer is a recurrent layer as ONNX defines it, of one direction after the other.
type layer struct {
	kind                  string // LSTM, GRU or RNN
	direction             string
	layout, before        int // linear_before_reset
	in, hidden, dirs      int
	functions             []string // of one direction
	w, r, b, firstH, cell []float32
}

var gatesOf = map[string]int{"LSTM": 4, "GRU": 3, "RNN": 1}

// output returns Y (steps x directions x samples x hidden), Y_h and Y_c (directions x samples
// x hidden) of x (steps x samples x in), by the equations in ONNX's description.
func (l layer) output(x []float32, steps, samples int) (y, lastH, lastC []float64) {
	f := func(i int, v float64) float64 {
		switch l.functions[i] {
		case "Sigmoid":
			return 1 / (1 + math.Exp(-v))
		case "Tanh":
			return math.Tanh(v)
		}
		return max(v, 0)
	}
	n, g := l.hidden, gatesOf[l.kind]
	y = make([]float64, steps*l.dirs*samples*n)
	for d := range l.dirs {
		for s := range samples {
			h, c := make([]float64, n), make([]float64, n)
			for j := range n {
				if l.firstH != nil {
					h[j] = float64(l.firstH[d*n+j])
				}
				if l.cell != nil {
					c[j] = float64(l.cell[d*n+j])
				}
			}
			for k := range steps {
				t := k
				if d == 1 || l.direction == "reverse" {
					t = steps - 1 - k
				}
				row := func(m []float32, gate, j, width int, v func(int) float64) (sum float64) {
					for i := range width {
						sum += float64(m[((d*g+gate)*n+j)*width+i]) * v(i)
					}
					return sum
				}
				bias := func(half, gate, j int) float64 {
					if l.b == nil {
						return 0
					}
					return float64(l.b[((d*2+half)*g+gate)*n+j])
				}
				in := func(gate, j int) float64 { // X W' + Wb
					return bias(0, gate, j) + row(l.w, gate, j, l.in, func(i int) float64 { return float64(x[(t*samples+s)*l.in+i]) })
				}
				back := func(gate, j int, v []float64) float64 {
					return bias(1, gate, j) + row(l.r, gate, j, n, func(i int) float64 { return v[i] })
				}
				next := make([]float64, n)
				reset := make([]float64, n)
				for j := range n {
					if l.kind == "GRU" {
						reset[j] = f(0, in(1, j)+back(1, j, h))
					}
				}
				resetH := make([]float64, n)
				for j := range n {
					resetH[j] = reset[j] * h[j]
				}
				for j := range n {
					switch l.kind {
					case "LSTM":
						c[j] = f(0, in(2, j)+back(2, j, h))*c[j] + f(0, in(0, j)+back(0, j, h))*f(1, in(3, j)+back(3, j, h))
						next[j] = f(0, in(1, j)+back(1, j, h)) * f(2, c[j])
					case "GRU":
						z := f(0, in(0, j)+back(0, j, h))
						candidate := in(2, j) + back(2, j, resetH)
						if l.before != 0 {
							candidate = in(2, j) + reset[j]*back(2, j, h)
						}
						next[j] = (1-z)*f(1, candidate) + z*h[j]
					default:
						next[j] = f(0, in(0, j)+back(0, j, h))
					}
				}
				h = next
				copy(y[((t*l.dirs+d)*samples+s)*n:], h)
			}
			lastH, lastC = append(lastH, h...), append(lastC, c...)
		}
	}
	return y, lastH, lastC
}

// randomLayer returns a layer of in inputs.
func randomLayer(r *rand.Rand, in int) layer {
	l := layer{
		kind: []string{"LSTM", "GRU", "RNN"}[r.IntN(3)], direction: []string{"forward", "reverse", "bidirectional"}[r.IntN(3)],
		layout: r.IntN(2), before: r.IntN(2), in: in, hidden: 1 + r.IntN(5), dirs: 1,
	}
	if l.direction == "bidirectional" {
		l.dirs = 2
	}
	l.functions = []string{"Sigmoid", "Tanh", "Tanh"}
	if l.kind == "RNN" {
		l.functions = l.functions[1:]
	}
	rows := l.dirs * gatesOf[l.kind] * l.hidden
	l.w, l.r = graphtest.Normal(r, rows*in, 0.5), graphtest.Normal(r, rows*l.hidden, 0.5)
	if r.IntN(3) > 0 {
		l.b = graphtest.Normal(r, 2*rows, 0.5)
	}
	if r.IntN(2) == 0 {
		l.firstH = graphtest.Normal(r, l.dirs*l.hidden, 1)
	}
	if r.IntN(2) == 0 && l.kind == "LSTM" {
		l.cell = graphtest.Normal(r, l.dirs*l.hidden, 1)
	}
	return l
}

func tensorOf(name string, v []float32, dims ...int64) message {
	m := header(name, typeFloat, dims...)
	var raw []byte
	for _, x := range v {
		raw = protowire.AppendFixed32(raw, math.Float32bits(x))
	}
	m.bytes(9, raw)
	return m
}

func stringsAttribute(name string, v ...string) (a message) {
	a.string(1, name)
	for _, s := range v {
		a.string(9, s)
	}
	a.int(20, attributeStrings)
	return a
}

// file returns a model of the layer, whose input is N x steps x in. Its first states are
// expanded to the samples, or, of a fixed number of these, stand there for each; its output is
// made by more nodes.
func (l layer) file(steps, fixed int, more ...message) file {
	d, g, h := int64(l.dirs), int64(gatesOf[l.kind]), int64(l.hidden)
	inputs := "a w r"
	f := file{tensors: []message{tensorOf("w", l.w, d, g*h, int64(l.in)), tensorOf("r", l.r, d, g*h, h),
		int64s("one", 1), int64s("zero", 0), int64s("dirs", d), int64s("units", h), int64s("flat", 0, -1)}}
	f = f.on("N", steps, l.in)
	if fixed > 0 {
		f = f.on(fixed, steps, l.in)
	}
	x, lead, sizes := "Transpose", []int64{d, 1, h}, "dirs n units"
	if l.layout == 1 {
		x, lead, sizes = "Identity", []int64{1, d, h}, "n dirs units"
	}
	perm := []message{intsAttribute("perm", 1, 0, 2)}[:1-l.layout] // if x is transposed
	f.nodes = append(f.nodes, op(x, "x", "a", perm...))
	if l.b != nil {
		inputs += " b"
		f = f.with(tensorOf("b", l.b, d, 2*g*h))
	} else {
		inputs += " _"
	}
	inputs += " _"
	if fixed == 0 && (l.firstH != nil || l.cell != nil) {
		f.nodes = append(f.nodes, op("Shape", "x", "all"), op("Slice", "all zero one", "n"), op("Concat", sizes, "sizes", intAttribute("axis", 0)))
	}
	for i, v := range [][]float32{l.firstH, l.cell} {
		name := []string{"h", "c"}[i]
		switch {
		case v == nil:
			inputs += " _"
		case fixed > 0:
			var all []float32
			for direction := range slices.Chunk(v, l.hidden) {
				all = append(all, slices.Repeat(direction, fixed)...)
			}
			lead[1-l.layout] = int64(fixed)
			if l.layout == 1 {
				all = slices.Repeat(v, fixed)
			}
			f = f.with(tensorOf(name, all, lead...))
			inputs += " " + name
		default:
			f = f.with(tensorOf(name, v, lead...))
			f.nodes = append(f.nodes, op("Expand", name+" sizes", name+"s"))
			inputs += " " + name + "s"
		}
	}
	if l.kind != "LSTM" {
		inputs = strings.TrimSuffix(inputs, " _")
	}
	attributes := []message{intAttribute("hidden_size", l.hidden), stringAttribute("direction", l.direction), intAttribute("layout", l.layout)}
	if l.kind == "GRU" {
		attributes = append(attributes, intAttribute("linear_before_reset", l.before))
	}
	outputs := "Y Yh"
	if l.kind == "LSTM" {
		outputs = "Y Yh Yc"
	}
	f.nodes = append(f.nodes, op(l.kind, inputs, outputs, attributes...))
	f.nodes = append(f.nodes, more...)
	return f
}

func TestRecurrentAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for range 600 {
		in, steps, samples := 1+r.IntN(4), 1+r.IntN(4), 1+r.IntN(3)
		l := randomLayer(r, in)
		what := []string{"Y", "Yh"}[r.IntN(2)]
		if l.kind == "LSTM" && r.IntN(2) == 0 {
			what = []string{"Yc", "Y and Yc"}[r.IntN(2)]
		}
		toFront := func(x, y string) []message { // samples first, and all else behind
			if l.layout == 1 {
				return []message{op("Reshape", x+" flat", y)}
			}
			perm := []int{1, 0, 2}
			if x == "Y" {
				perm = []int{2, 0, 1, 3}
			}
			return []message{op("Transpose", x, x+"t", intsAttribute("perm", perm...)), op("Reshape", x+"t flat", y)}
		}
		var more []message
		if what == "Y and Yc" {
			more = append(append(toFront("Y", "ya"), toFront("Yc", "yb")...), op("Concat", "ya yb", "y", intAttribute("axis", 1)))
		} else {
			more = toFront(what, "y")
		}
		g, err := Parse(l.file(steps, samples*r.IntN(2), more...).bytes())
		if err != nil {
			t.Fatalf("%+v, %s: %v", l, what, err)
		}
		checkRoundTrip(t, g)
		x := graphtest.Normal(r, samples*steps*in, 1) // sample-major
		stepsFirst := make([]float32, len(x))
		for s := range samples {
			for k := range steps {
				copy(stepsFirst[(k*samples+s)*in:][:in], x[(s*steps+k)*in:])
			}
		}
		y, lastH, lastC := l.output(stepsFirst, steps, samples)
		var want []float64
		for s := range samples {
			states := func(v []float64) {
				for d := range l.dirs {
					want = append(want, v[(d*samples+s)*l.hidden:][:l.hidden]...)
				}
			}
			if what == "Y" || what == "Y and Yc" {
				for k := range steps {
					states(y[k*l.dirs*samples*l.hidden:])
				}
			}
			switch what {
			case "Yh":
				states(lastH)
			case "Yc", "Y and Yc":
				states(lastC)
			}
		}
		hwc := make([]float32, len(x))
		graph.CHWToHWC(hwc, x, samples, g.Input)
		got := graphtest.Run(g, hwc, samples) // a vector
		if len(got) != len(want) {
			t.Fatalf("%+v, %s: %d values, want %d", l, what, len(got), len(want))
		}
		for i, v := range want {
			if !(math.Abs(float64(got[i])-v) <= 1e-5) {
				t.Fatalf("%+v, %s, %d steps: value %d is %v, want %v", l, what, steps, i, got[i], v)
			}
		}
	}
}

// What goes to the cloud of a layer is one operator for all gates, steps and directions.
func TestRecurrentPlacement(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	l := layer{kind: "LSTM", direction: "bidirectional", dirs: 2, in: 3, hidden: 4, b: graphtest.Normal(r, 2*2*16, 1),
		w: graphtest.Normal(r, 2*16*3, 1), r: graphtest.Normal(r, 2*16*4, 1)}
	g, err := Parse(l.file(5, 0, op("Transpose", "Y", "t", intsAttribute("perm", 2, 0, 1, 3)), op("Reshape", "t flat", "y")).bytes())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range g.Nodes {
		names = append(names, n.Op.Name())
	}
	if want := []string{"transpose", "conv2d", "recurrence", "reshape"}; !slices.Equal(names[:3], want[:3]) || len(names) != 4 {
		t.Fatalf("%v, want %v", names, want)
	}
	c := g.Nodes[1].Op.(*graph.Conv2D)
	if c.Geometry.W != 5 || c.Geometry.H != 1 || c.Geometry.C != 3 || c.Geometry.OutC != 32 || len(c.B) != 32 {
		t.Errorf("%+v", c.Geometry)
	}
	if n := c.Plan().Rows() * c.Plan().Terms(); n != len(l.w) {
		t.Errorf("%d weights, want %d: those of the recurrence stay on the host", n, len(l.w))
	}
}

func TestRecurrentRefuses(t *testing.T) {
	w, r := floats("w", 1, 8, 4), floats("r", 1, 8, 2)
	last := []message{op("Transpose", "Yh", "t", intsAttribute("perm", 1, 0, 2)), op("Flatten", "t", "y")}
	lstm := func(inputs string, attributes ...message) file {
		f := nodes(append([]message{op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2)), op("LSTM", inputs, "Y Yh Yc", attributes...)}, last...)...)
		return f.with(w, r, floats("h", 1, 1, 2), int64s("n", 1), floats("p", 1, 6), floats("b", 1, 16)).on("N", 3, 4)
	}
	rnn := func(attributes ...message) file {
		f := nodes(append([]message{op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2)), op("RNN", "a w r", "Y Yh", attributes...)}, last...)...)
		return f.with(floats("w", 2, 2, 4), floats("r", 2, 2, 2)).on("N", 3, 4)
	}
	both := stringAttribute("direction", "bidirectional")
	plain := lstm("a w r b")
	if _, err := Parse(plain.bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(rnn(both, stringsAttribute("activations", "Relu", "relu")).bytes()); err != nil {
		t.Fatal(err)
	}
	given := func(dims ...any) file { // first states of two samples, which differ
		f := lstm("a w r b _ h2")
		return f.with(floats("h2", 1, 2, 2)).on(dims...)
	}
	for name, c := range map[string]struct {
		f    file
		want string
	}{
		"lengths":             {lstm("a w r b n"), "LSTM(sequence_lens)"},
		"peepholes":           {lstm("a w r b _ _ _ p"), "LSTM(peepholes)"},
		"clip":                {lstm("a w r b", floatAttribute("clip", 3)), "LSTM(clip)"},
		"input_forget":        {lstm("a w r b", intAttribute("input_forget", 1)), "LSTM(input_forget=1)"},
		"another function":    {lstm("a w r b", stringsAttribute("activations", "HardSigmoid", "Tanh", "Tanh")), "LSTM(activations=HardSigmoid)"},
		"parameters":          {lstm("a w r b", stringsAttribute("activations", "Sigmoid", "Tanh", "Tanh"), floatAttribute("activation_alpha", 1)), "LSTM(activation_alpha)"},
		"functions that vary": {rnn(both, stringsAttribute("activations", "Tanh", "Relu")), "RNN(activations that differ by direction)"},
		"weights of a value":  {lstm("a a r b"), "LSTM(input 1 not constant)"},
		"R of a value":        {lstm("a w a b"), "LSTM(input 2 not constant)"},
		"biases of a value":   {lstm("a w r a"), "LSTM(input 3 not constant)"},
		"states of a value":   {lstm("a w r b _ a"), "LSTM(initial_h not constant)"},
		"cells of a value":    {lstm("a w r b _ _ a"), "LSTM(initial_c not constant)"},
		"one state for any":   {lstm("a w r b _ h"), "LSTM(initial_h of a fixed number of samples)"},
		"states by sample":    {given(2, 3, 4), "LSTM(initial_h for each sample)"},
		"samples as steps":    {nodes(append([]message{op("LSTM", "x w r", "Y Yh")}, last...)...).with(w, r).on("N", 3, 4), "LSTM(across samples)"},
		"a constant input":    {lstm("h w r b"), "LSTM(constant input 0)"},
		"integer weights":     {lstm("a i r b").with(int64s("i", 1)), ""},
		"direction":           {lstm("a w r b", stringAttribute("direction", "sideways")), ""},
		"layout":              {lstm("a w r b", intAttribute("layout", 2)), ""},
		"hidden_size":         {lstm("a w r b", intAttribute("hidden_size", 3)), ""},
		"two directions":      {lstm("a w r b", both), ""},
		"biases of another":   {lstm("a w r p"), ""},
		"R of another":        {lstm("a w w b"), ""},
		"W of another":        {lstm("a p r b"), ""},
		"few functions":       {lstm("a w r b", stringsAttribute("activations", "Sigmoid")), ""},
		"other features":      {lstm("a w r b").on("N", 3, 5), ""},
		"a vector":            {nodes(append([]message{op("LSTM", "x w r", "Y Yh")}, last...)...).with(w, r), ""},
		"no R":                {lstm("a w"), ""},
		"states of another":   {lstm("a w r b _ p").on(1, 3, 4), ""},
		"too many states":     {given(1, 3, 4), ""},
		"empty":               {lstm("a w e b").with(header("e", typeFloat, 1, 0, 0)), ""},
		"overflow":            {lstm("a w e b").with(header("e", typeFloat, 1, 1<<62, 1<<62)), ""},
	} {
		g, err := Parse(c.f.bytes())
		var u *UnsupportedError
		switch {
		case c.want == "":
			if !errors.Is(err, ErrInvalid) || errors.As(err, &u) {
				t.Errorf("%s: %v, %v", name, g, err)
			}
		case !errors.As(err, &u) || !slices.Equal(u.Ops, []string{c.want}):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// First states may be constants that are expanded to the samples, and cut.
func TestFirstStates(t *testing.T) {
	of := func(more ...message) file {
		n := []message{op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2)), op("Shape", "x", "all"), op("Slice", "all zero one", "n"),
			op("Concat", "one n two", "sizes", intAttribute("axis", 0)), op("Expand", "h sizes", "e")}
		n = append(append(n, more...), op("RNN", "a w r _ _ s", "Y Yh"), op("Transpose", "Yh", "t", intsAttribute("perm", 1, 0, 2)), op("Flatten", "t", "y"))
		return nodes(n...).with(floats("w", 1, 2, 4), floats("r", 1, 2, 2), floats("h", 1, 1, 2), floats("h3", 1, 3, 2), int64s("zero", 0), int64s("one", 1), int64s("two", 2),
			int64s("end", math.MaxInt32)).on("N", 3, 4)
	}
	for name, f := range map[string]file{
		"as they are":           of(op("Identity", "e", "s")),
		"a dimension more":      of(op("Unsqueeze", "e zero", "f"), op("Squeeze", "f zero", "s")),
		"the first":             of(op("Slice", "e zero one zero", "s")),
		"all samples":           of(op("Slice", "e zero end one", "s")),
		"of all that are there": of(op("Slice", "e zero end two", "s")),
		"a constant's second":   of(op("Slice", "h3 one two one", "p"), op("Expand", "p sizes", "s")),
		"shape of floats":       of(op("ConstantOfShape", "sizes", "s", tensorAttribute("value", floats("v", 1)))),
	} {
		g, err := Parse(f.bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := graph.Floats{1, 2}
		switch name {
		case "a constant's second":
			want = graph.Floats{3, 4}
		case "shape of floats":
			want = graph.Floats{1, 1}
		}
		for _, n := range g.Nodes {
			if r, ok := n.Op.(*graph.Recurrence); ok && !slices.Equal(r.H, want) {
				t.Errorf("%s: %v, want %v", name, r.H, want)
			}
		}
	}
	for name, c := range map[string]struct {
		f    file
		want string
	}{
		"one sample":       {of(op("Slice", "e zero one one", "s")), "Slice(across samples)"},
		"every second":     {of(op("Slice", "e zero end two two", "s")), "Slice(step 2)"},
		"computed":         {of(op("Tanh", "e", "s")), "Tanh(of what is expanded)"},
		"three samples":    {of(op("Expand", "h3 sizes", "s")), "Expand(of a constant)"},
		"integers":         {of(op("Expand", "i sizes", "s")).with(matrix("i", 2, 1, 2)), "Expand(of a constant)"},
		"none":             {of(op("Slice", "e one one zero", "s")), ""},
		"another axis":     {of(op("Slice", "e zero one end", "s")), ""},
		"less of a state":  {of(op("Slice", "e zero one two", "s")), ""},
		"squeezed":         {of(op("Squeeze", "e two", "s")), ""},
		"without samples":  {of(op("Squeeze", "e one", "s")), ""},
		"other dimensions": {of(op("Squeeze", "e zero", "s")), ""},
	} {
		_, err := Parse(c.f.bytes())
		var u *UnsupportedError
		if c.want == "" && (!errors.Is(err, ErrInvalid) || errors.As(err, &u)) || c.want != "" && (!errors.As(err, &u) || !slices.Equal(u.Ops, []string{c.want})) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
