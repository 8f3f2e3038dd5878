package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/plan"
)

// operator is how an operator of ONNX is read.
type operator struct {
	inputs     int              // at most
	attributes map[string]int64 // that are read, and their types
	// read returns what the first output stands for. It notes unsupported
	// attributes before it asks for inputs, which may be unsupported themselves.
	read func(*parser, *node) (operand, error)
}

var windowAttributes = map[string]int64{
	"auto_pad": attributeString, "kernel_shape": attributeInts, "strides": attributeInts,
	"pads": attributeInts, "dilations": attributeInts,
}

var reduceAttributes = map[string]int64{
	"axes": attributeInts, "keepdims": attributeInt, "noop_with_empty_axes": attributeInt,
}

// with returns the union of two sets of attributes.
func with(a, b map[string]int64) map[string]int64 {
	u := map[string]int64{}
	for _, m := range []map[string]int64{a, b} {
		for name, kind := range m {
			u[name] = kind
		}
	}
	return u
}

var operators = map[string]operator{
	"Gemm": {3, map[string]int64{
		"alpha": attributeFloat, "beta": attributeFloat, "transA": attributeInt, "transB": attributeInt,
	}, (*parser).gemm},
	"MatMul": {2, nil, (*parser).matMul},
	"Conv":   {3, with(windowAttributes, map[string]int64{"group": attributeInt}), (*parser).conv},
	"BatchNormalization": {5, map[string]int64{
		"epsilon": attributeFloat, "momentum": attributeFloat, "spatial": attributeInt, "training_mode": attributeInt,
	}, (*parser).batchNorm},
	"Add":         {2, nil, (*parser).arithmetic},
	"Sub":         {2, nil, (*parser).arithmetic},
	"Mul":         {2, nil, (*parser).arithmetic},
	"Div":         {2, nil, (*parser).arithmetic},
	"Pow":         {2, nil, (*parser).pow},
	"Relu":        {1, nil, elementary(graph.ReLU{})},
	"LeakyRelu":   {1, map[string]int64{"alpha": attributeFloat}, (*parser).leakyReLU},
	"Clip":        {3, map[string]int64{"min": attributeFloat, "max": attributeFloat}, (*parser).clip},
	"Sigmoid":     {1, nil, elementary(graph.Sigmoid{})},
	"HardSigmoid": {1, map[string]int64{"alpha": attributeFloat, "beta": attributeFloat}, (*parser).hardSigmoid},
	"Tanh":        {1, nil, elementary(graph.Tanh{})},
	"MaxPool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "storage_order": attributeInt,
	}), (*parser).pool},
	"AveragePool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "count_include_pad": attributeInt,
	}), (*parser).pool},
	"GlobalMaxPool":     {1, nil, (*parser).globalPool},
	"GlobalAveragePool": {1, nil, (*parser).globalPool},
	"ReduceMax":         {2, reduceAttributes, (*parser).reduce},
	"ReduceMean":        {2, reduceAttributes, (*parser).reduce},
	"ReduceSum":         {2, reduceAttributes, (*parser).reduce},
	"Flatten":           {1, map[string]int64{"axis": attributeInt}, (*parser).flatten},
	"Reshape":           {2, map[string]int64{"allowzero": attributeInt}, (*parser).reshape},
	"Squeeze":           {2, map[string]int64{"axes": attributeInts}, (*parser).squeeze},
	"Unsqueeze":         {2, map[string]int64{"axes": attributeInts}, (*parser).squeeze},
	"Shape":             {1, map[string]int64{"start": attributeInt, "end": attributeInt}, (*parser).shape},
	"Gather":            {2, map[string]int64{"axis": attributeInt}, (*parser).gather},
	"Slice": {5, map[string]int64{
		"starts": attributeInts, "ends": attributeInts, "axes": attributeInts,
	}, (*parser).slice},
	"Concat":  {math.MaxInt, map[string]int64{"axis": attributeInt}, (*parser).concat},
	"Cast":    {1, map[string]int64{"to": attributeInt, "saturate": attributeInt}, (*parser).cast},
	"Softmax": {1, map[string]int64{"axis": attributeInt}, (*parser).softmax},
	"Constant": {0, map[string]int64{
		"value": attributeTensor, "value_float": attributeFloat, "value_floats": attributeFloats,
		"value_int": attributeInt, "value_ints": attributeInts,
	}, (*parser).value},
	"Identity": {1, nil, (*parser).identity},
	"Dropout":  {3, map[string]int64{"ratio": attributeFloat, "seed": attributeInt}, (*parser).dropout},
}

