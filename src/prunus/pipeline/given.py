"""Does a model that came trained know the inputs as prunus gives them?

Scaling belongs to the model: one that was trained on raw inputs is at a loss with scaled ones, and nothing but its loss tells.
"""

from __future__ import annotations

import torch
from torch import nn

from prunus.core.calls import call
from prunus.pipeline.job import Job
from prunus.pipeline.objective import base_loss

__all__ = ["better_unscaled"]

N_EXAMPLES = 256
CLEARLY = 0.7  # of the loss with scaled inputs


def better_unscaled(job: Job, model: nn.Module) -> str | None:
    """Return what to do if ``model`` does clearly better on validation inputs that aren't scaled; None if it doesn't."""
    data = job.data
    if not data.scaler.scales or job.training_step is not None:
        return None
    batch = next(iter(data.validation.batches(N_EXAMPLES)))
    raw = batch._replace(inputs=data.source.inputs(data.validation.rows[:N_EXAMPLES]).float().to(job.device))
    loss, training = base_loss(job), model.training
    model.eval()
    with torch.no_grad():
        scaled_loss, raw_loss = (float(loss(call(model, one.inputs), one)) for one in (batch, raw))
    model.train(training)
    if not raw_loss < CLEARLY * scaled_loss:
        return None
    return (
        f"the given model does better on inputs as they are than on standardised ones (loss {raw_loss:.3g} against "
        f"{scaled_loss:.3g} on {len(batch.index)} validation examples): set data.standardize: false"
    )
