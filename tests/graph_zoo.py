"""Random networks for the laws of the axis engine: a program of small blocks over images or sequences, drawn by hypothesis."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["image_programs", "randomize", "sequence_programs"]


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


class Step(nn.Module):
    """One block: takes the current features and an older one, and gives new ones."""

    def __init__(self, kind: str, width: int, other: int, out: int) -> None:
        super().__init__()
        self.kind, self.out = kind, out
        make = getattr(self, f"_{kind}")
        make(width, other, out)

    # --- images ---------------------------------------------------------
    def _conv(self, width: int, other: int, out: int) -> None:
        self.a = nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh())

    def _residual(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.a = nn.Sequential(
            nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU(), nn.Conv2d(out, width, 1)
        )

    def _join(self, width: int, other: int, out: int) -> None:
        self.out = width + other
        self.a = nn.Identity()

    def _add_old(self, width: int, other: int, out: int) -> None:
        self.out = other
        self.a = nn.Conv2d(width, other, 1)

    def _grouped(self, width: int, other: int, out: int) -> None:
        self.out = 4 * max(out // 4, 1)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.Conv2d(self.out, self.out, 3, padding=1, groups=2)

    def _depthwise(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.a = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def _halves(self, width: int, other: int, out: int) -> None:
        self.out = 2 * max(out // 2, 1)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.Conv2d(self.out // 2, self.out // 2, 3, padding=1)

    def _gate(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.a, self.b = nn.Linear(width, out), nn.Linear(out, width)

    def _group_norm(self, width: int, other: int, out: int) -> None:
        self.out = 4 * max(out // 4, 1)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.GroupNorm(2, self.out)

    def _up_down(self, width: int, other: int, out: int) -> None:
        self.a = nn.ConvTranspose2d(width, out, 2, stride=2)
        self.b = nn.MaxPool2d(2)

    def _shuffle(self, width: int, other: int, out: int) -> None:
        self.out = 2 * max(out // 2, 1)
        self.a = nn.Conv2d(width, self.out, 1)

    def _twice(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.a = nn.Conv2d(width, width, 1)

    # --- sequences --------------------------------------------------------
    def _linear(self, width: int, other: int, out: int) -> None:
        self.a = nn.Linear(width, out)

    def _mlp(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.norm = nn.LayerNorm(width)
        self.a, self.b = nn.Linear(width, out), nn.Linear(out, width)

    def _glu(self, width: int, other: int, out: int) -> None:
        self.out = width
        self.a, self.b = nn.Linear(width, 2 * out), nn.Linear(out, width)

    def _attention(self, width: int, other: int, out: int) -> None:
        self.heads, self.inner, self.out = 2, 2 * max(out // 2, 1), width
        self.a, self.b = nn.Linear(width, 3 * self.inner, bias=False), nn.Linear(self.inner, width)

    def _recurrent(self, width: int, other: int, out: int) -> None:
        self.a = nn.LSTM(width, out, batch_first=True)

    def _gru(self, width: int, other: int, out: int) -> None:
        self.out = 2 * out
        self.a = nn.GRU(width, out, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, old: Tensor) -> Tensor:
        kind = self.kind
        if kind == "residual":
            return x + self.a(x)
        if kind == "join":
            return torch.cat([x, old], dim=1)
        if kind == "add_old":
            return torch.tanh(self.a(x)) + old
        if kind in ("grouped", "group_norm"):
            return self.b(torch.tanh(self.a(x)))
        if kind == "halves":
            left, right = self.a(x).chunk(2, dim=1)
            return torch.cat([torch.tanh(self.b(left)), right], dim=1)
        if kind == "gate":
            scale = torch.sigmoid(self.b(torch.tanh(self.a(x.mean(dim=(2, 3))))))
            return x * scale[:, :, None, None]
        if kind == "up_down":
            return self.b(torch.tanh(self.a(x)))
        if kind == "shuffle":
            y = self.a(x)
            n, c, h, w = y.shape
            return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        if kind == "twice":
            return torch.tanh(self.a(torch.tanh(self.a(x))))
        if kind == "mlp":
            return x + self.b(functional.gelu(self.a(self.norm(x))))
        if kind == "glu":
            return x + self.b(functional.glu(self.a(x), dim=-1))
        if kind == "attention":
            n, t, _ = x.shape
            q, k, v = self.a(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v)
            return x + self.b(y.transpose(1, 2).reshape(n, t, -1))
        if kind in ("recurrent", "gru"):
            return self.a(x)[0]
        return self.a(x)


class Program(nn.Module):
    """Blocks one after the other, then a head."""

    def __init__(self, steps: list[tuple[str, int, int]], head: str, images: bool, width: int = 6) -> None:
        super().__init__()
        self.head_kind, self.images = head, images
        self.stem = nn.Conv2d(3, width, 3, padding=1) if images else nn.Embedding(11, width)
        widths, blocks, self.picks = [width], [], []
        for kind, out, pick in steps:
            pick %= len(widths)
            block = Step(kind, widths[-1], widths[pick], out)
            blocks.append(block)
            self.picks.append(pick)
            widths.append(block.out)
        self.blocks = nn.ModuleList(blocks)
        final = widths[-1] * (16 if head != "mean" and images else 5 if head == "flatten" else 1)
        self.head = nn.Linear(final, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for block, pick in zip(self.blocks, self.picks, strict=True):
            seen.append(block(seen[-1], seen[pick]))
        y = seen[-1]
        if self.images:
            y = (
                y.mean(dim=(2, 3))
                if self.head_kind == "mean"
                else y.flatten(1)
                if self.head_kind == "flatten"
                else y.permute(0, 2, 3, 1).flatten(1)
            )
        else:
            y = y.flatten(1) if self.head_kind == "flatten" else y.mean(dim=1)
        return self.head(y)


IMAGE_KINDS = [
    "conv",
    "residual",
    "join",
    "add_old",
    "grouped",
    "depthwise",
    "halves",
    "gate",
    "group_norm",
    "up_down",
    "shuffle",
    "twice",
]
SEQUENCE_KINDS = ["linear", "mlp", "glu", "attention", "recurrent", "gru"]


def image_programs(kinds: list[str] | None = None) -> st.SearchStrategy[Program]:
    """Return a strategy of networks over (n, 3, 4, 4) images."""
    step = st.tuples(st.sampled_from(kinds or IMAGE_KINDS), st.integers(2, 9), st.integers(0, 9))
    return st.builds(
        Program,
        st.lists(step, min_size=1, max_size=8),
        st.sampled_from(["mean", "flatten", "channels last"]),
        st.just(True),
    )


def sequence_programs(kinds: list[str] | None = None) -> st.SearchStrategy[Program]:
    """Return a strategy of networks over (n, 5) token numbers."""
    step = st.tuples(st.sampled_from(kinds or SEQUENCE_KINDS), st.integers(2, 9), st.integers(0, 9))
    return st.builds(
        Program, st.lists(step, min_size=1, max_size=6), st.sampled_from(["mean", "flatten"]), st.just(False)
    )


def inputs_for(model: Program, n: int = 2) -> Tensor:
    """Return inputs that the program takes."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 4, 4, generator=draw) if model.images else torch.randint(0, 11, (n, 5), generator=draw)
