"""Writes vectors.json: models made with the onnx package, checked with its
checker, and what onnxruntime computes from them.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
    python vectors.py

Models, inputs and outputs are base64; inputs and outputs are little-endian
float32 in ONNX's order.
"""

import base64
import json

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info, np_dtype_to_tensor_dtype

draws = np.random.default_rng(1)
cases = []


def normal(*shape):
    return draws.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def case(name, shape, rank, nodes, opset=13, batch="N", weights_as="initializers", given=None, **tensors):
    """Adds a model from x (batch x shape) to y, of the given rank, with tensors by name. The elements
    of x are those given, or drawn as floats."""
    tensors = [numpy_helper.from_array(t, k) if isinstance(t, np.ndarray) else t for k, t in tensors.items()]
    kind = TensorProto.FLOAT if given is None else np_dtype_to_tensor_dtype(given.dtype)
    inputs = [make_tensor_value_info("x", kind, [batch, *shape])]
    if weights_as == "inputs":  # as files before IR version 4 do
        inputs += [make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    if weights_as == "constants":
        nodes = [make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
        tensors = []
    output = make_tensor_value_info("y", TensorProto.FLOAT, [batch] + ["d%d" % i for i in range(1, rank)])
    model = make_model(
        make_graph(nodes, "g", inputs, [output], tensors),
        opset_imports=[make_opsetid("", opset)],
        ir_version=3 if weights_as == "inputs" else 8,
    )
    onnx.checker.check_model(model)
    n = 2 if batch == "N" else batch
    x = normal(n, *shape) if given is None else given
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (y,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    text = lambda b: base64.b64encode(b).decode()
    cases.append({
        "Name": name, "Samples": n, "Model": text(model.SerializeToString()),
        "Input": text(x.astype("<f4").tobytes()), "Output": text(y.astype("<f4").tobytes()),
    })


for opset in 7, 9, 11, 13, 17, 21:
    how = {7: "inputs", 9: "constants"}.get(opset, "initializers")
    case(f"mlp, opset {opset}", [5], 2, [
        make_node("MatMul", ["x", "w"], ["a"]),
        make_node("Add", ["a", "b"], ["c"]),
        make_node("Relu", ["c"], ["d"]),
        make_node("Gemm", ["d", "v", "u"], ["e"], alpha=0.5, beta=2.0, transB=1),
        make_node("Softmax", ["e"], ["y"], axis=1),
    ], opset, weights_as=how, w=normal(5, 4), b=normal(4), v=normal(3, 4), u=normal(1, 3))
    case(f"cnn, opset {opset}", [2, 5, 4], 2, [
        make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 1]),
        make_node("Add", ["a", "b"], ["c"]),
        make_node("Mul", ["c", "c"], ["d"]),
        make_node("AveragePool", ["d"], ["e"], kernel_shape=[2, 3], pads=[0, 1, 1, 0], count_include_pad=1),
        make_node("Flatten", ["e"], ["f"]),
        make_node("MatMul", ["f", "v"], ["g"]),
        make_node("Add", ["u", "g"], ["y"]),
    ], opset, weights_as=how, w=normal(3, 2, 3, 2), b=normal(3, 1, 1), v=normal(18, 2), u=normal(2))

for auto in "SAME_UPPER", "SAME_LOWER", "VALID":
    for kernel, strides in ([2, 2], [1, 1]), ([3, 4], [2, 3]), ([4, 1], [3, 2]):
        name = f"{auto}, {kernel}, {strides}"
        window = dict(auto_pad=auto, kernel_shape=kernel, strides=strides)
        case(f"Conv, {name}", [1, 6, 5], 4, [make_node("Conv", ["x", "w", "b"], ["y"], **window)],
             w=normal(2, 1, *kernel), b=normal(2))
        case(f"MaxPool, {name}", [2, 6, 5], 4, [make_node("MaxPool", ["x"], ["y"], **window)])
        case(f"AveragePool, {name}", [2, 6, 5], 4, [make_node("AveragePool", ["x"], ["y"], **window)])

case("groups and dilations", [4, 6, 5], 4,
     [make_node("Conv", ["x", "w"], ["y"], group=2, dilations=[2, 1])], w=normal(6, 2, 2, 3))
case("pads", [1, 5, 5], 4, [make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 2, 1])])
case("pads left out of the mean", [1, 5, 5], 4,
     [make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 2, 1])])

for to in (0, -1), (-1, 24), (-1, 2, 3, 4), (0, 3, -1, 4), (0, 0, -1, 6), (0, 0, 0, 0):
    case(f"Reshape to {to}", [2, 3, 4], len(to), [make_node("Reshape", ["x", "s"], ["y"])], s=ints(*to))
for batch, to in (1, (1, -1)), (2, (2, -1)), (2, (2, 4, 3, -1)), (2, (-1, 24)):
    case(f"Reshape a batch of {batch} to {to}", [2, 3, 4], len(to),
         [make_node("Reshape", ["x", "s"], ["y"])], batch=batch, s=ints(*to))
case("vector to map to vector", [5], 2, [
    make_node("Reshape", ["x", "s"], ["a"]),
    make_node("Conv", ["a", "w"], ["b"]),
    make_node("Flatten", ["b"], ["c"], axis=-3),
    make_node("Gemm", ["c", "v"], ["y"]),
], s=ints(0, 5, 1, 1), w=normal(3, 5, 1, 1), v=normal(3, 2))
case("Reshape of weights", [2, 2, 2], 2, [
    make_node("Reshape", ["x", "s"], ["a"]),
    make_node("Reshape", ["w", "t"], ["v"]),
    make_node("MatMul", ["a", "v"], ["y"]),
], s=ints(0, 8), t=ints(-1, 3), w=normal(2, 2, 2, 3))

case("Dropout and Identity", [4], 2, [
    make_node("Dropout", ["x", "r", "t"], ["a", "mask"]),
    make_node("Identity", ["a"], ["b"]),
    make_node("Relu", ["b"], ["c"]),
    make_node("Dropout", ["c"], ["y"]),
], r=np.array(0.5, dtype=np.float32), t=np.array(False))
case("Dropout, opset 7", [4], 2, [
    make_node("Dropout", ["x"], ["a"], ratio=0.3), make_node("Relu", ["a"], ["y"]),
], 7)
for kind in np.float32, np.int32, np.int64:
    case(f"Pow, {kind.__name__}", [3], 2, [make_node("Pow", ["x", "e"], ["y"])], e=np.array(2, dtype=kind))
