"""How does a recipe's ``data`` become four sets of examples that are ready to use?

Open, fingerprint, split, flip labels if the recipe asks for that, fit the scaler on the training examples, and hand out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from prunus.core.calls import described
from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.core.runtime import generator
from prunus.core.types import Digests
from prunus.data.columns.fit import fit_parts
from prunus.data.columns.fitted import Columns
from prunus.data.content import digest_table, fingerprint
from prunus.data.examples import Examples
from prunus.data.joined import join
from prunus.data.large.sorted_buckets import SortedBuckets, digest_of_rows
from prunus.data.open import open_source
from prunus.data.scaler import Scaler
from prunus.data.sources.arrays import array_source, array_to_tensor, to_array
from prunus.data.sources.datasets import open_dataset, read_dataset
from prunus.data.sources.encoded import EncodedTable
from prunus.data.sources.source import ArraySource, Source, beside_of, chunks, class_counts, holds_ids
from prunus.data.sources.tables import same_words
from prunus.data.split import PARTS, Splits, split

__all__ = [
    "Noise",
    "Prepared",
    "flip_labels",
    "prepare",
    "prepare_arrays",
    "prepare_dataset",
    "prepare_joined",
    "prepare_parts",
    "prepare_source",
]


FIT_ROWS = 1 << 14
"""Rows of a table that are looked at in one go."""

IDS_NOTE = "the inputs are whole numbers that the model looks up (ids), so they aren't scaled"


@dataclass(frozen=True, eq=False)
class Noise:
    """Which training labels were flipped on purpose, to test the cleaning.

    Shapes:
        ``rows``, ``true_targets`` and ``flipped_targets`` are ``(flipped,)`` and follow ``ids``.
    """

    ids: tuple[str, ...]
    rows: Tensor
    true_targets: Tensor
    flipped_targets: Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data of one run.

    ``columns`` are those of a table as they were fitted on its training rows. ``notes`` say in a line each what a user should know
    (duplicates, classes without test examples, a guessed task, what was imputed).
    """

    source: Source
    splits: Splits
    scaler: Scaler
    train: Examples
    validation: Examples
    calibration: Examples
    test: Examples
    fingerprint: str
    columns: Columns | None = None
    test_set: str = ""
    noise: Noise | None = None
    notes: tuple[str, ...] = ()


def prepare(config: Data, *, device: torch.device | str = "cpu", given: Any = None) -> Prepared:
    """Return the examples that a recipe describes.

    Args:
        given: what the recipe's ``module:function`` returned, where it was called already.

    Raises:
        DataError: the data can't be read, learnt from or split; see :func:`prunus.data.open_source`.
    """
    source = open_source(config) if given is None else open_dataset(config, given)
    if not config.own_parts:
        return prepare_source(source, config, device=device)
    alike: dict[str, Any] = {"task": source.task, **dict.fromkeys(("test", "validation", "calibration"))}
    alike |= _columns_of(source, config)
    alike["split"] = config.split.model_copy(update=dict.fromkeys(("column", "time")))
    parts = {
        part: open_source(config.model_copy(update={**alike, "source": where}))
        for part, where in config.own_parts.items()
    }
    return prepare_joined(source, parts, config, device=device)


def prepare_parts(
    parts: Mapping[str, Any], config: Data | None = None, *, device: torch.device | str = "cpu", ids: bool = False
) -> Prepared:
    """Return the examples of ``(inputs, targets)`` pairs by part: ``train``, and those of the others that the user has.

    Raises:
        DataError: a part is no pair, or they don't fit together.
    """
    config = config or Data(source="arrays")
    sources: dict[str, Source] = {}
    for part, pair in parts.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"data[{part!r}]: expected (inputs, targets): got {described(pair)}")
        inputs = array_to_tensor(to_array(pair[0]), config.source, ids=ids)
        sources[part] = array_source(inputs, to_array(pair[1]), config)
    return prepare_joined(sources.pop("train"), sources, config, device=device)


def prepare_joined(
    source: Source, parts: Mapping[str, Source], config: Data, *, device: torch.device | str = "cpu"
) -> Prepared:
    """Return the examples of several sources: ``parts`` are test, validation or calibration as the user has them.

    Raises:
        DataError: they don't fit together.
    """
    if isinstance(source, ArraySource) and source.table is not None:
        tables = [
            source,
            *(part for part in parts.values() if isinstance(part, ArraySource) and part.table is not None),
        ]
        if len(tables) == 1 + len(parts):
            source, *others = same_words(tables)
            parts = dict(zip(parts, others, strict=True))
    joined, own = join(source, parts)
    prepared = prepare_source(joined, config, device=device, own=own)
    return replace(prepared, notes=(*prepared.notes, *_shared_notes(prepared.splits, own)))


