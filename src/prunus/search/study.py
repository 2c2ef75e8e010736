"""Which setting is tried next, and what is known of all that were tried?

Optuna chooses and keeps the account, in a journal file or a database that its dashboard opens. Settings are chosen a batch at a
time, each by a sampler whose seed follows from the trial's number, from what all batches before gave: so neither the number of
workers nor a kill changes what is tried.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import OutputError, RecipeError
from prunus.core.files.sealed import short_digest
from prunus.core.recipes.recipe import Search
from prunus.core.runtime import derive_seed
from prunus.core.text import shown
from prunus.search.space import Space
from prunus.search.study_storage import JOURNAL, open_account, told

__all__ = ["JOURNAL", "Study", "study_name"]

_DROP = "drop"
_PREFIX = "prunus-"
_ADOPTED = "adopted"


def study_name(space: Space, search: Search, metric: str) -> str:
    """Return what a study is called: the same for the same recipe, space, objectives and promise."""
    promise = None if search.contract is None else [search.contract.metric, search.contract.max_drop]
    about = {
        "recipe": {key: value for key, value in space.base.items() if key != "output"},
        "space": {key: value if isinstance(value, tuple) else value.model_dump() for key, value in space.keys.items()},
        "objectives": [*search.objectives, metric],
        "contract": promise,
        "how": [search.sampler, search.batch, search.seeds, search.share, search.stop_early, search.warm_starts],
    }
    return f"{_PREFIX}{short_digest(about)[:12]}"


class Study:
    """The trials of one search. ``seed`` is where the samplers' seeds come from.

    It begins with the settings that another study of this folder tried, for another promise or other objectives; then with the
    recipe's own values, unless those were tried, and with what ``begin_with`` was given.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        search: Search,
        metric: str,
        higher: bool,
        seed: int,
        *,
        storage: Any = None,
    ) -> None:
        self._optuna = optuna = require("optuna", extra="search")
        self._space, self._search, self._seed, self._higher = space, search, seed, higher
        self._distributions = space.distributions()
        self._first: list[dict[str, Any]] = []
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name = study_name(space, search, metric)
        with told(search.storage, journal=folder / JOURNAL):
            self._study = optuna.create_study(
                study_name=self.name,
                storage=storage or open_account(folder, search.storage),
                directions=[self.direction(name) for name in search.objectives],
                load_if_exists=True,
            )
            if not self._study.metric_names:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self._study.set_metric_names(list(search.objectives))

    @property
    def n_adopted(self) -> int:
        """How many settings other studies tried before."""
        return len(self._study.user_attrs.get(_ADOPTED, ()))

    def adopt(self, is_done: Callable[[Mapping[str, Any]], bool]) -> int:
        """Take over the settings that other studies tried here and whose results are there, before any other; return how many."""
        attributes = self._study.user_attrs
        if _ADOPTED not in attributes:
            if self._study.get_trials(deepcopy=False):  # begun by a prunus that took nothing over
                return 0
            self._study.set_user_attr(_ADOPTED, self._tried_elsewhere(is_done))
        adopted = self._study.user_attrs[_ADOPTED]
        for drawn in adopted[len(self._study.get_trials(deepcopy=False)) :]:
            state = self._optuna.trial.TrialState.RUNNING
            given = {key: self._distributions[key] for key in drawn}
            self._study.add_trial(self._optuna.trial.create_trial(state=state, params=drawn, distributions=given))
        return len(adopted)

    def _tried_elsewhere(self, is_done: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        storage = self._study._storage
        names = self._optuna.get_all_study_names(storage)
        for name in names:
            if name == self.name or not name.startswith(_PREFIX):
                continue
            other = self._optuna.load_study(study_name=name, storage=storage)
            for trial in other.get_trials(deepcopy=False):
                drawn = trial.params
                known = set(drawn) == set(self._distributions)
                if known and trial.state.is_finished() and self._is_inside(drawn):
                    found.setdefault(json.dumps(drawn, sort_keys=True), dict(drawn))
        return [drawn for drawn in found.values() if is_done(self._space.values(drawn))]

    def _is_inside(self, drawn: Mapping[str, Any]) -> bool:
        for key, value in drawn.items():
            kind = self._distributions[key]
            try:
                if not kind._contains(kind.to_internal_repr(value)):
                    return False
            except ValueError:
                return False
        return True

    def begin_with(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Say which points come first, beside the recipe's own and what was adopted."""
        own = self._space.own_point()
        first = [own, *map(dict, points)] if own and not self.n_adopted else list(map(dict, points))
        self._first = [point for place, point in enumerate(first) if point not in first[:place]]

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
            drawn = trials[number].params
            if set(drawn) != set(self._distributions) or not self._is_inside(drawn):
                raise OutputError(
                    f"search.storage: trial {number} of the study {self.name} has values that search.space can't give, "
                    f"{shown(drawn)}: its account was changed; choose another folder or storage, or add --overwrite"
                )
            return self._space.values(drawn)
        if number > len(trials):
            raise RecipeError(f"trial {number} can't be chosen before trial {len(trials)}")
        drawn = self._drawn(number, trials)
        self._study.add_trial(drawn)
        return self._space.values(drawn.params)

    def _drawn(self, number: int, trials: Sequence[Any]) -> Any:
        """Return trial ``number`` with all its values.

        They are drawn beside the account, which gets them in one step: it would take each by itself, and after a kill between two
        of them a trial would be there that nobody chose.
        """
        sampler = _sampler(self._search.sampler, derive_seed(self._seed, "search", number) % 2**32)
        directions = [self.direction(name) for name in self._search.objectives]
        draft = self._optuna.create_study(directions=directions, sampler=sampler)
        draft.add_trials(trials)
        place = number - self.n_adopted
        if place < len(self._first):
            draft.enqueue_trial(self._first[place])
        draft.ask(self._distributions)
        found = draft.get_trials(deepcopy=False)[number]
        return self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=found.params,
            distributions=found.distributions,
            system_attrs=found.system_attrs,
        )

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
        if promise is not None and _DROP not in own.constraints:  # a process that was killed may have set it
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


def _sampler(name: str, seed: int) -> Any:
    samplers = require("optuna.samplers", extra="search")
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=16)
    return samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)
