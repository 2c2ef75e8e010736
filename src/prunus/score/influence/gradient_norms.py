"""How long is the gradient of each example's loss?

GraNd is the expected norm over trainings early on; the norm by the last layer alone is its cheap relative. Higher means that a
step on the example would move the model more; wrong labels score high, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.core.batch import Batch, Batched
from prunus.core.calls import arguments, map_tensors, select_rows
from prunus.core.errors import DataError, raise_if_out_of_memory
from prunus.core.types import Floats
from prunus.data.sources.source import row_chunks
from prunus.score.influence.checkpoint_mean import CheckpointScores, over_checkpoints
from prunus.score.influence.layer_gradients import (
    LayerWatch,
    checked_losses,
    has_closed_norms,
    in_evaluation,
    last_layers,
    parameters_of,
)
from prunus.tasks import Task

__all__ = ["SquareNorms", "gradient_norms"]

_BUDGET_BYTES = 2**28
"""How much memory the gradients of the examples that go through at once may take, where they are written out."""


def gradient_norms(
    checkpoints: nn.Module | Iterable[nn.Module],
    examples: Batched,
    task: Task,
    *,
    layers: int | None = None,
    batch_size: int = 2048,
) -> CheckpointScores:
    """Return the norm of each example's gradient: GraNd over all weights, or by the last ``layers`` alone.

    Args:
        checkpoints: models; for GraNd as published, of several initialisations after a few epochs. They are in evaluation mode.
        layers: the last so many linear and convolutional layers, without writing a gradient out; None: all that is trained, which
            costs a gradient for each example where the model has other weights than those of such layers.

    Raises:
        ModelError: fewer layers run, or the task has no loss of each example.
        DataError: there is no example.
        NotFiniteError: a loss isn't finite.

    References:
        Paul et al., NeurIPS 2021, arXiv:2107.07075. They take the norm at initialisation or early in training, mean over ten runs.
    """

    if not len(examples):
        raise DataError("gradients need examples: got none")

    def score(model: nn.Module) -> Floats:
        norms: SquareNorms | None = None
        found = []
        with in_evaluation(model):
            for batch in examples.batches(batch_size):
                if norms is None:
                    chosen = None if layers is None else last_layers(model, batch, layers)
                    norms = SquareNorms(model, chosen, task)
                found.append(norms.of(batch).sqrt().cpu().numpy())
        return np.concatenate(found)

    return over_checkpoints(checkpoints, score)


class SquareNorms:
    """Tells the squared norm of each example's gradient, in the cheapest way that the weights allow."""

    def __init__(self, model: nn.Module, layers: Sequence[str] | None, task: Task) -> None:
        self._model, self._task = model, task
        self._parameters = parameters_of(model, layers)
        self._together = True
        owners = tuple(dict.fromkeys(name.rpartition(".")[0] for name in self._parameters))
        closed = all(has_closed_norms(model.get_submodule(owner)) for owner in owners)
        shared = len({value.data_ptr() for value in self._parameters.values()}) < len(self._parameters)
        self._watch = LayerWatch(model, owners, task) if closed and not shared else None

    def of(self, batch: Batch) -> Tensor:
        """Return ``(n,)``, double precision."""
        if self._watch is not None:
            calls = self._watch.at(batch)
            names = [name for name, _ in calls]
            if len(set(names)) == len(names):
                with torch.no_grad():
                    return torch.stack([gradients.square_norms().double() for _, gradients in calls]).sum(dim=0)
            self._watch = None  # a layer that runs twice has one gradient, and the norm of a sum isn't the sum of norms
        if self._together:
            try:
                return self._written_out(batch)
            except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError) as error:
                raise_if_out_of_memory(error)
                # An operation without a batching rule, or a forward that looks at values.
                self._together = False
        return torch.stack([self._alone(batch, row) for row in range(len(batch.index))])

    def _written_out(self, batch: Batch) -> Tensor:
        def loss(parameters: Mapping[str, Tensor], inputs: object, targets: object) -> Tensor:
            alone = map_tensors(lambda value: value.unsqueeze(0), (inputs, targets))
            given, named = arguments(alone[0])
            outputs = functional_call(self._model, dict(parameters), given, named)
            return self._task.losses(outputs, Batch(batch.index[:1], *alone)).sum()

        at_once = max(_BUDGET_BYTES // sum(value.nbytes for value in self._parameters.values()), 1)
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = []
            for rows in row_chunks(torch.arange(len(batch.index)), at_once):
                inputs, targets = select_rows(batch.inputs, rows), select_rows(batch.targets, rows)
                gradients = vmap(grad(loss), in_dims=(None, 0, 0))(self._parameters, inputs, targets)
                squares = [value.flatten(1).double().square().sum(dim=1) for value in gradients.values()]
                found.append(torch.stack(squares).sum(dim=0))
        return torch.cat(found)

    def _alone(self, batch: Batch, row: int) -> Tensor:
        one = Batch(*(select_rows(field, torch.tensor([row])) for field in batch))
        leaves = {name: value.detach().requires_grad_() for name, value in self._parameters.items()}
        with torch.enable_grad():
            given, named = arguments(one.inputs)
            loss = checked_losses(self._task, functional_call(self._model, leaves, given, named), one).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        squares = [value.double().square().sum() for value in gradients if value is not None]
        return torch.stack(squares).sum() if squares else loss.detach().new_zeros((), dtype=torch.float64)
