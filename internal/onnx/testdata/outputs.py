"""Writes outputs.json: networks of several outputs as PyTorch's two exporters write them, and
what onnxruntime computes from them. The form is that of vectors.json; an output is that of
several one after the other, each sample's, with the samples first.

    pip install torch==2.15.0 transformers==5.24.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
    python outputs.py
"""

import base64
import io
import json

import numpy as np
import onnx
import onnxruntime
import torch
import transformers as hf
from torch import nn
from transformers.cache_utils import DynamicCache

torch.manual_seed(1)
torch.set_num_threads(1)
cases = []


class Heads(nn.Module):
    """A classifier of two heads, and the map that they read."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(2, 3, 3), nn.Linear(12, 4), nn.Conv2d(3, 1, 1)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return torch.softmax(self.a(y.flatten(1)), 1), self.b(y), y.permute(0, 2, 3, 1)


class Policy(nn.Module):
    """A policy, and a value that is one number a sample."""

    def __init__(self):
        super().__init__()
        self.body, self.policy, self.value = nn.Linear(7, 9), nn.Linear(9, 4), nn.Linear(9, 1)

    def forward(self, x):
        y = torch.relu(self.body(x))
        return torch.softmax(self.policy(y), 1), self.value(y).squeeze(-1)


class Recurrent(nn.Module):
    """An LSTM of two layers with its last states, which have the samples second."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 2, 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return y, h, c


class Attention(nn.Module):
    """Attention and its weights, of rank 4."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, average_attn_weights=False)


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = hf.BertModel(hf.BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6, max_position_embeddings=9, attn_implementation="eager"))

    def forward(self, input_ids, attention_mask):
        y = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return y.last_hidden_state, y.pooler_output


class Step(nn.Module):
    """A decoder's next token, given the keys and values of those before it."""

    def __init__(self):
        super().__init__()
        self.gpt2 = hf.GPT2LMHeadModel(hf.GPT2Config(
            vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=9, bos_token_id=1, eos_token_id=1, attn_implementation="eager"))

    def forward(self, ids, positions, mask, *past):
        cache = DynamicCache()
        for i in range(2):
            cache.update(past[2 * i], past[2 * i + 1], i)
        y = self.gpt2(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True)
        new = [t[:, :, -1] for layer in y.past_key_values.layers for t in (layer.keys, layer.values)]
        return y.logits[:, -1], *new


def stripped(model):
    """Returns a model without what is there for people, which is most of a small one."""
    m = onnx.load_from_string(model)
    short = {"": ""} | {v.name: v.name for v in (*m.graph.input, *m.graph.output)}
    nodes = []
    for n in m.graph.node:
        names = [[short.setdefault(v, f"v{len(short)}") for v in list] for list in (n.input, n.output)]
        nodes.append(onnx.helper.make_node(n.op_type, *names, domain=n.domain))
        nodes[-1].attribute.extend(n.attribute)
        for a in nodes[-1].attribute:
            a.doc_string = ""
    weights = [onnx.TensorProto() for _ in m.graph.initializer]
    for t, u in zip(m.graph.initializer, weights):
        u.CopyFrom(t)
        u.name, u.doc_string = short[t.name], ""
        del u.metadata_props[:]
    ends = [[onnx.helper.make_tensor_value_info(short[v.name], v.type.tensor_type.elem_type, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]) for v in list]
            for list in (m.graph.input, m.graph.output)]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends, weights), opset_imports=m.opset_import, ir_version=m.ir_version).SerializeToString()


def add(name, net, inputs, second=()):
    """Adds what the exporters write. Inputs are of three samples, of which they see two."""
    net.eval()
    names = [f"in{i}" for i in range(len(inputs))]
    few = tuple(x[:2] for x in inputs)
    outputs = [f"out{i}" for i in range(len(net(*few)))]
    for dynamo in False, True:
        how = {"input_names": names, "output_names": outputs}
        if dynamo:
            dims = [{0: torch.export.Dim("N")} for _ in inputs]
            shapes = tuple(dims) if not isinstance(net, Step) else (*dims[:3], tuple(dims[3:]))
            model = torch.onnx.export(net, few, dynamo=True, dynamic_shapes=shapes, verbose=False, **how).model_proto.SerializeToString()
        else:
            file = io.BytesIO()
            axes = {n: {0: "N"} for n in names} | {n: {1 if n in second else 0: "N"} for n in outputs}
            torch.onnx.export(net, few, file, dynamo=False, opset_version=17, dynamic_axes=axes, **how)
            model = file.getvalue()
        model = stripped(model)
        y = onnxruntime.InferenceSession(model).run(None, dict(zip(names, (x.numpy() for x in inputs))))
        y = [np.moveaxis(v, 1, 0) if n in second else v for n, v in zip(outputs, y)]
        flat = lambda all: np.concatenate([np.asarray(v).reshape(3, -1) for v in all], 1).astype("<f4").tobytes()
        text = lambda b: base64.b64encode(b).decode()
        cases.append({
            "Name": f"{name}, {'dynamo' if dynamo else 'TorchScript'}", "Samples": 3, "Model": text(model), "Input": text(flat(x.numpy() for x in inputs)), "Output": text(flat(y)),
            "Outputs": [{"Name": n, "Dims": v.shape[1:]} for n, v in zip(outputs, y)],
        })


add("heads", Heads(), (torch.randn(3, 2, 4, 4),))
add("policy and value", Policy(), (torch.randn(3, 7),))
add("LSTM with states", Recurrent(), (torch.randn(3, 4, 3),), ("out1", "out2"))
add("attention with weights", Attention(), (torch.randn(3, 5, 4),))
ids = torch.randint(0, 11, (3, 5))
add("BERT with pooler", Bert(), (ids, torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])))
add("GPT-2, a step with a cache", Step(), (ids[:, :1], torch.tensor([[4], [2], [0]]), torch.tensor([[1] * 5, [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])) +
    tuple(torch.randn(3, 2, 4, 4) for _ in range(4)))

with open("outputs.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
