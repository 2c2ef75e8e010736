"""Which models are measured, on which examples: a bundle, the dense one that it came from, and the data of its run or others?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import Examples, beside_of
from prunus.pipeline.bundle_examples import all_examples, in_units, run_examples
from prunus.pipeline.carried import data_of_bundle
from prunus.pipeline.shipping import bundle_folder, load_checked, open_dense
from prunus.ship import Bundle
from prunus.tasks import Task

__all__ = ["Subjects", "open_subjects"]

Note = Callable[[str], None] | None


@dataclass(frozen=True)
class Subjects:
    """The models by name (``pruned``, and ``dense`` where it is there), and the examples by part.

    ``measured`` is the part that says how good they are; ``fitted`` one that neither model learnt from and that isn't measured,
    None without one. ``source`` are the data in words.
    """

    bundle: Bundle
    dense: Bundle | None
    folders: dict[str, Path]
    models: dict[str, nn.Module]
    parts: dict[str, Examples]
    measured: str
    fitted: str | None
    source: str
    config: Data

    @property
    def task(self) -> Task:
        """What is asked of both."""
        return self.parts[self.measured].task

    @property
    def examples(self) -> Examples:
        """The examples that are measured."""
        return self.parts[self.measured]

    def groups(self) -> dict[str, list[str]]:
        """Return the group of each measured example, by the column's name; nothing where none was named."""
        if self.config.groups is None:
            return {}
        every = beside_of(self.examples.source, "groups")
        return {self.config.groups: every[self.examples.rows.numpy()].tolist()}


def open_subjects(
    path: Path,
    *,
    dense: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    data: Data | None = None,
    groups: str | None = None,
    trust_code: bool = False,
    note: Note = None,
) -> Subjects:
    """Return what is measured.

    Args:
        path: a bundle, or a run's folder.
        dense: the bundle of the dense model; default: the run's own, beside ``path``.
        source: measure on all examples of these data; default: the test examples of the bundle's own data.
        data: the user's word on which data are the bundle's own.
        groups: a column that says of each example which group it belongs to.

    Raises:
        BundleError: a bundle is damaged, or the two aren't of one kind.
        DataError: the data don't fit.
    """
    folder = bundle_folder(path)
    bundle = load_checked(folder, trust_code, note)
    beside, other = open_dense(folder, bundle, dense, trust_code, note) or (None, None)
    teacher = None if other is None else other.model
    if source is None:
        config = data_of_bundle(bundle, folder, trust_code=trust_code) if data is None else data
        config = config if groups is None else config.model_copy(update={"groups": groups})
        parts = run_examples(
            config, bundle, note, parts=("train", "test", "validation", "calibration"), teacher=teacher
        )
        measured, fitted = "test", "validation" if len(parts.get("validation", ())) else None
    else:
        config = Data(source=source, target=target, task=bundle.task, groups=groups)
        parts = all_examples(config, bundle, note, teacher=teacher)
        measured, fitted = next((name for name in ("test", "all") if name in parts), next(iter(parts))), None
    if not len(parts[measured]):
        raise DataError(f"{config.source}: there is no example to measure on: give other data (--source)")
    models = {name: in_units(one, parts) for name, one in (("dense", other), ("pruned", bundle)) if one is not None}
    folders = {"bundle": folder, **({} if beside is None else {"dense": beside})}
    return Subjects(bundle, other, folders, models, parts, measured, fitted, config.source, config)
