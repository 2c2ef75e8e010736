"""How is JSON read that a stranger sent, quickly where it is harmless?

What could fill the memory or overflow the stack is counted on the text before a value is made. A short text with few brackets, as
most are, needs two counts in C; any other goes through the slower count of :mod:`prunus.core.files.json_text`. Then orjson reads
it. It takes a key that comes twice, which two readers may read differently, so the colons are counted: where there are more than
keys that were read, and wherever orjson refuses, the slower reader of Python has the last word, and says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from prunus.core.code.extras import require
from prunus.core.files.json_text import MAX_DEPTH, JsonError, check_json
from prunus.serve.refusal import Refusal

__all__ = ["parse_body"]

MOST_VALUES = 2_000_000
MOST_DIGITS = 400


def parse_body(body: bytes | bytearray | memoryview, *, field: str = "body") -> dict[str, Any]:
    """Return the mapping that a JSON text in UTF-8 holds.

    Raises:
        Refusal: it is no JSON, no mapping, too deep or too large, names a key twice, or has a number that JSON hasn't got.
    """
    text = bytes(body)
    try:
        n_deep = text.count(b"[") + text.count(b"{")
        if n_deep > MAX_DEPTH or len(text) > 1 << 16:
            check_json(text, max_values=MOST_VALUES)
        found = _read(text)
    except JsonError as error:
        raise Refusal(400, f"{field}: {error}", field=field) from None
    except (ValueError, RecursionError) as error:
        said = "it isn't UTF-8" if isinstance(error, UnicodeDecodeError) else " ".join(str(error).split())
        raise Refusal(400, f"{field}: expected JSON, got {said[:200]}", field=field) from None
    if not isinstance(found, dict):
        raise Refusal(400, f"{field}: expected a JSON object, got {_kind(found)}", field=field)
    return found


def _read(text: bytes) -> Any:
    """Return what a harmless text holds.

    Raises:
        ValueError: it is no JSON, or names a key twice.
    """
    try:
        found = _loads()(text)
        # Each key brings one colon; those in texts are more.
        if text.count(b":") == _n_keys(found):
            return found
    except ValueError:
        pass
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)


@cache
def _loads() -> Callable[[bytes], Any]:
    loads: Callable[[bytes], Any] = require("orjson", extra="serve").loads
    return loads


def _n_keys(value: Any) -> int:
    """Return how many keys there are in all the mappings of a tree."""
    if type(value) is dict:
        return len(value) + sum([_n_keys(one) for one in value.values()])
    if type(value) is list and value and type(value[0]) in (dict, list, str, bool, type(None)):
        return sum([_n_keys(one) for one in value])
    return 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("expected each key once, got one twice")
    return found


def _no_constant(constant: str) -> Any:
    raise JsonError(f"expected numbers, got {constant}, which JSON hasn't got")


def _whole(digits: str) -> int | float:
    """Return a whole number, a float where it takes more than 64 bits: as orjson does."""
    if len(digits) > MOST_DIGITS:
        raise JsonError(f"expected numbers of at most {MOST_DIGITS} digits, got {len(digits)}")
    value = int(digits)
    if -(2**63) <= value < 2**64:
        return value
    try:
        return float(value)
    except OverflowError:
        raise JsonError(f"expected numbers that float64 holds, got one of {len(digits)} digits") from None


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
