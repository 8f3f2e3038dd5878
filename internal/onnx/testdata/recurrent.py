"""Writes recurrent.json: recurrent networks as PyTorch's two exporters write them, and what
onnxruntime computes from them. The form is that of vectors.json.

    pip install torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
    python recurrent.py
"""

import base64
import io
import json

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)
cases = []


class Net(nn.Module):
    """A network of layers and a function of them."""

    def __init__(self, forward, layers):
        super().__init__()
        self.layers, self.f = nn.ModuleList(layers), forward

    def forward(self, x):
        return self.f(x, *self.layers)


class First(nn.Module):
    """First states that are learned, the same for all samples."""

    def __init__(self, layers, size):
        super().__init__()
        self.h = nn.Parameter(torch.randn(layers, 1, size))

    def forward(self, x):
        return self.h.expand(-1, x.shape[0], -1)


def case(name, forward, *layers, dynamo=True, batches=("N",)):
    """Adds what the exporters write of a network of 4 steps of 3, of a batch of any size or of one."""
    net = Net(forward, layers).eval()
    for batch in batches:
        x = torch.randn(2 if batch == "N" else batch, 4, 3)
        file = io.BytesIO()
        torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17, input_names=["x"],
                          dynamic_axes={"x": {0: "N"}} if batch == "N" else None)
        add(f"{name}, TorchScript, batch {batch}", file.getvalue(), x)
    if dynamo:
        x = torch.randn(2, 4, 3)
        program = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False)
        add(f"{name}, dynamo", program.model_proto.SerializeToString(), x)


def add(name, model, x):
    """Adds a model without what is there for people, and its output for x."""
    m = onnx.load_from_string(model)
    del m.graph.value_info[:]
    del m.metadata_props[:]
    for n in m.graph.node:
        n.ClearField("doc_string")
        n.ClearField("name")
        del n.metadata_props[:]
    model = m.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    encode = lambda b: base64.b64encode(b).decode()
    cases.append({"Name": name, "Samples": len(x), "Model": encode(model),
                  "Input": encode(x.numpy().tobytes()), "Output": encode(np.ascontiguousarray(y, np.float32).tobytes())})


LSTM = lambda i=3, h=2, **k: nn.LSTM(i, h, batch_first=True, **k)
GRU = lambda i=3, h=2, **k: nn.GRU(i, h, batch_first=True, **k)
RNN = lambda i=3, h=2, **k: nn.RNN(i, h, batch_first=True, **k)

case("LSTM, last step", lambda x, r, d: d(r(x)[0][:, -1]), LSTM(), nn.Linear(2, 3), batches=("N", 1, 2))
case("LSTM, two layers, bidirectional, all steps", lambda x, r, d: d(r(x)[0]), LSTM(num_layers=2, bidirectional=True), nn.Linear(4, 3), batches=("N", 1))
case("LSTM, last states of both directions", lambda x, r, d: d((lambda h: torch.cat([h[-2], h[-1]], 1))(r(x)[1][0])),
     LSTM(num_layers=2, bidirectional=True), nn.Linear(4, 3), batches=("N", 1))
case("LSTM, states and cells", lambda x, r, d: d((lambda h, c: torch.cat([h[-1], c[-1], c[0]], 1))(*r(x)[1])),
     LSTM(num_layers=2, bidirectional=True), nn.Linear(6, 3))
case("LSTM, cells", lambda x, r, d: d(r(x)[1][1][0]), LSTM(), nn.Linear(2, 3), dynamo=False)
case("LSTM, steps first, mean", lambda x, r, d: d(r(x.transpose(0, 1))[0].mean(0)), nn.LSTM(3, 2, bias=False), nn.Linear(2, 3), dynamo=False)
case("LSTM, first states learned", lambda x, r, h, c, d: d(r(x, (h(x), c(x)))[0][:, -1]), LSTM(num_layers=2), First(2, 2), First(2, 2), nn.Linear(2, 3),
     dynamo=False, batches=("N", 1, 2))
case("LSTM, steps folded of a map", lambda x, v, r, d: d(r(v(x.unsqueeze(1)).permute(0, 2, 1, 3).flatten(2))[0]),
     nn.Conv2d(1, 2, 3, padding=1), LSTM(6, 2, bidirectional=True), nn.Linear(4, 3), dynamo=False)
case("GRU, last state, three layers", lambda x, r, d: d(r(x)[1][-1]), GRU(num_layers=3), nn.Linear(2, 3), batches=("N", 1))
case("GRU, attention over steps", lambda x, r, a, d: d((torch.softmax(a(r(x)[0]), 1) * r(x)[0]).sum(1)),
     GRU(bidirectional=True), nn.Linear(4, 1), nn.Linear(4, 3), dynamo=False)
case("GRU of groups as samples", lambda x, r, d: d(r(x.reshape(-1, 4, 3, 1).permute(0, 2, 1, 3).reshape(-1, 4, 1))[0][:, -1].reshape(-1, 6)),
     GRU(1, 2), nn.Linear(6, 3), dynamo=False)
case("GRU, largest of steps", lambda x, r, d: d(r(x)[0].max(1)[0]), GRU(bidirectional=True), nn.Linear(4, 3), dynamo=False)
case("GRU, first states learned", lambda x, r, h, d: d(r(x, h(x))[0].mean(1)), GRU(bidirectional=True), First(2, 2), nn.Linear(4, 3), dynamo=False)
# Of RNN, dynamo writes every step.
case("RNN, last step", lambda x, r, d: d(r(x)[0][:, -1]), RNN(), nn.Linear(2, 3), dynamo=False, batches=("N", 1))
case("RNN of ReLU, two layers, bidirectional", lambda x, r, d: d(r(x)[0]), RNN(num_layers=2, bidirectional=True, nonlinearity="relu"), nn.Linear(4, 3), dynamo=False)

with open("recurrent.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