case("Add of a scalar", [4], 2, [
    make_node("MatMul", ["x", "w"], ["a"]), make_node("Add", ["a", "b"], ["y"]),
], w=normal(4, 3), b=normal(1))
case("Add to a bias", [2, 4, 4], 4, [
    make_node("Conv", ["x", "w", "b"], ["a"]), make_node("Add", ["a", "c"], ["y"]),
], w=normal(3, 2, 2, 2), b=normal(3), c=normal(1, 3, 1, 1))
case("Gemm with a scalar", [4], 2, [make_node("Gemm", ["x", "w", "c"], ["y"], transB=1)],
     w=normal(3, 4), c=np.array(3, dtype=np.float32))
case("Softmax of a map", [3, 2, 2], 4, [make_node("Softmax", ["x"], ["y"], axis=-3)])
case("Softmax of a map, opset 11", [3, 1, 1], 4, [make_node("Softmax", ["x"], ["y"])], 11)
case("Softmax by default", [3], 2, [make_node("Softmax", ["x"], ["y"])])
case("Softmax by default, opset 11", [3], 2, [make_node("Softmax", ["x"], ["y"])], 11)
case("float_data", [4], 2, [make_node("Gemm", ["x", "w"], ["y"], transB=1)],
     w=make_tensor("w", TensorProto.FLOAT, [3, 4], normal(12).tolist()))
case("Constant of numbers", [4], 2, [
    make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
    make_node("Constant", [], ["c"], value_float=0.5),
    make_node("Constant", [], ["s"], value_ints=[0, 3]),
    make_node("Constant", [], ["e"], value_int=2),
    make_node("Gemm", ["x", "w", "c"], ["a"], transB=1),
    make_node("Add", ["a", "b"], ["d"]),
    make_node("Reshape", ["d", "s"], ["f"]),
    make_node("Pow", ["f", "e"], ["y"]),
], w=normal(3, 4))

def positive(*shape):
    return np.abs(normal(*shape)) + 0.1


def integer(value):
    return np.array(value, dtype=np.int64)


for opset in 7, 8, 9, 13, 14, 15, 21:
    case(f"BatchNormalization after Conv, opset {opset}", [2, 4, 4], 4, [
        make_node("Conv", ["x", "w"], ["a"]),
        make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], epsilon=0.01),
        make_node("Relu", ["c"], ["y"]),
    ], opset, w=normal(3, 2, 2, 2), s=normal(3), b=normal(3), m=normal(3), v=positive(3))
case("BatchNormalization after Conv with a bias", [2, 4, 4], 4, [
    make_node("Conv", ["x", "w", "u"], ["a"], group=2),
    make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"]),
], w=normal(4, 1, 2, 2), u=normal(4), s=normal(4), b=normal(4), m=normal(4), v=positive(4))
case("BatchNormalization after Gemm", [5], 2, [
    make_node("Gemm", ["x", "w", "u"], ["a"], transB=1),
    make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"]),
], w=normal(3, 5), u=normal(3), s=normal(3), b=normal(3), m=normal(3), v=positive(3))
case("BatchNormalization before Conv", [2, 4, 4], 4, [
    make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["a"]),
    make_node("Conv", ["a", "w"], ["b1"], pads=[1, 1, 1, 1]),
    make_node("Relu", ["b1"], ["y"]),
], w=normal(3, 2, 3, 3), s=normal(2), b=normal(2), m=normal(2), v=positive(2))
case("residual blocks", [2, 4, 4], 4, [
    make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
    make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]),
    make_node("Relu", ["c"], ["d"]),
    make_node("Conv", ["d", "w"], ["e"], pads=[1, 1, 1, 1]),
    make_node("BatchNormalization", ["e", "s", "b", "m", "v"], ["f"]),
    make_node("Add", ["f", "x"], ["g"]),
    make_node("Relu", ["g"], ["h"]),
    make_node("BatchNormalization", ["h", "s", "b", "m", "v"], ["i"]),  # as in pre-activation blocks
    make_node("Add", ["h", "i"], ["j"]),
    make_node("Add", ["j", "j"], ["y"]),
], w=normal(2, 2, 3, 3), s=normal(2), b=normal(2), m=normal(2), v=positive(2))

case("normalised input", [3, 2, 2], 4, [
    make_node("Div", ["x", "k"], ["a"]), make_node("Sub", ["a", "m"], ["b"]), make_node("Div", ["b", "s"], ["y"]),
], k=np.array(255, dtype=np.float32), m=normal(1, 3, 1, 1), s=positive(3, 1, 1))
case("normalised vector", [3], 2, [
    make_node("Sub", ["x", "m"], ["a"]), make_node("Mul", ["a", "s"], ["b"]), make_node("Add", ["u", "b"], ["y"]),
], m=normal(3), s=normal(1, 3), u=normal(1))
case("Sub from a constant", [3, 2, 2], 4, [
    make_node("Sub", ["m", "x"], ["a"]), make_node("Mul", ["s", "a"], ["b"]), make_node("Relu", ["b"], ["y"]),
], m=normal(3, 1, 1), s=normal(1, 3, 1, 1))
case("scaled Conv and Gemm", [2, 3, 3], 2, [
    make_node("Conv", ["x", "w", "b"], ["a"]),
    make_node("Mul", ["a", "s"], ["c"]),
    make_node("Sub", ["c", "t"], ["d"]),
    make_node("Flatten", ["d"], ["e"]),
    make_node("MatMul", ["e", "v"], ["f"]),
    make_node("Div", ["f", "u"], ["g"]),
    make_node("Sub", ["k", "g"], ["y"]),
], w=normal(3, 2, 3, 3), b=normal(3), s=normal(3, 1, 1), t=normal(1, 3, 1, 1), v=normal(3, 2), u=positive(2), k=normal(1))

for opset in 7, 10, 11, 12, 13:
    bounds = [("both", -0.5, 0.75), ("min", 0.0, None), ("max", None, 0.25), ("none", None, None)]
    for name, low, high in bounds:
        attributes, inputs, tensors = {}, ["x"], {}
        for bound, v in ("min", low), ("max", high):
            if opset < 11 and v is not None:
                attributes[bound] = v
            if opset >= 11:
                inputs.append("" if v is None else bound)
                if v is not None:
                    tensors[bound] = np.array(v, dtype=np.float32)
        case(f"Clip, {name}, opset {opset}", [5], 2, [make_node("Clip", inputs, ["y"], **attributes)], opset, **tensors)
