"""Which units does each size keep? One cut after the other, each in what the one before left: any prefix of the plan is a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply.shrink import kept_positions
from prunus.core.recipes.recipe import Schedule
from prunus.core.types import Step
from prunus.data import Examples
from prunus.graph.tracing.states import canonical_states
from prunus.pipeline.cut.one_round import Round
from prunus.pipeline.cut.prunable import check_patterns, prunable_graph
from prunus.pipeline.jobs.job import Candidate, Decide, Job
from prunus.recover.sizes import Taken, sliced

__all__ = ["Cut", "nested_cuts", "taken"]

Positions = Mapping[tuple[str, int], Tensor]
"""By tensor and dimension: which positions of the largest model's are left; what isn't named is whole."""


@dataclass(frozen=True)
class Cut:
    """One size, before its recovery: the model, the step that made it of the one before, and where it lies in the largest."""

    keep_fraction: float
    candidate: Candidate
    step: Step
    positions: Positions


def nested_cuts(job: Job, seed: int, dense: nn.Module, examples: Examples, decide: Decide) -> list[Cut]:
    """Return the sizes, the largest first."""
    strategy, sizes = job.recipe.strategy, job.recipe.sizes
    assert strategy is not None
    assert sizes is not None
    check_patterns(dense, strategy)
    candidate, found = Candidate(dense), list[Cut]()
    positions: dict[tuple[str, int], Tensor] = {}
    for number, share in enumerate(sizes.keep_fractions, start=1):
        graph = prunable_graph(
            candidate.model,
            job.trace_inputs,
            strategy.exclude,
            seed=seed,
            granularity=strategy.granularity[0],
            by_config=strategy.expressible,
        )
        asked = strategy.model_copy(update={"keep_fraction": share, "schedule": Schedule()})
        name = f"seed {seed} / size {number} of {len(sizes.keep_fractions)}"
        before = candidate.model
        with job.workspace.stage(name, f"{share:g} of the units"):
            a_round = Round(job, seed, asked, strategy.granularity[0], 0, name, decide, examples, None, graph)
            candidate, step = a_round.cut(candidate)
        masks = {d.stratum: torch.from_numpy(np.ascontiguousarray(d.keep)) for d in step.decisions if not d.keep.all()}
        left = kept_positions(graph, masks, canonical_states(before))
        # The first cut makes the largest model; all later ones are told in its positions.
        positions = {} if number == 1 else _within(positions, left)
        found.append(Cut(share, candidate, step, positions))
    return found


def _within(before: Positions, left: Mapping[tuple[str, int], Tensor]) -> dict[tuple[str, int], Tensor]:
    """Return positions in the largest model, of what a mask leaves of a smaller one."""
    found = dict(before)
    for key, mask in left.items():
        here = found.get(key, torch.arange(len(mask)))
        found[key] = here[mask.cpu()]
    return found


@torch.no_grad()
def taken(largest: nn.Module, cut: Cut) -> Taken:
    """Return which parameters of a size are slices of the largest model's: none that the cut changed, and no vectors.

    A vector takes no more bytes than its positions would, and norms and biases differ with the width.
    """
    held = dict(largest.named_parameters())
    found: dict[str, tuple[Tensor | None, ...]] = {}
    for name, value in cut.candidate.model.named_parameters():
        if value.dim() < 2 or name not in held:
            continue
        places = tuple(cut.positions.get((name, dim)) for dim in range(held[name].dim()))
        if _equal(held[name], places, value):
            found[name] = places
    return found


def _equal(whole: Tensor, places: Sequence[Tensor | None], value: Tensor) -> bool:
    part = sliced(whole, places)
    return part.shape == value.shape and bool(torch.equal(part, value))
