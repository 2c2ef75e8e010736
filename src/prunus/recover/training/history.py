"""What did a training say about itself?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["History"]


@dataclass(frozen=True)
class History:
    """The learning curve: one entry per epoch.

    ``loss`` is the mean over the epoch's examples, measured while the parameters moved (in the loss's own units); ``accuracy``
    the share of them that were right, empty when the outputs are no classes.
    """

    loss: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        >>> History((0.5,), (1.0,)).to_dict()
        {'loss': [0.5], 'accuracy': [1.0]}
        """
        return {"loss": list(self.loss), "accuracy": list(self.accuracy)}
