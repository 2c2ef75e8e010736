"""What does every stage of a run share?

A :class:`Job` holds the data, a way to build the model, the settings and the workspace; a :class:`Candidate` is the
model that the stages make smaller, with what ties it to the dense one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunus.core.calls import map_tensors, select_rows
from prunus.core.recipes.recipe import Recipe
from prunus.core.types import Floats, Ints, Step
from prunus.data import Examples, Prepared, beside_of
from prunus.evaluate.harm import Groups
from prunus.pipeline.jobs.parts import Parts, Way
from prunus.pipeline.jobs.workspace import Workspace
from prunus.recover import Loss, Measure, TrainingStep, natural_measure

__all__ = [
    "Alone",
    "Asked",
    "Candidate",
    "Decide",
    "Job",
    "SeedResult",
    "Watch",
    "example_groups",
]

Asked = Literal["example", "feature", "prune"]
"""What a stage asks for: what becomes of the examples, of the input features, or of the model in one round."""

Watch = Callable[[str, nn.Module, int], None]
"""Who looks at the pruned model while it recovers: (stage, model, epochs that are done). What it raises ends the run."""

Alone = Callable[[nn.Module], float]
"""What else is measured of the model while one layer alone is pruned; it is kept beside the loss."""

Decide = Callable[[Asked, str, Callable[[], tuple[Step, ...]]], tuple[Step, ...]]
"""How a stage gets its decisions: (what, name, how to decide) -> steps. A replay answers from a plan instead."""


@dataclass(frozen=True)
class Job:
    """One run: its recipe, its data and how to get a dense model for a seed.

    ``build(seed)`` returns a fresh model with its starting weights; ``train_dense`` says whether those are to be trained,
    ``named_builder`` whether the recipe's ``model`` section tells how it is built (the facade may hold just an object).
    ``loss`` or ``training_step`` take the place of what the recipe says is minimised. ``watch`` looks on while the pruned model
    recovers, ``alone`` measures it, too, while the sensitivity of each layer is measured. ``parts`` says who does what falls into
    parts, ``still`` which parts of the model stay in evaluation mode while it trains.
    """

    recipe: Recipe
    data: Prepared
    build: Callable[[int], nn.Module]
    train_dense: bool
    workspace: Workspace
    device: torch.device
    named_builder: bool = True
    loss: Loss | None = None
    training_step: TrainingStep | None = None
    own_split: bool = False
    watch: Watch | None = None
    alone: Alone | None = None
    parts: Parts = field(default_factory=Parts)
    still: tuple[str, ...] = ()

    def by(self, way: Way) -> Job:
        """Return the same job for the parts that workers get to in this way."""
        return replace(self, parts=self.parts.by(way))

    @property
    def weights_from_elsewhere(self) -> bool:
        """Whether the weights were given and the split wasn't: then nobody here knows whether they saw the test examples."""
        given = self.recipe.model.weights is not None or not (self.train_dense or self.named_builder)
        return given and not (self.own_split or self.recipe.data.test is not None)

    @property
    def split_notes(self) -> tuple[str, ...]:
        """What must be said of the test set."""
        if not self.weights_from_elsewhere:
            return ()
        text = (
            "the weights came from elsewhere and the split from prunus: they may have been trained on test examples, so that both "
            "models may look better than they are; name your own test set (data.test)"
        )
        return (text,)

    @property
    def measure(self) -> Measure:
        """How far a smaller model's outputs are from the dense one's: classes by what they answer, numbers by their size."""
        if self.data.train.task.of_dense:
            batch = next(iter(self.data.calibration.batches(2)))
            return natural_measure(batch.targets)  # the dense model's answers
        return "kl" if self.data.train.task.exclusive else "relative"

    @property
    def trace_inputs(self) -> Any:
        """A few calibration examples: what the model is traced and certified on, positional (a tuple) or by name (a mapping)."""
        inputs = next(iter(self.data.calibration.batches(min(4, len(self.data.calibration))))).inputs
        return inputs if isinstance(inputs, (tuple, Mapping)) else (inputs,)

    @property
    def timed_inputs(self) -> Any:
        """A whole batch to time models on: calibration examples, again from the first one where they are too few."""
        examples, size = self.data.calibration, self.recipe.evaluation.latency.batch_size
        batch = next(iter(examples.batches(min(size, len(examples)))))
        rows = torch.arange(size) % len(batch.index)
        return map_tensors(lambda value: value.contiguous(), select_rows(batch.inputs, rows))


def example_groups(recipe: Recipe, examples: Examples) -> Groups | None:
    """Return to which group of ``data.groups`` each of some examples belongs; None where the recipe names no such column."""
    column = recipe.data.groups
    return (
        None if column is None else Groups(column, beside_of(examples.source, "groups")[examples.rows.numpy()].tolist())
    )


@dataclass(frozen=True)
class Candidate:
    """The model on its way to the smaller one.

    ``masks`` are the single weights that stay (True), by parameter name; ``alive`` the original numbers of the units
    that are still there, by group; ``original`` how many there were before the first round; ``kind`` whether the model is of
    its class (``eager``) or the traced computation (``graph``); ``graph`` tells what hung together before the first cut.
    ``losses`` are what was measured with each stratum pruned alone; ``rewound`` is the same structure with the weights to go
    back to. ``kept_outputs`` holds which outputs of a layer, by its name before it, the last cut left, and ``folded_outputs`` by
    what the outputs that are left were multiplied. ``adjustments`` tell what was set right after each cut, and what wasn't;
    ``gaps`` how far training and validation examples were apart after each recovery.
    """

    model: nn.Module
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    alive: Mapping[str, Ints] = field(default_factory=dict)
    original: Mapping[str, int] = field(default_factory=dict)
    kind: str = "eager"
    frozen: tuple[dict[str, Any], ...] = ()
    graph: Mapping[str, Any] | None = None
    losses: Mapping[str, Floats] = field(default_factory=dict)
    rewound: nn.Module | None = None
    kept_outputs: Mapping[str, Tensor] = field(default_factory=dict)
    folded_outputs: Mapping[str, Tensor] = field(default_factory=dict)
    adjustments: tuple[dict[str, Any], ...] = ()
    gaps: tuple[dict[str, Any], ...] = ()

    def replaced(self, **changes: Any) -> Candidate:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave: the two models, what was decided and what the training said; ``search`` how a target was met."""

    seed: int
    dense: nn.Module
    pruned: Candidate
    steps: tuple[Step, ...]
    train: Examples
    histories: dict[str, dict[str, Any]]
    search: dict[str, Any] | None = None