case("Clip to infinity", [5], 2, [make_node("Clip", ["x", "a", "b"], ["y"])],
     a=np.array(0, dtype=np.float32), b=np.array(np.inf, dtype=np.float32))
for op, attributes in [("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}),
                       ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4})]:
    case(f"{op}, {attributes}", [2, 2, 3], 4, [make_node(op, ["x"], ["y"], **attributes)])

case("Concat of channels", [2, 3, 3], 4, [
    make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
    make_node("Relu", ["x"], ["b"]),
    make_node("Concat", ["a", "b", "x"], ["c"], axis=1),
    make_node("Concat", ["c", "c"], ["y"], axis=-3),
], w=normal(3, 2, 3, 3))
case("Concat of vectors", [3], 2, [
    make_node("Gemm", ["x", "w"], ["a"]), make_node("Concat", ["a", "x"], ["y"], axis=-1),
], w=normal(3, 2))

for op in "GlobalAveragePool", "GlobalMaxPool":
    case(op, [3, 4, 5], 2, [make_node(op, ["x"], ["a"]), make_node("Flatten", ["a"], ["y"])])
for op, first in ("ReduceMean", 18), ("ReduceMax", 18), ("ReduceSum", 13):
    case(f"{op} by attribute", [3, 4, 5], 2, [make_node(op, ["x"], ["y"], axes=[2, 3], keepdims=0)], first - 1)
    case(f"{op} by input", [3, 4, 5], 4, [make_node(op, ["x", "a"], ["y"])], first, a=ints(-1, -2))
case("ReduceMean as a map", [3, 4, 5], 4, [
    make_node("ReduceMean", ["x"], ["a"], axes=[-2, -1]), make_node("Conv", ["a", "w"], ["y"]),
], w=normal(2, 3, 1, 1))
case("sum pooling", [3, 5, 5], 4, [
    make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 3], strides=[2, 1]),
    make_node("Mul", ["a", "s"], ["y"]),
], s=np.array(6, dtype=np.float32))
case("sum pooling with pads", [3, 5, 5], 4, [
    make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 3], pads=[1, 1, 0, 2], count_include_pad=1),
    make_node("Mul", ["a", "s"], ["b"]),
    make_node("Add", ["b", "t"], ["y"]),
], s=np.array(6, dtype=np.float32), t=normal(3, 1, 1))
case("scaled mean with pads", [3, 5, 5], 4, [
    make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 3], pads=[1, 1, 0, 2]),
    make_node("Mul", ["a", "s"], ["y"]),
], s=np.array(6, dtype=np.float32))

