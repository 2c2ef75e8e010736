"""Which examples are for training, for decisions, for evidence and for the final numbers?

Every class (for regression: every tenth of the targets' range) is shared out in the same proportions, and sizes are exact; unless
a column of the user's says otherwise (``own_split``). Then the parts are made disjoint by content: of equal inputs in two parts,
the one in the stronger part stays, and test is the strongest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Split
from prunus.core.runtime import generator
from prunus.core.types import Digests
from prunus.data.content import digest_table
from prunus.data.large.scratch import places_of, scratch_array, scratch_full, scratch_take
from prunus.data.own_split import by_groups, by_time, named_parts
from prunus.data.sources.source import Source, beside_of, class_counts
from prunus.data.twins import Twins, find_twins

__all__ = ["PARTS", "Duplicate", "Splits", "apportion", "check_classes", "deal", "split"]

PARTS = ("test", "validation", "calibration", "train")
"""From the strongest claim on a duplicate to the weakest."""

QUANTILES = 10

_AT_ONCE = 1 << 16
_FEW = 10_000

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Duplicate:
    """Two examples with the same input in two parts: which one stays and which one goes."""

    kept_id: str
    removed_id: str
    kept_split: str
    removed_split: str
    labels_differ: bool


@dataclass(frozen=True, eq=False)
class Splits:
    """The rows of each part, ascending, disjoint by row and by content.

    ``repeats_in_train`` counts training examples whose input another training example has, too; they stay.
    """

    train: Tensor
    validation: Tensor
    calibration: Tensor
    test: Tensor
    duplicates: Sequence[Duplicate] = ()
    repeats_in_train: int = 0

    def part(self, name: str) -> Tensor:
        """Return the rows of the part called ``name``."""
        rows: Tensor = getattr(self, name)
        return rows


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers in the proportions of ``shares`` that add up to ``total``: the largest remainders round up.

    >>> apportion(10, [0.55, 0.15, 0.1, 0.2])
    [6, 1, 1, 2]
    >>> apportion(3, [1, 1])
    [2, 1]
    """
    whole = sum(shares)
    # Rounded to nine places so that 0.1 + 0.2 and 0.3 have the same remainder.
    quotas = [round(total * share / whole, 9) if whole else 0.0 for share in shares]
    counts = [int(quota) for quota in quotas]
    order = sorted(range(len(shares)), key=lambda place: (counts[place] - quotas[place], place))
    for place in order[: total - sum(counts)]:
        counts[place] += 1
    return counts


def split(
    source: Source,
    config: Split,
    *,
    digests: Digests | None = None,
    own: Mapping[str, Tensor] | None = None,
) -> Splits:
    """Return the parts of ``source``; the same seed gives the same parts.

    ``own`` are the rows of parts that the user gave; the rest is shared out among the others. ``digests`` are those of
    :func:`prunus.data.content.digest_table`, where they are known already.

    Raises:
        DataError: a part would be empty, or no example of some class is left for training.
    """
    own = dict(own or {})
    if config.column is not None:
        own |= _named(source, config.column, own)
    held = scratch_array((len(source.ids),), np.bool_)
    for given in own.values():
        held[given.numpy()] = True
    rest = places_of(held, False)
    if config.groups is not None:
        _refuse_shared_groups(source, config.groups, own, rest)
    dealt = _dealt(source, config, rest, own)
    part_of = scratch_full(len(source.ids), -1, np.int8)
    for number, part in enumerate(PARTS):
        part_of[own[part].numpy() if part in own else _taken(rest, dealt[part]) if own else dealt[part]] = number
    twins = find_twins(digest_table(source) if digests is None else digests, part_of, PARTS.index("train"))
    duplicates: Sequence[Duplicate] = _Duplicates(source, part_of, twins)
    duplicates = tuple(duplicates) if len(duplicates) <= _FEW else duplicates
    if config.shared == "refuse":
        _refuse_shared(source, duplicates, own)
    part_of[twins.gone] = -1
    rows = {part: torch.from_numpy(places_of(part_of, number)) for number, part in enumerate(PARTS)}
    for part in PARTS:
        if len(rows[part]) == 0:
            raise DataError(
                f"{source.name}: every example of {part} has the same input as one of a stronger part "
                f"({', '.join(PARTS)}); remove duplicates from the data"
            )
    check_classes(source, rows["train"], _shares(config, own)["train"])
    return Splits(**rows, duplicates=duplicates, repeats_in_train=twins.n_repeats)