// elementary returns the reading of an operator of one input that keeps its rank.
func elementary(op graph.Op) func(*parser, *node) (operand, error) {
	return func(p *parser, n *node) (operand, error) {
		x, err := p.variable(n, 0, 0)
		if err != nil {
			return x, err
		}
		return p.apply(op, x.rank, x)
	}
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
	w, err := p.floats32(n, t)
	if err != nil {
		return nil, err
	}
	d := &graph.Dense{In: int(t.dims[0]), Out: int(t.dims[1]), W: w}
	if transposed {
		d.In, d.Out = d.Out, d.In
		return d, nil
	}
	// In x Out is a map of In positions and Out channels.
	d.W = make([]float32, len(w))
	graph.HWCToCHW(d.W, w, 1, graph.Shape{H: 1, W: d.In, C: d.Out})
	return d, nil
}

// gemm reads Y = alpha X W + beta C.
func (p *parser) gemm(n *node) (operand, error) {
	alpha, beta := n.float("alpha", 1), n.float("beta", 1)
	if n.int("transA", 0) != 0 {
		return operand{}, p.refuse(n, "transA=1")
	}
	x, err := p.variable(n, 0, 2)
	if err != nil {
		return x, err
	}
	d, err := p.matrix(n, n.int("transB", 0) != 0)
	if err != nil {
		return x, err
	}
	for i := range d.W {
		d.W[i] *= alpha
	}
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		if d.B, err = p.channels(n, t, d.Out, 2); err != nil {
			return x, err
		}
		for i := range d.B {
			d.B[i] *= beta
		}
	}
	return p.apply(d, 2, x)
}

func (p *parser) matMul(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if x.rank != 2 {
		return x, p.refuse(n, "input of rank %d", x.rank)
	}
	d, err := p.matrix(n, false)
	if err != nil {
		return x, err
	}
	return p.apply(d, 2, x)
}

// channels returns a constant as one value a channel, if it broadcasts over
// everything else of a tensor of the given rank.
func (p *parser) channels(n *node, t *tensor, channels, rank int) ([]float32, error) {
	axis := len(t.dims) - rank + 1 // of the channels, aligned at the right
	wide := len(t.dims) > rank
	for i, d := range t.dims {
		wide = wide || d != 1 && (i != axis || d != int64(channels))
	}
	if wide {
		return nil, p.refuse(n, "constant not of one value a channel")
	}
	v, err := p.floats32(n, t)
	if err != nil || len(v) == channels {
		return v, err
	}
	return p.repeated(v[0], channels)
}

// repeated returns v once a channel.
func (p *parser) repeated(v float32, channels int) ([]float32, error) {
	if err := p.charge(channels); err != nil {
		return nil, err
	}
	return slices.Repeat([]float32{v}, channels), nil
}

// batchNorm reads Y = scale (X - mean) / sqrt(variance + epsilon) + bias.
func (p *parser) batchNorm(n *node) (operand, error) {
	var err error
	if n.int("training_mode", 0) != 0 {
		err = p.refuse(n, "training_mode=1")
	}
	if n.int("spatial", 1) != 1 {
		err = p.refuse(n, "spatial=0")
	}
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	var v [4][]float32 // scale, bias, mean, variance
	for i := range v {
		t, err := p.constant(n, i+1)
		if err != nil {
			return x, err
		}
		if len(t.dims) != 1 || t.dims[0] != int64(x.shape.C) {
			return x, fmt.Errorf("%w: input %d of another shape than %d channels", ErrInvalid, i+1, x.shape.C)
		}
		if v[i], err = p.floats32(n, t); err != nil {
			return x, err
		}
	}
	a, epsilon := &graph.Affine{Scale: v[0], Shift: v[1]}, float64(n.float("epsilon", 1e-5))
	for i := range a.Scale {
		s := float64(a.Scale[i]) / math.Sqrt(float64(v[3][i])+epsilon)
		a.Scale[i], a.Shift[i] = float32(s), float32(float64(a.Shift[i])-s*float64(v[2][i]))
	}
	return p.apply(a, x.rank, x)
}