# x.view(x.size(0), -1), as exporters of several years write it.
case("view by Gather, opset 9", [2, 3, 4], 2, [
    make_node("Shape", ["x"], ["s"]),
    make_node("Constant", [], ["i"], value=numpy_helper.from_array(integer(0))),
    make_node("Gather", ["s", "i"], ["n"], axis=0),
    make_node("Unsqueeze", ["n"], ["a"], axes=[0]),
    make_node("Constant", [], ["b"], value=numpy_helper.from_array(ints(-1))),
    make_node("Concat", ["a", "b"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], 9)
case("view by Gather, opset 13", [2, 3, 4], 2, [
    make_node("Relu", ["x"], ["r"]),
    make_node("Shape", ["r"], ["s"]),
    make_node("Gather", ["s", "i"], ["n"]),
    make_node("Unsqueeze", ["n", "o"], ["a"]),
    make_node("Concat", ["a", "b"], ["c"], axis=0),
    make_node("Reshape", ["r", "c"], ["y"]),
], i=integer(0), o=ints(0), b=ints(-1))
case("view of all sizes", [2, 3, 4], 2, [
    make_node("Shape", ["x"], ["s"]),
    *[make_node("Gather", ["s", f"i{i}"], [f"n{i}"]) for i in range(4)],
    make_node("Mul", ["n1", "n2"], ["p"]),
    make_node("Mul", ["p", "n3"], ["q"]),
    make_node("Unsqueeze", ["n0", "o"], ["a"]),
    make_node("Unsqueeze", ["q", "o"], ["b"]),
    make_node("Concat", ["a", "b"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], o=ints(0), **{f"i{i}": integer(i if i < 3 else -1) for i in range(4)})
case("view by Slice, opset 9", [2, 3, 4], 2, [
    make_node("Shape", ["x"], ["s"]),
    make_node("Slice", ["s"], ["a"], axes=[0], starts=[0], ends=[1]),
    make_node("Concat", ["a", "b"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], 9, b=ints(-1))
case("view by Slice, opset 13", [2, 3, 4], 4, [
    make_node("Shape", ["x"], ["s"]),
    make_node("Cast", ["s"], ["t"], to=TensorProto.INT32),
    make_node("Slice", ["t", "before", "one", "zero", "one"], ["a"]),
    make_node("Slice", ["t", "minus", "far"], ["d"]),
    make_node("Slice", ["t", "one", "minus"], ["e"]),
    make_node("Cast", ["a"], ["a1"], to=TensorProto.INT64),
    make_node("Cast", ["d"], ["d1"], to=TensorProto.INT64),
    make_node("Cast", ["e"], ["e1"], to=TensorProto.INT64),
    make_node("Concat", ["a1", "d1", "e1"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], before=ints(-9), zero=ints(0), one=ints(1), minus=ints(-1), far=ints(2**63 - 1))
case("view by part of a Shape, opset 15", [2, 3, 4], 2, [
    make_node("Shape", ["x"], ["a"], end=1),
    make_node("Shape", ["x"], ["t"], start=-3),
    make_node("Identity", ["t"], ["u"]),
    make_node("Gather", ["u", "i"], ["v"]),
    make_node("Div", ["v", "i"], ["d"]),
    make_node("Sub", ["d", "i"], ["e"]),
    make_node("Add", ["e", "k"], ["f"]),
    make_node("Concat", ["a", "f"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], 15, i=ints(1), k=ints(22))
case("view of a batch of 2", [2, 3, 4], 2, [
    make_node("Shape", ["x"], ["s"]),
    make_node("Gather", ["s", "i"], ["a"]),
    make_node("Concat", ["a", "b"], ["c"], axis=0),
    make_node("Reshape", ["x", "c"], ["y"]),
], batch=2, i=ints(0), b=ints(24))
case("like another, allowzero", [2, 3, 4], 4, [
    make_node("Flatten", ["x"], ["a"]),
    make_node("Shape", ["x"], ["s"]),
    make_node("Reshape", ["a", "s"], ["y"], allowzero=1),
], 14)
case("like another", [2, 3, 4], 4, [
    make_node("Flatten", ["x"], ["a"]),
    make_node("Relu", ["a"], ["b"]),
    make_node("Shape", ["x"], ["s"]),
    make_node("Reshape", ["b", "s"], ["y"]),
])
for opset in 11, 13:
    axes = {"axes": [2, 3]} if opset < 13 else {}
    more = ["a"] if opset >= 13 else []
    tensors = {"a": ints(2, 3)} if opset >= 13 else {}
    case(f"Squeeze and Unsqueeze, opset {opset}", [3, 4, 5], 4, [
        make_node("GlobalAveragePool", ["x"], ["p"]),
        make_node("Squeeze", ["p"] + more, ["q"], **axes),
        make_node("Gemm", ["q", "w"], ["r"]),
        make_node("Unsqueeze", ["r"] + more, ["t"], **axes),
        make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
    ], opset, w=normal(3, 2), **tensors)
case("what nothing reads", [3], 2, [
    make_node("Gemm", ["x", "w"], ["a"]),
    make_node("Tanh", ["a"], ["b"]),
    make_node("Shape", ["b"], ["s"]),
    make_node("Relu", ["a"], ["y"]),
], w=normal(3, 2))

maps = [3, 4, 5]
for op, attributes in [("Elu", {}), ("Elu", {"alpha": 0.3}), ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 0.7}), ("Celu", {}),
                       ("Celu", {"alpha": 0.4}), ("HardSwish", {}), ("Softplus", {}), ("Erf", {}), ("Neg", {}), ("LogSoftmax", {"axis": 1}),
                       ("LogSoftmax", {}), ("LogSoftmax", {"axis": -2}), ("Softmax", {"axis": 2}), ("Softmax", {"axis": -1})]:
    case(f"{op}, {attributes}", maps, 4, [make_node(op, ["x"], ["y"], **attributes)], 14)
for op, attributes in [("Mish", {}), ("Gelu", {}), ("Gelu", {"approximate": "tanh"})]:
    case(f"{op}, {attributes}", maps, 4, [make_node(op, ["x"], ["y"], **attributes)], 20)
case("Softmax of a sequence, opset 11", [3, 4], 3, [make_node("Softmax", ["x"], ["y"], axis=-1)], 11)
case("Softmax, axis 1 of N x C x 1 x 1, opset 11", [3, 1, 1], 4, [make_node("Softmax", ["x"], ["y"], axis=1)], 11)
case("Sqrt", maps, 4, [make_node("Mul", ["x", "x"], ["a"]), make_node("Sqrt", ["a"], ["y"])])
for slope in (3, 1, 1), (1, 3, 1, 1), (1,), (5,), (4, 1):
    case(f"PRelu, {slope}", maps, 4, [make_node("PRelu", ["x", "s"], ["y"])], s=normal(*slope))
case("PRelu of a vector", [4], 2, [make_node("PRelu", ["x", "s"], ["y"])], s=normal(4))

for op in "Add", "Sub", "Mul", "Div":
    mean = make_node("ReduceMean", ["x"], ["m"], axes=[2, 3])
    shift = make_node("Add", ["m", "k"], ["a"])
    case(f"{op} of a map and one position", maps, 4, [mean, shift, make_node(op, ["x", "a"], ["y"])], k=positive(3, 1, 1) + 5)
    case(f"{op} of a map and a vector", [3, 4, 3], 4, [
        make_node("ReduceMean", ["x"], ["m"], axes=[1, 2]), make_node("Add", ["m", "k"], ["a"]), make_node(op, ["x", "a"], ["y"]),
    ], k=np.array([7], dtype=np.float32))
    if op != "Div":
        case(f"{op} of one position and a map", maps, 4, [mean, shift, make_node(op, ["a", "x"], ["y"])], k=positive(3, 1, 1) + 5)
    case(f"{op} of a row", maps, 4, [make_node(op, ["x", "k"], ["y"])], k=positive(5))
    case(f"{op} of a column", maps, 4, [make_node(op, ["x", "k"], ["y"])], k=positive(4, 1))
    case(f"{op} of two maps, one transposed", [4, 4, 4], 4, [
        make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), make_node("Softplus", ["t"], ["p"]), make_node(op, ["x", "p"], ["y"]),
    ])
case("squeeze and excitation", maps, 4, [
    make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
    make_node("Gemm", ["m", "w", "b"], ["a"]), make_node("Sigmoid", ["a"], ["s"]),
    make_node("Unsqueeze", ["s", "i"], ["u"]), make_node("Mul", ["u", "x"], ["y"]),
], w=normal(3, 3), b=normal(3), i=ints(2, 3))

for perm in [0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 3, 2, 1], [0, 2, 1, 3]:
    case(f"Transpose by {perm}", maps, 4, [make_node("Transpose", ["x"], ["a"], perm=perm), make_node("Tanh", ["a"], ["y"])])
    case(f"Transpose by {perm}, flattened", maps, 2, [
        make_node("Transpose", ["x"], ["a"], perm=perm), make_node("Flatten", ["a"], ["b"]), make_node("MatMul", ["b", "w"], ["y"]),
    ], w=normal(60, 2))
    case(f"Conv of NHWC, by {perm} back", [4, 5, 3], 4, [
        make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]), make_node("Conv", ["a", "w"], ["b"], pads=[0, 1, 1, 0]),
        make_node("Relu", ["b"], ["c"]), make_node("Transpose", ["c"], ["d"], perm=perm), make_node("Mul", ["d", "s"], ["y"]),
    ], w=normal(2, 3, 2, 3), s=normal(1))
case("scaled channels last", maps, 4, [
    make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), make_node("Mul", ["a", "s"], ["b"]), make_node("Add", ["b", "t"], ["c"]),
    make_node("Transpose", ["c"], ["y"], perm=[0, 3, 1, 2]),
], s=normal(3), t=normal(1, 1, 1, 3))
case("MatMul of channels last", maps, 4, [
    make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), make_node("MatMul", ["a", "w"], ["b"]), make_node("Add", ["b", "t"], ["y"]),
], w=normal(3, 2), t=normal(2))
case("MatMul of columns", maps, 4, [make_node("MatMul", ["x", "w"], ["y"])], w=normal(5, 2))
case("MatMul of a sequence", [4, 5], 3, [make_node("MatMul", ["x", "w"], ["a"]), make_node("Add", ["a", "t"], ["y"])], w=normal(5, 2), t=normal(2))
case("weights transposed", [4], 2, [make_node("Transpose", ["w"], ["v"]), make_node("MatMul", ["x", "v"], ["y"])], w=normal(3, 4))
case("weights in another order", [2, 4, 4], 4, [make_node("Transpose", ["w"], ["v"], perm=[3, 2, 0, 1]), make_node("Conv", ["x", "v"], ["y"])], w=normal(2, 3, 2, 5))
case("shuffle of channels", [6, 3, 4], 4, [
    make_node("Reshape", ["x", "s"], ["a"]), make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]), make_node("Reshape", ["b", "t"], ["y"]),
], s=ints(0, 2, 3, 3, 4), t=ints(0, 6, 3, 4))
case("pixels from channels", [8, 3, 2], 4, [
    make_node("Reshape", ["x", "s"], ["a"]), make_node("Transpose", ["a"], ["b"], perm=[0, 3, 4, 1, 5, 2]), make_node("Reshape", ["b", "t"], ["y"]),
], s=ints(-1, 2, 2, 2, 3, 2), t=ints(0, 2, 6, 4))
case("turned twice", [8, 3, 2], 2, [
    make_node("Transpose", ["x"], ["u"], perm=[0, 3, 1, 2]), make_node("Reshape", ["u", "s"], ["a"]),
    make_node("Transpose", ["a"], ["b"], perm=[0, 4, 1, 3, 2]), make_node("Transpose", ["b"], ["c"], perm=[0, 2, 4, 1, 3]),
    make_node("Reshape", ["c", "t"], ["d"]), make_node("Transpose", ["d"], ["e"], perm=[0, 2, 1]), make_node("Flatten", ["e"], ["y"]),
], s=ints(0, 2, 4, 2, 3), t=ints(0, 6, 8))

case("sequence", [3, 9], 2, [
    make_node("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3], strides=[2], pads=[1, 0], dilations=[2]), make_node("Relu", ["a"], ["c"]),
    make_node("MaxPool", ["c"], ["d"], kernel_shape=[2]), make_node("GlobalAveragePool", ["d"], ["e"]), make_node("Flatten", ["e"], ["y"]),
], w=normal(4, 3, 3), b=normal(4))
case("sequence, flattened", [3, 9], 2, [
    make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_LOWER", kernel_shape=[4], strides=[2]),
    make_node("AveragePool", ["a"], ["b"], kernel_shape=[2], pads=[1, 0], count_include_pad=1),
    make_node("Flatten", ["b"], ["c"]), make_node("MatMul", ["c", "v"], ["y"]),
], w=normal(4, 3, 4), v=normal(20, 2))
case("a map of one row", [3, 9], 3, [
    make_node("Unsqueeze", ["x", "i"], ["a"]), make_node("Conv", ["a", "w"], ["b"]), make_node("Squeeze", ["b", "i"], ["y"]),
], w=normal(4, 3, 1, 2), i=ints(2))
case("a map of one column", [3, 9], 3, [
    make_node("Unsqueeze", ["x", "i"], ["a"]), make_node("Conv", ["a", "w"], ["b"]), make_node("Squeeze", ["b", "i"], ["y"]),
], w=normal(4, 3, 2, 1), i=ints(-1))
case("a map of one channel", [8, 9], 3, [
    make_node("Unsqueeze", ["x", "i"], ["a"]), make_node("Conv", ["a", "w"], ["b"]), make_node("Squeeze", ["b", "i"], ["y"]),
], w=normal(1, 1, 2, 3), i=ints(1))

for axes in [1], [2], [3], [1, 2], [1, 3], [1, 2, 3], [2, 3]:
    for keep in 0, 1:
        if keep or len(axes) < 3:
            case(f"ReduceMean over {axes}, keepdims {keep}", maps, 4 if keep else 4 - len(axes),
                 [make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=keep)])
case("ReduceMax over columns", maps, 3, [make_node("ReduceMax", ["x"], ["y"], axes=[-1], keepdims=0)])
case("ReduceSum over rows", maps, 4, [make_node("ReduceSum", ["x", "a"], ["y"])], a=ints(2))

case("Split in halves, opset 11", [4, 2, 3], 4, [make_node("Split", ["x"], ["a", "b"], axis=1), make_node("Sub", ["a", "b"], ["y"])], 11)
case("Split by attribute, opset 11", [4, 2, 3], 4, [
    make_node("Split", ["x"], ["a", "b", "c"], axis=-3, split=[1, 2, 1]), make_node("Concat", ["c", "a", "b"], ["y"], axis=1)], 11)
case("Split by input", [5, 2, 3], 4, [
    make_node("Split", ["x", "s"], ["a", "b"], axis=1), make_node("Concat", ["b", "a"], ["y"], axis=1)], s=ints(2, 3))
case("Split of rows", [2, 5, 3], 4, [
    make_node("Split", ["x", "s"], ["a", "b"], axis=2), make_node("Concat", ["b", "a"], ["y"], axis=2)], s=ints(2, 3))
case("Split into three of five, opset 18", [5], 2, [
    make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3), make_node("Concat", ["c", "b", "a"], ["y"], axis=1)], 18)
