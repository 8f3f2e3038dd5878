"""Writes exports.json: networks as PyTorch's two exporters write what people write,
and what onnxruntime computes from them. The form is that of vectors.json.

    pip install torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
    python exports.py
"""

import base64
import io
import json

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
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


def case(name, shape, forward, *layers, opsets=(17,), bare=False):
    """Adds what each exporter writes of a network, with a batch of any size and of one."""
    net = Net(forward, layers)
    net.train()
    with torch.no_grad():  # norms get statistics
        net(torch.randn(8, *shape))
        for m in net.modules():
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
                m.weight.normal_()
                m.bias.normal_()
    net.eval()
    x = torch.randn(2, *shape)
    for opset in opsets:
        add(f"{name}, TorchScript, opset {opset}", net, x if opset != 11 else x[:1], dynamo=False, opset_version=opset,
            input_names=["x"], dynamic_axes={"x": {0: "N"}} if opset != 11 else None, bare=bare)
    add(f"{name}, dynamo", net, x, dynamo=True, dynamic_shapes=({0: torch.export.Dim("N")},), bare=bare)


def stripped(model):
    """Returns a model without what is there for people, which is most of a large one."""
    m = onnx.load_from_string(model)
    short = {"": "", m.graph.input[0].name: "x"}
    nodes = []
    for n in m.graph.node:
        names = [[short.setdefault(v, f"v{len(short)}") for v in list] for list in (n.input, n.output)]
        nodes.append(onnx.helper.make_node(n.op_type, *names, domain=n.domain))
        nodes[-1].attribute.extend(n.attribute)
    weights = [onnx.TensorProto() for _ in m.graph.initializer]
    for t, u in zip(m.graph.initializer, weights):
        u.CopyFrom(t)
        u.name, u.doc_string = short[t.name], ""
        del u.metadata_props[:]
    ends = [[onnx.helper.make_tensor_value_info(short[v.name], 1, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]) for v in list]
            for list in (m.graph.input, m.graph.output)]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends, weights), opset_imports=m.opset_import, ir_version=m.ir_version).SerializeToString()


def add(name, net, x, dynamic_axes=None, bare=False, **how):
    if how["dynamo"]:
        program = torch.onnx.export(net, (x,), verbose=False, **how)
        model = program.model_proto.SerializeToString()
    else:
        file = io.BytesIO()
        torch.onnx.export(net, (x,), file, dynamic_axes=dynamic_axes, **how)
        model = file.getvalue()
    if bare:
        model = stripped(model)
    session = onnxruntime.InferenceSession(model)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    text = lambda b: base64.b64encode(b).decode()
    cases.append({
        "Name": name, "Samples": len(x), "Model": text(model),
        "Input": text(x.numpy().astype("<f4").tobytes()), "Output": text(y.astype("<f4").tobytes()),
    })


def conv(c, out, k, **how):
    return nn.Sequential(nn.Conv2d(c, out, k, bias=False, **how), nn.BatchNorm2d(out))


def shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

case("view and normalised input", (3, 8, 8), lambda x, a, b: b(F.max_pool2d(F.relu(a((x - mean) / deviation)), 2).view(x.size(0), -1)),
     nn.Conv2d(3, 4, 3), nn.Linear(36, 5), opsets=(11, 17))
case("residual block", (3, 9, 8), lambda x, a, b, c, d, e: e(torch.flatten(F.relu(d(x) + b(F.relu(a(x)))).mean([2, 3]), 1)),
     conv(3, 4, 3, stride=2, padding=1), conv(4, 4, 3, padding=1), nn.Identity(), conv(3, 4, 1, stride=2), nn.Linear(4, 5))
case("squeeze and excitation, hardswish", (3, 8, 8),
     lambda x, a, b, c: (lambda y: y * F.hardsigmoid(c(F.relu(b(F.adaptive_avg_pool2d(y, 1))))))(F.hardswish(a(x))),
     conv(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), opsets=(11, 17))