// arithmetic reads Add, Sub, Mul and Div of values, of constants a channel, and of sizes.
func (p *parser) arithmetic(n *node) (operand, error) {
	a, err := p.operand(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.operand(n, 1)
	if err != nil {
		return b, err
	}
	switch {
	case a.known && b.known:
		return p.ofTwo(n, a, b)
	case a.known:
		return p.affine(n, a, 1)
	case b.known:
		return p.affine(n, b, 0)
	}
	return p.calculate(n)
}

// ofTwo reads an arithmetic operator of two values of the graph.
func (p *parser) ofTwo(n *node, a, b operand) (operand, error) {
	switch {
	case n.op == "Add" && a.shape == b.shape && a.rank == b.rank:
		return p.apply(graph.Add{}, a.rank, a, b)
	case n.op == "Add":
		return a, p.refuse(n, "values of unlike shapes")
	case n.op == "Mul" && a.value == b.value && a.rank == b.rank:
		return p.apply(graph.Square{}, a.rank, a)
	case n.op == "Mul":
		return a, p.refuse(n, "not of a value by itself")
	}
	return a, p.refuse(n, "of two values")
}

// affine reads an arithmetic operator of a value x and input i, a constant.
func (p *parser) affine(n *node, x operand, i int) (operand, error) {
	t, err := p.constant(n, i)
	if err != nil {
		return x, err
	}
	if n.op == "Div" && i == 0 {
		return x, p.refuse(n, "of a constant by a value")
	}
	v, err := p.channels(n, t, x.shape.C, x.rank)
	if err != nil {
		return x, err
	}
	a := new(graph.Affine)
	switch n.op {
	case "Add":
		a.Shift = v
	case "Sub":
		a.Shift = v
		if i == 0 {
			if a.Scale, err = p.repeated(-1, x.shape.C); err != nil {
				return x, err
			}
		} else {
			for j := range v {
				v[j] = -v[j]
			}
		}
	case "Mul":
		a.Scale = v
	case "Div":
		a.Scale = v
		for j := range v {
			v[j] = 1 / v[j]
		}
	}
	return p.apply(a, x.rank, x)
}

func (p *parser) leakyReLU(n *node) (operand, error) {
	return elementary(graph.LeakyReLU{Alpha: n.float("alpha", 0.01)})(p, n)
}

// clip reads bounds from attributes, as before opset 11, or from inputs.
func (p *parser) clip(n *node) (operand, error) {
	bounds := [2]float32{n.float("min", -math.MaxFloat32), n.float("max", math.MaxFloat32)}
	for i := range bounds {
		if n.has(i + 1) {
			t, err := p.constant(n, i+1)
			if err != nil {
				return operand{}, err
			}
			v, err := p.floats32(n, t)
			if err != nil {
				return operand{}, err
			}
			if len(v) != 1 {
				return operand{}, fmt.Errorf("%w: %d bounds", ErrInvalid, len(v))
			}
			bounds[i] = v[0]
		}
		// An infinite bound is none; NaN stays, to be refused.
		bounds[i] = min(max(bounds[i], -math.MaxFloat32), math.MaxFloat32)
	}
	return elementary(graph.Clip{Min: bounds[0], Max: bounds[1]})(p, n)
}

// hardSigmoid reads max(0, min(1, alpha x + beta)).
func (p *parser) hardSigmoid(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	scale, err := p.repeated(n.float("alpha", 0.2), x.shape.C)
	if err != nil {
		return x, err
	}
	shift, err := p.repeated(n.float("beta", 0.5), x.shape.C)
	if err != nil {
		return x, err
	}
	if x, err = p.apply(&graph.Affine{Scale: scale, Shift: shift}, x.rank, x); err != nil {
		return x, err
	}
	return p.apply(graph.Clip{Max: 1}, x.rank, x)
}

func (p *parser) pow(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	t, err := p.constant(n, 1)
	if err != nil {
		return x, err
	}
	square := len(t.dims) <= x.rank
	switch t.kind {
	case typeInt32, typeInt64:
		e, err := p.ints(n, t)
		if err != nil {
			return x, err
		}
		square = square && len(e) == 1 && e[0] == 2
	default:
		e, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		square = square && len(e) == 1 && e[0] == 2
	}
	if !square {
		return x, p.refuse(n, "exponent not 2")
	}
	return p.apply(graph.Square{}, x.rank, x)
}

// window is the geometry that convolutions and pools share; pads are top, left,
// bottom, right.
type window struct {
	kernel, strides, dilations []int64
	pads                       []int64
	autoPad                    string
}

// window reads the attributes of n. Without a kernel the operator is not one of
// two dimensions, and is refused.
func (p *parser) window(n *node, kernel []int64) (*window, error) {
	if a, ok := n.attribute("kernel_shape"); ok {
		if kernel != nil && !slices.Equal(kernel, a.ints) {
			return nil, fmt.Errorf("%w: kernel_shape is not that of the weights", ErrInvalid)
		}
		kernel = a.ints
	}
	if len(kernel) == 0 {
		return nil, fmt.Errorf("%w: no kernel_shape", ErrInvalid)
	}
	if len(kernel) != 2 {
		return nil, p.refuse(n, "%d-D", len(kernel))
	}
	w := &window{kernel: kernel, strides: []int64{1, 1}, dilations: []int64{1, 1}, pads: make([]int64, 4), autoPad: "NOTSET"}
	for _, a := range n.attributes {
		switch a.name {
		case "strides":
			w.strides = a.ints
		case "dilations":
			w.dilations = a.ints
		case "pads":
			w.pads = a.ints
		case "auto_pad":
			w.autoPad = string(a.s)
		}
	}
	if len(w.strides) != 2 || len(w.dilations) != 2 || len(w.pads) != 4 {
		return nil, fmt.Errorf("%w: strides, dilations or pads of the wrong length", ErrInvalid)
	}
	for _, v := range slices.Concat(w.kernel, w.strides, w.dilations) {
		if v <= 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%w: kernel, stride or dilation of %d", ErrInvalid, v)
		}
	}
	for _, v := range w.pads {
		if v < 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%w: padding of %d", ErrInvalid, v)
		}
	}
	switch w.autoPad {
	case "NOTSET":
	case "VALID", "SAME_UPPER", "SAME_LOWER":
		if slices.Max(w.pads) != 0 {
			return nil, fmt.Errorf("%w: both auto_pad and pads", ErrInvalid)
		}
	default:
		return nil, fmt.Errorf("%w: unknown auto_pad", ErrInvalid)
	}
	return w, nil
}

