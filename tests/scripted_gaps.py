"""What would a training do if the gaps between training and validation examples were these?"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from torch import Tensor, nn

from prunus.pipeline.stages.overfitting import generalisation
from prunus.pipeline.stages.overfitting.generalisation import Gap

__all__ = ["scripted"]


def scripted(monkeypatch: pytest.MonkeyPatch, gaps: Iterable[float]) -> list[dict[str, Tensor]]:
    """Let the gaps of pruned models be these, in turn; the dense model has none. Return the weights that each was asked for."""
    left, asked = list(gaps), list[dict[str, Tensor]]()

    def gap(self: generalisation.Overfits, model: nn.Module) -> Gap:
        if model is self.dense:
            return Gap(self.metric, 0.0, 0.0)
        asked.append({name: value.clone() for name, value in model.state_dict().items()})
        return Gap(self.metric, left.pop(0), 0.0)

    monkeypatch.setattr(generalisation.Overfits, "gap", gap)
    return asked