case("squeeze and excitation, expanded", (3, 8, 8),
     lambda x, a, b, c: (lambda y: y * torch.sigmoid(c(F.silu(b(y.mean([2, 3]))))).view(x.size(0), 4, 1, 1).expand_as(y))(F.silu(a(x))),
     conv(3, 4, 3), nn.Linear(4, 2), nn.Linear(2, 4))
case("inverted residual, depthwise", (4, 8, 8), lambda x, a, b, c: x + c(F.relu6(b(F.relu6(a(x))))),
     conv(4, 8, 1), conv(8, 8, 3, padding=1, groups=8), conv(8, 4, 1))
case("channel shuffle", (4, 6, 5), lambda x, a: shuffle(torch.cat([x.chunk(2, 1)[0], F.relu(a(x.chunk(2, 1)[1]))], 1), 2), conv(2, 4, 3, padding=1))
case("dense block", (3, 6, 6), lambda x, a, b, c: F.avg_pool2d(torch.cat([x, b(F.relu(a(x)))], 1), 2), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1), nn.Identity())
case("ceil_mode", (3, 8, 8), lambda x, a: F.avg_pool2d(F.max_pool2d(a(x), 3, 2, ceil_mode=True), 3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3, padding=1))
case("block of ConvNeXt", (4, 6, 5), lambda x, a, n, b, c: x + c(F.gelu(b(n(a(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2),
     nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4))
case("group norm", (3, 6, 5), lambda x, a, n: F.elu(n(a(x))), nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
case("padded", (3, 6, 5), lambda x, a, b: b(F.pad(F.prelu(a(F.pad(x, (1, 2, 0, 1))), torch.tensor([0.1, 0.2, 0.3, 0.4])), (1, 0, 1, 0), value=0.5)),
     nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 2, padding="same"))
case("shortcut of zeros", (3, 8, 8), lambda x, a: F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + a(x)), conv(3, 5, 3, stride=2, padding=1))
case("pixel shuffle", (3, 5, 4), lambda x, a: F.pixel_shuffle(torch.tanh(a(x)), 2), nn.Conv2d(3, 8, 3, padding=1))
case("channels last in and out", (7, 6, 3), lambda x, a, b: b(F.leaky_relu(a(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1)), nn.Conv2d(3, 4, 3), nn.Linear(80, 3))
case("gates", (4, 5, 5), lambda x, a, b: (lambda g: g * a(x) + (1 - g) * x)(1 / (1 + torch.exp(-b(x)))), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
case("attention over space", (4, 5, 5), lambda x, a: x * torch.sigmoid(a(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))), nn.Conv2d(2, 1, 3, padding=1))
case("sequence", (3, 16), lambda x, a, n, b: F.log_softmax(b(F.max_pool1d(F.softsign(n(a(x))), 2).flatten(1)), 1), nn.Conv1d(3, 4, 3, stride=2), nn.BatchNorm1d(4), nn.Linear(12, 5))
case("embedding", (6,), lambda x, a, n, b: F.normalize(b(F.selu(n(a(x)))), dim=1), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))

case("U-Net, transposed", (3, 8, 8), lambda x, a, b, u, c: (lambda y: c(torch.cat([y, u(F.relu(b(F.max_pool2d(y, 2))))], 1)))(F.relu(a(x))),
     conv(3, 4, 3, padding=1), conv(4, 6, 3, padding=1), nn.ConvTranspose2d(6, 4, 2, 2), nn.Conv2d(8, 2, 1))
case("U-Net, bilinear", (3, 9, 8), lambda x, a, b, c: (lambda y: c(torch.cat([y, F.interpolate(F.relu(b(F.max_pool2d(y, 2))), size=y.shape[2:], mode="bilinear", align_corners=True)], 1)))(F.relu(a(x))),
     conv(3, 4, 3, padding=1), conv(4, 6, 3, padding=1), nn.Conv2d(10, 2, 1), opsets=(11, 17))
case("pyramid", (3, 8, 8), lambda x, a, b, c: F.interpolate(b(x) + F.interpolate(c(a(x)), scale_factor=2), x.shape[-2:], mode="bilinear"),
     conv(3, 4, 3, stride=4, padding=1), conv(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1))
case("decoder", (6,), lambda x, a, b, n, c: torch.sigmoid(c(F.relu(n(b(F.relu(a(x)).view(-1, 4, 2, 3)))))),
     nn.Linear(6, 24), nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 2, 3, 2, 1, 1))
case("decoder of a sequence", (4, 5), lambda x, a, u, b: b(u(F.relu(a(x)))), nn.ConvTranspose1d(4, 6, 3, 2, 1, groups=2), nn.Upsample(scale_factor=2), nn.Conv1d(6, 2, 3))
case("reflection", (3, 5, 6), lambda x, a, b: torch.maximum(a(x), b(F.pad(x, (2, 1, 0, 3), mode="reflect"))[:, :, 1:-2, :-3]), nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), nn.Conv2d(3, 4, 1))
case("lists and thresholds", (3, 5, 6), lambda x, a: F.softplus(F.hardshrink(F.max_pool2d(a(x[:, [2, 1, 0]]), 2, dilation=2))), nn.Conv2d(3, 4, 3, padding=1))


