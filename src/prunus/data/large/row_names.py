"""What are examples called whose names needn't be held: row numbers, texts in a file, or some of another's?

Each is a sequence that makes a name when it is asked for, and equals any other sequence of the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from torch import Tensor

from prunus.core.types import Ints

__all__ = ["ChosenNames", "FiledNames", "JoinedNames", "Names", "RowNumbers"]

_AT_ONCE = 1 << 14


class Names(Sequence[str]):
    """Names that are made when they are asked for; abstract."""

    def at(self, rows: Ints) -> list[str]:
        """Return the names of some rows."""
        raise NotImplementedError

    @overload
    def __getitem__(self, which: int) -> str: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[str, ...]: ...
    def __getitem__(self, which: int | slice) -> str | tuple[str, ...]:
        if isinstance(which, slice):
            return tuple(self.at(np.arange(*which.indices(len(self)))))  # the rows that are asked for, not all of them
        row = int(which) + len(self) if which < 0 else int(which)
        if not 0 <= row < len(self):
            raise IndexError(f"there are {len(self)} names, got {which}")
        return self.at(np.array([row]))[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.at(np.arange(start, min(start + _AT_ONCE, len(self))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"{type(self).__name__}({shown}{', ...' if len(self) > 3 else ''}; {len(self)} names)"


class RowNumbers(Names):
    """The numbers of rows as texts; ``numbers`` where some rows of the file aren't among them.

    >>> RowNumbers(3)[-1], RowNumbers(3) == ("0", "1", "2")
    ('2', True)
    """

    def __init__(self, n: int, numbers: np.ndarray[Any, Any] | None = None) -> None:
        self._n, self._numbers = n, numbers

    def __len__(self) -> int:
        return self._n

    def at(self, rows: Ints) -> list[str]:
        """Return the names of some rows."""
        return list(map(str, (rows if self._numbers is None else self._numbers[rows]).tolist()))


class FiledNames(Names):
    """Texts that lie one after the other in UTF-8: row ``i`` from ``ends[i - 1]`` to ``ends[i]``."""

    def __init__(self, texts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> None:
        self._texts, self._ends = texts, ends

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, rows: Ints) -> list[str]:
        """Return the names of some rows."""
        ends = self._ends[rows].tolist()
        starts = np.where(rows > 0, self._ends[np.maximum(rows - 1, 0)], 0).tolist()
        return [bytes(self._texts[start:end]).decode() for start, end in zip(starts, ends, strict=True)]


class ChosenNames(Names):
    """The names of some rows of others."""

    def __init__(self, every: Names, rows: Tensor) -> None:
        self._every, self._rows = every, rows

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, rows: Ints) -> list[str]:
        """Return the names of some of the rows."""
        return self._every.at(self._rows.numpy()[rows])


class JoinedNames(Names):
    """The names of several sets, one after the other, each with its prefix.

    >>> list(JoinedNames([("", ["a", "b"]), ("test:", ["a"])]))
    ['a', 'b', 'test:a']
    """

    def __init__(self, parts: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(names) for _, names in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def at(self, rows: Ints) -> list[str]:
        """Return the names of some rows."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])[numbers]
        found = [""] * len(rows)
        for number, (prefix, names) in enumerate(self._parts):
            places = np.flatnonzero(numbers == number)
            own = rows[places] - starts[places]
            made = names.at(own) if isinstance(names, Names) else [names[row] for row in own.tolist()]
            for place, name in zip(places.tolist(), made, strict=True):
                found[place] = prefix + name
        return found
