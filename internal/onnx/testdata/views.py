"""Writes views.json: random networks whose dimensions are divided, merged and permuted, the
batch's too, and what onnxruntime computes from them. The form is that of vectors.json.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
    python views.py

Those are kept that package onnx reads; it refuses others, as for a softmax over samples.
"""

import base64
import json
import random

import numpy as np
import onnx
import onnxruntime
from onnx import helper

onnxruntime.set_default_logger_severity(4)
SYMBOLIC = 7  # divides no other dimension


def primes(n):
    """The prime factors of n."""
    p = next((p for p in range(2, n) if n % p == 0), n)
    return [p] * (n > 1) + (primes(n // p) if p < n else [])


class Net:
    """A network under construction. Its values are names and shapes for the batch that it is run with."""

    def __init__(self, seed, batch):
        self.r, self.np, self.symbolic = random.Random(seed), np.random.RandomState(seed), batch is None
        self.batch = SYMBOLIC if self.symbolic else batch
        self.dims = [self.r.choice([1, 2, 3, 4, 6]) for _ in range(self.r.choice([1, 2, 3]))]
        self.nodes, self.weights, self.values = [], [], [("x", [self.batch] + self.dims)]

    def name(self):
        return f"v{len(self.nodes) + len(self.weights)}"

    def constant(self, a):
        name = self.name()
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(a), name))
        return name

    def ints(self, *v):
        return self.constant(np.array(v, np.int64))

    def floats(self, *shape):
        return self.constant(self.np.randn(*shape, 1)[..., 0].astype("f4"))

    def emit(self, op, inputs, shape, **attributes):
        name = self.name()
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.values.append((name, list(shape)))
        return name

    def samples(self, n):
        """Whether a dimension of n is, or may be, that of samples."""
        return self.symbolic and n % SYMBOLIC == 0

    def regrouped(self, shape):
        """A shape of as many elements: two dimensions merged, one divided, or any."""
        r, d = self.r, list(shape)
        if r.random() < 0.5:
            i = r.randrange(len(d))
            f = primes(d[i])
            if i + 1 < len(d) and r.random() < 0.5:
                d[i:i + 2] = [d[i] * d[i + 1]]
            elif len(f) > 1:
                r.shuffle(f)
                cut = r.randrange(1, len(f))
                d[i:i + 1] = [int(np.prod(f[:cut])), int(np.prod(f[cut:]))]
            else:
                d.insert(i, 1)
            return d
        f = primes(int(np.prod(d)))
        cuts = sorted(r.randrange(len(f) + 1) for _ in range(r.randrange(5)))
        return [int(np.prod(f[a:b])) for a, b in zip([0] + cuts, cuts + [len(f)])]

    def step(self):
        r = self.r
        x, shape = self.values[-1] if r.random() < 0.85 else r.choice(self.values)
        rank = len(shape)
        i = r.randrange(rank)
        without = [d for j, d in enumerate(shape) if j != i]
        op = r.choice(["Reshape"] * 3 + ["Transpose"] * 3 + ["MatMul", "product", "Softmax", "constant", "Erf", "Slice", "Gather", "Split",
                      "Concat", "LayerNormalization", "ReduceMean", "Unsqueeze", "Squeeze", "Add", "token"])
        if op == "Reshape":
            to = self.regrouped(shape)
            given = [-1 if self.samples(d) else d for d in to]
            if given.count(-1) == (1 if self.symbolic else 0):
                self.emit(op, [x, self.ints(*given)], to)
        elif op == "Transpose":
            perm = r.sample(range(rank), rank)
            self.emit(op, [x], [shape[j] for j in perm], perm=perm)
        elif op == "MatMul" and rank > 1 and not self.samples(shape[-1]):
            to = r.choice([1, 2, 3, 4])
            self.emit(op, [x, self.floats(shape[-1], to)], shape[:-1] + [to])
        elif op == "product" and rank > 2 and not any(self.samples(d) for d in shape[-2:]):
            t = self.emit("Transpose", [x], shape[:-2] + [shape[-1], shape[-2]], perm=[*range(rank - 2), rank - 1, rank - 2])
            a, b, n = r.choice([(x, t, shape[-2]), (t, x, shape[-1])])
            self.emit("MatMul", [a, b], shape[:-2] + [n, n])
        elif op == "Softmax":
            self.emit(op, [x], shape, axis=i)
        elif op == "constant":
            of = [d if r.random() < 0.5 and not self.samples(d) else 1 for d in shape]
            inputs = [x, self.floats(*of[r.randrange(2) * (of[0] == 1):])]
            self.emit(r.choice(["Add", "Sub", "Mul"]), r.sample(inputs, 2), shape)
        elif op == "Erf":
            self.emit(op, [x], shape)
        elif op in ("Slice", "Gather", "Split") and shape[i] > 1 and not self.samples(shape[i]):
            at = r.randrange(1, shape[i])
            if op == "Slice":
                self.emit(op, [x, self.ints(at), self.ints(shape[i]), self.ints(i)], shape[:i] + [shape[i] - at] + shape[i + 1:])
            elif op == "Gather" and rank > 2:
                self.emit(op, [x, self.constant(np.array(at))], without, axis=i)
            elif op == "Split":
                sizes, a = self.ints(at, shape[i] - at), self.name() + "a"
                b = self.emit(op, [x, sizes], shape[:i] + [at] + shape[i + 1:], axis=i)
                self.nodes[-1].output.append(a)
                self.values.append((a, shape[:i] + [shape[i] - at] + shape[i + 1:]))
        elif op == "Concat" and not self.samples(shape[i]):
            y, s = r.choice([v for v in self.values if len(v[1]) == rank and [d for j, d in enumerate(v[1]) if j != i] == without])
            self.emit(op, [x, y], shape[:i] + [shape[i] + s[i]] + shape[i + 1:], axis=i)
        elif op == "LayerNormalization" and not any(self.samples(d) for d in shape[i:]):
            self.emit(op, [x, self.floats(*shape[i:]), self.floats(*shape[i:])], shape, axis=i)
        elif op == "ReduceMean" and rank > 2 and not self.samples(shape[i]):
            keep = r.randrange(2)
            self.emit(op, [x, self.ints(i)], shape[:i] + [1] + shape[i + 1:] if keep else without, keepdims=keep)
        elif op == "Unsqueeze":
            self.emit(op, [x, self.ints(i)], shape[:i] + [1] + shape[i:])
        elif op == "Squeeze" and rank > 2 and shape[i] == 1:
            self.emit(op, [x, self.ints(i)], without)
        elif op == "Add":
            y, s = r.choice([v for v in self.values if len(v[1]) == rank and all(a == b or 1 in (a, b) for a, b in zip(v[1], shape))])
            self.emit(r.choice(["Add", "Sub", "Mul"]), [x, y], [max(a, b) for a, b in zip(s, shape)])
        elif op == "token" and self.symbolic and i > 0 and shape[0] == SYMBOLIC:
            self.nodes.append(helper.make_node("Shape", ["x"], [n := self.name()], start=0, end=1))
            of = [1] + shape[1:i] + [1] + shape[i + 1:]
            self.nodes.append(helper.make_node("Concat", [n, self.ints(*of[1:])], [n := self.name()], axis=0))
            self.nodes.append(helper.make_node("Expand", [self.floats(*of), n], [n := self.name()]))
            self.emit("Concat", r.sample([n, x], 2), shape[:i] + [shape[i] + 1] + shape[i + 1:], axis=i)

    def finish(self):
        """Brings the batch to the front, of N x C, if what is left of it is whole."""
        x, shape = self.values[-1]
        n = int(np.prod(shape)) // self.batch
        if n * self.batch != np.prod(shape):
            return None
        if self.symbolic:
            i = [self.samples(d) for d in shape].index(True)
            perm = [i] + [j for j in range(len(shape)) if j != i]
            x = self.emit("Transpose", [x], [shape[j] for j in perm], perm=perm)
        return self.emit("Reshape", [x, self.ints(-1 if self.symbolic else self.batch, n)], [self.batch, n])


