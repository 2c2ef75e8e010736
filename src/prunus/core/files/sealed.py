"""How is it noticed that what was written was changed since?

A tree of plain values holds its own SHA-256 under ``sha256``. A file that is kept for a resume ends with the SHA-256 of all before.
Both catch accidents and edits by hand; neither is a signature. What was hashed is what is used: callers get the bytes that were
read for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.files.plain_files import open_plain

__all__ = [
    "DamagedError",
    "canonical_json",
    "seal",
    "sealed_tree",
    "short_digest",
    "tree_sha256",
    "unseal",
    "unsealed_tree",
]

_MARK = b"\nprunus sha256 "
_LENGTH = len(_MARK) + 32


class DamagedError(ValueError):
    """A sealed file isn't what was written."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1.5, "a": [True, None]})
    '{"a":[true,null],"b":1.5}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_digest(value: Any) -> str:
    """Return a name for what is made of plain values: the same for the same ones. What JSON doesn't know counts as its text.

    >>> short_digest({"a": 1, "b": 2}) == short_digest({"b": 2, "a": 1}), len(short_digest([]))
    (True, 16)
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tree_sha256(tree: Mapping[str, Any]) -> str:
    """Return the hash of a tree of plain values, but for what stands under ``sha256``.

    >>> tree_sha256({"a": 1}) == tree_sha256({"a": 1, "sha256": "anything"}) != tree_sha256({"a": 2})
    True
    """
    rest = {key: value for key, value in tree.items() if key != "sha256"}
    return hashlib.sha256(canonical_json(rest).encode("utf-8", "surrogatepass")).hexdigest()


def sealed_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with its own hash in it."""
    return {**tree, "sha256": tree_sha256(tree)}


def unsealed_tree(content: bytes) -> dict[str, Any]:
    """Return the tree that JSON holds with its own hash.

    Raises:
        DamagedError: it is no such JSON, or was changed since.

    >>> unsealed_tree(json.dumps(sealed_tree({"a": 1})).encode())["a"]
    1
    """
    try:
        tree: dict[str, Any] = json.loads(content)
        whole = tree_sha256(tree) == tree["sha256"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError("it is no JSON object with its own SHA-256") from error
    if not whole:
        raise DamagedError("it was changed after it was written")
    return tree


def seal(path: Path) -> None:
    """Append the hash of a file's content to it."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, 2)
        file.write(_MARK + digest)


def unseal(path: Path) -> bytes | None:
    """Return the content of a sealed file, read once; None where there is no file.

    Raises:
        DamagedError: it is no plain file, was cut off, or any bit of it isn't as it was written.
    """
    try:
        with open_plain(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}") from error
    body, end = content[:-_LENGTH], content[-_LENGTH:]
    if end != _MARK + hashlib.sha256(body).digest():
        raise DamagedError(f"{path}: its content isn't what was written")
    return body