// pad sets the padding that auto_pad SAME asks for: that of an output of
// ceil(size / stride), halved, its odd row or column at the end or the start.
func (w *window) pad(s graph.Shape) {
	if w.autoPad != "SAME_UPPER" && w.autoPad != "SAME_LOWER" {
		return
	}
	for i, size := range []int64{int64(s.H), int64(s.W)} {
		steps := (size - 1) / w.strides[i]          // steps·stride < size < 2^32
		reach := w.dilations[i]*(w.kernel[i]-1) + 1 // < 2^62
		total := max(steps*w.strides[i]+reach-size, 0)
		small, large := total/2, total-total/2
		if w.autoPad == "SAME_LOWER" {
			small, large = large, small
		}
		w.pads[i], w.pads[i+2] = small, large
	}
}

func (p *parser) conv(n *node) (operand, error) {
	t, err := p.constant(n, 1)
	if err != nil {
		return operand{}, err
	}
	if len(t.dims) < 3 {
		return operand{}, fmt.Errorf("%w: weights of rank %d", ErrInvalid, len(t.dims))
	}
	w, err := p.window(n, t.dims[2:])
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 4)
	if err != nil {
		return x, err
	}
	oihw, err := p.floats32(n, t)
	if err != nil {
		return x, err
	}
	group, per := n.int("group", 1), t.dims[1]
	if group <= 0 || group > int64(x.shape.C) || per*group != int64(x.shape.C) {
		return x, fmt.Errorf("%w: weights for %d channels in %d groups, input has %d", ErrInvalid, per, group, x.shape.C)
	}
	w.pad(x.shape)
	c := &graph.Conv2D{
		Geometry: plan.Conv2D{
			H: x.shape.H, W: x.shape.W, C: x.shape.C, OutC: int(t.dims[0]),
			KH: int(w.kernel[0]), KW: int(w.kernel[1]),
			SH: int(w.strides[0]), SW: int(w.strides[1]),
			DH: int(w.dilations[0]), DW: int(w.dilations[1]),
			Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
			Groups: int(group),
		},
		W: make([]float32, len(oihw)),
	}
	graph.CHWToHWC(c.W, oihw, c.Geometry.OutC, graph.Shape{H: c.Geometry.KH, W: c.Geometry.KW, C: int(per)})
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		if len(t.dims) != 1 || t.dims[0] != int64(c.Geometry.OutC) {
			return x, fmt.Errorf("%w: bias of another shape than %d channels", ErrInvalid, c.Geometry.OutC)
		}
		if c.B, err = p.floats32(n, t); err != nil {
			return x, err
		}
	}
	return p.apply(c, 4, x)
}

