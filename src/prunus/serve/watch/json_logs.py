"""What does a server write down: one JSON object a line, on standard error?

Texts that clients chose are escaped by JSON, so no request makes a line of its own. Bodies and keys are never written.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["JsonLines", "log_to", "say"]

_LOGGER = logging.getLogger("prunus.serve")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, what happened, and what else is known of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        said |= getattr(record, "facts", {})
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def log_to(stream: TextIO | None = None) -> None:
    """Send the server's own log and uvicorn's to a stream as JSON lines; access logs of uvicorn stay off."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("prunus.serve", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(logging.INFO if name == "prunus.serve" else logging.WARNING)
    logging.getLogger("uvicorn.access").handlers.clear()


def say(event: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """Write down what happened."""
    _LOGGER.log(level, event, extra={"facts": facts})
