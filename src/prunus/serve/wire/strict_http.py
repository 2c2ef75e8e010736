"""Which HTTP is read at all, before there is a request?

uvicorn's parser with limits that it has none of: how large a head may be, how many connections there may be, and how long a client
may take to say something. Whatever two readers could understand differently (two hosts, two lengths, an upgrade) ends the
connection. All refusals are JSON.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from prunus.serve.refusal import Refusal
from prunus.serve.serve_settings import ClientLimits

__all__ = ["strict_protocol"]

_MOST_HEADERS = 100
_LEAST_BYTES_A_SECOND = 1000


class _StrictProtocol(HttpToolsProtocol):
    limits: ClientLimits

    def connection_made(self, transport: Any) -> None:
        """Begin to watch a connection, or refuse it where there are too many."""
        self._in_head, self._in_body, self._refused = True, False, False
        self._head_bytes = self._came_bytes = self._size = self._hosts = self._slow = 0
        self._watch: Any = None
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(Refusal(503, "too many connections: come again later", retry_after_s=1.0, close=True))
            return
        self._watch = self.loop.call_later(self.limits.read_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand what came to the parser, if it isn't too much of a head."""
        if self._refused:
            return
        self._came_bytes += len(data)
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes and not self._refused:
            self._refuse(self._large_head())

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head, self._in_body, self._hosts, self._size, self._slow = True, False, 0, 0, 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        super().on_url(url)
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        super().on_header(name, value)
        self._size += len(name) + len(value) + 4
        if name.lower() == b"host":
            self._hosts += 1

    def on_headers_complete(self) -> None:
        """Start the request, if its head can be understood in one way only."""
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        if self._refused:
            return
        if self._size > self.limits.head_bytes or len(self.headers) > _MOST_HEADERS:
            self._refuse(self._large_head())
        elif self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(Refusal(400, "expected HTTP/1.1", close=True))
        elif self._hosts != 1 and self.parser.get_http_version() == "1.1":
            self._refuse(Refusal(400, f"expected one Host header, got {self._hosts}", field="host", close=True))
        elif self.parser.should_upgrade():
            self._refuse(Refusal(400, "there is nothing here to upgrade or to tunnel to", close=True))
        elif not self.url.startswith(b"/"):
            self._refuse(Refusal(400, "expected a path that begins with /", field="path", close=True))
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_head, self._in_body = True, False
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        if not self._refused:
            self._refuse(Refusal(400, "this is no HTTP request that can be read in one way only", close=True))

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the client was told."""

    def _large_head(self) -> Refusal:
        return Refusal(
            431,
            f"expected a head of at most {self.limits.head_bytes} bytes and {_MOST_HEADERS} headers, got more",
            close=True,
        )

    def _look(self) -> None:
        """Every few seconds: end a connection that keeps something open and says nothing, or next to nothing.

        Where an answer is awaited, its deadline ends that; a connection that is done is uvicorn's to close.
        """
        came, self._came_bytes = self._came_bytes, 0
        if self.cycle is None and not self._head_bytes and self._in_head:
            self.transport.close()  # it never said anything
            return
        slow_body = self._in_body and came < _LEAST_BYTES_A_SECOND * self.limits.read_s
        slow_head = self._in_head and self._head_bytes > 0
        # Where the server itself has stopped reading, since an answer comes first, the client isn't slow.
        slow = (slow_body or slow_head) and not self.flow.read_paused
        self._slow = self._slow + 1 if slow or self.flow.write_paused else 0
        if self._slow < 2:
            self._watch = self.loop.call_later(self.limits.read_s, self._look)
        elif self.flow.write_paused:
            self.transport.abort()
        else:
            said = f"nothing, or next to nothing, of a request came within {self.limits.read_s:g} s"
            self._refuse(Refusal(408, said, close=True))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, close, and look at nothing that comes after."""
        self._refused = True
        if self.transport.is_closing():
            return
        body = refusal.body()
        lines = [STATUS_LINE[refusal.status]]
        for name, value in [*refusal.headers(), (b"content-length", b"%d" % len(body))]:
            lines += [name, b": ", value, b"\r\n"]
        answering = self.cycle is not None and not self.cycle.response_complete
        if not (answering and self.cycle.response_started):
            self.transport.write(b"".join([*lines, b"\r\n", body]))
        if answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def strict_protocol(limits: ClientLimits) -> type[HttpToolsProtocol]:
    """Return the protocol class with these limits, for uvicorn."""
    return type("StrictProtocol", (_StrictProtocol,), {"limits": limits})
