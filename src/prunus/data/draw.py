"""How does a data set that is read when it is needed become four sets of examples?

The parts are the user's own, or drawn by number from the training part: by class where the data set has its labels in a list.
Nothing is read for it but a few examples, so that no duplicate is looked for and nothing is scaled unless that is asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from prunus.core.calls import described
from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data.examples import Examples
from prunus.data.prepare import IDS_NOTE, Prepared, flip_labels
from prunus.data.scaler import Scaler
from prunus.data.sources.drawn import DrawnSource, check_class_numbers, known_labels
from prunus.data.sources.reading import SetReader
from prunus.data.sources.source import beside_of, holds_ids
from prunus.data.split import PARTS, Splits, check_classes, deal
from prunus.tasks import Task

__all__ = ["prepare_drawn"]


def prepare_drawn(
    sources: Mapping[str, DrawnSource],
    config: Data,
    task: Task,
    *,
    device: torch.device | str = "cpu",
    teacher: nn.Module | None = None,
) -> Prepared:
    """Return the examples of ``train`` and of the other parts that the user has; what is missing is drawn from ``train``.

    Args:
        teacher: whose answers are the targets, where the data have none.

    Raises:
        DataError: parts share examples or differ in structure, there are too few examples, or labels that the task can't take.
    """
    _check_alike(sources)
    for key in ("column", "groups", "time"):
        if getattr(config.split, key) is not None:
            beside_of(sources["train"], f"split.{key}")
    if config.groups is not None:
        beside_of(sources["train"], "groups")
    for source in sources.values():
        source.task, source.class_names = task.name, tuple(task.class_names)
        source.labels = known_labels(source) if task.exclusive and teacher is None else None
        if source.labels is not None:
            check_class_numbers(source.labels, len(source.class_names), torch.arange(len(source)), source.name)
    train = sources["train"]
    n, labels = len(train), train.labels
    own = sources.keys() - {"train"}
    dealt = deal(np.zeros(n, np.int64) if labels is None else labels.numpy(), config.split, train.name, own=own)
    rows = {part: torch.arange(len(sources[part])) if part in own else torch.from_numpy(dealt[part]) for part in PARTS}
    if labels is not None:
        check_classes(train, rows["train"], len(rows["train"]) / n)
    rows, n_alike = _separated(sources, rows, refuse=config.split.shared == "refuse")
    scaler = _scaler(config, train, rows["train"])
    noise = flip_labels(train, rows["train"], config.label_noise, seed=config.split.seed)
    parts = {
        part: Examples(sources.get(part, train), rows[part], task=task, scaler=scaler, device=device, teacher=teacher)
        for part in PARTS
    }
    if noise is not None:
        targets = train.targets.clone()
        targets[noise.rows] = noise.flipped_targets
        parts["train"] = parts["train"].with_targets(targets[rows["train"]])
    return Prepared(
        train,
        Splits(rows["train"], rows["validation"], rows["calibration"], rows["test"]),
        scaler,
        parts["train"],
        parts["validation"],
        parts["calibration"],
        parts["test"],
        fingerprint=_fingerprint(sources),
        test_set="your own" if "test" in own else "drawn at random from the examples of train by prunus",
        noise=noise,
        notes=tuple(_notes(sources, labels is not None, own, n_alike)),
    )


def _separated(
    sources: Mapping[str, DrawnSource], rows: Mapping[str, Tensor], *, refuse: bool
) -> tuple[dict[str, Tensor], int]:
    """Return the rows of each part without those that a stronger part has, too, and how many went.

    Of arrays, equal inputs are the same example; of a data set the same number is, in what a ``Subset`` is taken from.

    Raises:
        DataError: a part of the user's own shares examples, and that is to be refused; or nothing is left of a part.
    """
    owner: dict[Any, tuple[str, int]] = {}
    kept, found = {}, list[tuple[str, str, int, int]]()
    for part in PARTS:
        source, stays = sources.get(part, sources["train"]), []
        for row, key in zip(rows[part].tolist(), _keys(source, rows[part]), strict=True):
            stronger, twin = owner.setdefault(key, (part, row))
            stays.append(stronger == part)
            if stronger != part:
                found.append((stronger, part, twin, row))
        kept[part] = rows[part][torch.tensor(stays, dtype=torch.bool)]
    own = [one for one in found if {one[0], one[1]} & (sources.keys() - {"train"})]
    if own and refuse:
        counts = Counter(f"{stronger} and {part}" for stronger, part, *_ in own)
        which = ", ".join(f"{twin} = {row}" for *_, twin, row in own[:3])
        raise DataError(
            f"data: {len(own)} examples are in two parts, one of which is your own: "
            f"{', '.join(f'{n} in {pair}' for pair, n in counts.items())} (numbers {which}{', ...' if len(own) > 3 else ''}); "
            "remove them, or set data.split.shared: leave_out, which takes them from the second of each pair"
        )
    for part in PARTS:
        if len(kept[part]) == 0:
            raise DataError(f"data: every example of {part} is one of a stronger part ({', '.join(PARTS)}), too")
    return kept, len(found)


def _keys(source: DrawnSource, rows: Tensor) -> Sequence[Any]:
    """Return what tells examples apart."""
    reader = source.reader
    if not isinstance(reader, SetReader):
        return source.digests(rows)
    held, numbers = reader.origin, rows.numpy()
    while isinstance(held, Subset):
        numbers, held = np.asarray(held.indices)[numbers], held.dataset
    return [(id(held), number) for number in numbers.tolist()]


def _fingerprint(sources: Mapping[str, DrawnSource]) -> str:
    total = hashlib.sha256()
    for part in sorted(sources):
        total.update(f"{part} {sources[part].fingerprint()};".encode())
    return total.hexdigest()


def _notes(sources: Mapping[str, DrawnSource], labelled: bool, own: Collection[str], n_alike: int) -> list[str]:
    notes = [IDS_NOTE] if holds_ids(sources["train"]) else []
    if n_alike:
        notes.append(f"{n_alike} examples are in a stronger part (test first), too, and were left out")
    if not all(source.fixed for source in sources.values()):
        notes.append(
            "examples are read when they are needed: in training anew in each epoch, elsewhere always with the same augmentation; "
            "no duplicates are looked for among them, and inputs are as the data set gives them"
        )
    if not {"test", "validation", "calibration"} <= set(own):
        how = "by class" if labelled else "at random"
        notes.append(f"parts that you didn't give are drawn {how} from the training examples, by their numbers")
    return notes


def _scaler(config: Data, source: DrawnSource, rows: Tensor) -> Scaler:
    """Return the scaler that is asked for; without a word, inputs stay as they are."""
    if (not config.scales and not config.standardize) or holds_ids(source):
        return Scaler.identity()
    inputs = source.inputs(rows[:1])
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise DataError(
            f"{source.name}: only one input of fractional numbers is scaled: got {described(inputs)}; leave standardize, scale, "
            "mean and std out"
        )
    if config.scales:
        return Scaler.given(source.input_shape, scale=config.scale, mean=config.mean, std=config.std)
    return Scaler.fit(source, rows)


def _check_alike(sources: Mapping[str, DrawnSource]) -> None:
    """Refuse parts of which one has labels or inputs of another structure than the training part."""
    first = {part: source.at(torch.arange(1)) for part, source in sources.items()}
    inputs, targets = first["train"]
    for part, (other, labels) in first.items():
        if _kind(other) != _kind(inputs):
            raise DataError(
                f"data[{part!r}]: expected inputs like those of train, {described(inputs)}: got {described(other)}"
            )
        if (labels is None) != (targets is None):
            got = ("none", "some") if labels is None else ("some", "none")
            raise DataError(
                f"data[{part!r}]: expected labels in all parts or in none: got {got[0]} here and {got[1]} in train"
            )


def _kind(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.dtype, tree.dim()
    if isinstance(tree, Mapping):
        return {key: _kind(value) for key, value in tree.items()}
    return [_kind(value) for value in tree] if isinstance(tree, tuple) else type(tree)
