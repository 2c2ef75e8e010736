"""Which setting is tried next, and what is known of all that were tried?

Optuna chooses and keeps the account, in a journal file or a database that its dashboard opens. Settings are chosen a batch at a
time, each by a sampler whose seed follows from the trial's number, from what all batches before gave: so neither the number of
workers nor a kill changes what is tried.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import OutputError, RecipeError, raise_if_out_of_memory
from prunus.core.recipes.recipe import Search
from prunus.core.runtime import derive_seed
from prunus.search.space import Space

__all__ = ["JOURNAL", "Study", "study_name"]

JOURNAL = "study.journal"
_DROP = "drop"


def study_name(space: Space, search: Search, metric: str) -> str:
    """Return what a study is called: the same for the same recipe, space, objectives and promise."""
    promise = None if search.contract is None else [search.contract.metric, search.contract.max_drop]
    about = {
        "recipe": {key: value for key, value in space.base.items() if key != "output"},
        "space": {key: value if isinstance(value, tuple) else value.model_dump() for key, value in space.keys.items()},
        "objectives": [*search.objectives, metric],
        "contract": promise,
        "how": [search.sampler, search.batch, search.seeds, search.share, search.stop_early],
    }
    return f"prunus-{sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:12]}"


class Study:
    """The trials of one search. ``seed`` is where the samplers' seeds come from."""

    def __init__(self, folder: Path, space: Space, search: Search, metric: str, higher: bool, seed: int) -> None:
        self._optuna = optuna = require("optuna", extra="search")
        self._space, self._search, self._seed, self._higher = space, search, seed, higher
        self._distributions = space.distributions()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name = study_name(space, search, metric)
        try:
            self._study = optuna.create_study(
                study_name=self.name,
                storage=_storage(folder, search.storage),
                directions=[self.direction(name) for name in search.objectives],
                load_if_exists=True,
            )
            if not self._study.metric_names:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self._study.set_metric_names(list(search.objectives))
        except Exception as error:
            raise_if_out_of_memory(error)
            where = search.storage or str(folder / JOURNAL)
            raise OutputError(
                f"search.storage: can't open the study in {where}: got {type(error).__name__}: {error}"
            ) from error

    def direction(self, objective: str) -> str:
        """Return whether an objective is to be high or low."""
        return "maximize" if objective == "quality" and self._higher else "minimize"

    def known(self) -> dict[int, dict[str, Any]]:
        """Return the values of every trial by its number."""
        return {trial.number: self._space.values(trial.params) for trial in self._study.get_trials(deepcopy=False)}

    def is_told(self, number: int) -> bool:
        """Return whether a trial's result is in the account."""
        return bool(self._study.get_trials(deepcopy=False)[number].state.is_finished())

    def ask(self, number: int) -> dict[str, Any]:
        """Return the values of trial ``number``, chosen now unless they were before."""
        trials = self._study.get_trials(deepcopy=False)
        if number < len(trials):
            return self._space.values(trials[number].params)
        if number > len(trials):
            raise RecipeError(f"trial {number} can't be chosen before trial {len(trials)}")
        if number == 0 and (own := self._space.own_point()):
            self._study.enqueue_trial(own)
        self._study.sampler = _sampler(self._search.sampler, derive_seed(self._seed, "search", number) % 2**32)
        return self._space.values(self._study.ask(self._distributions).params)

    def tell(self, number: int, result: Mapping[str, Any]) -> None:
        """Enter what a trial gave."""
        if self.is_told(number):
            return
        own = self._study.get_trials(deepcopy=False)[number]
        trial = self._optuna.trial.Trial(self._study, own._trial_id)
        trial.set_user_attr("state", result["state"])
        if result["state"] == "failed":
            trial.set_user_attr("why", result["why"])
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            return
        promise = self._search.contract
        if promise is not None:
            trial.set_constraint(_DROP, _drop(result) - promise.max_drop)
        self._study.tell(number, [_value(result, name) for name in self._search.objectives])

    def importances(self) -> dict[str, dict[str, float]]:
        """Return for each objective how much of its spread among the better trials each key accounts for.

        References:
            PED-ANOVA: Watanabe, Bansal and Hutter, IJCAI 2023.
        """
        if sum(trial.state.name == "COMPLETE" for trial in self._study.get_trials(deepcopy=False)) < _ENOUGH:
            return {}
        importance = require("optuna.importance", extra="search")
        found: dict[str, dict[str, float]] = {}
        for place, name in enumerate(self._search.objectives):
            sign = -1 if self.direction(name) == "maximize" else 1
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # it says that low values are good ones, which they are here
                found[name] = dict(
                    importance.get_param_importances(
                        self._study,
                        evaluator=importance.PedAnovaImportanceEvaluator(),
                        target=lambda trial, place=place, sign=sign: sign * trial.values[place],
                    )
                )
        return found


_ENOUGH = 10


def _value(result: Mapping[str, Any], objective: str) -> float:
    return float(result["quality"] if objective == "quality" else result["shares"][objective])


def _drop(result: Mapping[str, Any]) -> float:
    return float(result["drop"])


def _storage(folder: Path, url: str | None) -> Any:
    if url is not None:
        return url
    storages = require("optuna.storages", extra="search")
    journal = require("optuna.storages.journal", extra="search")
    return storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))


def _sampler(name: str, seed: int) -> Any:
    samplers = require("optuna.samplers", extra="search")
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=16)
    return samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)
