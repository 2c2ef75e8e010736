"""Which numbers does a model get for the columns of a table, once they were fitted on the training rows?

Plain values that go into a bundle's manifest as JSON, and the few lines of arithmetic that carry them out: nothing but NumPy is
needed to predict. A number that is missing becomes the median, a date too, and a feature of its own says where that was so. The
most frequent categories have a feature each; the others share some, and so do those that training never saw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunus.data.columns.cells import MAX_LETTERS, Kind

__all__ = ["MOST_COLUMNS", "CategoryColumn", "Columns", "DateColumn", "FittedColumn", "NumberColumn"]

Array = np.ndarray[Any, Any]

MOST_COLUMNS, MOST_FEATURES = 20_000, 100_000
_DAY, _WEEK = 86_400.0, 604_800.0
_MONDAY = 3 * _DAY  # 1970-01-01 was a Thursday

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Word = Annotated[str, Field(min_length=1, max_length=MAX_LETTERS)]
Amount = Annotated[float, Field(ge=-1e300, le=1e300)]
Seconds = Annotated[float, Field(ge=-7e10, le=3e11)]


class _Column(BaseModel):
    """One column: types are exact, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: Name
    missing: bool = Field(False, description="whether training had rows without a value: then a feature says so")

    @property
    def n_own(self) -> int:
        """How many features it becomes, but for the one that says where it is missing."""
        raise NotImplementedError

    def _own_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What its features are called."""
        return (*self._own_names(), f"{self.name} is missing") if self.missing else self._own_names()


class NumberColumn(_Column):
    """A number, or a truth value as 0 or 1. With ``quantiles`` it becomes the share of training rows below it, from 0 to 1."""

    kind: Literal["number", "boolean"]
    fill: Amount
    quantiles: tuple[Amount, ...] = Field((), strict=False, max_length=1000)

    @model_validator(mode="after")
    def _ascend(self) -> NumberColumn:
        if self.quantiles and (len(self.quantiles) < 2 or list(self.quantiles) != sorted(self.quantiles)):
            raise ValueError(f"quantiles must be two or more that ascend: got {len(self.quantiles)}")
        return self

    @property
    def n_own(self) -> int:
        """How many features it becomes, but for the one that says where it is missing."""
        return 1

    def _own_names(self) -> tuple[str, ...]:
        return (self.name,)

    def encode(self, values: Array, words: Sequence[str]) -> list[Array]:
        """Return one array per feature."""
        absent = np.isnan(values)
        filled = np.where(absent, self.fill, values)
        if self.quantiles:
            filled = _quantile(filled, np.asarray(self.quantiles, dtype=np.float64))
        return [filled, absent] if self.missing else [filled]


class CategoryColumn(_Column):
    """One of ``categories``, with a feature each; whatever else there is shares ``others`` features, by a hash of its text."""

    kind: Literal["category"]
    categories: tuple[Word, ...] = Field((), strict=False, max_length=1000)
    others: int = Field(0, ge=0, le=1024)

    @model_validator(mode="after")
    def _differ(self) -> CategoryColumn:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories must differ: one is there twice")
        return self

    @property
    def n_own(self) -> int:
        """How many features it becomes, but for the one that says where it is missing."""
        return len(self.categories) + self.others

    def _own_names(self) -> tuple[str, ...]:
        others = (f"{self.name} other {number}" for number in range(1, self.others + 1))
        shared = (f"{self.name} is another",) if self.others == 1 else tuple(others)
        return (*(f"{self.name}={word}" for word in self.categories), *shared)

    def place(self, word: str) -> int | None:
        """Return which of its features is 1 for ``word``; None: training never saw such a word, so all are 0."""
        if word in self._places:
            return self._places[word]
        if not self.others:
            return None
        return len(self.categories) + int.from_bytes(blake2b(word.encode(), digest_size=8).digest()) % self.others

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {word: place for place, word in enumerate(self.categories)}

    def encode(self, values: Array, words: Sequence[str]) -> list[Array]:
        """Return one array per feature."""
        nowhere = len(self.categories) + self.others
        places = np.array([nowhere if (at := self.place(word)) is None else at for word in words] + [nowhere])
        found = places[np.where(np.isnan(values), len(words), values).astype(np.int64)]
        features: list[Array] = [found == place for place in range(nowhere)]
        return [*features, np.isnan(values)] if self.missing else features


class DateColumn(_Column):
    """A moment: days since ``fill``, and where in the year, the week and the day it lies, as sine and cosine."""

    kind: Literal["date", "time"]
    fill: Seconds
    parts: tuple[Literal["days", "year", "week", "day"], ...] = Field(strict=False, min_length=1, max_length=4)

    @property
    def n_own(self) -> int:
        """How many features it becomes, but for the one that says where it is missing."""
        return 2 * len(self.parts) - ("days" in self.parts)

    def _own_names(self) -> tuple[str, ...]:
        names: list[str] = []
        for part in self.parts:
            names += [f"{self.name} days"] if part == "days" else [f"{self.name} {part} {f}" for f in ("sin", "cos")]
        return tuple(names)

    def encode(self, values: Array, words: Sequence[str]) -> list[Array]:
        """Return one array per feature."""
        absent = np.isnan(values)
        seconds = np.where(absent, self.fill, values)
        features: list[Array] = []
        for part in self.parts:
            if part == "days":
                features.append((seconds - self.fill) / _DAY)
                continue
            turn = 2 * math.pi * _of_cycle(seconds, part)
            features += [np.sin(turn), np.cos(turn)]
        return [*features, absent] if self.missing else features


def _of_cycle(seconds: Array, part: str) -> Array:
    """Return how much of the year, the week (from Monday) or the day has gone, 0 to 1."""
    if part == "day":
        return np.asarray(seconds % _DAY / _DAY)
    if part == "week":
        return np.asarray((seconds + _MONDAY) % _WEEK / _WEEK)
    years = np.floor(seconds).astype("datetime64[s]").astype("datetime64[Y]")
    start, end = ((years + np.timedelta64(more, "Y")).astype("datetime64[s]").astype(np.float64) for more in (0, 1))
    return np.asarray((seconds - start) / (end - start))


def _quantile(values: Array, quantiles: Array) -> Array:
    """Return the share of training rows below each value, in the middle of a step where many are equal."""
    shares = np.linspace(0.0, 1.0, len(quantiles))
    rising = np.interp(values, quantiles, shares)
    falling = -np.interp(-values, -quantiles[::-1], -shares[::-1])
    with np.errstate(invalid="ignore"):
        found = (rising + falling) / 2
    # Between numbers that only denormals tell apart the slope is infinite: there, the step that is reached.
    steep = np.isfinite(values) & ~np.isfinite(found)
    found[steep] = shares[np.minimum(np.searchsorted(quantiles, values[steep]), len(shares) - 1)]
    found[values == quantiles[0]] = 0.0
    found[values == quantiles[-1]] = 1.0
    return np.asarray(found)


FittedColumn = Annotated[NumberColumn | CategoryColumn | DateColumn, Field(discriminator="kind")]


class Columns(BaseModel):
    """Every column that a model gets, in the order of its features; ``no_value``: texts that mean that a cell is missing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    columns: tuple[FittedColumn, ...] = Field(strict=False, min_length=1, max_length=MOST_COLUMNS)
    no_value: tuple[Annotated[str, Field(max_length=MAX_LETTERS)], ...] = Field((), strict=False, max_length=100)

    @model_validator(mode="after")
    def _differ(self) -> Columns:
        if (n := sum(column.n_own + column.missing for column in self.columns)) > MOST_FEATURES:
            raise ValueError(f"the columns become {n} features: expected at most {MOST_FEATURES}; leave some out")
        for what, names in (("columns", self.names), ("features", self.feature_names)):
            if repeated := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"two {what} would be called {repeated[0]!r}; rename a column")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns are called."""
        return tuple(column.name for column in self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the features are called that they become."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def kinds(self) -> dict[str, Kind]:
        """What each column holds."""
        return {column.name: column.kind for column in self.columns}

    def encode(self, values: Array, words: Mapping[str, Sequence[str]], *, wide: bool = False) -> Array:
        """Return the features of some rows.

        Args:
            values: one column per column, as :class:`prunus.data.columns.cells.Cells` has them.
            words: what the numbers of the categories' columns stand for, by the name of the column.
            wide: in float64, since float32 can't tell the numbers apart.

        Shapes:
            ``(rows, columns)`` becomes ``(rows, features)``, float32 or float64.
        """
        kind = np.float64 if wide else np.float32
        if self._fills is not None:  # numbers side by side, as most tables are: in one go, to the same bits
            plain = values.astype(kind)
            gaps = np.isnan(plain)
            return np.where(gaps, np.array(self._fills).astype(kind), plain) if gaps.any() else plain
        found = np.empty((len(values), len(self.feature_names)), dtype=kind)
        at = 0
        for place, column in enumerate(self.columns):
            for feature in column.encode(values[:, place].astype(np.float64), words.get(column.name, ())):
                found[:, at] = feature
                at += 1
        return found

    @cached_property
    def _fills(self) -> tuple[float, ...] | None:
        """What stands for missing values, where every column is one number as it is."""
        fills = tuple(
            column.fill
            for column in self.columns
            if isinstance(column, NumberColumn) and not column.quantiles and not column.missing
        )
        return fills if len(fills) == len(self.columns) else None

    @classmethod
    def of_features(cls, feature_names: Sequence[str], held: Sequence[str]) -> tuple[Columns, list[int]]:
        """Return the columns that features of these names were made of, and the place of each feature among theirs.

        For bundles that don't say it: ``color=red`` is a category of ``color`` unless the table has a column of that name.
        """
        categories: dict[str, list[str]] = {}
        for name in feature_names:
            column, mark, value = name.partition("=")
            is_category = bool(mark and value) and name not in held
            categories.setdefault(column if is_category else name, []).extend([value] if is_category else [])
        made = cls(
            columns=tuple(
                CategoryColumn(name=name, kind="category", categories=tuple(values))
                if values
                else NumberColumn(name=name, kind="number", fill=0.0)
                for name, values in categories.items()
            )
        )
        return made, [made.feature_names.index(name) for name in feature_names]