token, position = torch.randn(1, 1, 4), torch.randn(1, 7, 4)


class Attention(nn.Module):
    """Two heads, of torch's own function or written out, with a mask."""

    def __init__(self, width, own=True, mask=None):
        super().__init__()
        self.qkv, self.out, self.own, self.mask = nn.Linear(width, 3 * width), nn.Linear(width, width), own, mask

    def forward(self, x):
        n, l, c = x.shape
        if self.own:
            q, k, v = self.qkv(x).reshape(n, l, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            q, k, v = (y.view(n, l, 2, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
            p = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5
            x = (p if self.mask is None else p + self.mask).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(n, l, c))


def windows(x, attention):
    n, h, w, c = x.shape
    y = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    return attention(y).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


def encoder(first, activation, batch_first=True):
    return nn.TransformerEncoderLayer(4, 2, 6, activation=activation, norm_first=first, batch_first=batch_first)


case("attention", (5, 4), lambda x, a: a(x), Attention(4, mask=torch.randn(5, 5)), bare=True)
case("attention, written out", (5, 4), lambda x, a: a(x), Attention(4, False), opsets=(11, 17), bare=True)
case("multi-head attention, batch second", (5, 4), lambda x, a: a(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1), nn.MultiheadAttention(4, 2), bare=True)
case("encoder layer", (5, 4), lambda x, a: a(x), encoder(False, "relu"), opsets=(14, 17), bare=True)
case("encoder layer, norm first, batch second", (5, 4), lambda x, a: a(x.transpose(0, 1)).transpose(0, 1), encoder(True, "gelu", False), opsets=(14,), bare=True)
case("vision transformer", (3, 6, 4), lambda x, a, e, n, b: (lambda y: b(n(e(y))[:, 0]))(
     torch.cat([token.expand(x.shape[0], -1, -1), a(x).flatten(2).transpose(1, 2)], 1) + position),
     nn.Conv2d(3, 4, 2, 2), encoder(True, "gelu"), nn.LayerNorm(4), nn.Linear(4, 3), bare=True)
case("attention in windows", (4, 6, 4), lambda x, a: x + windows(x, a), Attention(4, False, torch.randn(1, 2, 4, 4)), bare=True)
case("layer norm of maps", (3, 4, 5), lambda x, a, n, b: n(a(x)) + b(x), nn.Conv2d(3, 3, 1), nn.LayerNorm([3, 4, 5]), nn.LayerNorm([4, 5]), bare=True)

with open("exports.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
