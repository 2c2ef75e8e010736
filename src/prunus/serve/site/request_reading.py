"""What does a request bring: the headers that matter here, and its body, within the limits?"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from prunus.serve.refusal import Refusal
from prunus.serve.serve_settings import ClientLimits
from prunus.serve.site.site_state import Site

__all__ = ["Receive", "Scope", "Send", "headers_of", "read_body", "timeout_of", "whole_header"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_ONCE = (
    b"authorization",
    b"content-encoding",
    b"content-type",
    b"host",
    b"inference-header-content-length",
    b"x-api-key",
    b"x-deadline-ms",
    b"x-request-id",
)


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name.

    Raises:
        Refusal: one that must be there once is there twice, so that two readers may see two requests.
    """
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in found and name in _ONCE:
            raise Refusal(400, "the header is there twice", field=name.decode("latin-1"))
        found[name] = value
    return found


def whole_header(headers: dict[bytes, bytes], name: bytes, most: int) -> int | None:
    """Return a header's whole number; None where it isn't there.

    Raises:
        Refusal: it is no whole number from 0 to ``most``.
    """
    given = headers.get(name)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 15 or int(given) > most:
        field = name.decode()
        raise Refusal(
            400, f"{field}: expected a whole number from 0 to {most}, got {given[:40].decode('latin-1')!r}", field=field
        )
    return int(given)


def timeout_of(headers: dict[bytes, bytes], limits: ClientLimits) -> float:
    """Return for how many seconds a request may take, by its header ``X-Deadline-Ms`` and the server's limit."""
    given = whole_header(headers, b"x-deadline-ms", 86_400_000)
    if given == 0:
        raise Refusal(400, "x-deadline-ms: expected at least 1 millisecond, got 0", field="x-deadline-ms")
    return limits.deadline_s if given is None else min(given / 1000, limits.deadline_s)


async def read_body(site: Site, headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """Return a request's body; whoever calls this gives ``site.held_bytes`` back by its length.

    Raises:
        Refusal: it is larger than allowed (413), there are too many of them at once (429), or its client is gone.
    """
    limits = site.settings.limits
    most = limits.body_bytes
    said = headers.get(b"content-length")
    if said is not None and said.isdigit() and int(said) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the connection was closed before the body was there", close=True)
            part: bytes = message.get("body", b"")
            size += len(part)
            site.held_bytes += len(part)
            if size > most:
                raise _too_large(most)
            if site.held_bytes > limits.held_bytes:
                raise Refusal(429, "too much is being sent at once: come again later", retry_after_s=1.0, close=True)
            parts.append(part)
            if not message.get("more_body", False):
                break
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        coding = headers.get(b"content-encoding")
        if coding is None or coding.lower() == b"identity":
            return body
        body = _expanded(body, coding.lower(), most)
    except BaseException:
        site.held_bytes -= size
        raise
    site.held_bytes += len(body) - size
    return body


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"expected a body of at most {most} bytes, got more", field="body", close=True)


def _expanded(body: bytes, coding: bytes, most: int) -> bytes:
    """Return what a compressed body holds; no more than ``most`` bytes of it are made."""
    if coding not in (b"gzip", b"deflate"):
        raise Refusal(
            415,
            f"content-encoding: expected gzip, deflate or identity, got {coding[:40].decode('latin-1')!r}",
            field="content-encoding",
        )
    opened = zlib.decompressobj(31 if coding == b"gzip" else 15)
    try:
        found = opened.decompress(body, most)
    except zlib.error as error:
        raise Refusal(400, f"body: expected {coding.decode()}, got {error}", field="body") from None
    if opened.unconsumed_tail:
        raise _too_large(most)
    if not opened.eof or opened.unused_data:
        raise Refusal(400, f"body: expected whole {coding.decode()} data and nothing after it", field="body")
    return found
