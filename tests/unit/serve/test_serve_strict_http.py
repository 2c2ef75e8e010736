"""Requests that two readers may understand differently, and clients that take for ever, are refused, and the server goes on."""

from __future__ import annotations

import itertools
import json
import socket

import pytest

from patience import PATIENCE_S, until
from serve_stand_ins import exchange, infer, listening, received, small_bundle, watch_begins_with_a_word

__all__ = ["small_bundle"]

BODY = json.dumps(infer([[1.0] * 6])).encode()
PATH = b"/v2/models/small/infer"


def request(body=BODY, *, head=b"", path=PATH, method=b"POST", length=None, version=b"HTTP/1.1"):
    size = b"" if length == b"" else b"content-length: %d\r\n" % len(body) if length is None else length
    return b"%s %s %s\r\nhost: localhost\r\n%s%s\r\n%s" % (method, path, version, size, head, body)


@pytest.fixture(scope="module")
def port(small_bundle):
    with listening(small_bundle, limits={"head_bytes": 8000, "connections": 40}) as (_, port):
        yield port


@pytest.fixture
def hasty(small_bundle):
    """The port of a server that waits for no one who has begun."""
    with watch_begins_with_a_word(), listening(small_bundle, limits={"read_s": 0.2}) as (_, port):
        yield port


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def fine(port):
    """Whether the server answers a good request."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(request())
        return status(received(connection, n_answers=1)) == 200


CHUNKED = b"transfer-encoding: chunked\r\n"
SMUGGLED = {
    "length and chunks": request(b"0\r\n\r\n", length=b"content-length: 4\r\n" + CHUNKED),
    "chunks and length": request(b"0\r\n\r\n", length=CHUNKED + b"content-length: 4\r\n"),
    "two lengths": request(length=b"content-length: 5\r\ncontent-length: 6\r\n"),
    "two equal lengths": request(b"{}", length=b"content-length: 2\r\ncontent-length: 2\r\n"),
    "a list of lengths": request(b"{}", length=b"content-length: 2, 2\r\n"),
    "a signed length": request(b"{}", length=b"content-length: +2\r\n"),
    "a hexadecimal length": request(b"{}", length=b"content-length: 0x2\r\n"),
    "a negative length": request(b"{}", length=b"content-length: -1\r\n"),
    "a length beyond all numbers": request(b"{}", length=b"content-length: 99999999999999999999999\r\n"),
    "chunks by another name": request(b"0\r\n\r\n", length=b"transfer-encoding: xchunked\r\n"),
    "chunks and more": request(b"0\r\n\r\n", length=b"transfer-encoding: chunked, identity\r\n"),
    "a space before the colon": request(b"0\r\n\r\n", length=b"transfer-encoding : chunked\r\n"),
    "a folded header": request(b"0\r\n\r\n", length=b"transfer-encoding:\r\n chunked\r\n"),
    "a chunk of a negative size": request(b"-1\r\nx\r\n0\r\n\r\n", length=CHUNKED),
    "a chunk of a signed size": request(b"+2\r\n{}\r\n0\r\n\r\n", length=CHUNKED),
    "a chunk of 2**64 bytes": request(b"10000000000000000\r\nx\r\n0\r\n\r\n", length=CHUNKED),
    "a bare line end in a chunk": request(b"2\n{}\n0\n\n", length=CHUNKED),
    "no host": b"POST %s HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}" % PATH,
    "two hosts": request(head=b"host: other\r\n"),
    "another server's address": request(path=b"http://other/v2"),
    "a carriage return in a header": request(head=b"x-a: b\rc: d\r\n"),
    "a zero in a header": request(head=b"x-a: b\x00c\r\n"),
    "a name with a space": request(head=b"x a: b\r\n"),
    "an upgrade": request(head=b"connection: upgrade\r\nupgrade: h2c\r\n"),
    "a websocket": request(head=b"connection: upgrade\r\nupgrade: websocket\r\n"),
    "a tunnel": b"CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an old version": b"GET /v2\r\n\r\n",
    "letters beyond ASCII in the path": request(path="/v2/modèles".encode()),
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_what_can_be_read_in_two_ways_ends_the_connection(port, what):
    # Whatever follows would be a request of its own to a reader that understood the first one differently.
    answer = exchange(port, SMUGGLED[what] + request(path=b"/metrics", method=b"GET", body=b""))
    assert status(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])
    assert fine(port)


HUGE = {
    "one header": request(head=b"x-a: " + b"a" * 100_000 + b"\r\n"),
    "many headers": request(head=b"".join(b"x-%d: a\r\n" % n for n in range(200))),
    "a header that doesn't end": request(head=b"x-a: " + b"a" * 100_000)[: -len(BODY) - 2],
    "the path": request(path=b"/v2/" + b"a" * 100_000),
    "a name": request(head=b"x" * 100_000 + b": a\r\n"),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_huge_head_is_refused(port, what):
    answer = exchange(port, HUGE[what])
    assert status(answer) == 431
    assert fine(port)


def test_requests_one_after_another_on_one_connection_are_answered_in_order(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        bodies = [json.dumps(infer([[float(n)] * 6])).encode() for n in range(5)]
        connection.sendall(b"".join(map(request, bodies)))
        answers = received(connection, n_answers=5)
    values = [
        json.loads(part.partition(b"\r\n\r\n")[2])["outputs"][0]["data"][0] for part in answers.split(b"HTTP/1.1 ")[1:]
    ]
    assert values == [0, 1, 2, 3, 4]


def test_a_body_in_chunks_is_read(port):
    answer = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(request(answer, length=CHUNKED))
        assert status(received(connection, n_answers=1)) == 200


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(request(b"", length=b"content-length: %d\r\nexpect: 100-continue\r\n" % len(BODY)))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert status(received(connection, n_answers=1)) == 200


def slow(port, begun, letters):
    """Send what begins a request, then letter after letter until the server has enough of it; return what it said."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(begun)
        connection.settimeout(0.05)
        for letter in letters:
            try:
                connection.sendall(bytes([letter]))
                return connection.recv(65536)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return b""
    raise AssertionError("the server never ended the connection")