def network(seed, batch):
    net = Net(seed, batch)
    for _ in range(net.r.randrange(3, 10)):
        net.step()
        if np.prod(net.values[-1][1]) > 3000:
            break
    y = net.finish()
    if y is None:
        return None
    info = lambda name, dims: helper.make_tensor_value_info(name, 1, ["N" if net.symbolic else net.batch] + dims)
    graph = helper.make_graph(net.nodes, "g", [info("x", net.dims)], [info(y, net.values[-1][1][1:])], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, 1
    x = net.np.randn(net.batch, *net.dims).astype("f4")
    (out,) = onnxruntime.InferenceSession(model, options).run(None, {"x": x})
    text = lambda b: base64.b64encode(b).decode()
    return {"Name": f"view {seed}, batch of {batch or 'any size'}", "Samples": net.batch, "Model": text(model),
            "Input": text(x.tobytes()), "Output": text(out.astype("<f4").tobytes())}


SEEDS = {  # by batch
    None: [11, 16, 58, 65, 75, 81, 84, 101, 111, 120, 122, 129, 130, 135],
    1: [10, 11, 16, 40, 52, 58, 63, 71, 75, 84, 100, 101, 111, 120],
    2: [58, 75, 84, 95, 101, 111, 122, 168, 172, 214, 220, 262, 321, 352],
    5: [58, 75, 84, 101, 111, 122, 168, 214, 220, 262, 321, 352, 384, 388],
}

if __name__ == "__main__":
    cases = [network(seed, batch) for batch, seeds in SEEDS.items() for seed in seeds]
    with open("views.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
