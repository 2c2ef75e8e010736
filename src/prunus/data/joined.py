"""How do several sources become one data set whose parts are known?

A user's own test set lies in a file or folder of its own. Classes are matched by their names, and the id of an example says which
part it came from, so that the parts can be told apart and told equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.types import Digests
from prunus.data.columns.fit import TableFacts
from prunus.data.content import digest_table
from prunus.data.large.row_names import JoinedNames, Names
from prunus.data.large.scratch import scratch_array
from prunus.data.sources.source import Source

__all__ = ["JoinedSource", "join"]


@dataclass(frozen=True, eq=False)
class JoinedSource:
    """Several sources, one after the other; the first says what the task, the classes and the features are."""

    sources: tuple[Source, ...]
    ids: Sequence[str]
    targets: Tensor
    starts: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Where most of the examples come from."""
        return self.sources[0].name

    @property
    def task(self) -> str:
        """What the targets ask for."""
        return self.sources[0].task

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class number."""
        return self.sources[0].class_names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per input feature."""
        return self.sources[0].feature_names

    @property
    def label_kind(self) -> str:
        """The kind of labels that went in."""
        return self.sources[0].label_kind

    @property
    def table(self) -> TableFacts | None:
        """What the numbers of a table stand for."""
        return getattr(self.sources[0], "table", None)

    @property
    def beside(self) -> dict[str, np.ndarray[Any, Any]]:
        """What else is known of each row; what only the rest has, the others' rows have as nothing."""
        found = {}
        for key, known in getattr(self.sources[0], "beside", {}).items():
            nothing = "" if known.dtype.kind == "U" else np.nan
            parts = [
                getattr(source, "beside", {}).get(key, np.full(len(source.ids), nothing)) for source in self.sources
            ]
            found[key] = np.concatenate(parts)
        return found

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.sources[0].input_shape)

    @property
    def on_disk(self) -> str:
        """The first folder whose arrays are mapped, if there is one."""
        return next(filter(None, (getattr(source, "on_disk", "") for source in self.sources)), "")

    @cached_property
    def digests(self) -> Digests:
        """The digest of each row; those that are held beside a part's data aren't made again."""
        found = scratch_array((len(self.ids), 32), np.uint8)
        for start, source in zip(self.starts, self.sources, strict=True):
            found[start : start + len(source.ids)] = digest_table(source)
        return found

    @property
    def fixed(self) -> bool:
        """Whether an example is the same whenever it is read."""
        return all(getattr(source, "fixed", True) for source in self.sources)

    def inputs(self, rows: Tensor, seed: int = 0) -> Tensor:
        """Return the raw inputs of some rows, of whichever source; what one draws hangs on ``seed``."""
        bounds = torch.tensor([*self.starts[1:], len(self.ids)])
        owner = torch.bucketize(rows, bounds, right=True)
        found: list[tuple[Tensor, Tensor]] = []
        for number, source in enumerate(self.sources):
            mine = (owner == number).nonzero().flatten()
            if len(mine):
                own = rows[mine] - self.starts[number]
                fixed = getattr(source, "fixed", True)
                found.append((mine, source.inputs(own) if fixed else source.inputs(own, seed)))  # type: ignore[call-arg]
        if not found:
            none: Tensor = self.sources[0].inputs(rows)
            return none
        values = torch.cat([part for _, part in found])
        return values[torch.cat([mine for mine, _ in found]).argsort()]


def join(rest: Source, parts: Mapping[str, Source]) -> tuple[JoinedSource, dict[str, Tensor]]:
    """Return one source of all, and the rows of each part that has a source of its own.

    Raises:
        DataError: a part has other inputs, another task, other features or a class that the rest doesn't have.
    """
    n, targets, starts = len(rest.ids), [rest.targets], [0]
    rows: dict[str, Tensor] = {}
    for part, source in parts.items():
        _check_alike(rest, part, source)
        starts.append(n)
        rows[part] = torch.arange(n, n + len(source.ids))
        n += len(source.ids)
        targets.append(_renumbered(rest, part, source))
    names: Sequence[str] = JoinedNames([("", rest.ids), *((f"{part}:", source.ids) for part, source in parts.items())])
    names = names if isinstance(rest.ids, Names) else tuple(names)
    notes = [*getattr(rest, "notes", ())]
    for part, source in parts.items():
        notes += [f"data.{part}: {note}" for note in getattr(source, "notes", ())]
    joined = JoinedSource((rest, *parts.values()), names, _one_after_the_other(targets), tuple(starts), tuple(notes))
    return joined, rows


def _one_after_the_other(targets: Sequence[Tensor]) -> Tensor:
    kind = torch.result_type(targets[0], targets[-1])
    found = torch.from_numpy(scratch_array((sum(map(len, targets)),), torch.empty(0, dtype=kind).numpy().dtype))
    torch.cat(list(targets), out=found)
    return found


def _check_alike(rest: Source, part: str, source: Source) -> None:
    pairs = {
        "inputs of shape": (tuple(rest.input_shape), tuple(source.input_shape)),
        "the task": (rest.task, source.task),
        "the features": (rest.feature_names, source.feature_names),
    }
    for what, (wanted, found) in pairs.items():
        if wanted != found:
            raise DataError(
                f"data.{part}: {source.name}: expected {what} {_short(wanted)} as data.source has: got {_short(found)}"
            )


def _renumbered(rest: Source, part: str, source: Source) -> Tensor:
    """Return the targets with the class numbers of the rest."""
    if rest.task == "regression":
        return source.targets
    numbers = {name: number for number, name in enumerate(rest.class_names)}
    absent = [
        name
        for number, name in enumerate(source.class_names)
        if name not in numbers and bool((source.targets == number).any())
    ]
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise DataError(
            f"data.{part}: {source.name}: got the class {shown}, which data.source doesn't have; correct the labels"
        )
    table = torch.tensor([numbers.get(name, -1) for name in source.class_names])
    return table[source.targets]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
