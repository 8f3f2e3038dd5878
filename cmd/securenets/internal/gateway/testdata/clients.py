"""Asks a gateway by Triton's own clients, over REST and gRPC, in every form that they have.

Usage: clients.py HTTP-ADDRESS GRPC-ADDRESS MODEL, of a model that takes [-1, 1, 2, 3] and
answers each sample's first element and its last.
"""

import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

http_address, grpc_address, model = sys.argv[1:]
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
