"""Asks a gateway by Triton's own clients, over REST and gRPC, in every form that they have.

Usage: clients.py HTTP-ADDRESS GRPC-ADDRESS MODEL TEXT, of a model that takes [-1, 1, 2, 3] and one that
takes several inputs, of integers too. Both answer each sample's first element and its last.
"""

import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

http_address, grpc_address, model, text_model = sys.argv[1:]
x = np.random.default_rng(1).standard_normal((9, 1, 2, 3), dtype=np.float32)
want = np.stack([x[:, 0, 0, 0], x[:, 0, 1, 2]], axis=1)


def forms(client, module):
    """Yields the answer to every form of a request."""
    tensor = module.InferInput("input", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    yield client.infer(model, [tensor])
    yield client.infer(model, [tensor], request_id="7", model_version="1")
    yield client.infer(model, [tensor], outputs=[module.InferRequestedOutput("output")])
    if module is triton_http:
        for binary in (False, True):
            tensor.set_data_from_numpy(x, binary_data=binary)
            for asked in (False, True):
                yield client.infer(model, [tensor], outputs=[module.InferRequestedOutput("output", binary_data=asked)])


def text_forms(client, module):
    """Yields answers to requests of inputs as the model's metadata has them, and what they should be."""
    about = client.get_model_metadata(text_model)
    inputs = [(i["name"], i["datatype"], i["shape"]) for i in about["inputs"]] if module is triton_http else [(i.name, i.datatype, list(i.shape)) for i in about.inputs]
    rng = np.random.default_rng(2)
    arrays = {name: rng.integers(0, 2, [5] + shape[1:]).astype(triton_to_np_dtype(kind)) for name, kind, shape in inputs}
    first, last = [arrays[i[0]].reshape(5, -1) for i in (inputs[0], inputs[-1])]
    for options in [{}] if module is triton_grpc else [{"binary_data": True}, {"binary_data": False}]:
        tensors = []
        for name, kind, _ in reversed(inputs):
            tensors.append(module.InferInput(name, list(arrays[name].shape), kind))
            tensors[-1].set_data_from_numpy(arrays[name], **options)
        yield client.infer(text_model, tensors), np.stack([first[:, 0], last[:, -1]], axis=1)


for module, address in (triton_http, http_address), (triton_grpc, grpc_address):
    client = module.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    about = client.get_model_metadata(model)
    shape = about["inputs"][0]["shape"] if module is triton_http else list(about.inputs[0].shape)
    assert shape == [-1, 1, 2, 3], shape
    answers = 0
    for answer in forms(client, module):
        got = answer.as_numpy("output")
        assert got.dtype == np.float32 and np.array_equal(got, want), got
        answers += 1
    for answer, wanted in text_forms(client, module):
        got = answer.as_numpy("output")
        assert np.array_equal(got, wanted), got
        answers += 1
    wrong = module.InferInput("input", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    for name, text in (model, "of shape [1 3]"), ("none", 'no model "none"'):
        try:
            client.infer(name, [wrong])
        except InferenceServerException as e:
            assert text in str(e), e
        else:
            raise AssertionError(f"{name}: no error")
    print(f"{module.__name__}: {answers} answers agree")
