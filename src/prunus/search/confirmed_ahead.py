"""How do workers train what is confirmed, each setting under each seed, before this process measures it?

A training is kept in the folder of its setting, as after a kill; here the run goes on, finds it, and measures, so that times are
taken while nobody else works. Where settings have a dense model in common, the first of them trains it, and the others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunus.core.events import Listener
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.flow.seed_run import own_seed
from prunus.pipeline.jobs.parts import Crew, Parts, raise_first
from prunus.pipeline.jobs.run_folder import open_workspace
from prunus.pipeline.jobs.workspace import WORK, Workspace
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.search.shared_dense import dense_place, keep_dense, take_dense

__all__ = ["Training", "train_ahead"]

_STAGE = "confirm"


@dataclass(frozen=True)
class Training:
    """One seed of a setting that is confirmed; ``recipe`` says where its run lies."""

    number: int
    recipe: Recipe
    seed: int

    @property
    def name(self) -> str:
        """What it is called where it is under way, or fails."""
        return f"setting {self.number}, seed {self.seed}"


def train_ahead(trainings: Sequence[Training], shared: Path, dispatch: Dispatch, listener: Listener) -> None:
    """Have workers do all trainings; what each leaves lies in its run's folder, and dense models in ``shared``.

    Raises:
        PrunusError: what was wrong with the first that failed, with its name; the others were done first, and stay for a resume.
    """
    shared.mkdir(parents=True, exist_ok=True)
    for recipe in {training.recipe.output: training.recipe for training in trainings}.values():
        with open_workspace(recipe, Path(recipe.output), resume=True, overwrite=False, listener=listener):
            pass  # the run of this recipe is begun
    at_once: list[Training] = []
    later: list[Training] = []
    places = set[Path]()
    for training in trainings:
        place = dense_place(shared, training.recipe, training.seed, 1.0)
        (later if place in places and not place.is_dir() else at_once).append(training)
        places.add(place)
    opens = _Trainings(str(shared), (tuple(at_once), tuple(later)))
    crew = Crew(dispatch, opens, listener)
    try:
        for number in range(len(opens.batches)):
            _Work(opens, Parts(crew), listener).train(number)
    finally:
        crew.dismiss()
        with suppress(OSError):
            (shared / WORK).rmdir()  # where workers knew the folder by


@dataclass(frozen=True)
class _Trainings:
    """All trainings, in batches one after the other; ``folder`` is where dense models are kept."""

    folder: str
    batches: tuple[tuple[Training, ...], ...]

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Parts, Listener], _Work]]:
        """Yield a function that gives them to whoever does some."""
        yield partial(_Work, self)


@dataclass(frozen=True)
class _Work:
    trainings: _Trainings
    parts: Parts
    listener: Listener

    def train(self, number: int) -> None:
        """Do the trainings of a batch."""
        chosen, work = self.trainings.batches[number], Workspace(Path(self.trainings.folder), self.listener, logs=False)
        parts = self.parts.by(partial(_Work.train, number=number))
        names = [training.name for training in chosen]
        stage = f"{_STAGE} / trainings {number + 1}"
        done = parts.ahead(work, stage, names, lambda place: self._one(chosen[place]), fewest=1)
        raise_first(work, _STAGE, done)

    def _one(self, training: Training) -> None:
        seed, shared = training.seed, Path(self.trainings.folder)
        with open_job(training.recipe, Workspace(Path(training.recipe.output))) as job:
            take_dense(shared, job, seed, 1.0)
            fit_dense(job, seed)
            keep_dense(shared, job, seed, 1.0)
            own_seed(job, seed)
