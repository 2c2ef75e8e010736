"""How do a run's events and its record get to the places that the recipe names? Nothing is imported unless it is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from prunus.core.events import Event, Listener
from prunus.report.record import RunRecord
from prunus.report.tracking.sink import Sink

__all__ = ["SINKS", "Tracker", "tracked"]

SINKS = {
    "tensorboard": "prunus.report.tracking.tensorboard_sink:TensorBoardSink",
    "mlflow": "prunus.report.tracking.mlflow_sink:MlflowSink",
    "wandb": "prunus.report.tracking.wandb_sink:WandbSink",
}
"""Where each place's class is, by the name that a recipe has for it."""


class Tracker:
    """A listener that passes numbers on, and then what the record says."""

    def __init__(self, sinks: Sequence[Sink], listener: Listener) -> None:
        self._sinks, self._listener = sinks, listener

    def __call__(self, event: Event) -> None:
        """Tell of one event."""
        self._listener(event)
        if not self._sinks:
            return
        numbers = _numbers(event.facts)
        if event.kind == "progress" and numbers:
            self._tell({f"{event.stage}/{name}": value for name, value in numbers.items()}, event.done)
        elif event.kind == "end" and "seconds" in numbers:
            self._tell({f"seconds/{event.stage}": numbers["seconds"]}, 0)

    def finish(self, record: RunRecord) -> None:
        """Tell what the run achieved: each metric on the test examples, the paired difference, and the costs."""
        found: dict[str, Any] = {}
        for row in record.comparison:
            found |= {f"test/{row.metric}/dense": row.dense, f"test/{row.metric}/pruned": row.pruned}
            change = row.difference
            parts = {"difference": change.value, "difference_low": change.low, "difference_high": change.high}
            found |= {f"test/{row.metric}/{name}": value for name, value in parts.items()}
        for model, cost in record.cost.items():
            found |= {f"cost/{name}/{model}": value for name, value in cost.model_dump().items()}
        self._tell(_numbers(found), 0)

    def settings(self, recipe: Mapping[str, Any]) -> None:
        """Tell the recipe."""
        for sink in self._sinks:
            sink.settings(dict(_flat(recipe)))

    def close(self) -> None:
        """Let every place write what it has."""
        for sink in self._sinks:
            sink.close()

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        for sink in self._sinks:
            sink.numbers(numbers, step)


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, name: str, recipe: Mapping[str, Any], listener: Listener
) -> Iterator[Tracker]:
    """Yield what listens for the places that are named, each with a folder of its own below ``folder``.

    Raises:
        MissingExtraError: a place's package isn't installed; nothing ran yet.
    """
    sinks: list[Sink] = []
    tracker = Tracker(sinks, listener)
    try:
        for each in names:
            module, _, kind = SINKS[each].partition(":")
            sinks.append(getattr(import_module(module), kind)(folder / each, name))
        tracker.settings(recipe)
        yield tracker
    finally:
        tracker.close()


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree by their path; lists of plain values as text.

    >>> dict(_flat({"a": {"b": 1, "c": [1, 2]}, "d": None}))
    {'a.b': 1, 'a.c': '[1, 2]', 'd': None}
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str | int | float | bool | None) else str(value)
