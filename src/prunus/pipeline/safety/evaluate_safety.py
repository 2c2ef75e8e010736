"""How is it found out how safe a bundle is, and where does that stay?

What takes long is kept as soon as it is done, under the hashes of the models, of the examples and of what was asked: the same
command goes on where it was stopped. What was found lies in ``safety.json``, in a run's folder or in one of the user's, and on
a page.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prunus.core.errors import RecipeError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import folder_lock
from prunus.core.files.urls.url_path import path_at
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.recipe_file import load_recipe
from prunus.core.recipes.trust import Permission, check_reach
from prunus.core.runtime import single_run_settings, versions
from prunus.data import Examples
from prunus.evaluate import Pairs, observe
from prunus.evaluate.robustness import Effort
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.parts import Crew, Parts
from prunus.pipeline.jobs.run_folder import RECIPE, RECORD
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.safety.privacy_facts import privacy_facts
from prunus.pipeline.safety.robustness_facts import (
    attack_facts,
    corruption_facts,
    some_of,
    trigger_facts,
)
from prunus.pipeline.safety.safety_files import keep_safety
from prunus.pipeline.safety.shared_units import Units, content_of, shared_units
from prunus.pipeline.safety.subjects import Subjects, open_subjects
from prunus.pipeline.safety.suites_asked import Asked
from prunus.pipeline.stages.harm_facts import harm_facts
from prunus.report import SafetyFacts
from prunus.scale.dispatch import reach_workers
from prunus.tasks import Observed

__all__ = ["evaluate_safety"]

Note = Callable[[str], None]
_MOST = {"corruptions": 2000, "attacks": 256, "trigger": 10_000}
"""Examples that a suite looks at, unless a budget says otherwise."""


def evaluate_safety(
    path: Path,
    asked: Asked,
    *,
    dense: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    recipe: Recipe | None = None,
    groups: str | None = None,
    out: Path | None = None,
    dispatch: Dispatch | None = None,
    trust_code: bool = False,
    note: Note | None = None,
    listener: Listener = silent,
) -> SafetyFacts:
    """Return what was asked for of a bundle, beside the dense model that it came from where that is there.

    Args:
        path: a bundle, or a run's folder, which has both.
        dense: the bundle of the dense model, where it lies elsewhere.
        source: measure on all examples of these data; default: the test examples of the bundle's own.
        recipe: the user's word on which data are the bundle's own, and on how its dense model is trained.
        groups: a column of the data; what changes is told for each of its values, too.
        out: a folder to keep ``safety.json`` and a page in; default: the run's, where ``path`` is one.
        dispatch: who measures corruptions and attacks and trains shadow models, on one core each: what is found is the same to the
            bit for any of them. None: this process, on all cores.
        note: is told what can't be measured, and why.

    Raises:
        RecipeError: harm is asked for, and there is no dense model to compare with; a suite that the task or the inputs can't have.
        BundleError: a bundle is damaged, or the two aren't of one kind.
        DataError: the data don't fit.
        OutputError: the folder can't be written, or is in use.
        RunError: the cluster that is asked for doesn't answer.
    """
    run = path if (path / RECORD).is_file() else None
    folder = out or run
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(folder_lock(folder))
        own = _recipe_of(run, recipe, trust_code) if "lira" in asked.privacy else recipe
        opens = SafetyAgain(path, asked, dense, source, target, recipe, own, groups, trust_code)
        stack.enter_context(reach_workers(dispatch))
        stack.enter_context(single_run_settings(None if dispatch is None else 1))
        work = opens.work(Workspace(folder, listener, logs=False), note)
        subjects = work.subjects
        if dispatch is not None and dispatch.shares:
            if folder is None:  # what workers found is kept here, for as long as this takes
                work.workspace = Workspace(
                    Path(stack.enter_context(TemporaryDirectory(prefix="prunus-"))), listener, logs=False
                )
            reads = [place for place in (path, dense, None if source is None else path_at(source)) if place is not None]
            crew = Crew(dispatch, replace(opens, folder=str(work.workspace.folder)), listener, reads=reads)
            stack.callback(crew.dismiss)
            work.parts = Parts(crew)
        facts: dict[str, Any] = {
            "bundle": str(subjects.folders["bundle"]),
            "dense": str(subjects.folders["dense"]) if "dense" in subjects.folders else None,
            "hashes": {
                name: one.sha256 for name, one in (("bundle", subjects.bundle), ("dense", subjects.dense)) if one
            },
            "data": subjects.source,
            "task": subjects.task.name,
            "versions": versions(),
            "seed": asked.seed,
        }
        if asked.harm:
            facts["harm"] = work.harm()
        if asked.robustness or asked.trigger:
            facts["robustness"] = work.robustness()
        if asked.privacy:
            facts["privacy"] = work.privacy()
        found = SafetyFacts.model_validate(facts)
        if folder is not None:
            found = keep_safety(found, folder, is_run=run is not None and folder == run)
            work.forget()
    return found


def _recipe_of(run: Path | None, recipe: Recipe | None, trust_code: bool) -> Recipe | None:
    """Return how the dense model is trained: the user's word, or the run's own where it reaches for nothing that isn't allowed."""
    if recipe is not None or run is None or not (run / RECIPE).is_file():
        return recipe
    own = load_recipe(run / RECIPE)
    way = "give your own recipe (--recipe RECIPE), or trust the run (--trust-code)"
    check_reach(own, Permission(everything=trust_code, given=("output",)), where=str(run), way=way)
    return own