case("Split in halves, one unread", [4], 2, [make_node("Split", ["x"], ["y", "b"], axis=1)])
case("Slice", [4, 5, 6], 4, [make_node("Slice", ["x", "s", "e", "a"], ["y"])], s=ints(1, -3, 0), e=ints(3, -1, 99), a=ints(1, -1, 2))
case("Slice of all axes", [4, 5, 6], 4, [make_node("Slice", ["x", "s", "e"], ["y"])], s=ints(0, 0, 1, 1), e=ints(2**63 - 1, 2, 5, -1))
case("Slice, opset 9", [4, 5, 6], 4, [make_node("Slice", ["x"], ["y"], starts=[1], ends=[4], axes=[3])], 9)
case("Slice to half of a Shape", [4, 2, 3], 4, [
    make_node("Shape", ["x"], ["s"]), make_node("Gather", ["s", "i"], ["n"]), make_node("Div", ["n", "two"], ["h"]),
    make_node("Slice", ["x", "z", "h", "i"], ["a"]), make_node("Slice", ["x", "h", "n", "i"], ["b"]), make_node("Sub", ["a", "b"], ["y"]),
], i=ints(1), z=ints(0), two=ints(2))
for i in integer(1), integer(-1), ints(2):
    case(f"Gather of {i}", [3, 2, 4], 4 - (i.ndim == 0), [make_node("Gather", ["x", "i"], ["y"], axis=1)], i=i)
