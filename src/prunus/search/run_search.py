"""Which settings are best? The search: choose a batch, run it, enter what it gave, and judge the few best once more.

Trials are functions of plain values that any process can run (``scale.dispatch``), and each keeps its result in its own folder:
a killed search goes on with what is done, and another contract or other objectives read the same results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from prunus.core.code.registry import METRICS, would_import
from prunus.core.errors import DataError, RecipeError, RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import folder_lock, write_json, write_text
from prunus.core.recipes.named_places import local_places
from prunus.core.recipes.recipe import Recipe, Search
from prunus.core.recipes.target_contract import Contract
from prunus.core.text import plain
from prunus.evaluate.harm import check_classes, check_groups, check_margins, fewest_examples
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import example_groups
from prunus.pipeline.jobs.run_folder import recipe_text
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.offered import load_offered
from prunus.scale.dispatch import Dispatch, Failure, Files, reach_workers, run_trials
from prunus.search.account.judged_on import JudgedOn, check_begun, judged_on
from prunus.search.account.where import Where, check_folder
from prunus.search.confirm import confirm
from prunus.search.race import Rival
from prunus.search.search_facts import recorded
from prunus.search.space import Space, search_of
from prunus.search.study import Study
from prunus.search.study_storage import open_account, told
from prunus.search.trial import Asked, digest_of, read_result, run_trial
from prunus.search.warm_starts import warm_starts
from prunus.tasks import check_metrics, default_metrics, metrics

__all__ = ["Searched", "search"]

_STAGE = "search"


@dataclass(frozen=True)
class Searched:
    """What a search found: ``facts`` are plain values, as they stand in ``record``; ``page`` shows them."""

    record: Path
    page: Path
    facts: Mapping[str, Any]


def search(
    recipe: Recipe,
    *,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> Searched:
    """Try the settings of the recipe's section ``search``, and confirm the best of them.

    Args:
        workers: so many trials at once, layers before them and confirming trainings after; None: as the recipe's section
            ``dispatch`` says, or one. What is found doesn't hang on it, but for measured times.
        resume: go on with the search that the output folder holds; also with other objectives, another contract or more trials.
        overwrite: throw that search away.
        listener: is told about progress.

    Raises:
        RecipeError: no section ``search``, a key that can't vary, or a metric that isn't measured.
        OutputError: the folder holds a search of another recipe, or a study that can't be opened.
        RunError: no trial ended, or the cluster that is asked for doesn't answer.
    """
    asked = search_of(recipe)
    recipe = _with_workers(recipe, workers)
    load_offered(recipe)
    for name in (asked.metric, None if asked.contract is None else asked.contract.metric):
        if name is not None and would_import(METRICS, name):
            metrics.load(name)
    space = Space.of(recipe)
    where = Where(Path(recipe.output))
    with reach_workers(recipe.dispatch), folder_lock(where.folder), told(asked.storage, begun=True):
        check_folder(where, space, resume=resume, overwrite=overwrite)
        # A database that can't be had is told before any data are read.
        storage = None if asked.storage is None else open_account(where.folder, asked.storage)
        metric, on = _judges(recipe, asked, space, listener)
        check_begun(where.begun, on)
        higher = metrics[metric].higher_is_better
        study = Study(where.folder, space, asked, metric, higher, recipe.seeds[0], storage=storage)
        write_text(where.folder / "recipe.yaml", recipe_text(recipe))
        _begin(recipe, asked, space, where, study, metric, listener)
        results = _Batches(recipe, asked, space, where, study, metric, on, listener).tried()
        if not any(found["state"] == "done" for found in results.values()):
            why = next(
                (found["why"] for found in results.values() if found.get("why")), "no trial began in the time given"
            )
            raise RunError(f"search: no trial ended, so there is nothing to choose from: {why}")
        confirmed = confirm(recipe, space, study.known(), results, where, listener, metric=metric, higher=higher)
        facts = recorded(recipe, space, study, results, confirmed, metric, where, higher=higher)
        write_json(where.record, facts)
        from prunus.report import write_search_page

        write_search_page(facts, where.page)
    return Searched(where.record, where.page, facts)


def _with_workers(recipe: Recipe, workers: int | None) -> Recipe:
    """Return the recipe with so many workers, where a number is given."""
    if workers is None:
        return recipe
    if workers < 1:
        raise RecipeError(f"expected workers >= 1: got {workers}")
    dispatch = recipe.dispatch or Dispatch()
    return recipe.model_copy(update={"dispatch": dispatch.model_copy(update={"workers": workers})})


def _judges(recipe: Recipe, asked: Search, space: Space, listener: Listener) -> tuple[str, JudgedOn]:
    """Return what quality means, once the data say which task it is, and on which examples; a recipe that fits neither ends here.

    Raises:
        RecipeError: nobody knows the metric, it is one of another task, or not the one that is promised.
        DataError: no validation examples.
    """
    promised = None if asked.contract is None else asked.contract.metric
    if promised is not None and asked.metric not in (None, promised):
        raise RecipeError(
            f"search.metric and search.contract.metric must be one, since the promise is a bound on it: got {asked.metric!r} and "
            f"{promised!r}"
        )
    with open_job(recipe, Workspace(None, listener)) as job:
        task, n = job.data.validation.task, len(job.data.validation)
        on = judged_on(job, space.weights())
        if asked.contract is not None:
            check_margins(asked.contract, key="search.contract")
            _check_tests(asked.contract, len(job.data.test))
            known = job.data.test.known_targets
            numbers = None if known is None else known.cpu().numpy()
            check_classes(asked.contract, task, numbers, remedy="raise data.split.test")
            if asked.contract.of_groups:
                groups = example_groups(recipe, job.data.test)
                check_groups(asked.contract, groups, remedy="raise data.split.test")
    if n == 0:
        raise DataError("search judges settings on validation examples: got none; set data.split.validation")
    named = promised or asked.metric or (recipe.evaluation.metrics or default_metrics(task.name))[0]
    check_metrics((named,), task.name)
    return named, on


def _check_tests(contract: Contract, n: int) -> None:
    """Refuse a contract on numbers that so few test examples say nothing about; of shares their own bounds tell."""
    needed = fewest_examples(contract.metric, contract.max_drop, contract.confidence)
    if not metrics[contract.metric].is_share and n < needed:
        raise DataError(
            f"search.contract: {n} test examples can't tell how {contract.metric} changes: expected at least {needed}; raise "
            "data.split.test"
        )


class _Batches:
    """Chooses the trials of a search a batch at a time, and keeps what they gave."""

    def __init__(
        self,
        recipe: Recipe,
        asked: Search,
        space: Space,
        where: Where,
        study: Study,
        metric: str,
        on: JudgedOn,
        listener: Listener,
    ) -> None:
        self._recipe, self._asked, self._space, self._where = recipe, asked, space, where
        self._study, self._metric, self._on, self._listener = study, metric, on, listener
        self._end = None if asked.minutes is None else monotonic() + 60 * asked.minutes
        self._numbers, self._tasks, self._n_done = range(0), list[Asked](), 0
        self.results: dict[int, dict[str, Any]] = {}

    def tried(self) -> dict[int, dict[str, Any]]:
        """Run all of them, and return what each trial gave, by its number."""
        start = monotonic()
        self._listener(Event("start", _STAGE, total=self._asked.trials))
        files = Files(local_places(self._recipe), (self._where.folder,))
        backend = self._recipe.dispatch or "local"
        for task, found in run_trials(run_trial, self, backend=backend, files=files, listener=self._listener):
            self.say(task.number, found)
        self._listener(Event("end", _STAGE, facts={"seconds": round(monotonic() - start, 3)}))
        return dict(sorted(self.results.items()))

    def ask(self) -> list[Asked]:
        """Return the next trials; none where all were, or the time is up."""
        while (numbers := self._next()) is not None:
            self._numbers, self._tasks = numbers, self._made(numbers)
            if self._tasks:
                return self._tasks
            self.tell([])
        return []

    def tell(self, found: Sequence[dict[str, Any] | Failure]) -> None:
        """Enter what a batch gave, in the trials' order."""
        for task, answer in zip(self._tasks, found, strict=True):
            self.results[task.number] = _result(answer)
        for number in self._numbers:
            self._study.tell(number, self.results[number])

    def say(self, number: int, found: dict[str, Any] | Failure) -> None:
        """Say what a trial gave, as soon as it is done."""
        self._n_done += 1
        _say(number, self._n_done, self._asked.trials, _result(found), self._metric, self._listener)

    def _next(self) -> range | None:
        first, total = self._numbers.stop, self._asked.trials
        if first >= total:
            return None
        if self._end is not None and monotonic() > self._end:
            self._listener(Event("note", _STAGE, f"the time is up after {first} of {total} trials"))
            return None
        return range(first, min(first + self._asked.batch, total))

    def _made(self, numbers: range) -> list[Asked]:
        rivals = _rivals(self.results) if self._asked.stop_early else ()
        tasks = []
        for number in numbers:
            values = self._study.ask(number)
            try:
                made = self._space.recipe(values)
            except RecipeError as error:
                self.results[number] = {"state": "failed", "why": str(error)}
                self._n_done += 1
                continue
            task = _task(self._recipe, self._asked, made, number, self._metric, self._where, rivals)
            tasks.append(replace(task, on=self._on, same_data=made.data == self._recipe.data))
        return tasks