// pool reads MaxPool and AveragePool.
func (p *parser) pool(n *node) (operand, error) {
	w, err := p.window(n, nil)
	if err != nil {
		return operand{}, err
	}
	if n.int("ceil_mode", 0) != 0 {
		err = p.refuse(n, "ceil_mode=1")
	}
	if slices.Max(w.dilations) > 1 {
		err = p.refuse(n, "dilations")
	}
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 4)
	if err != nil {
		return x, err
	}
	w.pad(x.shape)
	pool := graph.Pool{
		KH: int(w.kernel[0]), KW: int(w.kernel[1]),
		SH: int(w.strides[0]), SW: int(w.strides[1]),
		Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
	}
	if n.op == "MaxPool" {
		return p.apply(graph.MaxPool{Pool: pool}, 4, x)
	}
	return p.apply(graph.AvgPool{Pool: pool, CountPad: n.int("count_include_pad", 0) != 0}, 4, x)
}

func (p *parser) globalPool(n *node) (operand, error) {
	x, err := p.variable(n, 0, 4)
	if err != nil {
		return x, err
	}
	if n.op == "GlobalMaxPool" {
		return p.apply(graph.MaxPool{Pool: global(x.shape)}, 4, x)
	}
	return p.apply(graph.AvgPool{Pool: global(x.shape)}, 4, x)
}

// global is the window of all of a map.
func global(s graph.Shape) graph.Pool { return graph.Pool{KH: s.H, KW: s.W, SH: 1, SW: 1} }

// reduce reads ReduceMax, ReduceMean and ReduceSum over H and W.
func (p *parser) reduce(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	axes, err := p.axes(n, 1, x.rank)
	if err != nil {
		return x, err
	}
	if x.rank != 4 || !slices.Equal(axes, []int64{2, 3}) {
		return x, p.refuse(n, "not over H and W")
	}
	rank := 4
	if n.int("keepdims", 1) == 0 {
		rank = 2
	}
	switch n.op {
	case "ReduceMax":
		return p.apply(graph.MaxPool{Pool: global(x.shape)}, rank, x)
	case "ReduceSum":
		return p.apply(graph.SumPool{Pool: global(x.shape)}, rank, x)
	}
	return p.apply(graph.AvgPool{Pool: global(x.shape)}, rank, x)
}

func (p *parser) flatten(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if axis := n.int("axis", 1); axis != 1 && axis != 1-int64(x.rank) {
		return x, p.refuse(n, "axis=%d", axis)
	}
	return p.reshaped(x, []int64{int64(x.shape.Len())})
}

// reshaped gives x the sizes dims after the batch.
func (p *parser) reshaped(x operand, dims []int64) (operand, error) {
	to, rank := shapeOf(dims), len(dims)+1
	if to == x.shape && rank != x.rank {
		// N x C against N x C x 1 x 1: one and the same to the graph.
		x.rank = rank
		return x, nil
	}
	return p.apply(graph.Reshape{To: to}, rank, x)
}