case("Gather of a row", [3, 2, 4], 2, [make_node("Gather", ["x", "i"], ["a"], axis=2), make_node("Flatten", ["a"], ["y"])], i=integer(1))
case("Pad, opset 7", maps, 4, [make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 1, 0, 3], value=0.5)], 7)
case("Pad", maps, 4, [make_node("Pad", ["x", "p"], ["y"])], p=ints(0, 1, 1, 2, 0, 0, 1, 3))
case("Pad of an axis, opset 18", maps, 4, [make_node("Pad", ["x", "p", "v", "a"], ["y"])], 18, p=ints(1, 2, 3, 0), v=np.array(-1, dtype=np.float32), a=ints(-1, 1))
case("Pad before Conv", maps, 4, [make_node("Pad", ["x", "p"], ["a"]), make_node("Conv", ["a", "w"], ["y"], pads=[1, 0, 0, 1])],
     p=ints(0, 0, 1, 0, 0, 0, 0, 1), w=normal(2, 3, 3, 3))
case("Pad with ones before Conv", maps, 4, [make_node("Pad", ["x", "p", "v"], ["a"]), make_node("Conv", ["a", "w"], ["y"])],
     p=ints(0, 0, 1, 0, 0, 0, 0, 1), v=np.array(1, dtype=np.float32), w=normal(2, 3, 3, 3))
case("Pad before SAME", maps, 4, [make_node("Pad", ["x", "p"], ["a"]), make_node("Conv", ["a", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
     p=ints(0, 0, 1, 0, 0, 0, 1, 1), w=normal(2, 3, 3, 3))

for op in "MaxPool", "AveragePool":
    for kernel, strides, pads in ([3, 2], [2, 2], [0, 0, 0, 0]), ([3, 3], [2, 3], [1, 0, 1, 1]), ([2, 2], [2, 2], [0, 0, 0, 0]), ([4, 2], [2, 2], [1, 0, 0, 1]):
        case(f"{op}, ceil_mode, {kernel}, {strides}, {pads}", [2, 6, 5], 4, [
            make_node(op, ["x"], ["y"], kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=1)])

case("LayerNormalization", [5], 2, [make_node("LayerNormalization", ["x", "s", "b"], ["y"], epsilon=0.01)], 17, s=normal(5), b=normal(5))
case("LayerNormalization of channels last", maps, 4, [
    make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), make_node("LayerNormalization", ["a", "s"], ["y"])], 17, s=normal(3))
case("LayerNormalization of columns", maps, 4, [make_node("LayerNormalization", ["x", "s", "b"], ["y"], axis=3)], 17, s=normal(5), b=normal(5))
case("LayerNormalization of all", maps, 4, [make_node("LayerNormalization", ["x", "s"], ["y"], axis=1)], 17, s=np.ones((1, 1, 1), np.float32) * 2)
case("InstanceNormalization", maps, 4, [make_node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=0.1)], s=normal(3), b=normal(3))
case("groups by InstanceNormalization", [4, 3, 5], 4, [
    make_node("Reshape", ["x", "g"], ["a"]), make_node("InstanceNormalization", ["a", "one", "zero"], ["b"]),
    make_node("Shape", ["x"], ["h"]), make_node("Reshape", ["b", "h"], ["c"]), make_node("Mul", ["c", "s"], ["y"]),
], g=ints(0, 2, -1), one=np.ones(2, np.float32), zero=np.zeros(2, np.float32), s=normal(4, 1, 1))
case("GroupNormalization, opset 21", [4, 3, 5], 4, [make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], 21, s=normal(4), b=normal(4))
case("BatchNormalization of a sequence", [3, 5], 3, [make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])],
     s=normal(3), b=normal(3), m=normal(3), v=positive(3))
case("norm by its parts", maps, 4, [
    make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), make_node("ReduceMean", ["t"], ["m"], axes=[-1]), make_node("Sub", ["t", "m"], ["d"]),
    make_node("Pow", ["d", "two"], ["q"]), make_node("ReduceMean", ["q"], ["v"], axes=[-1]), make_node("Add", ["v", "e"], ["w"]),
    make_node("Sqrt", ["w"], ["r"]), make_node("Div", ["d", "r"], ["n"]), make_node("Mul", ["n", "s"], ["y"]),
], two=np.array(2, dtype=np.float32), e=np.array(1e-5, dtype=np.float32), s=normal(3))

for kernel, strides, dilations, more, pads, size in (
    ([2, 2], [2, 2], [1, 1], [0, 0], [0, 0, 0, 0], [2, 3]), ([3, 3], [2, 2], [1, 1], [1, 1], [1, 1, 1, 1], [3, 2]), ([4, 4], [2, 2], [1, 1], [0, 0], [1, 1, 1, 1], [3, 4]),
    ([5, 2], [3, 1], [1, 1], [2, 0], [0, 1, 3, 0], [2, 4]), ([3, 2], [2, 3], [2, 1], [0, 2], [1, 0, 2, 0], [3, 3]), ([1, 3], [3, 1], [1, 2], [2, 0], [0, 2, 0, 3], [2, 2]),
    ([4, 3], [1, 1], [1, 1], [0, 0], [0, 0, 0, 0], [1, 1]), ([4, 3], [1, 2], [1, 1], [0, 0], [2, 1, 1, 0], [1, 3]), ([3], [2], [1], [1], [1, 0], [4]),
):
    for group in 1, 2:
        case(f"ConvTranspose, {kernel}, {strides}, {dilations}, {more}, {pads}, {size}, groups of {4 // group}", [4, *size], len(size) + 2, [
            make_node("ConvTranspose", ["x", "w"] + ["b"] * (group == 1), ["y"], strides=strides, dilations=dilations, output_padding=more, pads=pads, group=group)],
             w=normal(4, 3, *kernel), b=normal(3))
case("BatchNormalization after ConvTranspose", [3, 3, 2], 4, [
    make_node("ConvTranspose", ["x", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1], group=3), make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]), make_node("Relu", ["c"], ["y"])],
     w=normal(3, 2, 4, 4), s=normal(6), b=normal(6), m=normal(6), v=positive(6))

