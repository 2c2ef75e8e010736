"""One object that takes data, a strategy and metrics, and gives new parameters.

:class:`ModelOptimizer` is a facade: it keeps what was learned (names that end in ``_``), and every method hands over to the
package that does the work.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.errors import RecipeError
from prunus.core.events import Listener
from prunus.core.narrate import Narrator
from prunus.core.predictions import Prediction
from prunus.core.recipes.recipe import Average, Recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.runtime import pick_device
from prunus.core.types import Plan
from prunus.core.values import check_values
from prunus.data import LABEL_KINDS, DrawnSource, Prepared, holds_ids, raw_inputs, to_array
from prunus.evaluate import Quality, answers_to
from prunus.graph.tracing.states import duplicate
from prunus.models import check_kind, check_outputs, kept_evaluating
from prunus.pipeline import (
    LOAD_DATA,
    Candidate,
    Job,
    Variance,
    Workspace,
    finish,
    plan_of,
    prune_seed,
    quality_of,
    reduce_variance,
)
from prunus.pipeline.flow.open_job import check_recipe_names
from prunus.pipeline.handed import prepared_of, taken_as_it_is
from prunus.pipeline.jobs.objective import check_objective
from prunus.pipeline.joint.joint_grid import check_joint
from prunus.pipeline.offered import load_offered
from prunus.pipeline.stages.example_stage import check_examples
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.pipeline.target_search import check_contract, check_floor
from prunus.recover import Loss, TrainingStep, given_loss, guarded
from prunus.report import RunRecord
from prunus.tasks import Task, default_metrics, unscaled

__all__ = ["ModelOptimizer"]


class ModelOptimizer:
    """Prune a model and its data, and know how good what is left is.

    Args:
        model: the network to make smaller; it is copied, never changed. Parts that are in evaluation mode while the rest is in
            training mode (batch norm whose statistics are to stay) stay so while it trains.
        data: a map-style ``Dataset``, a ``DataLoader`` (whose data set, ``collate_fn`` and workers are taken), a Hugging Face
            ``Dataset``, arrays, a mapping or tuple of arrays, with targets or (for a trained model) without; or such data for
            each of your own parts (``{"train": ..., "test": ...}``, and ``validation`` and ``calibration`` where you have them;
            what is missing is taken from ``train``; ``calibration`` may be a stream). Inputs are what the model takes: a tensor, a
            tuple (positional), a mapping (keywords). Or a source as a recipe names it, or examples that were split already
            (:class:`prunus.data.Prepared`, by groups, say), for which ``data_options`` have no say.
        task: what is asked of the model, a registered name or a :class:`prunus.tasks.Task`; default: what the targets tell (class
            numbers, numbers), and ``agreement`` with the dense model's answers without targets.
        strategy: a criterion's name, or the keys of a recipe's ``strategy``; None leaves the structure alone.
        metrics: which ones to report; default: the usual ones of the task.
        exclude: called once with the name and the module of every part of the model; the parts for which it returns True stay
            whole, with all that is in them. Their names join ``strategy.exclude``.
        target: what the model may cost, as a share of the dense one's: ``{"latency": 0.5}``, or ``"smallest"``.
        contract: what it must keep, shown on the validation examples: ``{"metric": "accuracy", "max_drop": 0.01}``.
        train: keys of a recipe's ``train``: how the dense model is trained.
        recovery: keys of its ``recovery``: how the pruned one is.
        examples: keys of its ``examples``: what to do with the training examples.
        features: keys of its ``features``: which input features may go.
        joint: keys of its ``joint``: shares of the data and of the model that ``run`` tries together (``record.joint``).
        evaluation: keys of its ``evaluation``.
        data_options: keys of its ``data``.
        runtime: keys of its ``runtime``.
        trained: the model that is handed over is trained: it is taken as it is, on inputs as they are (unless ``data_options``
            say ``standardize``), and ``fit`` has nothing to do. Otherwise it is trained first, as ``train`` says.
        seeds: one dense/pruned pair each in ``run``; everything else uses the first.
        loss: ``(outputs, batch) -> scalar`` to minimise instead of cross-entropy or squared error, or a module of outputs and
            targets (``nn.CrossEntropyLoss(weight=...)``); gradients that criteria read are its gradients too.
        training_step: instead, ``(model, batch) -> scalar``: the way from the model to the loss is yours. ``batch`` has ``index``,
            ``inputs`` and ``targets``. The scores of examples, which need outputs, are still recorded with the loss.
        listener: is told about the progress; default: lines on standard error where somebody watches it, else the logger
            ``prunus``.

    Raises:
        ModelError: the model is of a kind that can't be trained (quantised, lazy, without values, in another precision), or its
            outputs don't fit the labels; the loss fails on two examples, gives no number, or has no gradient.
        RecipeError: a setting that a recipe couldn't say.
        DataError: data that can't be used.

    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> optimizer = ModelOptimizer(network, (x, (x[:, 0] > 0).long()), strategy="magnitude_l2", train={"epochs": 2})
    >>> optimizer.fit().prune(keep_fraction=0.5).model_[0].out_features
    8
    >>> optimizer
    ModelOptimizer(Sequential, pruned: 58 parameters; classification of 165 training examples)
    """

    def __init__(
        self,
        model: nn.Module,
        data: tuple[Any, Any] | Any,
        *,
        task: str | Task | None = None,
        strategy: str | Mapping[str, Any] | None = None,
        exclude: Callable[[str, nn.Module], bool] | None = None,
        metrics: Sequence[str] = (),
        target: str | Mapping[str, Any] | None = None,
        contract: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        recovery: Mapping[str, Any] | None = None,
        examples: Mapping[str, Any] | None = None,
        features: Mapping[str, Any] | None = None,
        joint: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        data_options: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
        trained: bool = False,
        seeds: Sequence[int] = (0, 1, 2),
        loss: Loss | None = None,
        training_step: TrainingStep | None = None,
        listener: Listener | None = None,
    ) -> None:
        check_kind(model)
        named = data if isinstance(data, str) else "memory"
        sections = {
            "train": train,
            "recovery": recovery,
            "examples": examples,
            "features": features,
            "joint": joint,
            "runtime": runtime,
        }
        tree: dict[str, Any] = {key: dict(value) for key, value in sections.items() if value is not None}
        whole = trained or taken_as_it_is(data, model, task)
        as_given = {"standardize": False, "standardize_target": False} if whole else {}
        asked = {"task": task} if task in ("classification", "regression") else {}
        tree["data"] = {"source": named, **as_given, **asked, **(data_options or {})}
        tree["strategy"] = {"criterion": strategy} if isinstance(strategy, str) else strategy and dict(strategy)
        tree |= {key: value for key, value in (("target", target), ("contract", contract)) if value is not None}
        tree["evaluation"] = {"metrics": list(metrics), **(evaluation or {})}
        recipe = make_recipe({**tree, "seeds": list(seeds)}, "ModelOptimizer")
        load_offered(recipe)
        check_recipe_names(recipe)
        if exclude is not None:
            recipe = _with_excluded(recipe, model, exclude)
        device = pick_device(recipe.runtime.device)
        prepared = prepared_of(data, recipe.data, device, model, task=task, trained=trained)
        check_contract(recipe, prepared)
        check_values(model)
        start = duplicate(model)
        self._job = Job(
            recipe,
            prepared,
            lambda seed: duplicate(start),
            not trained,
            Workspace(None, Narrator() if listener is None else listener),
            device,
            named_builder=False,
            loss=None if loss is None else given_loss(loss, "loss"),
            training_step=None if training_step is None else guarded(training_step, "training_step"),
            own_split=isinstance(data, Prepared) or (isinstance(data, Mapping) and "test" in data),
            still=kept_evaluating(model),
        )
        for note in prepared.notes:
            self._job.workspace.note(LOAD_DATA, note)
        for note in self._job.split_notes:
            self._job.workspace.note(LOAD_DATA, note)
        check_examples(self._job)
        if recipe.joint is not None:
            check_joint(self._job)
        _check_one_objective(self._job, loss, training_step)
        if not trained:  # else the search finds it out before any training, too
            check_floor(self._job, duplicate(start).to(device))
        self.dense_: nn.Module | None = None
        self.candidate_ = Candidate(start.to(device))
        self.plan_: Plan | None = None

    def __repr__(self) -> str:
        train = self._job.data.train
        now = "pruned" if self.plan_ is not None else "as given" if self.dense_ is None else "fitted"
        n = sum(parameter.numel() for parameter in self.model_.parameters())
        return (
            f"ModelOptimizer({type(self.model_).__name__}, {now}: {n:,} parameters; {train.task.name} of {len(train):,} training "
            "examples)"
        )

    @property
    def model_(self) -> nn.Module:
        """The model as it is now: given, fitted, or pruned."""
        return self.candidate_.model

    def fit(self) -> ModelOptimizer:
        """Train the dense model on the training examples (nothing to do when it was given as ``trained``)."""
        self.dense_, _ = fit_dense(self._job, self._seed)
        self.candidate_ = Candidate(self.dense_)
        return self

    def prune(self, *, keep_fraction: float | None = None, cutoff: float | None = None) -> ModelOptimizer:
        """Judge examples and features as configured, prune, and recover.

        Args:
            keep_fraction: the share of units that stays, in (0, 1].
            cutoff: instead: remove every unit that scores below it.
        """
        job = self._with_amount(keep_fraction, cutoff)
        if self.dense_ is None:
            self.fit()
        assert self.dense_ is not None
        result = prune_seed(job, self._seed, self.dense_, job.workspace.decided)
        self.candidate_, self.plan_ = result.pruned, plan_of(job, result)
        return self

    def reduce_variance(self, *, kind: Literal["swa", "ema"] = "swa", last: int = 5, decay: float = 0.99) -> Variance:
        """Train on with averaged weights, and return the spread over the seeds without and with it."""
        job, average = self._job, Average(kind=kind, last=last, decay=decay)
        model, variance = reduce_variance(job, self.candidate_, average, job.recipe.seeds, self._metrics[0])
        self.candidate_ = replace(self.candidate_, model=model)
        return variance

    def predict(self, inputs: Any) -> tuple[Any, ...]:
        """Return the label (or value) of each raw input, in the type in which labels came."""
        labels = self.postprocess(self.predict_outputs(inputs)).labels
        kind = LABEL_KINDS.get(self._job.data.source.label_kind)
        return labels if kind is None or not self._job.data.train.task.exclusive else tuple(map(kind, labels))

    def predict_outputs(self, inputs: Any) -> Any:
        """Return the model's outputs for raw inputs, ``(n, outputs)``, or its answer where that is a structure.

        Inputs are as the data's: an array, which is scaled as in training, or what the model takes (a tuple is positional
        arguments, a mapping is keywords).
        """
        if isinstance(self._job.data.source, DrawnSource):
            return answers_to(self.model_, inputs, self._job.data.scaler, self._job.device)
        ids = holds_ids(self._job.data.source)
        raw = torch.from_numpy(to_array(inputs).astype(np.int64)) if ids else raw_inputs(inputs)
        values = self._job.data.scaler(raw).to(self._job.device)
        with torch.inference_mode():
            outputs: Tensor = self.model_.eval()(values)
            return self._job.data.train.in_units(outputs.cpu().clone())

    def postprocess(self, outputs: Any) -> Prediction:
        """Return labels and probabilities for a model's outputs."""
        train = self._job.data.train
        return (unscaled(train.task) if train.target_scaler.scales else train.task).decode(outputs)

    def evaluate(self) -> dict[str, Quality]:
        """Return every metric with its interval, on ``train`` and on ``test``."""
        data, recipe = self._job.data, self._job.recipe
        splits = {"train": data.train, "test": data.test}
        return {name: quality_of(self.model_, part, recipe) for name, part in splits.items()}

    def run(self) -> RunRecord:
        """Do it all for every seed and return the record: fit, judge, prune, recover, evaluate, compare."""
        record, results = finish(self._job)
        self.dense_, self.candidate_ = results[0].dense, results[0].pruned
        self.plan_ = plan_of(self._job, results[0])
        return record

    def save(self, folder: str | Path) -> str:
        """Write the model as a bundle and return its hash; ``load_bundle`` reads it back: with ``builder=`` as its class."""
        from prunus.pipeline.shipping import ship_candidate

        return ship_candidate(self._job, self._seed, self.candidate_, Path(folder))

    @property
    def _seed(self) -> int:
        return self._job.recipe.seeds[0]

    @property
    def _metrics(self) -> tuple[str, ...]:
        return self._job.recipe.evaluation.metrics or default_metrics(self._job.data.train.task.name)

    def _with_amount(self, keep_fraction: float | None, cutoff: float | None) -> Job:
        """Return the job with another amount in its strategy."""
        if keep_fraction is None and cutoff is None:
            return self._job
        strategy = self._job.recipe.strategy
        if strategy is None:
            raise RecipeError(
                "prune(keep_fraction=..., cutoff=...) needs a strategy: got None; give one to ModelOptimizer"
            )
        changed = strategy.model_dump() | {"keep_fraction": keep_fraction, "cutoff": cutoff}
        tree = self._job.recipe.model_dump(mode="json") | {"strategy": changed}
        return replace(self._job, recipe=make_recipe(tree, "ModelOptimizer.prune"))