class _Duplicates(Sequence[Duplicate]):
    """Examples that were left out, each with its twin; one is made when it is asked for."""

    def __init__(self, source: Source, part_of: np.ndarray[Any, np.dtype[np.int8]], twins: Twins) -> None:
        self._source, self._twins = source, twins
        self._parts = part_of[twins.stays], part_of[twins.gone]

    def __len__(self) -> int:
        return len(self._twins)

    @overload
    def __getitem__(self, which: int) -> Duplicate: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[Duplicate, ...]: ...
    def __getitem__(self, which: int | slice) -> Duplicate | tuple[Duplicate, ...]:
        if isinstance(which, slice):
            return tuple(self[number] for number in range(len(self))[which])
        source, gone, stays = self._source, int(self._twins.gone[which]), int(self._twins.stays[which])
        stronger, weaker = (PARTS[each[which]] for each in self._parts)
        differ = bool(source.targets[gone] != source.targets[stays])
        return Duplicate(source.ids[stays], source.ids[gone], stronger, weaker, differ)


def _named(source: Source, column: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the rows of the parts that the user's column names, but for train, of which more may be drawn."""
    before = np.zeros(len(source.ids), dtype=bool)
    for rows in own.values():
        before[rows.numpy()] = True
    among = np.flatnonzero(~before)
    values = beside_of(source, "split.column")[among].tolist()
    parts = named_parts(values, [source.ids[row] for row in among.tolist()], f"{source.name}: column {column!r}")
    if twice := sorted(parts.keys() & own.keys()):
        raise DataError(
            f"{source.name}: column {column!r} names {twice[0]}, and data.{twice[0]} gives it; take one away"
        )
    return {part: torch.from_numpy(among[rows]) for part, rows in parts.items() if part != "train"}


def _refuse_shared_groups(source: Source, column: str, own: Mapping[str, Tensor], rest: Rows) -> None:
    """Refuse a part of the user's own that has some of a group whose others are elsewhere."""
    groups = beside_of(source, "split.groups")
    held = {part: set(groups[rows.numpy()].tolist()) - {""} for part, rows in own.items()}
    held["data.source"] = set(groups[rest].tolist()) - {""}
    for one, other in combinations(held, 2):
        if shared := sorted(held[one] & held[other]):
            which = ", ".join(map(repr, shared[:5])) + (", ..." if len(shared) > 5 else "")
            raise DataError(
                f"{source.name}: {len(shared)} groups of {column!r} are in data.{one} and in {_said(other)} ({which}), and a group "
                "must stay together: take them out of one of the two"
            )


def _said(part: str) -> str:
    return part if part.startswith("data.") else f"data.{part}"


def _dealt(source: Source, config: Split, rest: Rows, own: Collection[str]) -> dict[str, Rows]:
    """Return the places in ``rest`` of every part that is shared out."""
    shares, sizes = _sizes(len(rest), config, source.name, own)
    if config.groups is not None:
        groups = beside_of(source, "split.groups")[rest].tolist()
        return by_groups(groups, _strata(source)[rest], shares, config.seed, f"{source.name}: {config.groups!r}")
    if config.time is not None:
        moments = beside_of(source, "split.time")[rest]
        return by_time(moments.tolist(), sizes, config.seed, f"{source.name}: {config.time!r}")
    return _assign(_taken(_strata(source), rest), sizes, config.seed)


def _taken(values: Rows, rows: Rows) -> Rows:
    found: Rows = scratch_take(torch.from_numpy(values), torch.from_numpy(rows)).numpy()
    return found


def _refuse_shared(source: Source, duplicates: Sequence[Duplicate], own: Mapping[str, Tensor]) -> None:
    """Refuse a part of the user's own that has examples in common with another."""
    shared = [found for found in duplicates if {found.kept_split, found.removed_split} & own.keys()]
    if shared:
        counts = Counter(f"{one.kept_split} and {one.removed_split}" for one in shared)
        parts = ", ".join(f"{n} in {pair}" for pair, n in counts.items())
        which = ", ".join(f"{one.kept_id!r} = {one.removed_id!r}" for one in shared[:5])
        raise DataError(
            f"{source.name}: {len(shared)} examples are in two parts, one of which is your own: {parts} ({which}"
            f"{', ...' if len(shared) > 5 else ''}); remove them, or set data.split.shared: leave_out, which takes them from the "
            "second of each pair"
        )


def deal(
    strata: np.ndarray[Any, np.dtype[np.int64]], config: Split, name: str, *, own: Collection[str] = ()
) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the positions of each part that isn't the user's ``own``: from each stratum the same proportion.

    Raises:
        DataError: a part would be empty.
    """
    return _assign(strata, _sizes(len(strata), config, name, own)[1], config.seed)


def _sizes(n: int, config: Split, name: str, own: Collection[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the share and the number of examples of each part that isn't the user's own."""
    shares = {part: share for part, share in _shares(config, own).items() if part not in own}
    sizes = dict(zip(shares, apportion(n, list(shares.values())), strict=True))
    for part, size in sizes.items():
        if size == 0:
            raise DataError(
                f"{name}: too few examples to split: {n} leave none for {part} "
                f"(its share is {shares[part]:g}); at least {ceil(round(1 / shares[part], 6))} are needed"
            )
    return shares, sizes


def _shares(config: Split, own: Collection[str]) -> dict[str, float]:
    """Return the share of each part of what the user didn't give to one; the training's is what the others leave."""
    held_out = {"test": config.test, "validation": config.validation, "calibration": config.calibration}
    held_out = {part: 0.0 if part in own else share for part, share in held_out.items()}
    return {**held_out, "train": 1.0 - sum(held_out.values())}


def _strata(source: Source) -> Rows:
    """Return one stratum number per example: its class, or the quantile that its target lies in."""
    if source.task == "classification":
        return source.targets.cpu().numpy().astype(np.int64, copy=False)
    n_examples = len(source.ids)
    ranks = np.empty(n_examples, dtype=np.int64)
    ranks[np.argsort(source.targets.cpu().numpy(), kind="stable")] = np.arange(n_examples)
    return ranks * QUANTILES // n_examples


def _assign(strata: Rows, sizes: dict[str, int], seed: int) -> dict[str, Rows]:
    """Deal the rows out: part after part takes from each stratum in proportion to what is left there."""
    shuffled = torch.from_numpy(scratch_array((len(strata),), np.int64))
    torch.randperm(len(strata), generator=generator(seed, "split"), out=shuffled)
    left = _by_stratum(shuffled.numpy(), strata)
    remaining = [len(rows) for rows in left]
    part_of = scratch_full(len(strata), -1, np.int8)
    for number, part in enumerate(sizes):
        for place, count in enumerate(apportion(sizes[part], remaining)):
            part_of[left[place][:count]] = number
            left[place] = left[place][count:]
            remaining[place] -= count
    return {part: places_of(part_of, number) for number, part in enumerate(sizes)}


def _by_stratum(shuffled: Rows, strata: Rows) -> list[Rows]:
    """Return the rows of each stratum, from the lowest number on, in the order in which they come."""
    every = np.bincount(strata)
    numbers = np.flatnonzero(every)
    counts = every[numbers]
    found, places = [scratch_array((int(count),), np.int64) for count in counts], [0] * len(numbers)
    for start in range(0, len(shuffled), _AT_ONCE):
        rows = shuffled[start : start + _AT_ONCE]
        of = np.searchsorted(numbers, strata[rows])
        order = np.argsort(of, kind="stable")
        for place, part in enumerate(np.split(rows[order], np.searchsorted(of[order], np.arange(1, len(numbers))))):
            found[place][places[place] : places[place] + len(part)] = part
            places[place] += len(part)
    return found


def check_classes(source: Source, train: Tensor, train_share: float) -> None:
    """Refuse to train without an example of some class.

    Raises:
        DataError: it says how many are enough.
    """
    if source.task == "regression":
        return
    in_train = class_counts(source, train)
    if bool((in_train > 0).all()):
        return
    absent = int((in_train == 0).int().argmax())
    n_all = int((source.targets == absent).sum())
    enough = ceil(round(3 / train_share, 6))  # rounding takes less than one example per other part
    raise DataError(
        f"{source.name}: class {source.class_names[absent]!r} is missing from train: it has {n_all} example"
        f"{'' if n_all == 1 else 's'} in all, and the other parts got them; {enough} different ones are enough, "
        "else make data.split.test, validation and calibration smaller"
    )
