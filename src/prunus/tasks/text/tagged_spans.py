"""Which spans do tags such as ``B-PER I-PER O`` mark, and which of them are found?

A span is right when its type, its beginning and its end are. Tags that can't follow each other are read as seqeval and conlleval
do: ``I-PER`` after ``O`` begins a span, and another type begins another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunus.core.types import Bools, Ints

__all__ = ["Tagging", "span_counts"]

_TAG = re.compile(r"([BIES])(?:-(.+))?\Z")


@dataclass(frozen=True)
class Tagging:
    """What tags mean: the types of spans, and two tables of whether a span begins, or has ended, with a tag after another.

    Shapes:
        ``kind`` is ``(tags,)``, -1 of ``O``; ``begins`` and ``ends`` are ``(tags, tags)``, the one before first.
    """

    kinds: tuple[str, ...]
    outside: int
    kind: Ints
    begins: Bools
    ends: Bools

    @classmethod
    def of(cls, names: Sequence[str]) -> Tagging | None:
        """Return the meaning of class names; None if they don't look like tags: an ``O``, and all others BIO, IOB2 or BIOES.

        >>> Tagging.of(("O", "B-PER", "I-PER")).kinds
        ('PER',)
        >>> Tagging.of(("noun", "verb"))
        """
        parts = [_TAG.match(name) for name in names if name != "O"]
        if list(names).count("O") != 1 or not parts or not all(parts):
            return None
        # (prefix, type) of each tag
        split = [("O", "") if name == "O" else (name[0], name[2:]) for name in names]
        kinds = tuple(dict.fromkeys(kind for prefix, kind in split if prefix != "O"))
        n = len(names)
        begins, ends = np.zeros((n, n), bool), np.zeros((n, n), bool)
        for before, (last, old) in enumerate(split):
            for after, (prefix, new) in enumerate(split):
                over = last in "ES" or prefix in "BSO" or old != new
                begins[before, after] = prefix != "O" and (last in "OES" or prefix in "BS" or old != new)
                ends[before, after] = last != "O" and over
        kind = np.asarray([-1 if prefix == "O" else kinds.index(name) for prefix, name in split])
        return cls(kinds, list(names).index("O"), kind, begins, ends)

    def spans(self, tags: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the first place, the last and the type of every span of a sequence ``(n,)``, in order."""
        before = np.append(self.outside, tags)
        after = np.append(tags, self.outside)
        first = np.flatnonzero(self.begins[before, after])
        last = np.flatnonzero(self.ends[before, after]) - 1
        return first, last, self.kind[tags[first]]


def span_counts(tagging: Tagging, true: Ints, said: Ints, example: Ints, n: int) -> tuple[Ints, Ints, Ints]:
    """Return how many spans of each type are found rightly, are there, and are said to be there, each ``(n, types)``.

    Shapes:
        ``true``, ``said`` and ``example`` are ``(tokens,)``: the tags, and whose they are, in order; a span ends with its example.
    """
    # An O after each example keeps spans apart, as the end of a sequence does.
    stops = np.flatnonzero(np.diff(example, append=n)) + 1
    true, said = np.insert(true, stops, tagging.outside), np.insert(said, stops, tagging.outside)
    owner = np.insert(example, stops, example[stops - 1])
    shape = (n, len(tagging.kinds))

    def counted(first: Ints, kind: Ints) -> Ints:
        return np.bincount(owner[first] * shape[1] + kind, minlength=n * shape[1]).reshape(shape)

    there, found = tagging.spans(true), tagging.spans(said)
    length, types = len(true) + 1, shape[1]
    keys = [(first * length + last) * types + kind for first, last, kind in (there, found)]
    right = np.isin(keys[0], keys[1])
    return counted(there[0][right], there[2][right]), counted(there[0], there[2]), counted(found[0], found[2])