def test_a_head_that_comes_letter_by_letter_is_refused(hasty):
    said = slow(hasty, b"P", request(head=b"x-a: " + b"a" * 6_000)[1:])
    assert status(said) == 408
    assert fine(hasty)


def test_a_body_that_comes_letter_by_letter_is_refused(hasty):
    head, _, _ = request(length=b"content-length: 1000000\r\n").partition(b"\r\n\r\n")
    said = slow(hasty, head + b"\r\n\r\n", itertools.repeat(ord(" "), 6_000))
    assert status(said) == 408
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert fine(hasty)


def test_a_connection_that_says_nothing_is_closed(small_bundle):
    with (
        listening(small_bundle, limits={"read_s": 0.05}) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection,
    ):
        assert connection.recv(1) == b""


def test_a_client_that_reads_nothing_is_cut_off(small_bundle):
    body = json.dumps(infer([[1.0] * 6] * 4000)).encode()
    with (
        watch_begins_with_a_word(),
        listening(small_bundle, limits={"read_s": 0.2}) as (_, port),
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", port))
        try:
            for _ in range(400):
                connection.sendall(request(body))
        except (BrokenPipeError, ConnectionResetError, TimeoutError) as error:
            assert not isinstance(error, TimeoutError)
        else:
            raise AssertionError("the server took everything of a client that read nothing")
        assert fine(port)


def test_too_many_connections_are_refused_and_the_others_go_on(port):
    held = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(60)]
    try:
        answer = received(held[-1])
        assert status(answer) == 503
        assert b"retry-after: 1" in answer
    finally:
        for connection in held:
            connection.close()
    assert until(lambda: fine(port))


def test_a_server_that_ends_answers_what_came(small_bundle):
    from serve_stand_ins import StandInEngine

    engine = StandInEngine()
    engine.go.clear()
    with socket.socket() as connection:
        with listening(small_bundle, engine) as (site, port):
            connection.connect(("127.0.0.1", port))
            connection.sendall(request())
            until(lambda: site.traffic.primary.batcher._busy)
            site.ends = True
            engine.go.set()
        answer = received(connection)
    assert status(answer) == 200
    assert b"connection: close" in answer