@dataclass(frozen=True)
class SafetyAgain:
    """Opens what is measured, also in another process; ``own`` says how the dense model is trained."""

    path: Path
    asked: Asked
    dense: Path | None
    source: str | None
    target: str | None
    recipe: Recipe | None
    own: Recipe | None
    groups: str | None
    trust_code: bool
    folder: str = ""

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Parts, Listener], _Work]]:
        """Yield a function that gives it anew; what there is to say of the data was said where the work began.

        The run that shadow models are trained as is opened for the first of them, and stays open for the next.
        """
        with ExitStack() as stack:
            stack.enter_context(single_run_settings(1))
            work, jobs = self.work(Workspace(Path(self.folder), logs=False), None), list[Job]()

            def opened(listener: Listener) -> AbstractContextManager[Job]:
                if not jobs:
                    assert self.own is not None
                    jobs.append(stack.enter_context(open_job(self.own, Workspace(None))))
                return nullcontext(replace(jobs[0], workspace=Workspace(None, listener)))

            def anew(parts: Parts, listener: Listener) -> _Work:
                told, again = partial(_told, listener), copy.copy(work)
                again.parts, again.workspace = parts, Workspace(Path(self.folder), told, logs=False)
                again.opened = partial(opened, told)
                return again

            yield anew

    def work(self, workspace: Workspace, note: Note | None) -> _Work:
        """Open it here."""
        subjects = open_subjects(
            self.path,
            dense=self.dense,
            source=self.source,
            target=self.target,
            data=None if self.recipe is None else self.recipe.data,
            groups=self.groups,
            trust_code=self.trust_code,
            note=note,
        )
        return _Work(subjects, self.asked, self.own, workspace)


def _told(listener: Listener, event: Event) -> None:
    """Tell what a worker found worth saying; how far it is tells who sent it."""
    if event.kind in ("note", "warning"):
        listener(event)


def _harm(work: _Work) -> object:
    return work.harm()


def _robustness(work: _Work) -> object:
    return work.robustness()


def _privacy(work: _Work) -> object:
    return work.privacy()


