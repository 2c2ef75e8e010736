"""What is said to a client whose request isn't answered: which status, which field, and when to come again?

Every refusal is a JSON body ``{"error": ..., "field": ...}``; ``error`` is what clients of the Open Inference Protocol show.
"""

from __future__ import annotations

import json

from prunus.core.text import plain

__all__ = ["Refusal"]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of the server
    """A request that gets no answer; the message is one line.

    Args:
        status: 4xx where the client can do something about it, 5xx where it can't.
        field: where in the request it is wrong: ``inputs[0].shape``, a header's name, ...
        retry_after_s: when the same request may be answered.
        close: whether the connection ends, since the rest of the request isn't read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        close: bool = False,
        challenge: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.retry_after_s, self.close, self.challenge = retry_after_s, close, challenge

    def body(self) -> bytes:
        """Return the JSON that the client gets."""
        said: dict[str, str] = {"error": plain(self.message)[:1000]}
        if self.field is not None:
            said["field"] = plain(self.field)[:200]
        return json.dumps(said).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go along."""
        found = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % max(1, round(self.retry_after_s + 0.499))))
        if self.challenge:
            found.append((b"www-authenticate", b"Bearer"))
        if self.close:
            found.append((b"connection", b"close"))
        return found
