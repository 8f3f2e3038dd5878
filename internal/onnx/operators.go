package onnx

import (
	"math"

	"github.com/securenets/securenets/internal/graph"
)

// Which operators are read, and by what.

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

var recurrentAttributes = map[string]int64{
	"activations": attributeStrings, "direction": attributeString, "hidden_size": attributeInt, "layout": attributeInt,
}

var resizeAttributes = map[string]int64{
	"mode": attributeString, "coordinate_transformation_mode": attributeString, "nearest_mode": attributeString,
	"cubic_coeff_a": attributeFloat, "extrapolation_value": attributeFloat, "exclude_outside": attributeInt,
	"antialias": attributeInt, "axes": attributeInts, "keep_aspect_ratio_policy": attributeString,
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
	"Sign":           {1, nil, ofAxes((*parser).sign)},
	"Equal":          {2, nil, (*parser).equal},
	"IsNaN":          {1, nil, ofValue((*parser).isNaN)},
	"Range":          {3, nil, constantsOnly},
	"Xor":            {2, nil, constantsOnly},
	"Cos":            {1, nil, constantsOnly},
	"Sin":            {1, nil, constantsOnly},
	"Trilu":          {2, map[string]int64{"upper": attributeInt}, constantsOnly},
	"CumSum":         {2, map[string]int64{"exclusive": attributeInt, "reverse": attributeInt}, ofValue((*parser).cumSum)},
	"GatherElements": {2, map[string]int64{"axis": attributeInt}, (*parser).gatherElements},
	"Mod":            {2, map[string]int64{"fmod": attributeInt}, (*parser).calculate},
	"Max":            {math.MaxInt, nil, (*parser).largest},
	"Min":            {math.MaxInt, nil, (*parser).largest},
	"Pow":            {2, nil, (*parser).pow},
	"Relu":           {1, nil, elementary(graph.ReLU{})},
	"LeakyRelu":      {1, map[string]int64{"alpha": attributeFloat}, (*parser).leakyReLU},
	"Clip":           {3, map[string]int64{"min": attributeFloat, "max": attributeFloat}, (*parser).clip},
	"Sigmoid":        {1, nil, elementary(graph.Sigmoid{})},
	"HardSigmoid":    {1, map[string]int64{"alpha": attributeFloat, "beta": attributeFloat}, ofValue((*parser).hardSigmoid)},
	"Tanh":           {1, nil, elementary(graph.Tanh{})},
	"MaxPool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "storage_order": attributeInt,
	}), (*parser).pool},
	"AveragePool": {1, with(windowAttributes, map[string]int64{
		"ceil_mode": attributeInt, "count_include_pad": attributeInt,
	}), (*parser).pool},
	"LRN": {1, map[string]int64{
		"alpha": attributeFloat, "beta": attributeFloat, "bias": attributeFloat, "size": attributeInt,
	}, ofAxes((*parser).lrn)},
	"GlobalMaxPool":     {1, nil, ofAxes((*parser).globalPool)},
	"GlobalAveragePool": {1, nil, ofAxes((*parser).globalPool)},
	"ReduceMax":         {2, reduceAttributes, ofValue((*parser).reduce)},
	"ReduceMean":        {2, reduceAttributes, ofValue((*parser).reduce)},
	"ReduceSum":         {2, reduceAttributes, ofValue((*parser).reduce)},
	"ReduceL2":          {2, reduceAttributes, ofValue((*parser).reduce)},
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
	"Tile":              {2, nil, ofValue((*parser).tile)},
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
	"Neg":       {1, nil, ofValue((*parser).neg)},
	"Sqrt":      {1, nil, (*parser).sqrt},
	"Erf":       {1, nil, elementary(graph.Erf{})},
	"Softplus":  {1, nil, elementary(graph.Softplus{})},
	"Elu":       {1, map[string]int64{"alpha": attributeFloat}, (*parser).elu},
	"Celu":      {1, map[string]int64{"alpha": attributeFloat}, ofValue((*parser).celu)},
	"Selu":      {1, map[string]int64{"alpha": attributeFloat, "gamma": attributeFloat}, ofValue((*parser).selu)},
	"PRelu":     {2, nil, ofAxes((*parser).prelu)},
	"HardSwish": {1, nil, ofValue((*parser).hardSwish)},
	"Swish":     {1, map[string]int64{"alpha": attributeFloat}, ofValue((*parser).swish)},
	"Mish":      {1, nil, ofValue((*parser).mish)},
	"Gelu":      {1, map[string]int64{"approximate": attributeString}, ofValue((*parser).gelu)},
	"LayerNormalization": {3, map[string]int64{
		"axis": attributeInt, "epsilon": attributeFloat, "stash_type": attributeInt,
	}, ofValue((*parser).layerNorm)},
	"InstanceNormalization": {3, map[string]int64{"epsilon": attributeFloat}, ofAxes((*parser).instanceNorm)},
	"GroupNormalization": {3, map[string]int64{
		"epsilon": attributeFloat, "num_groups": attributeInt, "stash_type": attributeInt,
	}, ofAxes((*parser).groupNorm)},
	"LogSoftmax": {1, map[string]int64{"axis": attributeInt}, ofValue((*parser).softmax)},
	"Softmax":    {1, map[string]int64{"axis": attributeInt}, ofValue((*parser).softmax)},
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

// ofValue returns the reading of an operator whose first input is a value, split or not.
func ofValue(read func(p *parser, n *node, x operand) (operand, error)) func(*parser, *node) (operand, error) {
	return func(p *parser, n *node) (operand, error) {
		x, err := p.viewed(n, 0)
		if err != nil {
			return x, err
		}
		return read(p, n, x)
	}
}

// ofAxes is ofValue of a value with axes.
func ofAxes(read func(p *parser, n *node, x operand) (operand, error)) func(*parser, *node) (operand, error) {
	return func(p *parser, n *node) (operand, error) {
		x, err := p.variable(n, 0, 0)
		if err != nil {
			return x, err
		}
		return read(p, n, x)
	}
}

// has reports whether input i of n is given.
func (n *node) has(i int) bool { return i < len(n.inputs) && n.inputs[i] != "" }

// attribute returns an attribute, and whether n has it.
func (n *node) attribute(name string) (attribute, bool) {
	for _, a := range n.attributes {
		if a.name == name {
			return a, true
		}
	}
	return attribute{}, false
}

// float returns an attribute, or otherwise where n does not have it.
func (n *node) float(name string, otherwise float32) float32 {
	if a, ok := n.attribute(name); ok {
		return a.f
	}
	return otherwise
}

// int is float for integers.
func (n *node) int(name string, otherwise int64) int64 {
	if a, ok := n.attribute(name); ok {
		return a.i
	}
	return otherwise
}

// text is float for strings.
func (n *node) text(name, otherwise string) string {
	if a, ok := n.attribute(name); ok {
		return string(a.s)
	}
	return otherwise
}
