"""How do workers train the models of folds, which hang on nothing but the recipe and the number of the fold?

A worker opens the recipe's job anew, once, and so has the same data, the same starting weights and the same settings as the process
that asks: what it says of a fold is the same to the bit. What was handed over as objects can't be opened anew, and stays here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Train
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline.jobs.job import Job, OpensJob
from prunus.pipeline.jobs.workspace import Workspace
from prunus.recover import current
from prunus.scale.dispatch import Dispatch, Failure, map_shards

__all__ = ["Answer", "can_be_shared", "shared_folds"]

Answer = Callable[[Job, int, int, int, Train, str, Any, Tensor | None], dict[str, Tensor]]
"""From a job, its seed, the number of folds, which of them, how to train, the stage, what is kept and who is trusted."""


def can_be_shared(job: Job) -> str | None:
    """Return why a job's folds have to be trained in this process; None where workers can do it, or nobody asked."""
    if current() is not None:
        return "torchrun's processes train each fold together"
    if job.opened is None or job.opened.data is not job.data or job.opened.build is not job.build:
        return "the data or the model were handed over, or made on the way, so no other process has them"
    return None


@dataclass
class _Fold:
    """Trains one fold's model after the other, in a worker's own job."""

    recipe: Mapping[str, Any]
    fingerprint: str
    opens: OpensJob
    answer: Answer
    told: tuple[Any, ...]
    trusted: npt.NDArray[np.bool_] | None
    _job: list[Job] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_job": [], "_stack": None}

    def __call__(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """Return what is kept of the answers to a fold.

        Raises:
            PrunusError: the data or the model can't be had here, or the training diverges.
        """
        if not self._job:
            self._stack = ExitStack()
            job = self._stack.enter_context(self.opens(make_recipe(dict(self.recipe), "recipe"), Workspace(None)))
            if job.data.fingerprint != self.fingerprint:
                raise RunError(
                    f"this worker reads other data than the process that asks (fingerprint {job.data.fingerprint[:12]}, expected "
                    f"{self.fingerprint[:12]}): give all of them the same files"
                )
            self._job.append(job)
        seed, n_folds, settings, stage, read = self.told
        trusted = None if self.trusted is None else torch.from_numpy(self.trusted)
        found = self.answer(self._job[0], seed, n_folds, number, settings, stage, read, trusted)
        return {name: value.detach().cpu().contiguous().numpy() for name, value in found.items()}


def shared_folds(
    job: Job,
    answer: Answer,
    told: tuple[int, int, Train, str, Any],
    trusted: Tensor | None,
    numbers: Sequence[int],
    backend: Dispatch,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the numbers of folds and what is kept of the answers to them, as they get done.

    Raises:
        RunError: a fold can't be trained; the others are done then, too.
    """
    assert job.opened is not None
    own = None if trusted is None else trusted.cpu().numpy()
    tree = job.opened.recipe.model_dump(mode="json")
    work = _Fold(tree, job.data.fingerprint, job.opened.opens, answer, told, own)
    failed: dict[int, str] = {}
    for place, found in map_shards(work, list(numbers), backend=backend, listener=job.workspace.listener):
        if isinstance(found, Failure):
            failed[numbers[place]] = found.message
        else:
            yield numbers[place], {name: torch.from_numpy(value) for name, value in found.items()}
    for number, message in sorted(failed.items()):
        raise RunError(
            f"{told[3]} / fold {number + 1} of {told[1]}: {message}; go on with --resume, which keeps the other folds"
        )
