"""Asks a daemon by direct streams, with nothing but the spec (section 8) and Python's library.

Usage: direct.py FILE, with JSON: the daemon's addresses, certificates for TLS, and operator 1,
which is dense, of a model that each caller has.
"""

import json
import random
import socket
import ssl
import struct
import sys

with open(sys.argv[1]) as f:
    given = json.load(f)
rng = random.Random(1)


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def message(*fields):
    """Returns a protobuf message of numbers and bytes, by their fields' numbers."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def parse(b):
    """Returns the fields of a protobuf message of numbers and bytes."""
    at = 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte, at = b[at], at + 1
            n |= (byte & 127) << shift
            if byte < 128:
                return n
            shift += 7

    out = {}
    while at < len(b):
        tag = number()
        out[tag >> 3] = number()
        if tag & 7 == 2:
            size = out[tag >> 3]
            out[tag >> 3], at = b[at:at + size], at + size
    return out


def exactly(stream, size):
    b = b""
    while len(b) < size:
        part = stream.recv(size - len(b))
        if not part:
            raise EOFError(b)
        b += part
    return b


class Local(socket.socket):
    """A direct stream of a unix socket, to which no memory is offered."""

    def __init__(self, path):
        super().__init__(socket.AF_UNIX)
        self.connect(path)
        self.sendall(b"snlane3\n" + struct.pack("<QQ", 0, 0))
        assert exactly(self, 16) == b"snlane3\n" + struct.pack("<Q", 0)

    def finish(self):
        self.shutdown(socket.SHUT_WR)


class Secured:
    """A direct stream by TLS, which can send close_notify and leave TCP open."""

    def __init__(self, address, protocols):
        context = ssl.create_default_context(cafile=given["ca"])
        context.load_cert_chain(given["certificate"], given["key"])
        context.set_alpn_protocols(protocols)
        host, port = address.rsplit(":", 1)
        self.tcp = socket.create_connection((host, int(port)))
        self.come, self.go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.come, self.go, server_hostname=host)
        self.step(self.tls.do_handshake)
        assert self.tls.selected_alpn_protocol() == "securenets-direct/3"

    def step(self, do):
        while True:
            try:
                return do()
            except ssl.SSLWantReadError:
                pass
            finally:
                self.tcp.sendall(self.go.read())
            b = self.tcp.recv(1 << 16)
            self.come.write(b) if b else self.come.write_eof()

    def sendall(self, b):
        self.step(lambda: self.tls.write(b))

    def recv(self, size):
        try:
            return self.step(lambda: self.tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def finish(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:  # for the daemon's close_notify
            self.tcp.sendall(self.go.read())

    def close(self):
        self.tcp.close()


def send(stream, b):
    stream.sendall(struct.pack(">BI", 0, len(b)) + b)


def receive(stream):
    flags, size = struct.unpack(">BI", exactly(stream, 5))
    assert flags in (0, 128), flags
    return flags == 128, parse(exactly(stream, size))


def ask(stream, finish, code):
    """Asks for five products, and of a model that is not there, then ends the stream, with a code."""
    weights, modulus, columns = given["weights"], given["modulus"], given["columns"]
    digest, want = bytes.fromhex(given["digest"]), {}
    for rows in range(1, 6):
        x = [[rng.randrange(modulus) for _ in range(columns)] for _ in range(rows)]
        want[rows] = [sum(w * v for w, v in zip(weights[o:o + columns], row)) % modulus
                      for row in x for o in range(0, len(weights), columns)]
        words = b"".join(struct.pack("<I", v) for row in x for v in row)
        send(stream, message((1, rows), (2, digest), (3, 1), (4, rows), (5, words)))
    send(stream, message((1, 9), (2, bytes(32)), (3, 1), (4, 1), (5, bytes(4 * columns))))
    for _ in range(6):
        last, answer = receive(stream)
        assert not last
        if answer[1] == 9:
            assert parse(answer[3])[2] == b"MODEL_NOT_FOUND"
        else:
            assert list(struct.unpack("<%dI" % (len(answer[2]) // 4), answer[2])) == want.pop(answer[1])
    assert not want
    finish()
    last, end = receive(stream)
    assert last and end.get(1, 0) == code, end
    assert stream.recv(1) == b""
    stream.close()


for link, streams in {
    "socket": lambda: Local(given["socket"]),
    "TLS": lambda: Secured(given["tls"], ["securenets-direct/3"]),
    "TLS, either": lambda: Secured(given["tls"], ["h2", "securenets-direct/3"]),
}.items():
    stream = streams()
    ask(stream, stream.finish, 0)
    stream = streams()
    ask(stream, lambda: stream.sendall(b"\1\0\0\0\0"), 13)  # compressed: INTERNAL
    print(link + ": 10 products")
