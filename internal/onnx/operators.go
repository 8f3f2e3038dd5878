package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
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
	"ConvTranspose": {3, with(windowAttributes, map[string]int64{
		"group": attributeInt, "output_padding": attributeInts, "output_shape": attributeInts,
	}), (*parser).convTranspose},
	"Resize":   {4, resizeAttributes, (*parser).resize},
	"Upsample": {2, map[string]int64{"mode": attributeString, "scales": attributeFloats}, (*parser).resize},
	"BatchNormalization": {5, map[string]int64{
		"epsilon": attributeFloat, "momentum": attributeFloat, "spatial": attributeInt, "training_mode": attributeInt,
	}, (*parser).batchNorm},
	"Add":            {2, nil, (*parser).arithmetic},
	"Sub":            {2, nil, (*parser).arithmetic},
	"Mul":            {2, nil, (*parser).arithmetic},
	"Div":            {2, nil, (*parser).arithmetic},
	"Greater":        {2, nil, (*parser).compare},
	"GreaterOrEqual": {2, nil, (*parser).compare},
	"Less":           {2, nil, (*parser).compare},
	"LessOrEqual":    {2, nil, (*parser).compare},
	"And":            {2, nil, (*parser).logic},
	"Or":             {2, nil, (*parser).logic},
	"Not":            {1, nil, (*parser).logic},
	"Where":          {3, nil, (*parser).where},
	"Sign":           {1, nil, (*parser).sign},
	"Equal":          {2, nil, (*parser).equal},
	"IsNaN":          {1, nil, (*parser).isNaN},
	"Range":          {3, nil, constantsOnly},
	"Xor":            {2, nil, constantsOnly},
	"Cos":            {1, nil, constantsOnly},
	"Sin":            {1, nil, constantsOnly},
	"Trilu":          {2, map[string]int64{"upper": attributeInt}, constantsOnly},
	"CumSum":         {2, map[string]int64{"exclusive": attributeInt, "reverse": attributeInt}, (*parser).cumSum},
	"GatherElements": {2, map[string]int64{"axis": attributeInt}, (*parser).gatherElements},
	"Mod":            {2, map[string]int64{"fmod": attributeInt}, (*parser).calculate},
	"Max":            {math.MaxInt, nil, (*parser).largest},
	"Min":            {math.MaxInt, nil, (*parser).largest},
	"Pow":            {2, nil, (*parser).pow},
	"Relu":           {1, nil, elementary(graph.ReLU{})},
	"LeakyRelu":      {1, map[string]int64{"alpha": attributeFloat}, (*parser).leakyReLU},
	"Clip":           {3, map[string]int64{"min": attributeFloat, "max": attributeFloat}, (*parser).clip},
	"Sigmoid":        {1, nil, elementary(graph.Sigmoid{})},
	"HardSigmoid":    {1, map[string]int64{"alpha": attributeFloat, "beta": attributeFloat}, (*parser).hardSigmoid},
	"Tanh":           {1, nil, elementary(graph.Tanh{})},
	"MaxPool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "storage_order": attributeInt,
	}), (*parser).pool},
	"AveragePool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "count_include_pad": attributeInt,
	}), (*parser).pool},
	"LRN": {1, map[string]int64{
		"alpha": attributeFloat, "beta": attributeFloat, "bias": attributeFloat, "size": attributeInt,
	}, (*parser).lrn},
	"GlobalMaxPool":     {1, nil, (*parser).globalPool},
	"GlobalAveragePool": {1, nil, (*parser).globalPool},
	"ReduceMax":         {2, reduceAttributes, (*parser).reduce},
	"ReduceMean":        {2, reduceAttributes, (*parser).reduce},
	"ReduceSum":         {2, reduceAttributes, (*parser).reduce},
	"ReduceL2":          {2, reduceAttributes, (*parser).reduce},
	"DepthToSpace":      {1, map[string]int64{"blocksize": attributeInt, "mode": attributeString}, (*parser).blocks},
	"SpaceToDepth":      {1, map[string]int64{"blocksize": attributeInt}, (*parser).blocks},
	"Expand":            {2, nil, (*parser).expand},
	"ConstantOfShape":   {1, map[string]int64{"value": attributeTensor}, (*parser).constantOfShape},
	"Abs":               {1, nil, elementary(graph.Abs{})},
	"Exp":               {1, nil, elementary(graph.Exp{})},
	"Log":               {1, nil, elementary(graph.Log{})},
	"Reciprocal":        {1, nil, elementary(graph.Reciprocal{})},
	"Flatten":           {1, map[string]int64{"axis": attributeInt}, (*parser).flatten},
	"Reshape":           {2, map[string]int64{"allowzero": attributeInt}, (*parser).reshape},
	"Squeeze":           {2, map[string]int64{"axes": attributeInts}, (*parser).squeeze},
	"Unsqueeze":         {2, map[string]int64{"axes": attributeInts}, (*parser).squeeze},
	"Shape":             {1, map[string]int64{"start": attributeInt, "end": attributeInt}, (*parser).shape},
	"Gather":            {2, map[string]int64{"axis": attributeInt}, (*parser).gather},
	"Tile":              {2, nil, (*parser).tile},
	"GatherND":          {2, map[string]int64{"batch_dims": attributeInt}, (*parser).gatherND},
	"Slice": {5, map[string]int64{
		"starts": attributeInts, "ends": attributeInts, "axes": attributeInts,
	}, (*parser).slice},
	"Concat":    {math.MaxInt, map[string]int64{"axis": attributeInt}, (*parser).concat},
	"Cast":      {1, map[string]int64{"to": attributeInt, "saturate": attributeInt}, (*parser).cast},
	"Transpose": {1, map[string]int64{"perm": attributeInts}, (*parser).transpose},
	"Split":     {2, map[string]int64{"axis": attributeInt, "split": attributeInts, "num_outputs": attributeInt}, nil}, // see parts
	"Pad": {4, map[string]int64{
		"mode": attributeString, "pads": attributeInts, "value": attributeFloat,
	}, (*parser).pad},
	"Neg":       {1, nil, (*parser).neg},
	"Sqrt":      {1, nil, (*parser).sqrt},
	"Erf":       {1, nil, elementary(graph.Erf{})},
	"Softplus":  {1, nil, elementary(graph.Softplus{})},
	"Elu":       {1, map[string]int64{"alpha": attributeFloat}, (*parser).elu},
	"Celu":      {1, map[string]int64{"alpha": attributeFloat}, (*parser).celu},
	"Selu":      {1, map[string]int64{"alpha": attributeFloat, "gamma": attributeFloat}, (*parser).selu},
	"PRelu":     {2, nil, (*parser).prelu},
	"HardSwish": {1, nil, (*parser).hardSwish},
	"Swish":     {1, map[string]int64{"alpha": attributeFloat}, (*parser).swish},
	"Mish":      {1, nil, (*parser).mish},
	"Gelu":      {1, map[string]int64{"approximate": attributeString}, (*parser).gelu},
	"LayerNormalization": {3, map[string]int64{
		"axis": attributeInt, "epsilon": attributeFloat, "stash_type": attributeInt,
	}, (*parser).layerNorm},
	"InstanceNormalization": {3, map[string]int64{"epsilon": attributeFloat}, (*parser).instanceNorm},
	"GroupNormalization": {3, map[string]int64{
		"epsilon": attributeFloat, "num_groups": attributeInt, "stash_type": attributeInt,
	}, (*parser).groupNorm},
	"LogSoftmax": {1, map[string]int64{"axis": attributeInt}, (*parser).softmax},
	"Softmax":    {1, map[string]int64{"axis": attributeInt}, (*parser).softmax},
	"LSTM":       {8, with(recurrentAttributes, map[string]int64{"input_forget": attributeInt}), nil}, // see recurrent
	"GRU":        {6, with(recurrentAttributes, map[string]int64{"linear_before_reset": attributeInt}), nil},
	"RNN":        {6, recurrentAttributes, nil},
	"Constant": {0, map[string]int64{
		"value": attributeTensor, "value_float": attributeFloat, "value_floats": attributeFloats,
		"value_int": attributeInt, "value_ints": attributeInts,
	}, (*parser).value},
	"Identity": {1, nil, (*parser).identity},
	"Dropout":  {3, map[string]int64{"ratio": attributeFloat, "seed": attributeInt}, (*parser).dropout},
}

