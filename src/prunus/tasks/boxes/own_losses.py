"""What does a model minimise that tells its loss itself, when it is given the targets?

Detectors match boxes to objects inside: torchvision's answer with losses by name in training mode, transformers' with ``loss``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

from torch import Tensor, nn

from prunus.core.batch import Batch
from prunus.core.calls import arguments, described
from prunus.core.errors import ModelError
from prunus.tasks.boxes.detector_answers import own_loss

__all__ = ["own_losses"]

_NAMES = ("labels", "targets")


def own_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss that a model gives of itself: a ``training_step``.

    The targets go where ``forward`` has ``labels`` or ``targets``, unless the inputs hold them. A model in evaluation mode keeps
    the statistics of its norms, and drops nothing out.

    Raises:
        ModelError: it gives none.
    """
    positional, keywords = arguments(batch.inputs)
    places = list(inspect.signature(model.forward).parameters)
    if batch.targets is not None:
        free = [name for name in _NAMES if name in places[len(positional) :] and name not in keywords]
        keywords |= dict.fromkeys(free[:1], batch.targets)
    outputs = model(*positional, **keywords)
    loss = own_loss(outputs)
    if loss is None and not model.training:
        with _asked_for_losses(model):
            outputs = model(*positional, **keywords)
            loss = own_loss(outputs)
    if loss is None:
        raise ModelError(
            f"expected losses from the model when it has the targets (as {' or '.join(_NAMES)}, or among its inputs): got "
            f"{described(outputs)}; give loss=..., a function of outputs and targets"
        )
    return loss


@contextlib.contextmanager
def _asked_for_losses(model: nn.Module) -> Iterator[None]:
    """Put what is made of other modules into training mode, where losses are computed; single layers stay as they are."""
    changed = [
        module for module in model.modules() if not module.training and next(module.children(), None) is not None
    ]
    try:
        for module in changed:
            module.training = True
        yield
    finally:
        for module in changed:
            module.training = False