places = "half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"
for mode, roundings in ("nearest", ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")), ("linear", ("",)), ("cubic", ("",)):
    for how in places:
        for rounding in roundings:
            named = {"mode": mode, "coordinate_transformation_mode": how, **({"nearest_mode": rounding} if rounding else {})}
            case(f"Resize by scales, {mode}, {how}, {rounding}", [2, 4, 5], 4, [make_node("Resize", ["x", "", "s"], ["y"], **named)], s=np.array([1, 1, 2, 0.7], dtype=np.float32))
            case(f"Resize to sizes, {mode}, {how}, {rounding}", [2, 7, 3], 4, [
                make_node("Shape", ["x"], ["h"]), make_node("Slice", ["h", "z", "t"], ["k"]), make_node("Concat", ["k", "m"], ["s"], axis=0), make_node("Resize", ["x", "", "", "s"], ["y"], **named)],
                 z=ints(0), t=ints(2), m=ints(8, 1))
case("Resize of axes, opset 18", [2, 4, 5], 4, [make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", axes=[3, 2])], 18, s=ints(9, 3))
case("Resize of a sequence", [2, 4], 3, [make_node("Resize", ["x", "", "s"], ["y"], mode="linear")], s=np.array([1, 1, 2.5], dtype=np.float32))
case("Resize, opset 10", [2, 4, 5], 4, [make_node("Resize", ["x", "s"], ["y"], mode="linear")], 10, s=np.array([1, 1, 1.5, 3], dtype=np.float32))
for opset, mode in (7, "nearest"), (7, "linear"), (9, "nearest"), (9, "linear"):
    scales = [1.0, 1.0, 2.0, 1.5]
    case(f"Upsample, {mode}, opset {opset}", [2, 4, 5], 4, [make_node("Upsample", ["x"] + ["s"] * (opset > 7), ["y"], mode=mode, **({"scales": scales} if opset == 7 else {}))],
         opset, **({"s": np.array(scales, dtype=np.float32)} if opset > 7 else {}))

for mode in "reflect", "edge", "wrap":
    case(f"Pad, {mode}", maps, 4, [make_node("Pad", ["x", "p"], ["y"], mode=mode)], 19, p=ints(0, 1, 3, 2, 0, 0, 1, 3))
case("Pad to less", maps, 4, [make_node("Pad", ["x", "p", "v"], ["y"])], p=ints(0, -1, 1, -2, 0, 1, -2, 0), v=np.array(2, dtype=np.float32))
for op in "Max", "Min":
    case(f"{op} of three", maps, 4, [make_node("Relu", ["x"], ["a"]), make_node("Neg", ["x"], ["b"]), make_node("GlobalAveragePool", ["x"], ["c"]), make_node(op, ["c", "b", "a"], ["y"])])
    case(f"{op} of numbers and a value", maps, 4, [make_node(op, ["n", "x", "m"], ["y"])], n=np.array(0.1, dtype=np.float32), m=np.array([-0.2], dtype=np.float32))
case("Slice backwards", maps, 4, [make_node("Slice", ["x", "a", "b", "c", "d"], ["y"])], a=ints(-1, 5, 9), b=ints(-9, 0, -5), c=ints(2, 3, 1), d=ints(-1, -2, -1))
case("Slice of channels in steps", [7, 2, 2], 4, [make_node("Slice", ["x", "a", "b", "c", "d"], ["y"])], a=ints(1), b=ints(99), c=ints(1), d=ints(3))
for axis in 1, 2, 3:
    case(f"Gather of many along {axis}", maps, 4, [make_node("Gather", ["x", "i"], ["y"], axis=axis)], i=ints(2, -1, 0, 1, *[1, 2] * 8))
case("Gather of channels of a vector", [5], 2, [make_node("Gather", ["x", "i"], ["y"], axis=1)], i=ints(4, 3, 2, 1, 0))

case("sizes by Mod and a shape's shape", [6], 3, [
    make_node("Mod", ["a", "b"], ["m"]), make_node("Shape", ["x"], ["s"]), make_node("Shape", ["s"], ["t"]), make_node("Concat", ["z", "m", "t"], ["u"], axis=0), make_node("Reshape", ["x", "u"], ["y"])],
     a=ints(-7), b=ints(5), z=ints(0))

for op in "Greater", "GreaterOrEqual", "Less", "LessOrEqual":
    case(f"{op} of two", maps, 4, [make_node("Neg", ["x"], ["a"]), make_node(op, ["x", "a"], ["c"]), make_node("Where", ["c", "x", "n"], ["y"])], 16, n=np.array(0.5, dtype=np.float32))
    case(f"{op} of a mean", maps, 4, [make_node("GlobalAveragePool", ["x"], ["a"]), make_node(op, ["a", "x"], ["c"]), make_node("Where", ["c", "a", "x"], ["y"])], 16)
    case(f"{op} of a number", maps, 4, [make_node(op, ["n", "x"], ["c"]), make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)], 16, n=np.array(0.5, dtype=np.float32))
    case(f"{op} of numbers a channel", maps, 4, [make_node(op, ["x", "n"], ["c"]), make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)], 16, n=normal(3, 1, 1))
for op in "And", "Or":
    for first in "Greater", "LessOrEqual":
        for second in "Less", "GreaterOrEqual":
            case(f"{op} of {first} and {second}", maps, 4, [make_node(first, ["x", "m"], ["a"]), make_node(second, ["x", "n"], ["b"]), make_node(op, ["a", "b"], ["c"]), make_node("Not", ["c"], ["d"]),
                 make_node("Where", ["d", "n", "x"], ["y"])], 16, m=np.array(-0.3, dtype=np.float32), n=np.array(0.4, dtype=np.float32))
case("Sign", maps, 4, [make_node("Relu", ["x"], ["a"]), make_node("Add", ["a", "x"], ["b"]), make_node("Sign", ["b"], ["c"]), make_node("Sign", ["a"], ["d"]), make_node("Sub", ["c", "d"], ["y"])])
for kernel, dilations, strides, pads in ([3, 2], [2, 3], [1, 1], [1, 0, 2, 1]), ([2, 1], [2, 1], [2, 3], [0, 0, 0, 0]), ([1, 3], [1, 2], [1, 2], [0, 2, 0, 2]):
    case(f"MaxPool, {kernel}, {dilations}, {strides}, {pads}", [2, 6, 7], 4, [make_node("MaxPool", ["x"], ["y"], kernel_shape=kernel, dilations=dilations, strides=strides, pads=pads)])
case("MaxPool of a sequence, dilated", [2, 6], 3, [make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], dilations=[3])])
for size in 3, 5:
    case(f"LRN of {size}", [7, 3, 2], 4, [make_node("LRN", ["x"], ["y"], size=size, alpha=0.3, beta=0.6, bias=1.5)])
case("GatherND of channels", [3, 2, 4], 4, [
    make_node("Transpose", ["x"], ["a"], perm=[1, 0, 2, 3]), make_node("GatherND", ["a", "i"], ["b"]), make_node("Transpose", ["b"], ["y"], perm=[1, 0, 2, 3])], i=np.array([[2], [-2], [0], [0]]))
