"""How does a trained model get smaller in one call?

What may go is found out and certified on the model as it is; data, with targets or without, tell which units matter, which way of
choosing comes nearest to the model's own answers, and how what is left is set right. Nothing is trained unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from prunus.core.calls import arguments
from prunus.core.errors import DataError, RecipeError, RunError
from prunus.core.events import Event, Listener
from prunus.core.narrate import Narrator
from prunus.core.recipes.target_contract import Contract
from prunus.core.runtime import device_of
from prunus.core.types import Bools, Decision, Plan, Step, Stratum
from prunus.core.values import check_values
from prunus.data import Batches, collect
from prunus.evaluate import measure_cost
from prunus.graph import AxisGraph, Group
from prunus.graph.tracing.states import as_it_was, duplicate
from prunus.models import check_kind
from prunus.pipeline.auto.asked import ADJUSTMENTS, amount_of, check_asked, example_of
from prunus.pipeline.auto.choosing import Choice, Tried
from prunus.pipeline.auto.decide import Evidence, decide
from prunus.pipeline.auto.implied import objective_of
from prunus.pipeline.auto.promise import N_TESTED, asked_contract, broken, promise_of
from prunus.pipeline.auto.recovering import Asked, Trainer, asked_recovery, divided, first_part, kept
from prunus.pipeline.auto.result import Pruned
from prunus.pipeline.auto.ways import Made, Ways
from prunus.pipeline.cut.prunable import check_comes_back, check_names, groups_of, nothing_to_cut, prunable_graph
from prunus.pipeline.shipping import model_fingerprint
from prunus.recover import Adjustment
from prunus.tasks import Task, as_task

__all__ = ["prune"]

_STAGE = "prune"


def prune(
    model: nn.Module,
    inputs: Any,
    *,
    keep_fraction: float | None = None,
    target: Mapping[str, float] | None = None,
    data: Any = None,
    task: str | Task | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    contract: Mapping[str, Any] | None = None,
    recovery: int | Mapping[str, Any] | None = None,
    criterion: str = "auto",
    allocation: str = "auto",
    granularity: str = "channel",
    expressible: bool = False,
    exclude: Collection[str] = (),
    adjust: Literal["auto"] | Sequence[Adjustment] = "auto",
    round_to: int | Literal["auto"] = "auto",
    min_units: int = 1,
    n_calibration: int = 256,
    batch_size: int = 64,
    plan: Plan | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> Pruned:
    """Return a smaller copy of a trained model; ``model`` isn't changed, and nothing is trained without ``recovery``.

    Args:
        model: trained, of any architecture.
        inputs: an example of what it takes: a tensor, a tuple of positional arguments or a mapping of keywords, whose first
            dimension is the batch.
        keep_fraction: the share of units that stays, in (0, 1] (default 0.5). Where data choose the allocation, single groups keep
            more or less than that, and the model costs no more MACs than if every group kept this share.
        target: instead, what may be left of a cost: ``{"macs": 0.5}``, ``{"params": 0.4}`` or ``{"bytes": 0.4}``.
        data: examples with targets or without: a ``DataLoader``, a ``Dataset``, a Hugging Face set, arrays like ``inputs``, alone
            or as ``(inputs, targets)``, or a stream of batches. Without data units are judged by the norms of their weights.
        task: what is asked of the model, by name (``segmentation``) or as an object; default: what the targets imply.
        loss: ``(outputs, targets) -> scalar``, a function or a module such as ``nn.CrossEntropyLoss``; default: what the targets
            imply.
        contract: what the smaller model must be shown to keep, on examples of ``data`` that chose nothing: ``{"metric": "accuracy",
            "max_drop": 0.01}``, with ``confidence`` (0.95); ``harm: {"worst_class": 0.03}`` promises it of each class, too. Without
            targets the metric is ``agreement``. Where no amount is asked for, the smallest model that keeps it is looked for (of
            MACs). If none does, a copy of the whole one comes back.
        recovery: train the smaller model on ``data``: a number of epochs, or the keys of a recipe's ``recovery`` (``epochs``,
            ``learning_rate``, ``batch_size``, ``method``: ``fine_tune`` or ``distil``), ``steps`` instead of epochs, and ``control:
            same_budget`` for a dense model that is trained for as long. The loss is that of the targets; without any it is the
            distance to the dense model's answers. The epoch is chosen on examples that aren't trained on.
        criterion: a name in ``prunus.score.criteria``; ``auto`` tries several, where there are data.
        allocation: ``uniform``, ``global``, ``cost``, or ``auto``: all three, where there are data.
        granularity: ``channel`` for all axes, or one kind of them: ``head``, ``head_dim``, ``mlp``, ...
        expressible: cut only what the config of the model's class can say, by the same share in all layers that one number stands
            for, so that ``save_pretrained`` and ``from_pretrained`` bring the smaller model back (models of transformers).
        exclude: patterns of names (of layers, parameters or groups) that stay whole.
        adjust: which of ``least_squares``, ``bias`` and ``batch_norm`` set the smaller model right; what doesn't help is undone.
        round_to: each group keeps a multiple of so many units; ``auto``: channels of convolutions are kept in the widths that
            kernels want, multiples of 16 where there is room for them, and all else in any.
        min_units: each group keeps at least so many.
        n_calibration: how many examples of ``data`` are used; a quarter of them only judges.
        plan: what an earlier call decided: it is done again, and nothing is chosen.
        seed: the same call gives the same model.
        listener: is told of the progress; default: as ``ModelOptimizer``.

    Raises:
        ModelError: a model that can't be cut: packed, lazy or without values, or that fails on the inputs.
        DataError: data that hold no such inputs, or targets that imply no loss.
        RecipeError: an argument out of its range, or an unknown name.
        RunError: there is nothing that can be cut.
        PlanError: the plan was made for another model.

    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> small = prune(network, torch.randn(1, 4), keep_fraction=0.25)
    >>> small.model[0].out_features, small.after.parameters
    (4, 30)
    """
    check_kind(model, any_precision=True)
    check_values(model)
    check_asked(granularity, criterion, allocation, adjust)
    amount = amount_of(keep_fraction, target)
    training = asked_recovery(recovery, data)
    tell = Narrator() if listener is None else listener
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        tell(Event("note", _STAGE, text))

    with as_it_was(model):
        example = example_of(inputs, device_of(model))
        exclude = (exclude,) if isinstance(exclude, str) else exclude
        check_names(model, [("exclude", pattern) for pattern in exclude])
        tell(Event("start", _STAGE, "finding out what hangs together"))
        graph, groups = _analyzed(model, example, exclude, granularity, seed, by_config=expressible)
        ways = Ways(model, *arguments(example), graph, groups, round_to, min_units, batch_size, seed, tell, note)
        evidence = _evidence(ways, data, example, n_calibration, task, loss, asked_contract(contract), training)
        found = decide(
            ways,
            evidence,
            amount,
            criterion=criterion,
            allocation=allocation,
            kinds=ADJUSTMENTS if adjust == "auto" else adjust,
            plan=plan,
        )
        if found.delivered:
            check_comes_back(found.made.shrunk, expressible, _STAGE)
            small, kind, choice, tried = found.made.shrunk.model, found.made.shrunk.kind, found.choice, found.tried
            for line in (*found.made.shrunk.notes, *(() if found.made.adjusted is None else found.made.adjusted.notes)):
                note(line)
        else:
            assert found.test is not None
            tell(Event("note", _STAGE, f"nothing was cut: {broken(found.test)}"))
            small, kind, choice, tried = duplicate(model), "eager", found.choice.whole(), ()
        before, after = measure_cost(model, example), measure_cost(small, example)
    tell(Event("end", _STAGE, "", facts={"macs": after.macs / max(before.macs, 1)}))
    small.train(model.training)
    return Pruned(
        small,
        plan or _plan(model, choice, granularity, tried, seed, found.made),
        kind,
        before,
        after,
        graph.frozen,
        tried,
        "" if evidence is None else evidence.objective.said,
        "" if evidence is None else evidence.objective.measure,
        found.made.distance if found.delivered else None,
        found.made.adjusted if found.delivered else None,
        tuple(notes),
        found.test,
        found.made.recovered if found.delivered else None,
    )


def _analyzed(
    model: nn.Module, example: Any, exclude: Collection[str], granularity: str, seed: int, *, by_config: bool
) -> tuple[AxisGraph, Sequence[Group]]:
    """Return what hangs together, and the groups whose units may go."""
    graph = prunable_graph(model, example, tuple(exclude), seed=seed, granularity=granularity, by_config=by_config)
    groups = groups_of(graph, granularity)
    if any(group.containers for group in groups):
        raise RecipeError(
            f"granularity: {granularity}s are whole modules: got it in prunus.prune, which cuts axes; use ModelOptimizer"
        )
    if not groups:
        raise RunError(f"{_STAGE}: {nothing_to_cut(graph, granularity)}")
    return graph, groups


def _evidence(
    ways: Ways,
    data: Any,
    example: Any,
    n: int,
    task: str | Task | None,
    loss: Callable[[Any, Any], Tensor] | None,
    promised: Contract | None,
    training: Asked | None,
) -> Evidence | None:
    """Return the examples that choose and what is to be kept on them; None without data."""
    model, seed, trainer = ways.model, ways.seed, None
    asked = None if task is None else as_task(task)
    if training is None:
        examples, testing = _drawn(data, example, n, seed, model, promised)
    else:
        examples, testing = collect(first_part(data), example, n=8, seed=seed, device=device_of(model)), None
    if examples is None:
        return None
    objective = objective_of(model, examples, loss, task=asked, seed=seed)
    if training is not None:
        parts = divided(data, model, objective, seed=seed)
        trainer = Trainer(training, parts, objective, model, seed, ways.tell)
        examples = kept(parts.calibration, n, labelled=objective.labelled)
        testing = kept(parts.test, N_TESTED, labelled=objective.labelled)
    if promised is None or testing is None:
        return Evidence(examples, objective, None, trainer)
    promise = promise_of(promised, objective.task, model, examples, testing, batch_size=ways.batch_size, seed=seed)
    return Evidence(examples, objective, promise, trainer)


def _drawn(
    data: Any, example: Any, n: int, seed: int, model: nn.Module, promised: Contract | None
) -> tuple[Batches | None, Batches | None]:
    """Return the examples that choose, and where something is promised those that test it."""
    if data is None:
        if promised is not None:
            raise DataError("a contract is shown on examples: got no data; give data=..., with targets or without")
        return None, None
    if promised is None:
        return collect(data, example, n=n, seed=seed, device=device_of(model)), None
    every = collect(data, example, n=n + N_TESTED, seed=seed, device=device_of(model))
    return every.divided(min(n, len(every) // 2), seed=seed)


def _plan(model: nn.Module, choice: Choice, granularity: str, tried: Sequence[Tried], seed: int, made: Made) -> Plan:
    """Write down what was decided."""
    reason = f"{choice.criterion}: lowest in its {'model' if choice.allocation == 'global' else 'layer'}"

    def decision(stratum: Stratum, keep: Bools) -> Decision:
        reasons = np.where(keep, "kept", reason).astype(object)
        return Decision(stratum.name, stratum.units, stratum.saliency, keep, reasons)

    decisions = tuple(decision(s, k) for s, k in zip(choice.strata, choice.keep, strict=True))
    settings: dict[str, Any] = {"allocation": choice.allocation, "tried": [vars(row) for row in tried]}
    settings["refitted"] = made.refitted
    if made.recovered is not None:
        settings["recovery"] = made.recovered.facts()
    step = Step("prune", granularity, choice.criterion, decisions, settings)
    return Plan((step,), seed, {}, {"model": model_fingerprint(model)})
