"""How much does a block change what passes through it?"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from prunus.core.errors import ModelError, near
from prunus.score.evidence.pieces import Sums, named, under

__all__ = ["BlockWatch"]


class BlockWatch:
    """Compare the first tensor that goes into each block with the first that comes out, while used as a context.

    The cosine is between the vectors of features: along dimension 1 of images ``(n, channels, height, width)`` and of
    ``(n, features)``, along the last one of sequences ``(n, length, features)``; the mean runs over examples and positions.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for path in paths:
            if path not in modules:
                raise ModelError(f"the model has no block {path!r}; {near(path, modules)}")
        self._blocks = {path: modules[path] for path in paths}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> BlockWatch:
        for path, block in self._blocks.items():
            self._handles.append(block.register_forward_hook(self._hook(path), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def results(self) -> dict[str, Tensor]:
        """Return the mean cosine of each block that ran, as one number."""
        return {path: total / self._counts[path] for path, total in self._sums.items()}

    def sums(self) -> Sums:
        """Return all that was added up."""
        counts = {path: torch.tensor(n) for path, n in self._counts.items()}
        return {**named("cosines", self._sums), **named("n", counts)}

    def join(self, sums: Sums) -> None:
        """Add what another has added up."""
        counts = under("n", sums)
        for path, total in under("cosines", sums).items():
            self._sums[path] = self._sums.get(path, torch.zeros((), dtype=torch.float64)) + total.cpu()
            self._counts[path] = self._counts.get(path, 0) + int(counts[path])

    def _hook(self, path: str) -> Any:
        def hook(module: nn.Module, given: Any, named: Any, output: Any) -> None:
            before, after = _first((given, named)), _first(output)
            if before is None or after is None or before.shape != after.shape:
                return
            with torch.no_grad():
                cosines = functional.cosine_similarity(before, after, dim=-1 if before.dim() == 3 else 1).double()
                self._sums[path] = self._sums.get(path, torch.zeros((), dtype=torch.float64)) + cosines.sum().cpu()
            self._counts[path] = self._counts.get(path, 0) + cosines.numel()

        return hook


def _first(values: Any) -> Tensor | None:
    return next((leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)), None)