case("GatherND of a grid", [2, 3, 4], 4, [
    make_node("Transpose", ["x"], ["a"], perm=[2, 3, 0, 1]), make_node("GatherND", ["a", "i"], ["b"]), make_node("Transpose", ["b"], ["y"], perm=[2, 3, 0, 1])],
     i=np.stack(np.meshgrid([2, 0, 1, 1], [3, -1, 0], indexing="ij"), -1))
case("GatherND of windows", [2, 3, 4], 4, [
    make_node("Transpose", ["x"], ["a"], perm=[2, 3, 0, 1]), make_node("GatherND", ["a", "i"], ["b"]), make_node("Transpose", ["b"], ["c"], perm=[4, 5, 0, 1, 2, 3]), make_node("ReduceMean", ["c"], ["y"], axes=[-3, -1], keepdims=0)],
     i=np.stack(np.meshgrid([0, 1, 1, 2], [0, 1, 1, 2, 2, 3], indexing="ij"), -1).reshape(2, 2, 3, 2, 2))
for op in "ReduceMax", "ReduceMean", "ReduceSum":
    for keep in 0, 1:
        case(f"{op} of a split, {keep}", [4, 3, 4], 3 - keep, [make_node("Reshape", ["x", "s"], ["a"])] + [make_node(op, ["a"] + ["i"] * (op == "ReduceSum"), ["b"], keepdims=keep, **({} if op == "ReduceSum" else {"axes": [2, 3, -1]}))] +
             ([make_node("Flatten", ["b"], ["y"])] if keep else [make_node("Reshape", ["b", "t"], ["y"])]), s=ints(0, 2, 2, 3, 2, 2), t=ints(0, 2, 2), i=ints(2, 3, -1))

for how in {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [5, 3]}, {"output_shape": [4, 6], "auto_pad": "SAME_UPPER"}:
    case(f"ConvTranspose, {how}", [2, 3, 2], 4, [make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 3], **how)], w=normal(2, 3, 3, 4))
case("ConvTranspose of a sequence to a length", [2, 3], 3, [make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], output_shape=[5])], w=normal(2, 3, 4))

case("Tile", maps, 4, [make_node("Tile", ["x", "r"], ["y"])], r=ints(1, 2, 1, 3))
case("Tile of what is split", [4, 3, 2], 4, [make_node("Reshape", ["x", "s"], ["a"]), make_node("Tile", ["a", "r"], ["b"]), make_node("Reshape", ["b", "t"], ["y"])],
     s=ints(0, 2, 2, 3, 2), r=ints(1, 2, 1, 1, 3), t=ints(0, 4, 6, 6))
case("elements repeated", [2, 3, 4], 4, [
    make_node("Unsqueeze", ["x", "i"], ["a"]), make_node("Tile", ["a", "r"], ["b"]), make_node("Squeeze", ["b", "j"], ["c"]), make_node("Reshape", ["c", "t"], ["y"])], i=ints(3, 5), j=ints(5), r=ints(1, 1, 1, 2, 1, 1), t=ints(0, 2, 6, 4))

case("LRN behind a softmax over rows", [5, 3, 2], 4, [make_node("Softmax", ["x"], ["a"], axis=2), make_node("LRN", ["a"], ["y"], size=3, alpha=3.0, beta=0.6)])
case("ReduceL2 of a split", [4, 3, 4], 4, [make_node("Reshape", ["x", "s"], ["a"]), make_node("ReduceL2", ["a"], ["y"], axes=[2, -1], keepdims=0)], s=ints(0, 2, 2, 3, 2, 2))
case("places of a split", [4, 3, 4], 2, [make_node("Reshape", ["x", "s"], ["a"]), make_node("Gather", ["a", "i"], ["b"], axis=3), make_node("Flatten", ["b"], ["y"])], s=ints(0, 2, 2, 3, 2, 2), i=ints(2, 0, -1, 0))

ids = ints(7, 3, 0, -2, 1, 0, -5, 9, 2, 0).reshape(2, 5)
for kind in np.int64, np.int32:
    zero = np.array(0, dtype=kind)
    for op, order in ("Greater", ["x", "n"]), ("Less", ["n", "x"]):
        case(f"{op} of {np.dtype(kind).name} and 0", [5], 2, [make_node(op, order, ["c"]), make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)], given=ids.astype(kind), n=zero)
    case(f"{np.dtype(kind).name} above 0, moved, as integers", [5], 3, [
        make_node("Greater", ["x", "n"], ["a"]), make_node("Unsqueeze", ["a", "i"], ["b"]), make_node("Slice", ["b", "i", "j", "j"], ["c"]),
        make_node("Cast", ["c"], ["d"], to=TensorProto.INT64), make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT)], given=ids.astype(kind), n=zero, i=ints(1), j=ints(2))
case("integers as floats, above 0", [5], 2, [
    make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT), make_node("Greater", ["a", "n"], ["b"]), make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)], given=ids, n=np.array(0, dtype=np.float32))
case("bools as numbers", [5], 2, [make_node("Not", ["x"], ["a"]), make_node("Not", ["a"], ["b"]), make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT), make_node("Neg", ["c"], ["y"])], given=ids > 0)

pixels = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5) * 2 + 16
case("image of bytes", [3, 4, 5], 4, [
    make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT), make_node("Div", ["a", "n"], ["b"]), make_node("Conv", ["b", "w"], ["y"])],
     given=pixels, n=np.array(255, dtype=np.float32), w=normal(2, 3, 2, 2))
case("bytes added as integers", [3, 4, 5], 4, [
    make_node("Cast", ["x"], ["a"], to=TensorProto.INT64), make_node("Add", ["a", "a"], ["b"]), make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)], given=pixels)

case("integers by a comparison", [5], 2, [
    make_node("LessOrEqual", ["x", "z"], ["a"]), make_node("Where", ["a", "i", "j"], ["b"]), make_node("Add", ["b", "k"], ["c"]), make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)],
     z=np.array(0, dtype=np.float32), i=np.array(-1), j=np.array(4), k=np.array([1, 2, 3, -4, 5]))

case("ReduceL2 of no axes", [2, 3], 3, [make_node("ReduceL2", ["x"], ["a"], noop_with_empty_axes=1), make_node("Sigmoid", ["a"], ["y"])], 18)

case("Conv of every second, SAME", [1, 8, 6], 4, [make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_LOWER")], w=normal(2, 1, 1, 1))

with open("vectors.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
