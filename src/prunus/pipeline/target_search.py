"""How is the smallest model found that meets a target and keeps a contract?

The search walks down in cost as long as the calibration examples show no drop, and bisects above what doesn't promise to keep the
contract. Only then are the candidates tested, on validation examples that had no part in any choice: those that promise from the
costliest down, then what is cheaper still, until one fails (see docs/adr/0007). No test example is ever read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Recipe, Target
from prunus.core.types import Step, Stratum
from prunus.data import Examples, Prepared
from prunus.evaluate import NonInferiority, observe, promises
from prunus.evaluate.harm import check_classes, check_groups, check_margins, contract_test, fewest_examples
from prunus.graph import AxisGraph
from prunus.pipeline.costing.cost_targets import Costing, Counted
from prunus.pipeline.costing.latency_targets import Timed
from prunus.pipeline.costing.share_walk import if_each_fails, next_share, walk
from prunus.pipeline.cut.one_round import Round
from prunus.pipeline.cut.prunable import check_patterns, groups_of, prunable_graph
from prunus.pipeline.jobs.guesses import Guesses
from prunus.pipeline.jobs.job import Candidate, Decide, Job, example_groups
from prunus.pipeline.stages.model_stage import adjust_after_cut, begin, recover
from prunus.pipeline.stages.overfitting.generalisation import Overfits, trend, watched
from prunus.tasks import default_metrics, metrics

__all__ = ["Trial", "check_contract", "check_floor", "search_model"]


@dataclass(frozen=True)
class Trial:
    """One candidate: what was asked for, what it costs (shares of the dense model's cost), and what is known of its quality."""

    number: int
    asked: float
    share: float
    candidate: Candidate
    steps: tuple[Step, ...]
    history: dict[str, dict[str, Any]]
    started_from: int
    guided: NonInferiority | None = None
    promising: bool = True
    tested: NonInferiority | None = None

    @property
    def shows_no_drop(self) -> bool:
        """Whether it promises, or is at least no worse on the calibration examples, which may be too few for a promise."""
        return self.promising or (self.guided is not None and self.guided.drop <= 0)


def check_contract(recipe: Recipe, data: Prepared) -> None:
    """Refuse a contract that can't be shown, before anything is trained.

    Raises:
        RecipeError: the metric is unknown or isn't evaluated, or the validation examples decide something else, too.
        DataError: there are too few validation examples; it says how many are needed.
    """
    contract = recipe.contract
    if contract is None:
        return
    evaluated = recipe.evaluation.metrics or default_metrics(data.train.task.name)
    promised = metrics[contract.metric]
    if contract.metric not in evaluated:
        raise RecipeError(
            f"contract.metric must be one that is evaluated ({', '.join(evaluated)}): got {contract.metric!r}; "
            "add it to evaluation.metrics, or choose among these"
        )
    check_margins(contract)
    if recipe.features is not None:
        raise RecipeError(
            "contract and features both decide on the validation examples, so the contract would show too much: "
            "got both; prune the features in a run of their own"
        )
    n, needed = len(data.validation), fewest_examples(contract.metric, contract.max_drop, contract.confidence)
    if (promised.exact_test or not promised.is_share) and n < needed:
        raise DataError(
            f"contract: {n} validation examples can't show a drop below {contract.max_drop:g} at confidence "
            f"{contract.confidence:g}, whatever the model: expected at least {needed}, got {n}; raise data.split.validation"
            f"{' or contract.max_drop' if promised.is_share else ''}"
        )
    known = data.validation.known_targets
    remedy = "raise data.split.validation"
    check_classes(contract, data.validation.task, None if known is None else known.cpu().numpy(), remedy=remedy)
    if contract.of_groups:
        check_groups(contract, example_groups(recipe, data.validation), remedy=remedy)


def check_floor(job: Job, model: nn.Module) -> None:
    """Refuse a share of a cost that no cut reaches, before anything is trained; a latency's is predicted, and kept for the search.

    Raises:
        RecipeError: it says what can't be pruned costs.
    """
    target = job.recipe.target
    if target is None or target.share is None:
        return
    seed = job.recipe.seeds[0]
    costing = costing_of(job, seed, model, target)

    def compute() -> dict[str, float]:
        return {"share": _floor(job, _graph(job, seed, model), model, costing)}

    # Features that go make another model of it, whose floor is found once they are gone.
    timed = target.kind == "latency" and job.recipe.features is None
    floor = (job.workspace.remembered(f"seed {seed} / floor", compute) if timed else compute())["share"]
    if target.share < floor:
        raise costing.refuse(target.share, floor)


def _graph(job: Job, seed: int, model: nn.Module) -> AxisGraph:
    """Return what hangs together in ``model`` and may be cut."""
    strategy = job.recipe.strategy
    assert strategy is not None
    return prunable_graph(
        model,
        job.trace_inputs,
        strategy.exclude,
        seed=seed,
        granularity=strategy.granularity[0],
        by_config=strategy.expressible,
    )


def _floor(job: Job, graph: AxisGraph, model: nn.Module, costing: Costing) -> float:
    """Return the share of the cost that is left when all is cut that may be."""
    strategy = job.recipe.strategy
    assert strategy is not None
    granularity = strategy.granularity[0]
    groups = groups_of(graph, granularity)
    strata = [Stratum(g.name, np.zeros(g.size), min_units=max(strategy.min_units, g.min_units)) for g in groups]
    return costing.floor(graph, groups, model, strata) if groups else 1.0


def search_model(
    job: Job, seed: int, dense: nn.Module, start: Candidate, examples: Examples, decide: Decide
) -> tuple[Candidate, tuple[Step, ...], dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the model that meets the target and keeps the contract, how it came about, and all that was tried.

    Where no candidate keeps the contract it is the dense model, and the facts say so.

    Raises:
        RecipeError: the target is below what can't be pruned.
    """
    return _Search(job, seed, dense, examples, decide).run(start)


class _Search:
    def __init__(self, job: Job, seed: int, dense: nn.Module, examples: Examples, decide: Decide) -> None:
        assert job.recipe.target is not None
        assert job.recipe.strategy is not None
        self.job, self.seed, self.dense, self.examples, self.decide = job, seed, dense, examples, decide
        self.target, self.contract, self.strategy = job.recipe.target, job.recipe.contract, job.recipe.strategy
        self.trials: list[Trial] = []
        self.too_slow = ""
        self.overfits = Overfits(job, seed, dense, examples) if watched(job, rounds=1) else None
        self.guesses = Guesses(job, f"seed {seed}")

    def run(self, start: Candidate) -> tuple[Candidate, tuple[Step, ...], dict[str, dict[str, Any]], dict[str, Any]]:
        job, seed = self.job, self.seed
        check_patterns(self.dense, self.strategy)
        first, histories = begin(job, seed, start, self.examples)
        self.costing = costing_of(job, seed, start.model, self.target)
        known: list[AxisGraph] = []  # none where a resumed run remembers the floor

        def floor() -> dict[str, float]:
            known.append(_graph(job, seed, first.model))
            return {"share": _floor(job, known[0], first.model, self.costing)}

        self.floor = job.workspace.remembered(f"seed {seed} / floor", floor)["share"]
        if self.target.share is not None and self.target.share < self.floor:
            raise self.costing.refuse(self.target.share, self.floor)
        self.known = (first.model, known[0]) if known else None
        self._walk(Trial(0, 1.0, 1.0, first, (), histories, 0))
        tested = self._test()
        delivered = self._worth_it(tested if self.contract is not None else self.trials[-1])
        for trial in self.trials:
            histories = {**histories, **trial.history}
        if delivered is None:
            return start, (), histories, self._facts(None)
        return delivered.candidate, delivered.steps, histories, self._facts(delivered)

    def _worth_it(self, trial: Trial | None) -> Trial | None:
        """Return a trial unless it is no faster where speed was asked for: then the dense model is delivered."""
        if trial is None:
            return None
        job, name = self.job, f"seed {self.seed} / candidate {trial.number}"
        found = job.workspace.remembered(
            f"{name} / speed", lambda: {"too_slow": self.costing.too_slow(trial.candidate.model)}
        )
        if not found["too_slow"]:
            return trial
        self.too_slow = found["too_slow"]
        job.workspace.warn(name, f"it isn't delivered: {self.too_slow}")
        return None

    def _walk(self, dense: Trial) -> None:
        """Go down, then bisect between the last that promised and the first that didn't: one that is safe to test first."""
        goals = walk(self.target, self.job.recipe, self.floor)
        most = self.contract.max_candidates if self.contract is not None else len(goals)
        kept, failed = self._down(dense, goals[:most])
        retried = False
        while failed is not None and len(self.trials) < most:
            share, again = next_share(kept.asked, failed, self.target.share, retried=retried)
            if share is None:
                break
            retried = retried or again
            trial = self._try(kept, share, kept, retried=retried)
            if self._saves_nothing(kept, trial):
                break
            if not trial.promising:
                failed = share
                continue
            kept = trial
            if self.target.share is not None and share <= self.target.share:
                break

    def _down(self, dense: Trial, goals: Sequence[float]) -> tuple[Trial, float | None]:
        """Go down while no drop is seen; return the last before the first that doesn't promise, and that one's share."""
        kept, lowest, failed = dense, dense, None
        for share in goals:
            trial = self._try(lowest, share, kept, failed=failed)
            if self._saves_nothing(lowest, trial):
                return kept, None
            if not trial.promising:
                failed = failed or share
            elif failed is None:
                kept = trial
            lowest = trial
            if not trial.shows_no_drop:
                break
        return kept, failed

    @staticmethod
    def _saves_nothing(start: Trial, trial: Trial) -> bool:
        """Whether the end is reached: no more goes, whatever is asked for."""
        return trial.share > 0.99 * start.share and trial.asked < 0.9 * start.asked

    def _try(
        self, start: Trial, share: float, kept: Trial, *, failed: float | None = None, retried: bool = False
    ) -> Trial:
        """Return a candidate that ``start`` is cut to; if it fails, the bisection goes on between ``kept`` and ``failed``."""
        number = len(self.trials) + 1
        if self.contract is not None:
            most = self.contract.max_candidates - len(self.trials)
            goal = self.target.share
            later = if_each_fails(kept.asked, failed or share, goal, retried=retried, most=most)[1:]
            asked = [(start.number, share), *((kept.number, one) for one in later)]
            starts = [start, *(kept for _ in later)]
            self.guesses.ahead(
                number, asked, lambda place, job: self._made(starts[place], asked[place][1], number + place, job)
            )
        self.trials.append(self._steered(self._made(start, share, number, self.job)))
        return self.trials[-1]

    def _made(self, start: Trial, share: float, number: int, job: Job) -> Trial:
        """Cut and recover a candidate, which is kept in ``job``."""
        seed = self.seed
        name = f"seed {seed} / candidate {number}"
        choose = partial(self._choose, share)
        before = start.candidate.model
        known = self.known[1] if self.known is not None and self.known[0] is before else None
        with job.workspace.stage(f"{name} / cut", f"{self.target.kind} {share:.3g} of the dense model's"):
            a_round = Round(
                job,
                seed,
                self.strategy,
                self.strategy.granularity[0],
                len(start.steps),
                f"{name} / cut",
                self.decide if job is self.job else job.workspace.decided,
                self.examples,
                choose,
                known,
            )
            candidate, step = a_round.cut(start.candidate)
        candidate = adjust_after_cut(job, candidate, before, dense=self.dense, stage=f"{name} / cut", seed=seed)
        stage, seen = f"{name} / recover", self.overfits
        if seen is not None and job is not self.job:
            seen = replace(seen, job=job)
        facts = recover(job, seed, self.dense, candidate, self.examples, stage=stage, overfits=seen)
        candidate = candidate if seen is None else trend(candidate, seen, step, first=not start.steps)
        measured = job.workspace.remembered(f"{name} / cost", lambda: {"share": self.costing.share(candidate.model)})
        history = {f"candidate {number}": facts} if facts else {}
        return Trial(number, share, measured["share"], candidate, (*start.steps, step), history, start.number)

    def _choose(self, share: float, graph: Any, groups: Any, model: nn.Module, strata: Sequence[Stratum]) -> Any:
        return self.costing.choose(graph, groups, model, strata, share)

    def _steered(self, trial: Trial) -> Trial:
        """Say on the calibration examples whether the contract is worth a test."""
        if self.contract is None:
            return trial
        found = self._compare(trial, self.job.data.calibration)
        promising = promises(found, len(self.job.data.validation))
        word = "promises" if promising else "doesn't promise"
        self.job.workspace.note(
            f"seed {self.seed} / candidate {trial.number}",
            f"{self.target.kind} {trial.share:.3g} of the dense model's: {found.metric} {found.pruned:.4g} against "
            f"{found.dense:.4g} on the calibration examples, {word} to keep the contract",
        )
        return replace(trial, guided=found, promising=promising)

    def _test(self) -> Trial | None:
        """Test on the validation examples, in an order that is known before, and stop at the first that fails."""
        if self.contract is None or not self.trials:
            return None
        promising = sorted((trial for trial in self.trials if trial.promising), key=lambda trial: -trial.share)
        others = [trial for trial in self.trials if not trial.promising]
        # What comes last costs no confidence: where it fails, what was shown before stays shown.
        sequence = [*promising, *sorted(others, key=lambda trial: trial.guided.bound if trial.guided else 0.0)]
        delivered: Trial | None = None
        for trial in sequence:
            if delivered is not None and trial.share >= delivered.share:
                continue  # it could only be shown to be worth less
            with self.job.workspace.stage(f"seed {self.seed} / test candidate {trial.number}"):
                found = self._compare(trial, self.job.data.validation)
            self.trials[trial.number - 1] = replace(trial, tested=found)
            if not found.kept:
                break
            delivered = self.trials[trial.number - 1]
        return delivered

    def _compare(self, trial: Trial, examples: Examples) -> NonInferiority:
        contract, evaluation = self.contract, self.job.recipe.evaluation
        assert contract is not None
        task = examples.task
        dense, pruned = (observe(model, examples, task) for model in (self.dense, trial.candidate.model))
        groups = example_groups(self.job.recipe, examples) if contract.of_groups else None
        return contract_test(
            dense, pruned, task, contract, groups=groups, bootstrap=evaluation.bootstrap, seed=self.seed
        )

    def _facts(self, delivered: Trial | None) -> dict[str, Any]:
        contract = self.contract
        return {
            "seed": self.seed,
            "cost": self.target.kind,
            "asked": self.target.share,
            "floor": self.floor,
            "runtime": self.costing.runtime,
            "contract": contract
            and contract.model_dump(mode="json", include={"metric", "max_drop", "confidence", "harm"}),
            "n_validation": len(self.job.data.validation),
            "n_calibration": len(self.job.data.calibration),
            "candidates": [_row(trial) for trial in self.trials],
            "delivered": delivered and delivered.number,
            "too_slow": self.too_slow,
        }


def _row(trial: Trial) -> dict[str, Any]:
    verdict = "not tested" if trial.tested is None else "kept" if trial.tested.kept else "not shown"
    return {
        "number": trial.number,
        "started_from": trial.started_from,
        "asked": trial.asked,
        "share": trial.share,
        "calibration_drop": trial.guided and trial.guided.drop,
        "promising": trial.promising,
        "test": trial.tested and trial.tested.to_dict(),
        "verdict": verdict,
    }


def costing_of(job: Job, seed: int, dense: nn.Module, target: Target) -> Costing:
    """Return the currency of a target."""
    if target.kind == "latency":
        assert job.recipe.strategy is not None

        def note(text: str) -> None:
            job.workspace.note(f"seed {seed} / latency", text)

        return Timed(
            dense,
            job.timed_inputs,
            job.trace_inputs,
            job.recipe.evaluation.latency,
            round_to=job.recipe.strategy.round_to,
            goal=target.share,
            note=note,
            seed=seed,
        )
    assert job.recipe.strategy is not None
    return Counted.of(target.kind, dense, job.trace_inputs, round_to=job.recipe.strategy.round_to)
