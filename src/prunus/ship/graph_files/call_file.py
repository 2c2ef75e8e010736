"""How is it written down in ``graph.json`` how a computation is called, and what holds its answer?

``answer`` is a form: ``"tensor"``, null (nothing), ``["list" | "tuple", [FORM, ...]]``, or
``["named" | "mapping" | "fields", [[KEY, FORM], ...]]``, with as many tensors as the graph gives, in its order. ``places`` are the
names of what may come by position. Both come from a sender that nobody knows: there are these kinds and no other, no class is
named, and names are plain.
"""

from __future__ import annotations

import keyword
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.core.errors import BundleError
from prunus.core.structures.forms import FLAT, Form
from prunus.core.structures.signature import Signature

__all__ = ["CALL_KEYS", "Call", "argument_names", "read_call", "written_form"]

CALL_KEYS = ("answer", "places")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_DEEPEST = 8
_MOST_PARTS = 1024
_MOST_PLACES = 256


@dataclass(frozen=True)
class Call:
    """What a file says of a call."""

    answer: Form
    signature: Signature


def argument_names(signature: Signature) -> list[str]:
    """Return what the tensors that a computation takes are called.

    Raises:
        BundleError: an argument isn't one tensor, or its name is none that a file may hold.
    """
    for name, form in signature.forms.items():
        if form != FLAT:
            raise BundleError(
                f"a graph file holds arguments that are a tensor each: got {name}, a {form.kind} of {form.n_tensors}"
            )
    for name in (*signature.places, *signature.forms):
        _check_name(name)
    return list(signature.forms)


def written_form(form: Form) -> Any:
    """Return a form as plain values.

    Raises:
        BundleError: it has keys that a file may not hold, or is too large.
    """
    if form.kind in ("tensor", "nothing"):
        written: Any = "tensor" if form.kind == "tensor" else None
    elif form.kind in ("list", "tuple"):
        written = [form.kind, [written_form(part) for part in form.parts]]
    else:
        written = [
            form.kind,
            [[key, written_form(part)] for key, part in zip(form.keys, form.parts, strict=True)],
        ]
    _Forms().read(written)
    return written


def read_call(tree: dict[str, Any], names: Sequence[str | None], n_outputs: int, keywords: Sequence[str]) -> Call:
    """Return how the computation is called that a parsed ``graph.json`` holds: as many tensors of these names, one answer.

    Files before format 3 say nothing of it: several outputs are a list.

    Args:
        keywords: the names by which the bundle says that inputs come; nothing where they come by position.

    Raises:
        BundleError: it isn't written as it should be, or doesn't fit the graph's inputs and outputs, or the bundle's.
    """
    if "answer" not in tree:
        numbered = tuple(f"input_{number}" for number in range(len(names)))
        answer = FLAT if n_outputs == 1 else Form("list", (FLAT,) * n_outputs)
        taken = tuple(keywords) or numbered
        return Call(answer, Signature(() if keywords else numbered, dict.fromkeys(taken, FLAT), bool(keywords)))
    answer = _Forms().read(tree["answer"])
    if answer.n_tensors != n_outputs:
        raise BundleError(f"the answer must hold the {n_outputs} outputs of the graph, got {answer.n_tensors}")
    places = tree["places"]
    if not isinstance(places, list) or len(places) > _MOST_PLACES:
        raise BundleError(f"places must be a list of at most {_MOST_PLACES} names, got {reprlib.repr(places)}")
    known = [_check_name(name) for name in names]
    for own in (places, known):
        if len({_check_name(name) for name in own}) != len(own):
            raise BundleError(f"every argument has a name of its own, got {reprlib.repr(own)}")
    if known != list(keywords or places[: len(known)]):
        wanted = ", ".join(keywords) or f"{len(known)} by position"
        raise BundleError(f"the bundle's model takes {wanted[:200]}, and the graph takes {', '.join(known)[:200]}")
    return Call(answer, Signature(tuple(places), dict.fromkeys(known, FLAT), bool(keywords)))


class _Forms:
    """Reads one form; counts its parts."""

    def __init__(self) -> None:
        self.n_parts = 0

    def read(self, tree: Any, depth: int = 0) -> Form:
        """Return the form that plain values describe."""
        self.n_parts += 1
        if depth > _DEEPEST or self.n_parts > _MOST_PARTS:
            raise BundleError(f"an answer is at most {_DEEPEST} deep and of {_MOST_PARTS} parts")
        if tree is None or tree == "tensor":
            return FLAT if tree == "tensor" else Form("nothing")
        kind, parts = tree if isinstance(tree, list) and len(tree) == 2 else (None, None)
        if kind in ("list", "tuple") and isinstance(parts, list):
            return Form(kind, tuple(self.read(part, depth + 1) for part in parts))
        if kind in ("named", "mapping", "fields") and isinstance(parts, list):
            if not all(isinstance(part, list) and len(part) == 2 for part in parts):
                raise BundleError(f"the parts of a {kind} are [KEY, FORM]: got {reprlib.repr(parts)}")
            keys = tuple(_check_key(key) if kind == "mapping" else _check_field(key) for key, _ in parts)
            if len(set(keys)) != len(keys):
                raise BundleError(f"every key comes once, got {reprlib.repr(keys)}")
            return Form(kind, tuple(self.read(part, depth + 1) for _, part in parts), keys)
        raise BundleError(
            f"an answer is 'tensor', null, or a list, tuple, named, mapping or fields of such: got {reprlib.repr(tree)}"
        )


def _check_name(name: Any) -> str:
    if type(name) is not str or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise BundleError(f"a plain name was expected, got {reprlib.repr(name)}")
    return name


def _check_field(name: Any) -> str:
    if (found := _check_name(name)).startswith("_"):
        raise BundleError(f"a field's name begins with a letter, got {found!r}")
    return found


def _check_key(key: Any) -> str | int:
    fits = type(key) is int and abs(key) < 2**31
    if not fits and not (type(key) is str and len(key) <= 100 and key.isprintable()):
        raise BundleError(f"a key is a whole number or at most 100 characters, got {reprlib.repr(key)}")
    return key  # type: ignore[no-any-return]
