"""How much does the loss rise when one layer alone is pruned?

Units are set to zero where they would be cut out: all their slices at once, so that they give nothing to what follows. Only a layer
norm across the units sees the difference. Whole modules (blocks, experts) are really taken out. The loss is the mean over the
calibration examples; the model isn't changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.calls import call
from prunus.core.errors import DataError, RunError
from prunus.core.types import Bools, Floats, Step, Stratum
from prunus.data import Examples
from prunus.recover import default_loss
from prunus.select import top

if TYPE_CHECKING:
    from prunus.pipeline.jobs.job import Job
    from prunus.pipeline.jobs.workspace import Workspace

__all__ = ["Zeroed", "losses_in", "measure_losses", "measured_alone", "without"]

_ALONE = "alone"

Zeroed = list[tuple[nn.Parameter, int | None, Tensor]]
"""Where units lie: a parameter, and positions along a dimension of it (None: of the flattened parameter)."""


def measure_losses(
    job: Job,
    model: nn.Module,
    strata: Sequence[Stratum],
    zeroed: Mapping[str, Callable[[Bools], Zeroed | nn.Module]],
    *,
    shares: Sequence[float],
    stage: str,
) -> dict[str, Floats]:
    """Return each stratum's losses at falling shares, the first with everything there; what a killed run measured is kept.

    Args:
        strata: the best units of each stay, by saliency.
        zeroed: by the stratum's name, from the units that go to where they lie, or to the model without them.

    Shapes:
        One ``(steps, 2)`` array per stratum: share that stays, mean loss.

    Raises:
        DataError: no calibration examples.
        RunError: a loss isn't finite.
    """
    examples, work = job.data.calibration, job.workspace
    if len(examples) == 0:
        raise DataError(
            "allocation sensitivity measures losses on calibration examples: got none; raise data.split.calibration"
        )
    work.note(
        stage, f"measuring the loss with each of {len(strata)} layers pruned alone, at up to {len(shares)} amounts"
    )
    whole = work.kept(f"{stage} / loss", lambda: {"loss": torch.tensor([_loss(model, examples, stage)]).double()})
    dense = float(whole["loss"][0])

    def curve(stratum: Stratum) -> dict[str, Tensor]:
        n = len(stratum.saliency)
        least = min(stratum.min_units, n - 1)
        counts = sorted({max(round(share * n), least) for share in shares} - {n} or {n - 1}, reverse=True)
        rows, others = [(1.0, dense)], []
        for count in counts:
            gone = ~top(stratum.saliency, stratum.units, count)
            cut, what = zeroed[stratum.name](gone), f"{stage}: {stratum.name} alone"
            seen = cut if isinstance(cut, nn.Module) else model
            with nullcontext() if isinstance(cut, nn.Module) else without(cut):
                rows.append((count / n, _loss(seen, examples, what)))
                if job.alone is not None:
                    others.append(job.alone(seen))
        measured = {"losses": torch.tensor(rows, dtype=torch.float64)}
        return measured if job.alone is None else {**measured, _ALONE: torch.tensor(others, dtype=torch.float64)}

    names = [stratum.name for stratum in strata]
    held = [_held(stage, name) for name in names]

    def losses(place: int) -> Floats:
        found: Floats = work.kept(held[place], lambda: curve(strata[place]))["losses"].numpy()
        return found

    measured = job.parts.each(
        work, f"{stage} / losses", names, losses, together=True, kept=lambda place: work.is_kept(held[place])
    )
    return dict(zip(names, measured, strict=True))


def measured_alone(workspace: Workspace, stage: str, name: str) -> list[tuple[float, float]]:
    """Return what :attr:`Job.alone` gave for a layer, after its losses were measured there: (share that stays, value)."""

    def missing() -> dict[str, Tensor]:
        raise RunError(f"{stage}: nothing was measured of {name} alone")

    kept = workspace.kept(_held(stage, name), missing)
    return list(zip(kept["losses"][1:, 0].tolist(), kept[_ALONE].tolist(), strict=True))


def _held(stage: str, name: str) -> str:
    return f"{stage} / losses of {name}"


def losses_in(step: Step) -> dict[str, Floats]:
    """Return the losses that a step was decided by, by stratum."""
    return {name: np.array(rows, np.float64) for name, rows in step.settings.get("losses", {}).items()}


@torch.no_grad()
def _loss(model: nn.Module, examples: Examples, what: str) -> float:
    loss, total = default_loss(examples.task), 0.0
    was_training = model.training
    model.eval()
    for batch in examples.batches(256):
        total += float(loss(call(model, batch.inputs), batch)) * len(batch.index)
    model.train(was_training)
    if not np.isfinite(total):
        raise RunError(
            f"{what}: the loss on the calibration examples must be finite, got {total}; look for NaN in the weights"
        )
    return total / len(examples)


@contextmanager
@torch.no_grad()
def without(places: Zeroed) -> Iterator[None]:
    """Set the weights at some places to zero for a block, and put them back bit for bit after it."""
    before = {id(parameter): (parameter, parameter.detach().clone()) for parameter, _, _ in places}
    try:
        for parameter, dim, index in places:
            index = index.to(parameter.device)
            if dim is None:
                parameter.copy_(parameter.flatten().index_fill(0, index, 0).view_as(parameter))
            else:
                parameter.index_fill_(dim, index, 0)
        yield
    finally:
        for parameter, values in before.values():
            parameter.copy_(values)
