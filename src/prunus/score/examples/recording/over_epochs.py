"""What is an example's score over the epochs, given what each of them said of it?

Running sums: the memory grows with the number of examples and not with the epochs, and the order of the batches doesn't matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunus.core.errors import RunError

__all__ = ["OverEpochs"]

_DEVIATION = "_deviation"


class OverEpochs:
    """Sum up what epochs say about examples; :meth:`tensors` makes scores of it.

    All are means over the epochs but for deviations, and ``forgotten``: how often an example was right (``aum`` above 0) in one
    epoch and wrong in the next that saw it, or how often it was seen, where it was never right.

    Args:
        n_examples: how many examples there are.
        names: what is wanted, as :func:`recorded_names` calls it.
        el2n_epochs: EL2N looks at the first so many epochs only; None: at all.

    References:
        Toneva et al., ICLR 2019, arXiv:1812.05159 (forgetting). Paul et al. average EL2N over several initialisations, early in
        training.
    """

    def __init__(self, n_examples: int, names: Sequence[str], *, el2n_epochs: int | None = None) -> None:
        self.n_examples, self.names, self.el2n_epochs = n_examples, tuple(names), el2n_epochs
        # Sums are double, so that the order of the epochs doesn't show in the last digits.
        self._sums: dict[str, Tensor] = {}
        self._forgotten, self._learnt, self._right = (
            torch.zeros(n_examples, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool)
        )
        self._seen = torch.zeros(n_examples, dtype=torch.int64)
        self._seen_early = torch.zeros(n_examples, dtype=torch.int64)
        self._first_epoch: int | None = None

    def add(self, epoch: int, index: Tensor, found: Mapping[str, Tensor]) -> None:
        """Add what one epoch says of the examples at ``index``, each once."""
        early = self.counts_early(epoch)
        if "forgotten" in self.names:
            right = (found["aum"] > 0).cpu()
            self._forgotten[index] += self._right[index] & ~right
            self._right[index] = right
            self._learnt[index] |= right
        for name in self.names:
            base = name.removesuffix(_DEVIATION)
            if name == "forgotten" or (name == "el2n" and not early):
                continue
            values = found[base].cpu()
            if name not in self._sums:
                self._sums[name] = torch.zeros(self.n_examples, *values.shape[1:], dtype=torch.float64)
            self._sums[name].index_add_(0, index, values.square() if base != name else values)
        self._seen[index] += 1
        self._seen_early[index] += early

    def counts_early(self, epoch: int) -> bool:
        """Tell whether an epoch is one of the first that EL2N looks at; the first that is asked for is the first."""
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        return self.el2n_epochs is None or epoch < self._first_epoch + self.el2n_epochs

    @property
    def seen(self) -> Tensor:
        """How many epochs saw each example, ``(n,)``."""
        return self._seen

    def check_all_seen(self, start: int = 0) -> None:
        """See that there is something to say of each example; ``start`` is the place of the first one in the data set.

        Raises:
            RunError: some example was never seen.
        """
        missing = torch.nonzero(self._seen_early == 0).flatten()
        if len(missing):
            raise RunError(
                f"{len(missing)} of {self.n_examples} examples were never seen in training (the first is "
                f"{start + int(missing[0])}): record at least one whole epoch"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return the scores so far, as float32 on the CPU, ``(n,)`` or ``(n, classes)`` each; NaN of what was never seen."""
        found = {}
        for name in self.names:
            if name == "forgotten":
                counted = torch.where(self._learnt, self._forgotten, self._seen).double()
                found[name] = counted.where(self._seen > 0, torch.nan)
                continue
            seen = self._seen_early if name == "el2n" else self._seen
            total = self._sums.get(name, torch.zeros(self.n_examples, dtype=torch.float64))
            found[name] = total / seen.reshape(-1, *[1] * (total.dim() - 1))
            if name.endswith(_DEVIATION):
                mean = self._sums[name.removesuffix(_DEVIATION)] / seen
                found[name] = (found[name] - mean.square()).clamp(min=0).sqrt()
        return {name: value.float() for name, value in found.items()}
