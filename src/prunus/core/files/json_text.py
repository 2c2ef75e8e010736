"""How is JSON read that somebody else wrote, so that it neither overflows the stack nor fills the memory?

The one reader for whatever comes from a file. How deep it nests and how many values it has is counted on the text before a single
one of them is made; keys that come twice, numbers of thousands of digits and numbers that JSON hasn't got are refused.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from math import isinf
from pathlib import Path
from typing import Any

from prunus.core.files.plain_files import open_plain
from prunus.core.text import shown

__all__ = ["JsonError", "check_json", "parse_json", "read_json_file"]

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 100
MAX_VALUES = 2_000_000
"""A value takes up to some two hundred bytes; a checkpoint of a hundred thousand tensors has a million."""
MAX_DIGITS = 400
"""More than any float64 has before its point."""

# The end may be missing: so every quote opens a match, and no text is gone through twice.
_TEXT = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}
_COMMA = ord(",")
_REST = bytes(set(range(256)) - set(_STEPS))


class JsonError(ValueError):
    """It is no JSON, or not of a kind that a file of prunus may hold; the text says why, in one line."""


def parse_json(
    content: bytes, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES, max_rows: int | None = None
) -> Any:
    """Return what a JSON text in UTF-8 holds.

    Args:
        max_rows: so many values may the lists hold that lie in the outermost mapping.

    Raises:
        JsonError: it isn't JSON, too large, too deep, names a key twice, or has a number that nothing can hold.

    >>> parse_json(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> parse_json(b"[" * 5000)
    Traceback (most recent call last):
    prunus.core.files.json_text.JsonError: expected JSON of at most 100 levels, got 5000
    """
    check_json(content, max_bytes=max_bytes, max_values=max_values, max_rows=max_rows)
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError(f"expected JSON, got {' '.join(str(error).split())}") from error


def check_json(
    content: bytes, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES, max_rows: int | None = None
) -> None:
    """Count what a JSON text would become, without making any of it.

    Raises:
        JsonError: it is too large, too deep, or has a number of thousands of digits.
    """
    if len(content) > max_bytes:
        raise JsonError(f"expected JSON of at most {max_bytes} bytes, got {len(content)}")
    outside = _TEXT.sub(b"", content)
    if _DIGITS.search(outside):
        raise JsonError(f"expected numbers of at most {MAX_DIGITS} digits, got a longer one")
    marks = outside.translate(None, _REST)
    del outside
    if len(marks) > max_values:
        raise JsonError(f"expected JSON of at most {max_values} values, got {len(marks)}")
    depth = max(accumulate(map(_STEPS.__getitem__, marks)), default=0)
    if depth > MAX_DEPTH:
        raise JsonError(f"expected JSON of at most {MAX_DEPTH} levels, got {depth}")
    if max_rows is not None:
        depths = accumulate(map(_STEPS.__getitem__, marks))
        n_rows = 1 + sum(mark == _COMMA and depth == 2 for mark, depth in zip(marks, depths, strict=True))
        if n_rows > max_rows:
            raise JsonError(f"expected lists of at most {max_rows} entries, got {n_rows}")


def read_json_file(path: Path, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """Return what a plain file of JSON holds; no more than ``max_bytes`` of it are read.

    Raises:
        JsonError: as :func:`parse_json`.
        OSError: it isn't there, or is no plain file.
    """
    with open_plain(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise JsonError(f"expected JSON of at most {max_bytes} bytes, got {path.stat().st_size}")
    return parse_json(content, max_bytes=max_bytes, max_values=max_values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JsonError(f"expected JSON, got the key {shown(twice)} twice")
    return found


def _refuse(constant: str) -> Any:
    raise JsonError(f"expected JSON, got {constant}, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise JsonError(f"expected numbers that a float64 holds, got {shown(text)}")
    return number
