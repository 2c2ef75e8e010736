"""Which input features hardly matter, and how are they cut out of the model for real?

A feature whose permutation hurts no more than the tolerance is replaced by its training mean. A constant input is a
bias: it is folded into the first layer, whose columns then go. The smaller model still takes the whole input and picks
its columns itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from prunus.apply import replace_features
from prunus.core.errors import RecipeError
from prunus.core.types import Step
from prunus.data import Prepared
from prunus.graph import analyze
from prunus.pipeline.jobs.job import Candidate, Decide, Job
from prunus.score import judge_feature_importance

__all__ = ["judge_features", "select_features"]


def judge_features(job: Job, seed: int, dense: nn.Module, decide: Decide) -> tuple[Step, ...]:
    """Return which input features are replaced by their mean, judged on the validation examples.

    Raises:
        RecipeError: the inputs are no table of features.
    """
    config = job.recipe.features
    if config is None:
        return ()
    if len(job.data.source.input_shape) != 1:
        raise RecipeError(
            f"features: only tables have features that can be cut out, got inputs of shape {job.data.source.input_shape}; "
            "leave the section out"
        )
    stage = f"seed {seed} / judge features"

    def compute() -> tuple[Step, ...]:
        fill = _fill(job.data)
        found = judge_feature_importance(dense, job.data.validation, config, fill=fill, seed=seed)
        decision = found.decision(job.data.train.feature_names, fill)
        if found.keep.all():
            n = len(job.data.validation)
            text = f"no feature is shown to matter less than {config.tolerance:g} with {n} validation examples"
            job.workspace.note(stage, text)
        settings = {"joint_drop": found.joint_drop, "joint_upper": found.joint_upper}
        return (Step("replace", "feature", "permutation_importance", (decision,), settings),)

    with job.workspace.stage(stage):
        return decide("feature", stage, compute)


def select_features(job: Job, candidate: Candidate, steps: Sequence[Step]) -> Candidate:
    """Return ``candidate`` without the input features that a plan replaces."""
    for step in steps:
        (decision,) = step.decisions
        if not decision.keep.all():
            kept = torch.from_numpy(np.sort(decision.unit[decision.keep]))
            members = tuple(
                member
                for axis in analyze(candidate.model, job.trace_inputs).frozen
                if axis.name == "input 0, dim 1"
                for member in axis.members
            )
            model = replace_features(candidate.model, members, kept, _fill(job.data))
            candidate = candidate.replaced(model=model)
    return candidate


def _fill(data: Prepared) -> torch.Tensor:
    """Return the training mean of every feature, as the model sees it: ``(features,)``."""
    total, n = torch.zeros(data.source.input_shape, dtype=torch.float64), 0
    for batch in data.train.batches(4096):
        total += batch.inputs.double().sum(dim=0).cpu()
        n += len(batch.inputs)
    return (total / n).float()