def _check_one_objective(job: Job, loss: Any, training_step: Any) -> None:
    """Refuse two things to minimise, and one that can't be minimised."""
    named = job.recipe.train.loss or job.recipe.recovery.loss
    given = {"loss": loss, "training_step": training_step, "a loss in train or recovery": named}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise RecipeError(f"ModelOptimizer: give one thing to minimise: got {' and '.join(several)}")
    smoothing = max(job.recipe.train.label_smoothing, job.recipe.recovery.label_smoothing)
    if smoothing and (loss is not None or training_step is not None):
        raise RecipeError(
            f"ModelOptimizer: label_smoothing belongs to the default loss: got it together with {several[0]}"
        )
    model, data = job.build(0).to(job.device), job.data
    batch = next(iter(data.calibration.batches(2)))
    if not several:  # the default loss takes what a classifier or a regressor gives; another one takes what it likes
        check_outputs(model, batch, data.train.task)
    check_objective(job, model, batch)


def _with_excluded(recipe: Recipe, model: nn.Module, exclude: Callable[[str, nn.Module], bool]) -> Recipe:
    """Add the names of what a predicate chooses to the patterns of ``strategy.exclude``: modules, their parts and parameters."""
    strategy = recipe.strategy
    if strategy is None:
        raise RecipeError("exclude=... needs a strategy: got None; give one to ModelOptimizer")
    chosen = [module for name, module in model.named_modules() if exclude(name, module)]
    barred = {id(held) for module in chosen for held in (*module.modules(), *module.parameters())}
    named = (*model.named_modules(), *model.named_parameters())  # a tied parameter goes by another module's name
    patterns = [glob.escape(name) for name, held in named if name and id(held) in barred]
    strategy = strategy.model_copy(update={"exclude": tuple(dict.fromkeys((*strategy.exclude, *patterns)))})
    return recipe.model_copy(update={"strategy": strategy})
