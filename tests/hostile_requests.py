"""Which requests does somebody craft? Each is sent to a server on the loopback, as bytes, and must get an error in JSON.

Each has a server of its own, which has to answer an honest request afterwards.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import fastapi.openapi.utils  # noqa: F401 - so that no case has to
import uvicorn.lifespan.off
import uvicorn.loops.auto
import uvicorn.protocols.http.httptools_impl  # noqa: F401

from hostile_loaders import CASES, LOADERS, Prepare
from patience import PATIENCE_S
from prunus.core.errors import PrunusError
from serve_stand_ins import infer, listening, received, watch_begins_with_a_word

FILE = "request.bin"
PATH = b"/v2/models/small/infer"
HOST = b"Host: localhost\r\n"
ROW = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
BODY = json.dumps(infer(ROW)).encode()


def request(body: bytes = BODY, *, path: bytes = PATH, more: bytes = b"", head: bytes | None = None) -> bytes:
    """Return the bytes of a request."""
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/1.1\r\n" + (HOST + length if head is None else head) + more + b"\r\n" + body


def answered(folder: Path) -> None:
    """Send a folder's request to a server of its own.

    Raises:
        PrunusError: it is refused: what the server says.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # the command has its lines in JSON
    limits = {"body_bytes": 2**20, "read_s": 2.0}
    with watch_begins_with_a_word(), listening(folder / "run" / "bundle", limits=limits) as (_, port):
        status, text = _read(_exchanged(port, (folder / FILE).read_bytes()))
        again, _ = _read(_exchanged(port, request()))
    assert again == 200, "the server answers nobody any more"
    if status != 200:
        raise PrunusError(text)


