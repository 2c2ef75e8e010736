"""How does a plan of examples become a table that people edit, and the table a plan again?

One row per training example: what is known of it, and in ``decision`` and ``new_label`` what becomes of it. Only these two columns
are carried out, whoever wrote them; ``id``, ``fingerprint`` and ``label`` are there to see that they are about the data at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.core.errors import PlanError, near
from prunus.core.files.example_table import Column, ExampleTable
from prunus.core.text import shown
from prunus.core.types import Bools, Decision, Floats, Ints, Step
from prunus.data import Examples
from prunus.pipeline.stages.label_cleaning import CLEANED
from prunus.score import example_criteria
from prunus.tasks import Regression

__all__ = ["TABLE_CRITERION", "label_columns", "steps_of_table", "table_of_steps"]

TABLE_CRITERION = "table"


def table_of_steps(
    examples: Examples, steps: Sequence[Step], fingerprint: str, facts: Mapping[str, Any] | None = None
) -> ExampleTable:
    """Return what the steps decided about ``examples``, the ones that they were made for, as a table."""
    n = len(examples)
    where = {name: row for row, name in enumerate(examples.ids)}
    columns: dict[str, Column] = label_columns(examples)
    decision, reason, new_label = np.full(n, "keep", object), np.full(n, None, object), np.full(n, None, object)
    for step in steps:
        if step.granularity != "example":
            continue
        for part in step.decisions:
            assert part.label is not None
            rows = np.array([where[name] for name in part.label.tolist()], np.int64)
            for row, text in zip(rows.tolist(), part.reason.tolist(), strict=True):
                reason[row] = reason[row] if text == "kept" else text
            decision[rows[~part.keep]] = "relabel" if step.operation == "relabel" else "drop"
            if part.after is not None:
                changed = np.isfinite(part.after)
                new_label[rows[changed]] = [examples.class_names[int(label)] for label in part.after[changed]]
            name = "probability" if step.criterion == CLEANED else step.criterion
            if step.criterion == CLEANED or step.criterion in example_criteria:
                columns.setdefault(name, np.full(n, np.nan))[rows] = (
                    1.0 - part.saliency if step.criterion == CLEANED else part.saliency
                )
            if part.error is not None:
                columns.setdefault(f"{name}_error", np.full(n, np.nan))[rows] = part.error
    columns |= {"decision": decision, "new_label": new_label, "reason": reason}
    return ExampleTable(tuple(examples.ids), fingerprint, columns, dict(facts or {}))


def steps_of_table(
    table: ExampleTable, examples: Examples, fingerprint: str, path: Path, *, allow_empty_classes: bool = False
) -> tuple[Step, ...]:
    """Return the steps that do what the table says.

    Args:
        table: as it was read.
        examples: the training examples.
        fingerprint: of their data.
        path: where the table lies, for messages.
        allow_empty_classes: whether a class may be left without an example.

    Raises:
        PlanError: the table is of other data, lacks examples, or asks for what can't be done; the first row at fault is named.
    """
    _check_same(table, examples, fingerprint, path)
    where = {name: row for row, name in enumerate(table.ids)}
    order = np.array([where[name] for name in examples.ids], np.int64)
    columns = {name: column[order] for name, column in table.columns.items()}
    n = len(examples)
    decision = columns.get("decision", np.full(n, None, object))
    new = [_text(value) for value in columns.get("new_label", np.full(n, None, object)).tolist()]
    _check_labels(columns, examples, path)
    drop = np.equal(decision, "drop")
    after = _new_labels(decision, new, examples, path)
    if bool(drop.all()) and n:
        raise PlanError(f"{path}: its column decision drops all {n} examples: keep some")
    saliency = _saliency(columns, n)
    reason = _reasons(columns, n)
    steps = _table_steps(examples, drop, after, saliency, reason, path)
    if not allow_empty_classes:
        _check_classes(examples, drop, after, path)
    return steps


def label_columns(examples: Examples) -> dict[str, Column]:
    """Return the columns that say which labels are given, where those are known."""
    if examples.task.exclusive:
        names = np.array([examples.class_names[label] for label in examples.targets.tolist()], object)
        return {"stratum": names, "label": names.copy()}
    known = examples.known_targets
    if isinstance(examples.task, Regression) and known is not None and known.dim() == 1:
        return {"label": examples.in_units(known).double().cpu().numpy()}
    return {}


def _check_same(table: ExampleTable, examples: Examples, fingerprint: str, path: Path) -> None:
    if table.fingerprint != fingerprint:
        raise PlanError(
            f"{path} was made for other data (fingerprint {shown(table.fingerprint[:12])}, expected {fingerprint[:12]}): use the "
            "data that it was made for, or make it anew (prunus clean RECIPE)"
        )
    here, there = set(examples.ids), set(table.ids)
    missing = [name for name in examples.ids if name not in there]
    if missing:
        raise PlanError(
            f"{path}: {len(missing)} of {len(here)} training examples have no row (the first is {missing[0]!r}): an example is "
            "dropped by the word drop in its column decision, not by taking its row away"
        )
    unknown = [name for name in table.ids if name not in here]
    if unknown:
        raise PlanError(
            f"{path}: {len(unknown)} rows are of no training example (the first is {unknown[0]!r}): expected the ids of the "
            f"{len(here)} training examples, got others; use the split (data.split) that it was made for"
        )


def _check_labels(columns: Mapping[str, Column], examples: Examples, path: Path) -> None:
    """Refuse a given label that was edited: a new one belongs into ``new_label``."""
    if "label" not in columns or not examples.task.exclusive:
        return
    for row, (said, true) in enumerate(zip(columns["label"].tolist(), examples.targets.tolist(), strict=True)):
        text = _text(said)
        if text is not None and text != examples.class_names[true]:
            raise PlanError(
                f"{path}: example {examples.ids[row]!r} has label {shown(text)}, and the data say {examples.class_names[true]!r}: "
                "write a new label into new_label, with decision relabel"
            )


def _new_labels(decision: Column, new: Sequence[str | None], examples: Examples, path: Path) -> Floats:
    """Return the class number that an example gets, NaN where its label stays."""
    after = np.full(len(examples), np.nan)
    numbers = {name: number for number, name in enumerate(examples.class_names)}
    for row, (what, text) in enumerate(zip(decision.tolist(), new, strict=True)):
        who = f"{path}: example {examples.ids[row]!r}"
        if what is None and text is not None:
            raise PlanError(
                f"{who} has the new_label {shown(text)} and no decision: write relabel, or keep, into its column decision"
            )
        if what != "relabel":
            continue
        if not examples.task.exclusive:
            fits = "drop or keep" if isinstance(examples.task, Regression) else "drop, keep, or correct the data"
            raise PlanError(
                f"{who} is to be relabelled, which only an example of one class can be (data.task is {examples.task.name}): use "
                f"{fits}"
            )
        if text is None:
            raise PlanError(f"{who} is to be relabelled and has no new_label: write a class into it")
        if text not in numbers:
            raise PlanError(f"{who} has the new_label {shown(text)}, which is no class: {near(text, numbers)}")
        after[row] = numbers[text]
    if examples.task.exclusive:
        after[after == examples.targets.cpu().numpy()] = np.nan
    return after


def _text(value: Any) -> str | None:
    """Return a label as text: spreadsheets make numbers of names that look like numbers.

    >>> _text("cat "), _text(3.0), _text(float("nan")), _text(" ")
    ('cat', '3', None, None)
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def _saliency(columns: Mapping[str, Column], n: int) -> Floats:
    """Return how likely each given label is right, as far as the table knows."""
    wrong = columns.get("probability", np.zeros(n))
    if wrong.dtype == object:
        return np.ones(n)
    return 1.0 - np.nan_to_num(wrong.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)