def _result(found: dict[str, Any] | Failure) -> dict[str, Any]:
    return {"state": "failed", "why": found.message} if isinstance(found, Failure) else found


def _task(
    recipe: Recipe, asked: Search, made: Recipe, number: int, metric: str, where: Where, rivals: tuple[Rival, ...]
) -> Asked:
    tree = _tree(recipe, asked, made)
    return Asked(
        number,
        tree,
        str(_folder(where, tree, asked)),
        str(where.shared),
        metric,
        _costs(asked),
        asked.share,
        rivals,
    )


def _costs(asked: Search) -> tuple[str, ...]:
    return tuple(name for name in asked.objectives if name != "quality")


def _folder(where: Where, tree: Mapping[str, Any], asked: Search) -> Path:
    return where.trials / digest_of(tree, asked.share)


def _tree(recipe: Recipe, asked: Search, made: Recipe) -> dict[str, Any]:
    """Return a trial's recipe as plain values: with so many of the recipe's seeds."""
    return made.model_copy(update={"seeds": recipe.seeds[: asked.seeds]}).model_dump(mode="json")


def _begin(
    recipe: Recipe, asked: Search, space: Space, where: Where, study: Study, metric: str, listener: Listener
) -> None:
    """Tell the study what other searches measured here, and where the sensitivity says to begin."""

    def is_done(values: Mapping[str, Any]) -> bool:
        try:
            tree = _tree(recipe, asked, space.recipe(values))
        except RecipeError:
            return False
        return read_result(_folder(where, tree, asked), metric, _costs(asked)) is not None

    n = study.adopt(is_done)
    if n:
        listener(Event("note", _STAGE, f"{n} settings that were tried here before for something else are taken over"))
    n_begun = len(study.known())
    if n_begun < asked.trials and n_begun <= n + asked.warm_starts:
        study.begin_with(warm_starts(recipe, asked, space, where.shared, metric, listener))


def _rivals(results: Mapping[int, Mapping[str, Any]]) -> tuple[Rival, ...]:
    return tuple(Rival(found["macs"], found["rungs"]) for found in results.values() if found["state"] == "done")


def _say(number: int, done: int, total: int, result: Mapping[str, Any], metric: str, listener: Listener) -> None:
    if result["state"] == "failed":
        listener(Event("warning", _STAGE, f"trial {number}: {plain(result['why'])}"))
        text = f"trial {number} failed"
    else:
        stopped = ", stopped early" if result["state"] == "stopped" else ""
        text = f"trial {number}: {metric} {result['quality']:.4g}, {result['shares']['macs']:.1%} of the MACs{stopped}"
    listener(Event("progress", _STAGE, text, done, total))