// constantsOnly reads what is computed of constants, which these are not all.
func constantsOnly(p *parser, n *node) (operand, error) {
	for i := range n.inputs {
		if _, err := p.any(n, i); err != nil {
			return operand{}, err
		}
	}
	return operand{}, p.refuse(n, "of what is no constant")
}

// elementary returns the reading of an operator of one input that keeps its rank.
func elementary(op graph.Op) func(*parser, *node) (operand, error) {
	return func(p *parser, n *node) (operand, error) {
		x, err := p.viewed(n, 0)
		if err != nil {
			return x, err
		}
		return p.apply(op, x.axes, x)
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

// overLast applies d over the last dimension of x: as a dense layer to vectors, and as a
// convolution of 1 x 1 to what has more dimensions.
func (p *parser) overLast(n *node, d *graph.Dense, x operand) (operand, error) {
	x, last, err := p.lastAlongC(n, x)
	if err != nil {
		return x, err
	}
	var op graph.Op = d
	if s := x.shape; s.H != 1 || s.W != 1 {
		op = &graph.Conv2D{From: d.From, B: d.B, Geometry: plan.Conv2D{
			H: s.H, W: s.W, C: d.In, OutC: d.Out, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1,
		}}
	}
	y, err := p.apply(op, x.axes, x)
	if err != nil || x.split == nil {
		return y, err
	}
	return p.resized(y, x, last, axisC), nil
}

// channels returns a constant as one value a channel, if it broadcasts over
// everything else of a tensor of the given shape along the given axes.
func (p *parser) channels(n *node, t *tensor, s graph.Shape, axes []axis) ([]float32, error) {
	if !alongChannels(t, s, axes) {
		return nil, p.refuse(n, "constant not of one value a channel")
	}
	v, err := p.floats32(n, t)
	if err != nil || len(v) == s.C {
		return v, err
	}
	return p.repeated(v[0], s.C)
}

// alongChannels reports whether t has one value, or one a channel, of a tensor of the
// given shape along the given axes, which it broadcasts to.
func alongChannels(t *tensor, s graph.Shape, axes []axis) bool {
	before := 1 + len(axes) - len(t.dims) // the first dimension's number, aligned at the right
	for i, d := range t.dims {
		if d != 1 && (before+i < 1 || axes[before+i-1] != axisC || d != int64(s.C)) {
			return false
		}
	}
	return before >= 0
}

// perChannel returns x, its dimensions in another order if that helps, and t as channels does.
func (p *parser) perChannel(n *node, t *tensor, x operand) (operand, []float32, error) {
	if !alongChannels(t, x.shape, x.axes) {
		// Its one dimension that is not 1, if there is one alone, is to be the channels'.
		for i, d := range t.dims {
			if at := 1 + len(x.axes) - len(t.dims) + i; d != 1 && at > 0 {
				y, err := p.channelsAt(x, at-1)
				if err != nil {
					return x, nil, err
				}
				x = y
				break
			}
		}
	}
	v, err := p.channels(n, t, x.shape, x.axes)
	return x, v, err
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
	if x, err = p.channelsAt(x, 0); err != nil {
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
	return p.apply(a, x.axes, x)
}

// arithmetic reads Add, Sub, Mul and Div of values, of constants a channel, and of sizes.
func (p *parser) arithmetic(n *node) (operand, error) {
	a, err := p.any(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.any(n, 1)
	if err != nil {
		return b, err
	}
	switch {
	case a.known && a.whole || b.known && b.whole:
		return p.ofIntegers(n, a, b)
	case a.known && b.known:
		return p.ofTwo(n, a, b)
	case a.known:
		return p.affine(n, n.op, 0)
	case b.known:
		return p.affine(n, n.op, 1)
	}
	if t := a.constant; t != nil && (t.kind == typeFloat || t.kind == typeDouble) {
		return p.calculateFloats(n)
	}
	return p.calculate(n)
}

// ofTwo reads an arithmetic operator of two values of the graph.
func (p *parser) ofTwo(n *node, a, b operand) (operand, error) {
	// What is expanded to the other's shape broadcasts as it is.
	masked := a.masked || b.masked
	if masked && n.op != "Add" {
		return a, p.refuse(n, "of infinities")
	}
	wide := []*graph.Shape{a.wide, b.wide}
	a.wide, b.wide = nil, nil
	for i, o := range []operand{a, b} {
		if o.whole && !exact[n.op] || wide[i] != nil && (wide[1-i] != nil || o.split != nil || []operand{a, b}[1-i].split != nil) {
			_, err := p.viewed(n, i)
			return a, err
		}
	}
	// ONNX aligns shapes at the right: with unlike ranks, channels with samples.
	if a.rank() != b.rank() {
		return a, p.refuse(n, "values of unlike ranks")
	}
	for i, o := range []operand{a, b} {
		if wide[i] == nil {
			continue
		}
		own, of := o.dims(), []operand{a, b}[1-i].dims()
		for k, d := range shapedDims(*wide[i], o.axes) {
			if d != own[k] && d != of[k] {
				return a, p.refuse(n, "of what is expanded")
			}
		}
	}
	var err error
	if a.split != nil || b.split != nil {
		a, b, err = p.together(n, a, b)
	} else {
		b, err = p.reordered(b, a.axes)
	}
	if err != nil {
		return a, err
	}
	if n.op == "Mul" && a.value == b.value {
		return p.apply(graph.Square{}, a.axes, a)
	}
	swapped := !b.shape.Suits(a.shape)
	if swapped {
		a, b = b, a
	}
	if !b.shape.Suits(a.shape) || swapped && n.op == "Div" {
		return a, p.refuse(n, "values of unlike shapes")
	}
	op := map[string]graph.Op{"Add": graph.Add{}, "Sub": graph.Sub{}, "Mul": graph.Mul{}, "Div": graph.Div{}, "Max": graph.Max{}, "Min": graph.Min{},
		"Equal": graph.Sub{}, "And": graph.Min{}, "Or": graph.Max{}, "Greater": graph.Sub{}, "Less": graph.Sub{}, "GreaterOrEqual": graph.Sub{}, "LessOrEqual": graph.Sub{}}[n.op]
	y, err := p.apply(op, a.axes, a, b)
	y.masked = masked
	if err != nil || !swapped || op != (graph.Sub{}) {
		return y, err
	}
	return p.scaled(y, -1, 0)
}

// scaled returns scale x + shift. A scale of 1 and a shift of 0 are left out.
func (p *parser) scaled(x operand, scale, shift float32) (operand, error) {
	a := new(graph.Affine)
	var err error
	if scale != 1 {
		a.Scale, err = p.repeated(scale, x.shape.C)
	}
	if shift != 0 && err == nil {
		a.Shift, err = p.repeated(shift, x.shape.C)
	}
	if err != nil || a.Scale == nil && a.Shift == nil {
		return x, err
	}
	return p.apply(a, x.axes, x)
}

// affine returns what an arithmetic operator makes of n's input at, a value x, and of the other, a constant.
func (p *parser) affine(n *node, op string, at int) (operand, error) {
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	i := 1 - at
	t, err := p.constantFor(n, i, x)
	if err != nil {
		return x, err
	}
	if op == "Div" && i == 0 {
		if x, err = p.apply(graph.Reciprocal{}, x.axes, x); err != nil {
			return x, err
		}
	}
	x, v, extent, err := p.spread(n, t, x)
	if err != nil {
		return x, err
	}
	a := new(graph.Affine)
	switch op {
	case "Add":
		a.Shift = v
	case "Sub":
		a.Shift = v
		if i == 0 {
			if a.Scale, err = p.repeated(-1, len(v)); err != nil {
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
			if i == 1 {
				v[j] = 1 / v[j]
			}
		}
	}
	y, err := p.apply(elementAffine(extent, a, x), x.axes, x)
	y.masked = x.masked || slices.ContainsFunc(a.Shift, negativeInfinity)
	return y, err
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
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	return p.ramp(x, n.float("alpha", 0.2), n.float("beta", 0.5))
}

// ramp returns max(0, min(1, scale x + shift)).
func (p *parser) ramp(x operand, scale, shift float32) (operand, error) {
	x, err := p.scaled(x, scale, shift)
	if err != nil {
		return x, err
	}
	return p.apply(graph.Clip{Max: 1}, x.axes, x)
}

func (p *parser) pow(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if x.constant != nil {
		return p.calculateFloats(n)
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	t, err := p.constant(n, 1)
	if err != nil {
		return x, err
	}
	var e []float64
	if t.kind == typeInt32 || t.kind == typeInt64 {
		ints, err := p.ints(n, t)
		if err != nil {
			return x, err
		}
		for _, v := range ints {
			e = append(e, float64(v))
		}
	} else {
		floats, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		for _, v := range floats {
			e = append(e, float64(v))
		}
	}
	if len(e) != 1 || len(t.dims) > x.rank() {
		return x, p.refuse(n, "exponent of more than one number")
	}
	switch e[0] {
	case 0.5:
		return p.apply(graph.Sqrt{}, x.axes, x)
	case 1:
		return x, nil
	case 2:
		return p.apply(graph.Square{}, x.axes, x)
	case 3:
		y, err := p.apply(graph.Square{}, x.axes, x)
		return p.times(x, y, err)
	}
	return x, p.refuse(n, "exponent of %v", e[0])
}

// window is the geometry that convolutions and pools share; pads are top, left,
// bottom, right.
type window struct {
	kernel, strides, dilations []int64
	pads                       []int64
	autoPad                    string
	rank                       int // of the input: 4, or 3 for a sequence, whose window has one row
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
	dims := len(kernel)
	if dims > 2 {
		return nil, p.refuse(n, "%d-D", dims)
	}
	w := &window{kernel: kernel, strides: []int64{1, 1}[:dims], dilations: []int64{1, 1}[:dims], pads: make([]int64, 2*dims), autoPad: "NOTSET"}
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
	if len(w.strides) != dims || len(w.dilations) != dims || len(w.pads) != 2*dims {
		return nil, fmt.Errorf("%w: strides, dilations or pads of the wrong length", ErrInvalid)
	}
	w.rank = dims + 2
	if dims == 1 { // a sequence is a map of one row
		one := func(v int64) []int64 { return []int64{1, v} }
		w.kernel, w.strides, w.dilations = one(w.kernel[0]), one(w.strides[0]), one(w.dilations[0])
		w.pads = []int64{0, w.pads[0], 0, w.pads[1]}
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

// convolved returns the weights, the window and the input of a convolution, transposed or not.
func (p *parser) convolved(n *node) (t *tensor, w *window, x operand, err error) {
	if t, err = p.constant(n, 1); err != nil {
		return
	}
	if len(t.dims) < 3 {
		return t, w, x, fmt.Errorf("%w: weights of rank %d", ErrInvalid, len(t.dims))
	}
	if w, err = p.window(n, t.dims[2:]); err != nil {
		return
	}
	x, err = p.variable(n, 0, w.rank)
	return
}

func (p *parser) conv(n *node) (operand, error) {
	t, w, x, err := p.convolved(n)
	if err != nil {
		return x, err
	}
	kernel := graph.Shape{H: int(w.kernel[0]), W: int(w.kernel[1]), C: int(t.dims[1])}
	read, err := p.weights(n, t, kernel.Len(), func(dst []float32, first int, lines []float32) { // of an output channel each
		graph.CHWToHWC(dst[first*kernel.Len():][:len(lines)], lines, len(lines)/kernel.Len(), kernel)
	})
	if err != nil {
		return x, err
	}
	group, per := n.int("group", 1), t.dims[1]
	if group <= 0 || group > int64(x.shape.C) || per*group != int64(x.shape.C) {
		return x, fmt.Errorf("%w: weights for %d channels in %d groups, input has %d", ErrInvalid, per, group, x.shape.C)
	}
	w.pad(x.shape)
	c := &graph.Conv2D{
		From: read,
		Geometry: plan.Conv2D{
			H: x.shape.H, W: x.shape.W, C: x.shape.C, OutC: int(t.dims[0]),
			KH: int(w.kernel[0]), KW: int(w.kernel[1]),
			SH: int(w.strides[0]), SW: int(w.strides[1]),
			DH: int(w.dilations[0]), DW: int(w.dilations[1]),
			Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
			Groups: int(group),
		},
	}
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
	return p.apply(c, x.axes, x)
}

// pool reads MaxPool and AveragePool.
func (p *parser) pool(n *node) (operand, error) {
	w, err := p.window(n, nil)
	if err != nil {
		return operand{}, err
	}
	dilated := slices.Max(w.dilations) > 1
	if dilated && (n.op != "MaxPool" || n.int("ceil_mode", 0) != 0 || slices.Max(w.kernel) > maxDilated) {
		return operand{}, p.refuse(n, "dilations")
	}
	x, err := p.variable(n, 0, w.rank)
	if err != nil {
		return x, err
	}
	w.pad(x.shape)
	if dilated {
		return p.dilated(w, x)
	}
	count := n.int("count_include_pad", 0) != 0
	if n.int("ceil_mode", 0) != 0 && (w.autoPad == "NOTSET" || w.autoPad == "VALID") {
		given := slices.Clone(w.pads)
		if err := p.ceil(n, w, x.shape); err != nil {
			return x, err
		}
		count = count && slices.Equal(w.pads, given)
	}
	pool := graph.Pool{
		KH: int(w.kernel[0]), KW: int(w.kernel[1]),
		SH: int(w.strides[0]), SW: int(w.strides[1]),
		Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
	}
	if n.op == "MaxPool" {
		return p.apply(graph.MaxPool{Pool: pool}, x.axes, x)
	}
	return p.apply(graph.AvgPool{Pool: pool, CountPad: count}, x.axes, x)
}

// maxDilated bounds the rows and columns of a dilated window, each of which is an operator.
const maxDilated = 7

// dilated returns the largest elements under dilated windows: of parts of the map that are as far
// apart as the windows' elements.
func (p *parser) dilated(w *window, x operand) (operand, error) {
	pad := graph.Pad{Value: -math.MaxFloat32} // never more than what is on the map
	pad.Before.H, pad.Before.W, pad.After.H, pad.After.W = int(w.pads[0]), int(w.pads[1]), int(w.pads[2]), int(w.pads[3])
	if err := p.charge(16 * int(w.kernel[0]+w.kernel[1])); err != nil { // about a node's bytes
		return x, err
	}
	var err error
	if pad.Before != (graph.Shape{}) || pad.After != (graph.Shape{}) {
		if x, err = p.apply(pad, x.axes, x); err != nil {
			return x, err
		}
	}
	for i, a := range []axis{axisH, axisW} {
		at := slices.Index(x.axes, a) // -1 where a sequence has no rows
		if w.kernel[i] == 1 {
			continue
		}
		l := x.dims()[at] - (w.kernel[i]-1)*w.dilations[i]
		if l <= 0 {
			return x, fmt.Errorf("%w: a window larger than the map", ErrInvalid)
		}
		var y operand
		for k := range w.kernel[i] {
			part := newSlicing(x)
			part.cut(at, k*w.dilations[i], k*w.dilations[i]+l)
			z, err := part.apply(p)
			if err == nil && k > 0 {
				z, err = p.apply(graph.Max{}, x.axes, y, z)
			}
			if y = z; err != nil {
				return x, err
			}
		}
		x = y
	}
	if w.strides[0] == 1 && w.strides[1] == 1 {
		return x, nil
	}
	every := graph.Pool{KH: 1, KW: 1, SH: int(w.strides[0]), SW: int(w.strides[1])}
	return p.apply(graph.MaxPool{Pool: every}, x.axes, x)
}

// lrn reads x / (bias + alpha/size Σ x²)^beta, the sum going over channels around.
func (p *parser) lrn(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.channelsAt(x, 0); err != nil {
		return x, err
	}
	size, bias := n.int("size", 0), n.float("bias", 1)
	if size <= 0 || size > math.MaxInt32 {
		return x, fmt.Errorf("%w: a window of %d channels", ErrInvalid, size)
	}
	if size%2 == 0 { // runtimes differ in what is around, if they read it at all
		return x, p.refuse(n, "size=%d", size)
	}
	if !(bias > 0) || !(n.float("alpha", 1e-4) >= 0) { // what is below 0 has no power
		return x, p.refuse(n, "bias=%v", bias)
	}
	axes := slices.Clone(x.axes)
	y, err := p.apply(graph.Square{}, axes, x)
	if err != nil {
		return x, err
	}
	// Channels are pooled as columns.
	turned := slices.Clone(axes)
	for i, a := range axes {
		turned[i] = map[axis]axis{axisC: axisW, axisH: axisH, axisW: axisC}[a]
	}
	if y, err = p.reordered(y, turned); err == nil {
		y, err = p.apply(graph.AvgPool{CountPad: true, Pool: graph.Pool{
			KH: 1, KW: int(size), SH: 1, SW: 1, Left: int(size / 2), Right: int(size / 2),
		}}, turned, y)
	}
	if err == nil {
		y, err = p.reordered(y, axes)
	}
	if err == nil {
		y, err = p.scaled(y, n.float("alpha", 1e-4), bias)
	}
	if err == nil {
		y, err = p.apply(graph.Log{}, axes, y)
	}
	if err == nil {
		y, err = p.scaled(y, -n.float("beta", 0.75), 0)
	}
	if err == nil {
		y, err = p.apply(graph.Exp{}, axes, y)
	}
	return p.times(x, y, err)
}

// ceil adds the padding at the end with which the number of windows, rounded down, is
// the one that is rounded up without it. What the last window then has of the map is
// the same, and the padding counts for nothing: where it would count, or where a window
// has none of the map, runtimes differ, and it is refused.
func (p *parser) ceil(n *node, w *window, s graph.Shape) error {
	given := slices.Clone(w.pads)
	for i, size := range []int64{int64(s.H), int64(s.W)} {
		start, end := w.pads[i], w.pads[i+2]
		over := (size + start + end - w.kernel[i]) % w.strides[i]
		if over <= 0 { // none, or a window larger than the map, which is refused elsewhere
			continue
		}
		more := w.strides[i] - over
		switch {
		case end+more >= w.kernel[i]:
			return p.refuse(n, "ceil_mode=1 with a window of padding")
		case n.int("count_include_pad", 0) != 0 && slices.Max(given) > 0:
			return p.refuse(n, "ceil_mode=1 with count_include_pad=1")
		}
		w.pads[i+2] += more
	}
	return nil
}

func (p *parser) globalPool(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if len(x.axes) < 2 {
		return x, fmt.Errorf("%w: input of rank %d", ErrInvalid, x.rank())
	}
	if x, err = p.ordered(x); err != nil {
		return x, err
	}
	if n.op == "GlobalMaxPool" {
		return p.apply(graph.MaxPool{Pool: global(x.shape)}, x.axes, x)
	}
	return p.apply(graph.AvgPool{Pool: global(x.shape)}, x.axes, x)
}

// global is the window of all of a map.
func global(s graph.Shape) graph.Pool { return graph.Pool{KH: s.H, KW: s.W, SH: 1, SW: 1} }

// reduce reads ReduceMax, ReduceMean, ReduceSum and ReduceL2 of one or more axes.
func (p *parser) reduce(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return x, err
	}
	if x.split != nil && len(list) > 0 {
		return p.reduceView(n, x, list)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	if len(list) == 0 && n.int("noop_with_empty_axes", 0) != 0 {
		return x, nil
	}
	if len(list) == 0 {
		return x, p.refuse(n, "across samples")
	}
	over := map[axis]bool{}
	for _, i := range list {
		d, err := p.dimension(n, x, i)
		if err != nil {
			return x, err
		}
		over[x.axes[d]] = true
	}
	if n.op == "ReduceL2" {
		if x, err = p.apply(graph.Square{}, x.axes, x); err != nil {
			return x, err
		}
	}
	var y operand
	if at := slices.Index(x.axes, axisC); over[axisC] && n.op != "ReduceMean" {
		// Channels are reduced as rows or columns, after those if they are to be, too.
		delete(over, axisC)
		if y, err = p.reduced(n.op, x, over); err != nil {
			return x, err
		}
		axes := slices.Clone(x.axes)
		if axes[at] = axisH; len(axes) > 1 {
			other := (at + 1) % len(axes)
			axes[at], axes[other] = x.axes[other], axisC
		}
		if y, err = p.reordered(y, axes); err == nil {
			y, err = p.reduced(n.op, y, map[axis]bool{axes[at]: true})
		}
		over[axisC] = true
	} else {
		y, err = p.reduced(n.op, x, over)
	}
	if err == nil && n.op == "ReduceL2" {
		y, err = p.apply(graph.Sqrt{}, y.axes, y)
	}
	if err != nil || n.int("keepdims", 1) != 0 {
		return y, err
	}
	var axes []axis
	for i, a := range x.axes {
		if !over[a] {
			axes = append(axes, y.axes[i])
		}
	}
	if y.axes = axes; len(axes) == 0 {
		// One number a sample is a tensor of rank 1.
		return y, p.refuse(n, "to rank 1")
	}
	return y, nil
}

// reduced reduces x over axes, in place; over channels to their mean alone. ReduceL2 is
// the sum here.
func (p *parser) reduced(op string, x operand, over map[axis]bool) (operand, error) {
	pool := graph.Pool{KH: 1, KW: 1, SH: 1, SW: 1}
	if over[axisH] {
		pool.KH = x.shape.H
	}
	if over[axisW] {
		pool.KW = x.shape.W
	}
	var err error
	if over[axisH] || over[axisW] {
		switch op {
		case "ReduceMax":
			x, err = p.apply(graph.MaxPool{Pool: pool}, x.axes, x)
		case "ReduceSum", "ReduceL2":
			x, err = p.apply(graph.SumPool{Pool: pool}, x.axes, x)
		default:
			x, err = p.apply(graph.AvgPool{Pool: pool}, x.axes, x)
		}
	}
	if err == nil && over[axisC] {
		x, err = p.apply(graph.ChannelMean{}, x.axes, x)
	}
	return x, err
}

func (p *parser) flatten(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	if axis := n.int("axis", 1); axis != 1 && axis != 1-int64(x.rank()) {
		rank := int64(x.rank())
		if axis < -rank || axis > rank {
			return x, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
		}
		if axis < 0 {
			axis += rank
		}
		to := []size{{n: 1}, {n: 1}}
		for i, d := range x.view().sizes() {
			of := &to[truthOf(int64(i) >= axis)]
			of.n, of.batch = of.n*d.n, of.batch || d.batch
		}
		return p.reshapeValue(n, x, to, true)
	}
	if s, ok := p.samplesFirst(x.view()); !ok {
		return x, p.refuse(n, "across samples")
	} else if x.split != nil {
		x.split = s
	}
	return p.flattened(x)
}

// flattened returns x, whose batch is first, as a vector.
func (p *parser) flattened(x operand) (operand, error) {
	return p.reshaped(nil, x, []int64{int64(x.shape.Len())})
}

func (p *parser) reshape(n *node) (operand, error) {
	to, err := p.sizes(n, 1)
	if err != nil {
		return operand{}, err
	}
	if len(to.dims) != 1 {
		return operand{}, p.refuse(n, "sizes of rank %d", len(to.dims))
	}
	dims := make([]int64, len(to.v))
	for i, d := range to.v {
		if d.batch && d.n != 1 { // only a value's may be
			d.n = 0
		}
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
	if x.sizes != nil && to.batch() < 0 {
		return p.reshapeSizes(n, dims, zeros)
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	if len(dims) == 0 {
		return x, p.refuse(n, "to rank 0")
	}
	return p.reshapeValue(n, x, to.v, zeros)
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
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	otherwise := int64(-1)
	if p.opset < 13 {
		otherwise = 1
	}
	axis := n.int("axis", otherwise)
	if x.split != nil && p.opset >= 13 {
		i, err := p.index(n, x.split, axis)
		if err != nil {
			return x, err
		}
		if x, err = p.alongC(x, i); err != nil {
			return x, err
		}
		return p.overChannels(n, x)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	at, err := p.dimension(n, x, axis)
	if err != nil {
		return x, err
	}
	// Before opset 13 the sum goes over the axis and all that follow.
	for _, d := range x.dims()[at+1:] {
		if p.opset < 13 && d > 1 {
			return x, p.refuse(n, "axis=%d of rank %d in opset %d", axis, x.rank(), p.opset)
		}
	}
	if x, err = p.channelsAt(x, at); err != nil {
		return x, err
	}
	return p.overChannels(n, x)
}

// overChannels applies Softmax or LogSoftmax.
func (p *parser) overChannels(n *node, x operand) (operand, error) {
	if n.op == "LogSoftmax" {
		return p.apply(graph.LogSoftmax{}, x.axes, x)
	}
	y, err := p.apply(graph.Softmax{}, x.axes, x)
	y.softened = true
	return y, err
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

func (p *parser) identity(n *node) (operand, error) { return p.any(n, 0) }

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
