"""How does text reach a terminal that can't show all of it, and what if nobody reads it any more?"""

from __future__ import annotations

import codecs
import os
import sys

__all__ = ["hush", "speak_plainly"]

_PLAIN = {
    "\u2009": " ",
    "\u202f": " ",
    "\u00a0": " ",
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u00b7": "-",
    "\u2026": "...",
    "\u00d7": "x",
    "\u00b1": "+/-",
    "\u2192": "->",
    "\u2190": "<-",
    "\u2265": ">=",
    "\u2264": "<=",
    "\u2713": "ok",
}
_HANDLER = "prunus.plain"


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Say what an encoding lacks by what it has: a thin space by a space, a minus by a hyphen, all else by a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def speak_plainly() -> None:
    """Let standard output and error replace what their encoding lacks, instead of ending a run at its last line."""
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def hush() -> None:
    """Send what standard output still holds nowhere: its reader (head, less) has seen enough."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # no file behind it
        pass