def _exchanged(port: int, content: bytes) -> bytes:
    """Send bytes, and return the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(content)
        return received(connection, n_answers=1)


def _read(said: bytes) -> tuple[int, str]:
    """Return the status and the error of the first answer, which is JSON whatever the status."""
    head, _, body = said.partition(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    found = json.loads(body[: int(length.partition(b":")[2])])
    return int(head.split(b" ")[1]), str(found.get("error", ""))


def _sent(content: bytes) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / FILE).write_bytes(content)

    return prepare


def _json(**changes: Any) -> Prepare:
    """Send an honest request in which the tensor says something else."""
    tree = infer(ROW)
    tree["inputs"][0].update(changes)
    return _sent(request(json.dumps(tree).encode()))


def _text(body: bytes) -> Prepare:
    return _sent(request(body))


def _binary(said: Any, content: bytes, header: bytes | None = None, shape: Any = (1, 6)) -> Prepare:
    tensor = {"name": "input", "shape": list(shape), "datatype": "FP32", "parameters": {"binary_data_size": said}}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = b"%d" % len(head) if header is None else header
    return _sent(request(head + content, more=b"Inference-Header-Content-Length: " + length + b"\r\n"))


LOADERS["request"] = answered
CASES["request"] = {
    "a length beside chunks": _sent(request(b"0\r\n\r\n", more=b"Transfer-Encoding: chunked\r\n")),
    "two lengths": _sent(request(more=b"Content-Length: 1\r\n")),
    "a length with a sign": _sent(request(head=HOST + b"Content-Length: +5\r\n")),
    "a length below nought": _sent(request(head=HOST + b"Content-Length: -5\r\n")),
    "a length of thirty digits": _sent(request(head=HOST + b"Content-Length: " + b"9" * 30 + b"\r\n")),
    "a length of an exabyte": _sent(request(head=HOST + b"Content-Length: %d\r\n" % 2**60)),
    "a coding that hides chunks": _sent(request(b"0\r\n\r\n", head=HOST + b"Transfer-Encoding: xchunked\r\n")),
    "chunks twice": _sent(request(b"0\r\n\r\n", head=HOST + b"Transfer-Encoding: chunked, chunked\r\n")),
    "a chunk of a negative size": _sent(
        request(b"-1\r\nx\r\n0\r\n\r\n", head=HOST + b"Transfer-Encoding: chunked\r\n")
    ),
    "a chunk of an exabyte": _sent(request(b"F" * 17 + b"\r\nx\r\n", head=HOST + b"Transfer-Encoding: chunked\r\n")),
    "a chunk with a bare end of line": _sent(request(b"1\nx\n0\n\n", head=HOST + b"Transfer-Encoding: chunked\r\n")),
    "a header that is folded": _sent(request(more=b"X-A: b\r\n c\r\n")),
    "a header with a space before its colon": _sent(request(more=b"Content-Length : 3\r\n")),
    "a header with a nought in it": _sent(request(more=b"X-A: a\0b\r\n")),
    "two hosts": _sent(request(more=b"Host: other\r\n")),
    "no host": _sent(request(head=b"Content-Length: %d\r\n" % len(BODY))),
    "the host of a web page": _sent(request(head=b"Host: evil.example\r\nContent-Length: %d\r\n" % len(BODY))),
    "a head of a megabyte": _sent(request(more=b"X-A: " + b"a" * 2**20 + b"\r\n")),
    "a thousand headers": _sent(request(more=b"".join(b"X-%d: a\r\n" % n for n in range(1000)))),
    "an address of 100,000 letters": _sent(request(path=b"/" + b"a" * 100_000)),
    "an upgrade": _sent(request(more=b"Upgrade: h2c\r\nConnection: Upgrade\r\n")),
    "a tunnel": _sent(b"CONNECT other:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "the beginning of HTTP/2": _sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": _sent(b"GET /v2/health/live\r\n\r\n"),
    "no HTTP": _sent(bytes(range(256)) * 10),
    "TLS": _sent(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "a path that leaves": _sent(request(path=b"/v2/models/../../../etc/passwd/infer")),
    "a path with a nought": _sent(request(path=b"/v2/models/small%00/infer")),
    "a version that is a path": _sent(request(path=b"/v2/models/small/versions/..%2f..%2fetc/infer")),
    "a model to load, without a key": _sent(request(path=b"/v2/repository/models/small/load")),
    "a bundle by its path": _sent(
        request(b'{"parameters": {"bundle": "/etc"}}', path=b"/v2/repository/models/small/load")
    ),
    "a promotion, without a key": _sent(request(b"{}", path=b"/promote")),
    "a gzip bomb": _sent(request(gzip.compress(bytes(2**28), 9), more=b"Content-Encoding: gzip\r\n")),
    "half of a gzip": _sent(request(gzip.compress(BODY)[:30], more=b"Content-Encoding: gzip\r\n")),
    "two gzips": _sent(request(gzip.compress(BODY) * 2, more=b"Content-Encoding: gzip\r\n")),
    "a coding that isn't known": _sent(request(more=b"Content-Encoding: br, gzip\r\n")),
    "nothing": _sent(request(b"")),
    "a list": _sent(request(b"[1]")),
    "no UTF-8": _sent(request(b'{"inputs": "\xff"}')),
    "nested 400,000 times": _sent(request(b'{"inputs":' + b"[" * 400_000)),
    "nested below the limit of the parser": _sent(request(b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}")),
    "half a million values": _sent(request(b'{"inputs":[' + b"0," * 500_000 + b"0]}")),
    "a number of 100,000 digits": _sent(request(b'{"inputs":' + b"9" * 100_000 + b"}")),
    "a key twice": _sent(request(BODY[:-1] + b', "inputs": []}')),
    "a key twice, once in escapes": _sent(request(BODY[:-1] + b', "\\u0069nputs": []}')),
    "NaN": _text(BODY.replace(b"6.0", b"NaN")),
    "Infinity": _text(BODY.replace(b"6.0", b"-Infinity")),
    "a number beyond float64": _text(BODY.replace(b"6.0", b"1e999")),
    "a number beyond float32": _text(BODY.replace(b"6.0", b"1e200")),
    "a number that is a text": _text(BODY.replace(b"6.0", b'"6.0"')),
    "a number that is an object": _text(BODY.replace(b"6.0", b'{"a": 1}')),
    "null among numbers": _text(BODY.replace(b"6.0", b"null")),
    "a whole number of 300 digits": _text(BODY.replace(b"6.0", b"9" * 300)),
    "a name that steers": _json(name="\x1b[2J\u202e"),
    "a name that is a list": _json(name=["input"]),
    "a type that isn't known": _json(datatype="PICKLE"),
    "a shape of an exabyte": _json(shape=[2**30, 2**30]),
    "a shape that overflows": _json(shape=[2**63, 6]),
    "a negative shape": _json(shape=[-1, -6]),
    "a shape of fractions": _json(shape=[1.0, 6.0]),
    "a shape of truth values": _json(shape=[True, 6]),
    "no examples": _json(shape=[0, 6], data=[]),
    "more numbers than the shape": _json(data=[1.0] * 60),
    "lists of other lengths": _json(data=[[1.0, 2.0], [3.0]]),
    "lists in lists in lists": _json(data=[[[[[[[1.0]]]]]]]),
    "two tensors": _text(json.dumps({"inputs": infer(ROW)["inputs"] * 2}).encode()),
    "a text as parameters": _json(parameters="binary_data_size"),
    "an id of a megabyte": _text(json.dumps(infer(ROW, id="a" * 900_000)).encode()),
    "an id that steers": _text(json.dumps(infer(ROW, id="a\r\nX-B: c")).encode()),
    "a deadline below nought": _text(json.dumps(infer(ROW, parameters={"timeout": -1})).encode()),
    "bytes that are NaN": _binary(24, struct.pack("<6f", *[float("nan")] * 6)),
    "more bytes than there are": _binary(2**40, bytes(24)),
    "fewer bytes than none": _binary(-24, bytes(24)),
    "a size that is a text": _binary("24", bytes(24)),
    "bytes that nobody names": _binary(24, bytes(48)),
    "half a number": _binary(23, bytes(23)),
    "a JSON part longer than the body": _binary(24, bytes(24), b"999999"),
    "a JSON part of thirty digits": _binary(24, bytes(24), b"9" * 30),
    "a JSON part below nought": _binary(24, bytes(24), b"-1"),
    "a JSON part of other digits": _binary(24, bytes(24), b"\xc2\xb2"),
    "two JSON parts": _sent(
        request(more=b"Inference-Header-Content-Length: 5\r\nInference-Header-Content-Length: 6\r\n")
    ),
}


def honest_request(folder: Path) -> None:
    """Write a request that is answered."""
    (folder / FILE).write_bytes(request())