def _shared_notes(splits: Splits, own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Say where the user's own parts share examples with others."""
    shared = Counter(
        (d.kept_split, d.removed_split) for d in splits.duplicates if {d.kept_split, d.removed_split} & own.keys()
    )
    return tuple(
        f"{n} examples of {weaker} have the same input as one of {stronger}, which is your own or stands beside your own set: they "
        f"were left out of {weaker}"
        for (stronger, weaker), n in shared.items()
    )


def prepare_arrays(
    inputs: Any,
    targets: Any,
    config: Data | None = None,
    *,
    device: torch.device | str = "cpu",
    feature_names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    ids: bool = False,
) -> Prepared:
    """Return the examples in two arrays (tensors, NumPy arrays, lists): one input and one target per row.

    Args:
        ids: the inputs stand for something (tokens): they stay whole numbers, int64, and aren't scaled.

    Raises:
        DataError: lengths differ, NaN, or data that can't be learnt from or split.
    """
    config = config or Data(source="arrays")
    source = array_source(
        array_to_tensor(to_array(inputs), config.source, ids=ids),
        to_array(targets),
        config,
        class_names=tuple(class_names),
        feature_names=tuple(feature_names),
    )
    return prepare_source(source, config, device=device)


def prepare_dataset(
    dataset: Any, config: Data | None = None, *, device: torch.device | str = "cpu", ids: bool = False
) -> Prepared:
    """Return the examples in a map-style torch ``Dataset`` of (input, target) pairs.

    Args:
        ids: the inputs stand for something (tokens): they stay whole numbers, int64, and aren't scaled.

    Raises:
        DataError: it is none, or its data can't be learnt from or split.
    """
    config = config or Data(source=type(dataset).__name__)
    return prepare_source(read_dataset(dataset, config, ids=ids), config, device=device)


def prepare_source(
    source: Source,
    config: Data,
    *,
    device: torch.device | str = "cpu",
    own: Mapping[str, Tensor] | None = None,
) -> Prepared:
    """Return the split, scaled examples of a source; ``config.source`` is not looked at. ``own`` are the rows of given parts."""
    if config.about_tables and getattr(source, "table", None) is None:
        raise DataError(f"{source.name}: data.{config.about_tables[0]} is for tables (CSV, Parquet): take it away")
    digests = digest_table(source)
    splits = split(source, config.split, digests=digests, own=own)
    fingerprinted = fingerprint(source, digests)
    source, columns, about_columns = _encoded(source, splits)
    noise = flip_labels(source, splits.train, config.label_noise, seed=config.split.seed)
    scaler = _scaler(config, source, splits.train)
    if config.groups is not None:
        beside_of(source, "groups")  # said now, not after the run's work
    scaled = config.standardize_target and source.task == "regression"
    target_scaler = Scaler.fit_values(source.targets[splits.train]) if scaled else Scaler.identity()
    parts = {
        part: Examples(source, splits.part(part), scaler=scaler, target_scaler=target_scaler, device=device)
        for part in PARTS
    }
    if noise is not None:
        targets = source.targets.clone()
        targets[noise.rows] = noise.flipped_targets
        parts["train"] = parts["train"].with_targets(targets[splits.train])
    return Prepared(
        source,
        splits,
        scaler,
        **parts,
        fingerprint=fingerprinted,
        columns=columns,
        test_set=_test_set(source, splits, config, own or {}),
        noise=noise,
        notes=(*_notes(config, source, splits), *about_columns, *_precision_notes(source, scaler, digests)),
    )


def _columns_of(source: Source, config: Data) -> dict[str, Any]:
    """Return what a recipe has to say so that another table is read as this one was."""
    facts = getattr(source, "table", None)
    if facts is None:
        return {}
    kinds = {name: "quantile" if name in facts.spread else kind for name, kind in facts.kinds.items()}
    return {"columns": tuple(facts.kinds), "ignore": (), "kinds": kinds, "target": config.target or facts.target}


def _encoded(source: Source, splits: Splits) -> tuple[Source, Columns | None, tuple[str, ...]]:
    """Return a table's features as they are fitted on its training rows, and what is to be said of them; others as they are."""
    facts = getattr(source, "table", None)
    if facts is None:
        return source, None, ()

    def read(part: str) -> Iterator[np.ndarray[Any, Any]]:
        for _, values in chunks(source, splits.part(part), FIT_ROWS):
            yield values.numpy()

    try:
        columns, notes = fit_parts({part: partial(read, part) for part in PARTS}, facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(f"{source.name}: {first['msg'].removeprefix('Value error, ')[:300]}") from error
    return EncodedTable(source, columns, facts), columns, notes


def _test_set(source: Source, splits: Splits, config: Data, own: Mapping[str, Tensor]) -> str:
    """Say in a few words what the test set is."""
    how = config.split
    if "test" in own:
        return "your own" if config.test is None else f"your own ({config.test})"
    if how.column is not None and "test" in {
        text.strip().lower() for text in beside_of(source, "split.column")[splits.test]
    }:
        return f"the rows that your column {how.column!r} names"
    if how.groups is not None:
        n = len(np.unique(beside_of(source, "split.groups")[splits.test]))
        return f"{n} whole groups of {how.groups!r}, drawn by prunus: no other part has examples of theirs"
    if how.time is not None:
        return f"the latest by {how.time!r}: later than everything trained on"
    return f"drawn at random from {config.source} by prunus"


def _scaler(config: Data, source: Source, train: Tensor) -> Scaler:
    """Return what the recipe says, else what the training examples say; ids are never scaled."""
    if holds_ids(source):
        return Scaler.identity()
    if config.scales:
        return Scaler.given(source.input_shape, scale=config.scale, mean=config.mean, std=config.std)
    return Scaler.identity() if config.standardize is False else Scaler.fit(source, train)


def flip_labels(source: Source, train: Tensor, share: float, *, seed: int) -> Noise | None:
    """Return ``round(share * len(train))`` training rows with another class each, uniformly drawn; None for share 0.

    Raises:
        DataError: the targets are no classes.
    """
    if share == 0:
        return None
    if source.task == "regression":
        raise DataError(f"{source.name}: data.label_noise flips classes, got a regression target; set label_noise: 0")
    draw = generator(seed, "label_noise")
    n_flipped, n_classes = round(share * len(train)), len(source.class_names)
    rows = train[torch.randperm(len(train), generator=draw)[:n_flipped]].sort().values
    true = source.targets[rows]
    # Stepping 1..classes-1 further around the circle never lands on the true class.
    flipped = (true + torch.randint(1, n_classes, (n_flipped,), generator=draw)) % n_classes
    return Noise(tuple(source.ids[row] for row in rows.tolist()), rows, true, flipped)


def _precision_notes(source: Source, scaler: Scaler, digests: Digests) -> tuple[str, ...]:
    """Say where inputs need more than float32, and whether the model, which gets float32, still tells them apart."""
    if source.inputs(torch.arange(1)).dtype != torch.float64:
        return ()
    with SortedBuckets(len(digests), ()) as held, SortedBuckets(len(digests), ()) as seen:
        for rows, values in chunks(source):
            held.add(digests[int(rows[0]) : int(rows[-1]) + 1])
            seen.add(digest_of_rows(scaler(values).numpy()))
        alike = held.n_keys() - seen.n_keys()
    notes = ["float32 can't tell all inputs apart, so they are scaled in float64; an exported file takes float32 only"]
    if alike > 0:
        notes.append(
            f"{alike} examples differ from another one by less than the model can see (scaled, in float32); "
            "subtract what such columns have in common" + ("" if scaler.scales else ", or set data.standardize: true")
        )
    return tuple(notes)


def _notes(config: Data, source: Source, splits: Splits) -> tuple[str, ...]:
    notes = [*getattr(source, "notes", ())]
    if holds_ids(source):
        notes.append(IDS_NOTE)
    if folder := getattr(source, "on_disk", ""):
        whose = "data.in_memory: false" if config.in_memory is False else "data.in_memory: auto, since they are many"
        notes.append(f"{len(source.ids)} rows are read from disk ({whose}), where they lie converted in {folder}")
    if config.task == "auto":
        what = f"{len(source.class_names)} classes" if source.task == "classification" else "values"
        notes.append(f"task: {source.task} ({what}), read off the target; set data.task to change it")
    if splits.duplicates:
        differ = sum(duplicate.labels_differ for duplicate in splits.duplicates)
        notes.append(
            f"{len(splits.duplicates)} examples have the same input as one of a stronger part (test first) and were left "
            f"out{f'; {differ} of them have another label than their twin' if differ else ''}"
        )
    if splits.repeats_in_train:
        notes.append(f"{splits.repeats_in_train} training examples have the same input as another one; they stay")
    if source.task == "classification":
        for part in ("test", "validation"):
            present = class_counts(source, splits.part(part))
            absent = [source.class_names[number] for number in torch.nonzero(present == 0).flatten().tolist()]
            if absent:
                shown = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
                notes.append(
                    f"no example of {shown} in {part}: nothing is measured for {'it' if len(absent) == 1 else 'them'} there"
                )
    return tuple(notes)
