"""Random networks for the laws of the axis engine: a program of small blocks over images or sequences, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from graph_zoo_images import IMAGES
from graph_zoo_sequences import SEQUENCES

__all__ = ["IMAGES", "SEQUENCES", "Program", "image_programs", "inputs_for", "randomize", "sequence_programs"]

_WIDEST = 40  # concatenations would double the width again and again


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic values of its own, so that no reordering goes unseen."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if not value.is_floating_point():
                continue
            fan = value[0].numel() if value.dim() > 1 else 1
            value.copy_(torch.randn(value.shape, generator=draw) / fan**0.5)
            if name.endswith(("running_var", "norm.weight")):
                value.copy_(value.abs() + 0.5)
    return model.eval()


class Program(nn.Module):
    """Blocks one after the other, then a head.

    Args:
        steps: for each block its kind, the width that it is asked for, and which of the features so far it takes beside the last.
        head: how features become outputs: ``mean``, ``flatten``, ``channels last`` (images) or ``tied`` to the embedding.
    """

    def __init__(self, steps: list[tuple[str, int, int]], head: str, images: bool, width: int = 6) -> None:
        super().__init__()
        self.spec = (steps, head, images, width)
        self.head_kind, self.images = head, images
        self.stem = nn.Conv2d(3, width, 3, padding=1) if images else nn.Embedding(11, width)
        widths, blocks, self.picks = [width], [], []
        for kind, out, pick in steps:
            pick %= len(widths)
            if kind in ("join", "padded_shortcut") and widths[-1] + max(widths[pick], out) > _WIDEST:
                kind = "conv"
            block = (IMAGES if images else SEQUENCES)[kind](widths[-1], widths[pick], out)
            blocks.append(block)
            self.picks.append(pick)
            widths.append(block.out)
        self.blocks = nn.ModuleList(blocks)
        places = 1 if head in ("mean", "tied") else 16 if images else 2
        self.head = nn.Linear(widths[-1] * places, width if head == "tied" else 4)

    def again(self) -> Program:
        """Return the same structure, built anew."""
        return Program(*self.spec)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for block, pick in zip(self.blocks, self.picks, strict=True):
            seen.append(block(seen[-1], seen[pick]))
        y = seen[-1]
        if self.head_kind == "channels last":
            y = y.permute(0, 2, 3, 1)
        if self.head_kind in ("flatten", "channels last"):
            return self.head(y.flatten(1))
        y = self.head(y.mean(dim=(2, 3) if self.images else 1))
        return functional.linear(y, self.stem.weight) if self.head_kind == "tied" else y


def _steps(kinds: Iterable[str], longest: int) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    step = st.tuples(st.sampled_from(list(kinds)), st.integers(2, 9), st.integers(0, 9))
    return st.lists(step, min_size=1, max_size=longest)


def image_programs(kinds: Iterable[str] = tuple(IMAGES), longest: int = 12) -> st.SearchStrategy[Program]:
    """Return a strategy of networks over (n, 3, 4, 4) images."""
    heads = st.sampled_from(["mean", "flatten", "channels last"])
    return st.builds(Program, _steps(kinds, longest), heads, st.just(True))


def sequence_programs(kinds: Iterable[str] = tuple(SEQUENCES), longest: int = 7) -> st.SearchStrategy[Program]:
    """Return a strategy of networks over (n, 2) token numbers."""
    heads = st.sampled_from(["mean", "flatten", "tied"])
    return st.builds(Program, _steps(kinds, longest), heads, st.just(False))


def inputs_for(model: Program, n: int = 2, *, larger: bool = False) -> Tensor:
    """Return ``n`` inputs that the program takes; ``larger`` ones have more positions, where the head doesn't count them."""
    draw = torch.Generator().manual_seed(n)
    more = larger and model.head_kind in ("mean", "tied")
    if model.images:
        return torch.randn(n, 3, *((6, 8) if more else (4, 4)), generator=draw)
    # No token comes twice: over positions that are all alike attention gives the same for any scale.
    return torch.stack([torch.randperm(11, generator=draw)[: 7 if more else 2] for _ in range(n)])
