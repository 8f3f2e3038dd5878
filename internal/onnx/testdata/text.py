"""Writes text.json: small networks of text with random weights, as both of PyTorch's exporters
write those of transformers, and what onnxruntime computes from them. The form is that of
vectors.json; a sample has its inputs one after the other, and "Sizes" are those of symbolic dimensions.

    pip install torch==2.15.0 transformers==5.24.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
    python text.py
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

torch.manual_seed(1)
torch.set_num_threads(1)
VOCABULARY, LENGTH = 12, 5
cases = []


class Net(nn.Module):
    """A network of named inputs and one output."""

    def __init__(self, net, names, output, **how):
        super().__init__()
        self.net, self.names, self.output, self.how = net, names, output, how

    def forward(self, *inputs):
        return self.output(self.net(**dict(zip(self.names, inputs)), **self.how))


def stripped(model):
    """Returns a model without what is there for people, which is most of a small one."""
    m = onnx.load_from_string(model)
    short = {"": ""} | {v.name: v.name for v in m.graph.input}
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


def add(name, net, inputs, dynamo, symbolic, sequence=0):
    """Adds a case, of a sequence length that is symbolic where one is given."""
    how = {"dynamo": dynamo, "input_names": net.names}
    if not symbolic:
        inputs = tuple(x[1:] for x in inputs)
    if dynamo:
        dims = {0: torch.export.Dim("N")} | ({1: torch.export.Dim("sequence", max=9)} if sequence else {})
        shapes = (tuple(dims for _ in inputs),) if symbolic else None
        model = torch.onnx.export(net, inputs, verbose=False, dynamic_shapes=shapes, **how).model_proto.SerializeToString()
    else:
        file = io.BytesIO()
        torch.onnx.export(net, inputs, file, opset_version=17, dynamic_axes={n: dict(enumerate(("N", "sequence") if sequence else ("N",))) for n in net.names} if symbolic else None, **how)
        model = file.getvalue()
    model = stripped(model)
    if sequence:
        inputs = tuple(x[:, :sequence] for x in inputs)
    (y,) = onnxruntime.InferenceSession(model).run(None, dict(zip(net.names, (x.numpy() for x in inputs))))
    text = lambda b: base64.b64encode(b).decode()
    x = np.concatenate([x.numpy().reshape(len(x), -1) for x in inputs], 1)
    cases.append({
        "Name": f"{name}, {'dynamo' if dynamo else 'TorchScript'}, batch of {'any size' if symbolic else 1}{', sequence of any' if sequence else ''}", "Samples": len(y), "Model": text(model),
        "Input": text(x.astype("<f4").tobytes()), "Output": text(y.astype("<f4").tobytes()),
    } | ({"Sizes": {"sequence": sequence}} if sequence else {}))


ids = torch.randint(2, VOCABULARY, (2, LENGTH))
mask = torch.tensor([[1] * LENGTH, [1] * 3 + [0] * (LENGTH - 3)])
types = torch.tensor([[0, 0, 1, 1, 1]] * 2)
# A RoBERTa counts positions by what is no padding, of id 1.
padded = torch.where(mask > 0, ids, 1)
sizes = {"vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 9}

for attention in "eager", "sdpa":
    how = {"attn_implementation": attention}
    bert = hf.BertModel(hf.BertConfig(**sizes, **how))
    distil = hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=VOCABULARY, dim=8, n_layers=1, n_heads=2, hidden_dim=6, max_position_embeddings=9, **how))
    roberta = hf.RobertaForSequenceClassification(hf.RobertaConfig(**sizes, pad_token_id=1, **how))
    gpt2 = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=9, bos_token_id=1, eos_token_id=1, **how))
    states, logits, following = (lambda y: y.last_hidden_state), (lambda y: y.logits), (lambda y: y.logits[:, -1])
    nets = [
        ("BERT", Net(bert, ["input_ids", "attention_mask", "token_type_ids"], states), (ids, mask, types)),
        ("BERT, ids alone", Net(bert, ["input_ids"], states), (ids,)),
        ("DistilBERT", Net(distil, ["input_ids", "attention_mask"], logits), (ids, mask)),
        ("RoBERTa", Net(roberta, ["input_ids", "attention_mask"], logits), (padded, mask)),
        ("GPT-2, masked", Net(gpt2, ["input_ids", "attention_mask"], logits, use_cache=False), (ids, mask)),
        ("GPT-2, next token", Net(gpt2, ["input_ids"], following, use_cache=False), (ids,)),
    ]
    for name, net, inputs in nets:
        net.eval()
        for dynamo in False, True:
            if name == "GPT-2, next token" and not dynamo:
                continue  # it has a difference, which the exporter does not know
            for symbolic in True, False:
                add(f"{name}, {attention}", net, inputs, dynamo, symbolic)

for name, net, inputs in nets:
    for dynamo in False, True:
        if name == "BERT" or name == "GPT-2, masked" or name == "GPT-2, next token" and dynamo:
            add(f"{name}, sdpa", net, inputs, dynamo, True, LENGTH - 1)

with open("text.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
