#!/usr/bin/env python3
"""Checks the test vectors beside it against docs/spec.md, on its own.

    python3 docs/vectors/check.py [folder]

A second implementation of the protocol, for reading and for comparing: plain,
slow, of the standard library alone, and without a line in common with the Go
packages. Every value of a vector is computed from the vector's inputs and
compared. It prints a line a file, and exits with 1 where a vector is wrong.
"""

import hashlib
import json
import pathlib
import sys


class Refused(Exception):
    """Bytes or values that the protocol refuses, with the reason."""


def refuse_unless(ok, reason):
    if not ok:
        raise Refused(reason)


# Section 2: the ring.


def is_prime(p):
    return p > 1 and all(p % d for d in range(2, int(p**0.5) + 1))


class Ring:
    def __init__(self, primes):
        refuse_unless(1 <= len(primes) <= 4, "no ring")
        refuse_unless(all(type(p) is int and 3 <= p < 256 and is_prime(p) for p in primes), "no ring")
        refuse_unless(len(set(primes)) == len(primes), "no ring")
        self.primes = list(primes)
        self.m = 1
        for p in primes:
            self.m *= p
        self.bits = self.m.bit_length()
        self.width = (self.bits + 7) // 8  # bytes of a word

    def inverse(self, a):
        refuse_unless(all(a % p for p in self.primes), "no unit")
        return pow(a, -1, self.m)

    def residues(self, a):
        return [a % p for p in self.primes]

    def combine(self, residues):
        """The Chinese remainder theorem."""
        return sum(r * (self.m // p) * pow(self.m // p, -1, p) for r, p in zip(residues, self.primes)) % self.m

    def lift(self, a):
        return a if a <= (self.m - 1) // 2 else a - self.m

    def encode(self, words):
        return b"".join(w.to_bytes(self.width, "little") for w in words)

    def decode(self, b):
        words = [int.from_bytes(b[i : i + self.width], "little") for i in range(0, len(b), self.width)]
        for i, w in enumerate(words):
            if w >= self.m:
                e = Refused("NON_CANONICAL")
                e.index = i
                raise e
        return words


# Section 4: the PRG, with AES-256 of FIPS 197.


def times2(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def make_sbox():
    # Powers and logarithms to the base 3 give inverses in GF(2^8).
    power, log, a = [], {}, 1
    for i in range(255):
        power.append(a)
        log[a] = i
        a ^= times2(a)
    sbox = []
    for v in range(256):
        x = power[-log[v] % 255] if v else 0
        s = 0x63
        for turn in range(5):
            s ^= (x << turn | x >> (8 - turn)) & 0xFF
        sbox.append(s)
    return sbox


SBOX = make_sbox()
TWICE = [times2(a) for a in range(256)]


class AES256:
    def __init__(self, key):
        assert len(key) == 32
        words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
        constant = 1
        while len(words) < 60:
            w = list(words[-1])
            if len(words) % 8 == 0:
                w = [SBOX[b] for b in w[1:] + w[:1]]
                w[0] ^= constant
                constant = times2(constant)
            elif len(words) % 8 == 4:
                w = [SBOX[b] for b in w]
            words.append([x ^ y for x, y in zip(words[-8], w)])
        self.keys = [sum(words[i : i + 4], []) for i in range(0, 60, 4)]

    def encrypt(self, block):
        s = [x ^ k for x, k in zip(block, self.keys[0])]
        for number, key in enumerate(self.keys[1:], 1):
            # Bytes are substituted and rows shifted; a column is 4 bytes in a row.
            s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
            if number < 14:
                mixed = []
                for c in range(0, 16, 4):
                    a = s[c : c + 4]
                    every = a[0] ^ a[1] ^ a[2] ^ a[3]
                    mixed += [a[i] ^ every ^ TWICE[a[i] ^ a[(i + 1) % 4]] for i in range(4)]
                s = mixed
            s = [x ^ k for x, k in zip(s, key)]
        return bytes(s)


def prg(ring, seed, index, n):
    aes, words, stream, counter = AES256(seed), [], b"", index << 64
    while len(words) < n:
        while len(stream) < ring.width:
            stream += aes.encrypt(counter.to_bytes(16, "big"))
            counter = (counter + 1) % (1 << 128)
        w = int.from_bytes(stream[: ring.width], "little") % (1 << ring.bits)
        stream = stream[ring.width :]
        if w < ring.m:
            words.append(w)
    return words


# Section 3: linear operators.


class Layer:
    """An operator as a sealed model has it: {"dense": ...} or {"conv2d": ...}."""

    LIMIT = 1 << 31

    def __init__(self, j):
        refuse_unless(type(j) is dict and len(j) == 1, "BAD_MODEL")
        (self.kind, o), = j.items()
        refuse_unless(self.kind in ("dense", "conv2d") and type(o) is dict, "BAD_MODEL")
        if self.kind == "dense":
            sizes, padding = [o.get("in"), o.get("out")], []
            refuse_unless(list(o) == ["in", "out"], "BAD_MODEL")
        else:
            lengths = {"in": 3, "kernel": 2, "stride": 2, "dilation": 2, "padding": 4}
            refuse_unless(list(o) == ["in", "out", "kernel", "stride", "dilation", "padding", "groups"], "BAD_MODEL")
            refuse_unless(all(type(o[k]) is list and len(o[k]) == n for k, n in lengths.items()), "BAD_MODEL")
            sizes = [*o["in"], o["out"], *o["kernel"], *o["stride"], *o["dilation"], o["groups"]]
            padding = o["padding"]
        for low, values in ((1, sizes), (0, padding)):
            most = self.LIMIT if self.kind == "dense" else self.LIMIT - 1
            refuse_unless(all(type(v) is int and low <= v <= most for v in values), "BAD_MODEL")
        if self.kind == "dense":
            self.inputs = self.terms = o["in"]
            self.outputs = self.rows = o["out"]
            self.groups, self.in_channels = 1, self.inputs
        else:
            self.h, self.w, self.in_channels = o["in"]
            self.rows = o["out"]
            self.kernel, self.stride, self.dilation = o["kernel"], o["stride"], o["dilation"]
            self.padding, self.groups = o["padding"], o["groups"]
            refuse_unless(self.in_channels % self.groups == 0 and self.rows % self.groups == 0, "BAD_MODEL")
            span = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
            top, left, bottom, right = self.padding
            refuse_unless(max(top, bottom) < span[0] and max(left, right) < span[1], "BAD_MODEL")
            padded = (self.h + top + bottom, self.w + left + right)
            refuse_unless(span[0] <= padded[0] and span[1] <= padded[1], "BAD_MODEL")
            self.out_h = (padded[0] - span[0]) // self.stride[0] + 1
            self.out_w = (padded[1] - span[1]) // self.stride[1] + 1
            self.inputs = self.h * self.w * self.in_channels
            self.outputs = self.out_h * self.out_w * self.rows
            self.terms = self.kernel[0] * self.kernel[1] * self.in_channels // self.groups
            refuse_unless(max(self.inputs, self.outputs, self.terms) <= self.LIMIT, "BAD_MODEL")
        refuse_unless(self.terms <= 65536 and self.rows * self.terms <= self.LIMIT, "BAD_MODEL")

    def positions(self):
        return self.out_h * self.out_w if self.kind == "conv2d" else 1

    def contraction(self, position, row):
        """For each term of an output: the index of its input, None for padding."""
        if self.kind == "dense":
            return range(self.inputs)
        p, q = divmod(position, self.out_w)
        each = self.in_channels // self.groups
        group = row // (self.rows // self.groups)
        places = []
        for a in range(self.kernel[0]):
            for b in range(self.kernel[1]):
                h = p * self.stride[0] + a * self.dilation[0] - self.padding[0]
                w = q * self.stride[1] + b * self.dilation[1] - self.padding[1]
                inside = 0 <= h < self.h and 0 <= w < self.w
                for i in range(each):
                    places.append((h * self.w + w) * self.in_channels + group * each + i if inside else None)
        return places

    def multiply(self, w, x):
        """The product of a weight matrix (a list of rows·terms) and one sample."""
        y = []
        for position in range(self.positions()):
            for row in range(self.rows):
                places = self.contraction(position, row)
                weights = w[row * self.terms : (row + 1) * self.terms]
                y.append(sum(a * x[i] for a, i in zip(weights, places) if i is not None))
        return y

    def adjoint(self, w, s):
        """One entry an input: the sum of s·w over the terms in which it stands."""
        v = [0] * self.inputs
        for position in range(self.positions()):
            for row in range(self.rows):
                for term, i in enumerate(self.contraction(position, row)):
                    if i is not None:
                        v[i] += s[position * self.rows + row] * w[row * self.terms + term]
        return v

    def unrolled(self):
        return Layer({"dense": {"in": self.terms, "out": self.rows}})


def cut(v, n):
    return [v[i : i + n] for i in range(0, len(v), n)]


# Section 5: masks.


def check_masks(ring, case, groups, rows, inputs):
    reason = "not the masks of the layer"
    for units, places, n in ((case["d"], case["e"], groups * rows), (case["f"], case["u"], groups * inputs)):
        refuse_unless(len(units) == n and sorted(places) == list(range(n)), reason)
        refuse_unless(all(a < ring.m and all(a % p for p in ring.primes) for a in units), reason)
    for g in range(groups):
        outer = case["e"][g * rows] // rows
        refuse_unless(all(k // rows == outer for k in case["e"][g * rows : (g + 1) * rows]), reason)
        refuse_unless(all(k // inputs == outer for k in case["u"][g * inputs : (g + 1) * inputs]), reason)


def check_mask(case):
    ring, host = Ring(case["ring"]), Layer(case["layer"])
    weights, _, how = case["scheme"].partition("+")
    how = how or weights  # one name alone is both masks
    cloud = host.unrolled() if how == "permute" else host

    # What masks have an entry for: outputs and inputs, or a convolution's channels.
    groups = cloud.groups
    rows, inputs = cloud.rows // groups, cloud.in_channels // groups
    if weights == "permute":
        check_masks(ring, case, groups, rows, inputs)
        d, f, e, u = case["d"], case["f"], case["e"], case["u"]
    else:
        d, f = [1] * (groups * rows), [1] * (groups * inputs)
        e, u = list(range(groups * rows)), list(range(groups * inputs))

    samples, roles = cut(case["x"], host.inputs), case["roles"]
    equal(len(samples), case["n"], "n")
    what = []
    for k in range(host.rows):
        for term in range(host.terms):
            window, i = divmod(term, inputs)
            channel = u[k // rows * inputs + i]
            w = case["w"][e[k] * host.terms + window * inputs + channel % inputs]
            what.append(d[e[k]] * f[channel] * w % ring.m)
    if weights == "lagrange":  # here What is W
        r = prg(ring, bytes.fromhex(case["lagrange"]["weights"]), 0, len(what))
        held = [role["what"] for role in roles]
        equal([[2 * a % ring.m for a in role] for role in held[:2]], [[(w + s * a) % ring.m for w, a in zip(what, r)] for s in (1, -1)], "what")
        equal(held[2:], [r], "what of role 2")
    else:
        held = [case["what"]] * len(roles)
        equal(held[0], what, "what")

    inverse_d, inverse_f = [ring.inverse(a) for a in d], [ring.inverse(a) for a in f]

    def mask(vector):  # x' = U^-1 F^-1 x of a vector with channels last
        n = len(u)
        return [inverse_f[u[i % n]] * vector[i - i % n + u[i % n]] % ring.m for i in range(len(vector))]

    def unmask(vector):  # y = lift(D^-1 E^-1 y')
        n = len(e)
        y = [0] * len(vector)
        for i, a in enumerate(vector):
            y[i - i % n + e[i % n]] = ring.lift(inverse_d[e[i % n]] * a % ring.m)
        return y

    received = [cut(role["xhat"], cloud.inputs) for role in roles]
    answers = [[[a % ring.m for a in cloud.multiply(has, x)] for x in xhat] for has, xhat in zip(held, received)]
    for role, yhat in zip(roles, answers):
        equal(sum(yhat, []), role["yhat"], "yhat")

    y = []
    if how == "pad":
        seed, first = bytes.fromhex(case["pad"]["seed"]), int(case["pad"]["first"])
        pads = [prg(ring, seed, first + i, cloud.inputs) for i in range(len(samples))]
        u_of = [[a % ring.m for a in cloud.multiply(what, r)] for r in pads]
        equal(sum(u_of, []), case["pad"]["u"], "u")
        equal(received, [[[(a + b) % ring.m for a, b in zip(mask(x), r)] for x, r in zip(samples, pads)]], "xhat")
        y = [unmask([a - b for a, b in zip(yhat, u)]) for yhat, u in zip(answers[0], u_of)]
    elif how == "split":
        seed = bytes.fromhex(case["split"]["seed"])
        shares = [prg(ring, seed, i, cloud.inputs) for i in range(len(samples))]
        equal(roles[1]["seed"], case["split"]["seed"], "seed")
        equal("seed" in roles[0], False, "seed of role 0")
        masked = [[(a + b) % ring.m for a, b in zip(mask(x), s)] for x, s in zip(samples, shares)]
        equal(received, [masked, shares], "xhat")
        y = [unmask([a - b for a, b in zip(y0, y1)]) for y0, y1 in zip(*answers)]
    elif how == "lagrange":
        seed = case["lagrange"]["seed"]
        shares = [prg(ring, bytes.fromhex(seed), i, cloud.inputs) for i in range(len(samples))]
        equal([role.get("seed") for role in roles], [None, None, seed], "seed")
        equal(seed == case["lagrange"]["weights"], False, "seed of weights and inputs")
        masked = [[[(a + sign * b) % ring.m for a, b in zip(x, s)] for x, s in zip(samples, shares)] for sign in (1, -1)]
        equal(received, [*masked, shares], "xhat")
        y = [unmask([a + b - c for a, b, c in zip(*each)]) for each in zip(*answers)]
    else:
        fy, uy = case["permute"]["fy"], case["permute"]["uy"]
        columns = []
        for x in samples:
            for position in range(host.positions()):
                columns.append([0 if i is None else x[i] for i in host.contraction(position, 0)])
        equal(sorted(uy), list(range(len(columns))), "uy")
        equal(received[0], [[fy[i] * a % ring.m for a in mask(columns[k])] for i, k in enumerate(uy)], "xhat")
        y = [None] * len(columns)
        for i, k in enumerate(uy):
            y[k] = unmask([ring.inverse(fy[i]) * a for a in answers[0][i]])
    equal(sum(y, []), case["y"], "y")
    equal(sum((host.multiply(case["w"], x) for x in samples), []), case["y"], "W x")


# Section 6: the check.


def check_check(case):
    layer, p = Layer(case["layer"]), case["p"]
    equal(all(0 <= s < p for s in case["s"]) and len(case["s"]) == layer.outputs, True, "s")
    equal([v % p for v in layer.adjoint(case["w"], case["s"])], case["v"], "v")
    wrong = []
    for i, (x, y) in enumerate(zip(cut(case["x"], layer.inputs), cut(case["y"], layer.outputs))):
        left = sum(a * b for a, b in zip(case["s"], y)) % p
        if left != sum(a * b for a, b in zip(case["v"], x)) % p:
            wrong.append(i)
    equal("reject" if wrong else "accept", case["expect"], "verdict")
    equal(wrong, case.get("samples", []), "samples")


# Section 7: sealed models.


def strict_json(text):
    def pairs(p):
        refuse_unless(len(dict(p)) == len(p), "BAD_MODEL")  # a key stands once
        return dict(p)

    def no_constant(_):
        raise Refused("BAD_MODEL")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=no_constant)
    except ValueError:
        raise Refused("BAD_MODEL") from None


class Model:
    def __init__(self, b):
        bad = "BAD_MODEL"
        size = int.from_bytes(b[:8], "little")
        refuse_unless(len(b) >= 8 and size <= min(1 << 20, len(b) - 8), bad)
        header, data = b[8 : 8 + size], b[8 + size :]
        refuse_unless(header[:1] == b"{", bad)
        try:
            tensors = strict_json(header.decode("utf-8"))
        except UnicodeDecodeError:
            raise Refused(bad) from None
        metadata = tensors.pop("__metadata__", None)
        refuse_unless(type(metadata) is dict and list(metadata) == ["securenets.plan"], bad)
        self.text = metadata["securenets.plan"]
        refuse_unless(type(self.text) is str, bad)
        plan = strict_json(self.text)
        refuse_unless(type(plan) is dict and list(plan) == ["version", "ring", "ops"], bad)
        refuse_unless(type(plan["version"]) is int and plan["version"] == 1, bad)
        refuse_unless(type(plan["ring"]) is list and type(plan["ops"]) is list, bad)
        refuse_unless(json.dumps(plan, separators=(",", ":")) == self.text, bad)  # the one encoding
        refuse_unless(1 <= len(plan["ops"]) <= 1024, bad)
        self.ring = Ring(plan["ring"])
        self.layers = [Layer(o) for o in plan["ops"]]

        refuse_unless(set(tensors) == {str(i) for i in range(len(self.layers))}, bad)
        self.weights, end = [], 0
        for i, layer in enumerate(self.layers):
            t = tensors[str(i)]
            refuse_unless(type(t) is dict and set(t) == {"dtype", "shape", "data_offsets"}, bad)
            shape = [layer.rows, layer.terms]
            refuse_unless(t["dtype"] == "U32" and t["shape"] == shape, bad)
            last = end + 4 * layer.rows * layer.terms
            refuse_unless(t["data_offsets"] == [end, last] and last <= len(data), bad)
            for n in t["shape"] + t["data_offsets"]:
                refuse_unless(type(n) is int, bad)
            words = [int.from_bytes(data[k : k + 4], "little") for k in range(end, last, 4)]
            refuse_unless(all(w < self.ring.m for w in words), bad)
            self.weights.append(words)
            end = last
        refuse_unless(end == len(data), bad)


def check_sealed(case):
    b = bytes.fromhex(case["hex"])
    try:
        m = Model(b)
    except Refused:
        equal("reject", case["expect"], "verdict")
        return
    equal("accept", case["expect"], "verdict")
    equal(hashlib.sha256(b).hexdigest(), case["digest"], "digest")
    equal(strict_json(m.text), case["plan"], "plan")
    equal(m.weights, case["weights"], "weights")


# Section 8: messages.

MOST = (16 << 20) - 1024  # bytes of words in a message


def varint(b, at):
    v = 0
    for shift in range(0, 70, 7):
        refuse_unless(at < len(b), "MALFORMED")
        v |= (b[at] & 0x7F) << shift
        at += 1
        if b[at - 1] < 0x80:
            refuse_unless(v < 1 << 64, "MALFORMED")
            return v, at
    raise Refused("MALFORMED")


def fields(b, depth=0):
    """The fields of a protobuf message: number, wire type, value."""
    found, at = [], 0
    while at < len(b):
        field, at = one_field(b, at, depth)
        found.append(field)
    return found


def one_field(b, at, depth):
    refuse_unless(depth < 100, "MALFORMED")
    tag, at = varint(b, at)
    number, kind = tag >> 3, tag & 7
    refuse_unless(1 <= number < 1 << 29, "MALFORMED")
    if kind == 0:
        value, at = varint(b, at)
        return (number, kind, value), at
    if kind == 3:  # a group, which ends with its own number
        while True:
            (inner, how, _), at = one_field(b, at, depth + 1)
            if how == 4:
                refuse_unless(inner == number, "MALFORMED")
                return (number, kind, None), at
    if kind == 4:
        refuse_unless(depth > 0, "MALFORMED")
        return (number, kind, None), at
    refuse_unless(kind in (1, 2, 5), "MALFORMED")
    n = {1: 8, 5: 4}.get(kind)
    if n is None:
        n, at = varint(b, at)
    refuse_unless(at + n <= len(b), "MALFORMED")
    return (number, kind, b[at : at + n]), at + n


def message(b, numbers, byte_strings, union):
    """A message's known fields by number. The last one counts, of a union too."""
    got = {}
    for number, kind, value in fields(b):
        if number in numbers and kind == 0 or number in byte_strings and kind == 2:
            if number in union:
                for other in union:
                    got.pop(other, None)
            got[number] = value
    return got


def evaluate(models, b):
    """What a cloud that shares no memory answers to a request: its id and words, or an error's code and reason."""
    got = message(b, {1, 3, 4}, {2, 5, 6, 9, 10}, {5, 6, 9})
    for place in (9, 10):
        message(got.get(place, b""), {1, 2}, set(), set())
    ident, digest = got.get(1, 0), got.get(2, b"")
    layer, rows = got.get(3, 0) % (1 << 32), got.get(4, 0) % (1 << 32)
    try:
        refuse_unless(len(digest) == 32, "BAD_REQUEST")
        refuse_unless(digest in models, "MODEL_NOT_FOUND")
        model = models[digest]
        refuse_unless(layer < len(model.layers), "LAYER_NOT_FOUND")
        refuse_unless(rows > 0, "BAD_REQUEST")
        op, ring = model.layers[layer], model.ring
        refuse_unless(rows * max(op.inputs, op.outputs) <= MOST // ring.width, "TOO_LARGE")
        refuse_unless(9 not in got and 10 not in got, "BAD_REQUEST")
        if 6 in got:
            seed = message(got[6], {2}, {1}, set())
            key, first = seed.get(1, b""), seed.get(2, 0)
            refuse_unless(len(key) == 32 and first + rows <= 1 << 64, "BAD_REQUEST")
            x = [prg(ring, key, first + i, op.inputs) for i in range(rows)]
        else:
            refuse_unless(5 in got, "BAD_REQUEST")
            refuse_unless(len(got[5]) == rows * op.inputs * ring.width, "BAD_LENGTH")
            x = cut(ring.decode(got[5]), op.inputs)
    except Refused as e:
        return {"id": ident, "expect": "error", "code": CODES[str(e)], "reason": str(e)}
    words = [a % ring.m for row in x for a in op.multiply(model.weights[layer], row)]
    return {"id": ident, "expect": "words", "words": words}


# gRPC status codes.
INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL = 3, 5, 8, 13
CODES = {
    "BAD_REQUEST": INVALID_ARGUMENT,
    "BAD_LENGTH": INVALID_ARGUMENT,
    "NON_CANONICAL": INVALID_ARGUMENT,
    "MODEL_NOT_FOUND": NOT_FOUND,
    "LAYER_NOT_FOUND": NOT_FOUND,
    "TOO_LARGE": RESOURCE_EXHAUSTED,
}


def take(ring, n, b):
    """What a host makes of the answer to a request of n words."""
    try:
        got = message(b, {1, 4, 5}, {2, 3, 6}, {2, 3, 6})
        if 3 in got:
            error = message(got[3], {1}, {2, 3}, set())
            return {"id": got.get(1, 0), "expect": "error", "code": error.get(1, 0), "reason": error.get(2, b"").decode()}
        words = got.get(2, b"")
        refuse_unless(len(words) == n * ring.width, "BAD_LENGTH")
        return {"id": got.get(1, 0), "expect": "words", "words": ring.decode(words)}
    except Refused as e:
        return {"expect": "refuse", "reason": str(e)}


def check_frame(models):
    def check(case):
        b = bytes.fromhex(case["hex"])
        if case["kind"] == "model":
            models[hashlib.sha256(b).digest()] = Model(b)
            return
        if case["kind"] == "request":
            try:
                got = evaluate(models, b)
            except Refused:
                got = {"expect": "stream", "code": INTERNAL}
        else:
            got = take(Ring(case["ring"]), case["rows"] * case["cols"], b)
        want = {k: case[k] for k in ("expect", "words", "code", "reason") if k in case}
        want["id"] = int(case.get("id", 0))
        equal({"id": 0, **got}, want, "outcome")

    return check


# Running over the files.


def equal(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: got {str(got)[:200]}, want {str(want)[:200]}")


def check_ring(case):
    if case["op"] == "ring":
        r = Ring(case["ring"])
        equal({"modulus": r.m, "bits": r.bits, "word_bytes": r.width}, case["want"], "ring")
        return
    r, a, b, op = Ring(case["ring"]), case.get("a"), case.get("b"), case["op"]
    if op == "residues":
        equal(r.combine(case["want"]), a, "combine")
    if op == "words":
        got = r.decode(bytes.fromhex(case["hex"]))
        equal(r.encode(got).hex(), case["hex"], "hex")
    else:
        got = {
            "add": lambda: (a + b) % r.m,
            "sub": lambda: (a - b) % r.m,
            "mul": lambda: a * b % r.m,
            "inverse": lambda: r.inverse(a),
            "residues": lambda: r.residues(a),
            "lift": lambda: r.lift(a),
            "from_signed": lambda: a % r.m,
        }[op]()
    equal(got, case["want"], op)


def check_prg(case):
    r = Ring(case["ring"])
    words = prg(r, bytes.fromhex(case["seed"]), int(case["index"]), case["count"])
    equal(words[: len(case["words"])], case["words"], "words")
    equal(hashlib.sha256(r.encode(words)).hexdigest(), case["sha256"], "sha256")


def expect_refusal(check):
    """Of cases with an error: the check must end with it, and only of those."""

    def checked(case):
        try:
            check(case)
        except Refused as e:
            equal(str(e), case.get("error"), "error")
            equal(getattr(e, "index", None), case.get("index"), "index")
        else:
            equal(None, case.get("error"), "error")

    return checked


FILES = {
    "ring.json": expect_refusal(check_ring),
    "prg.json": check_prg,
    "masks.json": expect_refusal(check_mask),
    "check.json": check_check,
    "sealed.json": check_sealed,
    "frames.json": check_frame({}),
}


def main():
    # FIPS 197, appendix C.3: who cannot do this need not look further.
    block = AES256(bytes(range(32))).encrypt(bytes(0x11 * i for i in range(16)))
    equal(block.hex(), "8ea2b7ca516745bfeafc49904b496089", "AES-256")

    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    failed = False
    for name, check in FILES.items():
        cases = json.loads((folder / name).read_text())["cases"]
        good = 0
        for case in cases:
            try:
                check(case)
                good += 1
            except Exception as e:  # whatever is wrong with one, the others are checked
                failed = True
                print(f"FAIL {name}: {case.get('name')}: {type(e).__name__}: {e}")
        print(f"{name}: {good} of {len(cases)} vectors agree")
        failed = failed or not cases
    sys.exit(failed)


if __name__ == "__main__":
    main()
