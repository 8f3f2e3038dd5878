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
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info

draws = np.random.default_rng(1)
cases = []


def normal(*shape):
    return draws.normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def case(name, shape, rank, nodes, opset=13, batch="N", weights_as="initializers", **tensors):
    """Adds a model from x (batch x shape) to y, of the given rank, with tensors by name."""
    tensors = [numpy_helper.from_array(t, k) if isinstance(t, np.ndarray) else t for k, t in tensors.items()]
    inputs = [make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])]
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
    x = normal(n, *shape)
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

with open("vectors.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