def _reasons(columns: Mapping[str, Column], n: int) -> Column:
    said = columns.get("reason", np.full(n, None, object)).tolist()
    return np.array([f"table: {text}" if text else "table" for text in said], object)


def _table_steps(
    examples: Examples, drop: Bools, after: Floats, saliency: Floats, reason: Column, path: Path
) -> tuple[Step, ...]:
    ids, settings = np.array(examples.ids, object), {"table": path.name}
    changed = np.flatnonzero(np.isfinite(after)).astype(np.int64)
    steps = []
    if len(changed):
        before = examples.targets.cpu().double().numpy()[changed]
        none = np.zeros(len(changed), np.bool_)
        decision = Decision(
            "all",
            changed,
            saliency[changed],
            none,
            reason[changed],
            label=ids[changed],
            before=before,
            after=after[changed],
        )
        steps.append(Step("relabel", "example", TABLE_CRITERION, (decision,), settings))
    reason = np.where(drop, reason, "kept").astype(object)
    decisions = [
        Decision(name, units, saliency[units], ~drop[units], reason[units], label=ids[units])
        for name, units in _strata(examples, ~np.isfinite(after))
    ]
    return (*steps, Step("remove", "example", TABLE_CRITERION, tuple(decisions), settings))


def _strata(examples: Examples, rest: Bools) -> list[tuple[str, Ints]]:
    if not examples.task.exclusive:
        return [("all", np.flatnonzero(rest).astype(np.int64))]
    labels = examples.targets.cpu().numpy()
    numbers = np.unique(labels[rest]).tolist()
    return [(examples.class_names[k], np.flatnonzero(rest & (labels == k)).astype(np.int64)) for k in numbers]


def _check_classes(examples: Examples, drop: Bools, after: Floats, path: Path) -> None:
    if not examples.task.exclusive:
        return
    given = examples.targets.cpu()
    left = torch.where(torch.from_numpy(np.isfinite(after)), torch.from_numpy(np.nan_to_num(after)).long(), given)
    n_before = torch.bincount(given, minlength=examples.n_outputs)
    n_after = torch.bincount(left[torch.from_numpy(~drop)], minlength=examples.n_outputs)
    empty = torch.nonzero((n_before > 0) & (n_after == 0)).flatten().tolist()
    if empty:
        raise PlanError(
            f"{path}: no training example of class {examples.class_names[empty[0]]!r} would be left of {int(n_before[empty[0]])}: "
            "keep some, or set examples.allow_empty_classes: true"
        )