class _Work:
    """What is measured of one pair, suite by suite; ``opened`` opens the run that shadow models are trained as."""

    def __init__(self, subjects: Subjects, asked: Asked, own: Recipe | None, workspace: Workspace) -> None:
        self.subjects, self.asked, self.own, self.workspace = subjects, asked, own, workspace
        self.parts, self.opened = Parts(), self._open
        self.started: dict[str, float] = {}
        self._names: dict[str, str] = {}

    def _open(self) -> AbstractContextManager[Job]:
        assert self.own is not None
        return open_job(self.own, Workspace(None, self.workspace.listener))

    def harm(self) -> dict[str, Any]:
        """Return whom the pruned model serves worse."""
        subjects, asked = self.subjects, self.asked
        if subjects.dense is None:
            raise RecipeError(
                f"--harm compares two models, and no dense one lies beside {subjects.folders['bundle']}: give its bundle "
                "(--dense BUNDLE), or the folder of a run, which has both"
            )
        examples, task = subjects.examples, subjects.task
        models = list(subjects.models.items())

        def look(place: int, progress: Callable[[int, int], None]) -> Observed:
            found = observe(models[place][1], examples, task)
            progress(1, 1)
            return found

        if examples.on_disk:  # what is observed of these lies in files of this process
            found = [look(place, lambda done, of: None) for place in range(len(models))]
        else:
            found = self._units("harm", self._named("harm", examples), _harm)(list(subjects.models), look)
        seen = {name: one for (name, _), one in zip(models, found, strict=True)}
        pairs = Pairs([seen["dense"]], [seen["pruned"]], task, asked.confidence, asked.bootstrap, asked.seed)
        return harm_facts(
            pairs,
            examples,
            subjects.models,
            split=subjects.measured,
            groups=subjects.groups(),
            fit_on=None if subjects.fitted is None else subjects.parts[subjects.fitted],
            fitted_on=subjects.fitted or "",
        )

    def robustness(self) -> dict[str, Any]:
        """Return what both models withstand."""
        asked, subjects = self.asked, self.subjects
        facts: dict[str, Any] = {"split": subjects.measured, "confidence": asked.confidence, "attacks": [], "notes": []}
        settings = {"confidence": asked.confidence, "bootstrap": asked.bootstrap, "seed": asked.seed}
        if "corruptions" in asked.robustness:
            examples = self._some("corruptions")
            facts["corruptions"] = self._kept(
                "corruptions",
                examples,
                settings,
                lambda units: corruption_facts(subjects, examples, settings=settings, units=units),
            )
        if "attacks" in asked.robustness:
            examples = self._some("attacks")
            for norm in asked.norms:
                facts["attacks"].append(
                    self._kept(
                        f"attacks, {norm}",
                        examples,
                        {"reach": asked.reach, "seed": asked.seed, "confidence": asked.confidence},
                        lambda units, norm=norm, examples=examples: attack_facts(  # type: ignore[misc]
                            subjects,
                            examples,
                            norm=norm,
                            reach=asked.reach,
                            effort=Effort(),
                            seed=asked.seed,
                            confidence=asked.confidence,
                            units=units,
                        ),
                    )
                )
            facts["notes"].append(
                "whoever knows a defence may find more than these attacks: what withstands them is an upper bound"
            )
        if asked.trigger is not None and asked.trigger_class is not None:
            facts["trigger"] = trigger_facts(
                subjects,
                self._some("trigger"),
                trigger=asked.trigger,
                target=asked.trigger_class,
                confidence=asked.confidence,
                seed=asked.seed,
            )
        return facts

    def privacy(self) -> dict[str, Any]:
        """Return what both models tell of their training examples."""
        asked = self.asked
        return privacy_facts(
            self.subjects,
            asked.privacy,
            recipe=self.own,
            n_shadows=asked.n_shadows,
            confidence=asked.confidence,
            bootstrap=asked.bootstrap,
            seed=asked.seed,
            workspace=self.workspace,
            parts=self.parts.by(_privacy),
            opened=self.opened,
            units=lambda suite, *examples: self._units(suite, self._named(suite, *examples), _privacy),
            tell=self._tell,
        )

    def forget(self) -> None:
        """Remove what was kept for going on, now that all of it is told."""
        if (work := self.workspace.path()) is not None and work.is_dir():
            self.workspace.forget()

    def _some(self, suite: str) -> Examples:
        most = _MOST[suite] if self.asked.budget is None else self.asked.budget
        return some_of(self.subjects.examples, most, self.asked.seed)

    def _kept(
        self, suite: str, examples: Examples, settings: dict[str, Any], compute: Callable[[Units], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what a suite found, or what it found for the same models, examples and settings before it was stopped.

        ``compute`` is handed who measures the suite's units, each of which is kept, too.
        """
        name = self._named(suite, examples, settings=settings)
        return self.workspace.remembered(name, lambda: compute(self._units(suite, name, _robustness)))

    def _named(self, suite: str, *examples: Examples, settings: dict[str, Any] | None = None) -> str:
        """Return under which name is kept what a suite finds of these models and examples; where nothing is, none are read."""
        if self.workspace.folder is None:
            return f"safety {suite}"
        asked = json.dumps([suite, settings], sort_keys=True)
        if asked not in self._names:
            said = [settings, *map(content_of, examples)]
            bundles = [one.sha256 for one in (self.subjects.bundle, self.subjects.dense) if one is not None]
            about = json.dumps([bundles, versions()["torch"], said], sort_keys=True)
            self._names[asked] = f"safety {suite} {hashlib.sha256(about.encode()).hexdigest()[:16]}"
        return self._names[asked]

    def _units(self, suite: str, name: str, way: Callable[[_Work], object]) -> Units:
        return shared_units(self.workspace, self.parts.by(way), suite, name, self._tell)

    def _tell(self, stage: str, done: int, total: int) -> None:
        """Tell how far a suite is; on a pipe, when it is done. With workers, who sent them tells it."""
        if self.parts != Parts():
            return
        if stage not in self.started:
            self.started[stage] = time.perf_counter()
            self.workspace.listener(Event("start", stage))
        self.workspace.listener(Event("progress", stage, done=done, total=total))
        if done == total:
            seconds = round(time.perf_counter() - self.started[stage], 3)
            self.workspace.listener(Event("end", stage, facts={"seconds": seconds}))
