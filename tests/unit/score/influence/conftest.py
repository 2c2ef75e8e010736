"""The gradient of one example at a time, as autograd says it."""

import pytest
import torch

from prunus.core.batch import Batch


def by_autograd(model, examples, task, names=None):
    """Return ``(n, weights)``: each example alone through the model, in double precision or not, as the model is."""
    chosen = [p for name, p in model.named_parameters() if names is None or name in names]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    rows = []
    for batch in examples.batches(1):
        loss = task.losses(model(batch.inputs), Batch(*batch)).sum()
        found = torch.autograd.grad(loss, chosen, allow_unused=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(chosen, found, strict=True)])
        )
    for module, training in modes:
        module.training = training
    return torch.stack(rows)


@pytest.fixture
def gradients_of():
    return by_autograd