func (p *parser) reshape(n *node) (operand, error) {
	to, err := p.sizes(n, 1)
	if err != nil {
		return operand{}, err
	}
	dims := make([]int64, len(to.v))
	for i, d := range to.v {
		dims[i] = d.n
	}
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	zeros := n.int("allowzero", 0) != 0
	if x.constant != nil && to.batch() < 0 {
		size, err := x.constant.len()
		if err != nil {
			return x, err
		}
		c := *x.constant
		if c.dims, err = resolve(dims, c.dims, size, zeros); err != nil {
			return x, err
		}
		return operand{constant: &c}, nil
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}

	// The batch's size must come first, and everything after it be of one sample.
	from := []int64{int64(x.shape.C), int64(x.shape.H), int64(x.shape.W)}[:x.rank-1]
	if len(dims) != 2 && len(dims) != 4 {
		return x, p.refuse(n, "to rank %d", len(dims))
	}
	keeps := to.v[0].batch || dims[0] == 0 && !zeros || p.batch > 0 && dims[0] == p.batch
	if dims[0] == -1 {
		size, ok := extent(substitute(dims[1:], from, zeros))
		keeps = ok && size == x.shape.Len()
	}
	if !keeps || (sizes{v: to.v[1:]}).batch() >= 0 {
		return x, p.refuse(n, "across samples")
	}
	rest, err := resolve(dims[1:], from, x.shape.Len(), zeros)
	if err != nil {
		return x, err
	}
	return p.reshaped(x, rest)
}

// substitute returns dims with each 0 replaced by the size in from, unless zeros says that 0 means 0.
func substitute(dims, from []int64, zeros bool) []int64 {
	to := slices.Clone(dims)
	for i, d := range to {
		if d == 0 && !zeros && i < len(from) {
			to[i] = from[i]
		}
	}
	return to
}

// resolve returns the sizes that dims stand for, of size elements in all: 0 for
// the size in from (unless zeros), and at most one -1 for what is left.
func resolve(dims, from []int64, size int, zeros bool) ([]int64, error) {
	to := substitute(dims, from, zeros)
	free := slices.Index(to, -1)
	if free >= 0 {
		to[free] = 1
		if rest, ok := extent(to); ok && size%rest == 0 {
			to[free] = int64(size / rest)
		}
	}
	if n, ok := extent(to); !ok || n != size {
		return nil, fmt.Errorf("%w: %d elements do not have the new shape", ErrInvalid, size)
	}
	return to, nil
}

func (p *parser) softmax(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	otherwise := int64(-1)
	if p.opset < 13 {
		otherwise = 1
	}
	axis := n.int("axis", otherwise)
	// Before opset 13 the sum goes over the axis and all that follow.
	whole := p.opset >= 13 || x.shape.H == 1 && x.shape.W == 1
	if axis != 1 && axis != 1-int64(x.rank) || !whole {
		return x, p.refuse(n, "axis=%d of rank %d in opset %d", axis, x.rank, p.opset)
	}
	return p.apply(graph.Softmax{}, x.rank, x)
}

// value reads a Constant.
func (p *parser) value(n *node) (operand, error) {
	if len(n.attributes) != 1 {
		return operand{}, fmt.Errorf("%w: want one attribute", ErrInvalid)
	}
	a := n.attributes[0]
	t := &tensor{name: n.outputs[0]}
	switch a.name {
	case "value":
		if a.t == nil {
			return operand{}, fmt.Errorf("%w: no value", ErrInvalid)
		}
		t = a.t
	case "value_float":
		t.kind, t.floats = typeFloat, []float32{a.f}
	case "value_floats":
		t.kind, t.floats, t.dims = typeFloat, a.floats, []int64{int64(len(a.floats))}
	case "value_int":
		t.kind, t.int64s = typeInt64, []int64{a.i}
	case "value_ints":
		t.kind, t.int64s, t.dims = typeInt64, a.ints, []int64{int64(len(a.ints))}
	}
	return operand{constant: t}, nil
}

func (p *parser) identity(n *node) (operand, error) { return p.operand(n, 0) }

// dropout reads a Dropout that drops nothing, as in inference.
func (p *parser) dropout(n *node) (operand, error) {
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return operand{}, err
		}
		training, err := p.ints(n, t)
		if err != nil {
			return operand{}, err
		}
		if slices.Max(training) != 0 {
			return operand{}, p.refuse(n, "training_mode=1")
		}
	}
	return p.operand(n, 0)
}
