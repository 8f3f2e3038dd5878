"""Runs CryptoNets' network on encrypted images with TenSEAL (CKKS), as it is asked to.

tenseal.py NETWORK, a file of JSON with the network's weights. It prints its version and
parameters, then for each line {"image"} that it reads, rows of pixels, what encrypting,
evaluating and decrypting it took, the bytes of the ciphertexts, and the scores. All are
JSON, a line each.

One image is one ciphertext: TenSEAL lays out its patches in the slots (im2col), before it
is encrypted, so the client unrolls the convolution. Each map is conv2d_im2col, the maps
are packed to one vector, and the rest is square and matmul with weights in the clear.
"""

import json
import sys
import time


def say(**answer):
    print(json.dumps(answer), flush=True)


try:
    import tenseal
except ImportError as e:
    say(missing=e.name)
    sys.exit()

# 128 bits of security allow 438 bits of modulus at this degree; these are 260. The
# network takes six levels. A degree of 8,192 has too few slots for the patches.
DEGREE, BITS, SCALE = 16384, [40, 30, 30, 30, 30, 30, 30, 40], 30

with open(sys.argv[1]) as f:
    network = json.load(f)
top, left, bottom, right = network["padding"]

context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=DEGREE, coeff_mod_bit_sizes=BITS)
context.global_scale = 2**SCALE
context.generate_galois_keys()
keys = len(context.serialize(save_secret_key=False))
say(version=tenseal.__version__, degree=DEGREE, modulus_bits=sum(BITS), keys_bytes=keys)


def padded(image):
    width = left + len(image[0]) + right
    rows = [[0.0] * left + row + [0.0] * right for row in image]
    return [[0.0] * width] * top + rows + [[0.0] * width] * bottom


def evaluate(x, windows):
    maps = [x.conv2d_im2col(k, windows) + b for k, b in zip(network["kernels"], network["kernel_bias"])]
    y = tenseal.CKKSVector.pack_vectors(maps)
    for layer in network["dense"]:
        y.square_()
        y = y.mm(layer["weights"]) + layer["bias"]
    return y


for line in sys.stdin:
    image = padded(json.loads(line)["image"])
    size = len(network["kernels"][0])
    t0 = time.perf_counter_ns()
    x, windows = tenseal.im2col_encoding(context, image, size, size, network["stride"])
    t1 = time.perf_counter_ns()
    y = evaluate(x, windows)
    t2 = time.perf_counter_ns()
    scores = y.decrypt()
    t3 = time.perf_counter_ns()
    say(
        encrypt_ns=t1 - t0,
        evaluate_ns=t2 - t1,
        decrypt_ns=t3 - t2,
        bytes_up=len(x.serialize()),
        bytes_down=len(y.serialize()),
        scores=scores,
    )
