"""Blocks of image networks, one class for each way in which channels can hang together; ``graph_zoo`` draws programs of them.

A block takes the current features and an older one, ``(n, width, h, w)`` and ``(n, other, h, w)``, and gives ``out`` channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["IMAGES", "Block"]

IMAGES: dict[str, type[Block]] = {}


class Block(nn.Module):
    """``out`` is what it gives; the number that it is asked for is only a wish."""

    def __init__(self, width: int, other: int, out: int) -> None:
        super().__init__()
        self.out = out
        self.make(width, other, out)

    def make(self, width: int, other: int, out: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor, old: Tensor) -> Tensor:
        return self.a(x)


def image(block: type[Block]) -> type[Block]:
    name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in block.__name__)
    IMAGES[name.lstrip("_")] = block
    return block


def even(out: int) -> int:
    return 2 * max(out // 2, 1)


def fours(out: int) -> int:
    return 4 * max(out // 4, 1)


@image
class Conv(Block):
    def make(self, width, other, out):
        self.a = nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh())


@image
class Residual(Block):
    def make(self, width, other, out):
        self.out = width
        self.a = nn.Sequential(
            nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU(), nn.Conv2d(out, width, 1)
        )

    def forward(self, x, old):
        return x + self.a(x)


@image
class Join(Block):
    def make(self, width, other, out):
        self.out = width + other

    def forward(self, x, old):
        return torch.cat([x, old], dim=1)


@image
class AddOld(Block):
    def make(self, width, other, out):
        self.out = other
        self.a = nn.Conv2d(width, other, 1)

    def forward(self, x, old):
        return torch.tanh(self.a(x)) + old


@image
class PaddedShortcut(Block):
    """What a residual network without projections does where it grows: the shortcut has zeros for the new channels."""

    def make(self, width, other, out):
        self.more, self.out = out, width + out
        self.a = nn.Conv2d(width, width + out, 3, padding=1)

    def forward(self, x, old):
        return torch.tanh(self.a(x)) + functional.pad(x, (0, 0, 0, 0, 0, self.more))


@image
class Grouped(Block):
    def make(self, width, other, out):
        self.out = fours(out)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.Conv2d(self.out, self.out, 3, padding=1, groups=2)

    def forward(self, x, old):
        return self.b(torch.tanh(self.a(x)))


@image
class Depthwise(Block):
    def make(self, width, other, out):
        self.out = width
        self.a = nn.Conv2d(width, width, 3, padding=1, groups=width)


@image
class Halves(Block):
    def make(self, width, other, out):
        self.out = even(out)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.Conv2d(self.out // 2, self.out // 2, 3, padding=1)

    def forward(self, x, old):
        left, right = self.a(x).chunk(2, dim=1)
        return torch.cat([torch.tanh(self.b(left)), right], dim=1)


@image
class Uneven(Block):
    """Pieces of different sizes, which come back in another order."""

    def make(self, width, other, out):
        self.pieces, self.out = [2, out, 3], out + 5
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.Conv2d(out, out, 1)

    def forward(self, x, old):
        one, two, three = self.a(x).split(self.pieces, dim=1)
        return torch.cat([three, torch.tanh(self.b(two)) * two, one], dim=1)


@image
class Gate(Block):
    def make(self, width, other, out):
        self.out = width
        self.a, self.b = nn.Linear(width, out), nn.Linear(out, width)

    def forward(self, x, old):
        scale = torch.sigmoid(self.b(torch.tanh(self.a(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


@image
class GroupNorm(Block):
    def make(self, width, other, out):
        self.out = fours(out)
        self.a = nn.Conv2d(width, self.out, 1)
        self.b = nn.GroupNorm(2, self.out)

    def forward(self, x, old):
        return self.b(torch.tanh(self.a(x)))


@image
class ChannelsLast(Block):
    """A ConvNeXt block: depthwise, then a normalised MLP on the channels as the last dimension, with a layer scale."""

    def make(self, width, other, out):
        self.out = width
        self.a = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.b, self.c = nn.Linear(width, out), nn.Linear(out, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, old):
        y = self.norm(self.a(x).permute(0, 2, 3, 1))
        y = self.c(functional.gelu(self.b(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


@image
class UpDown(Block):
    def make(self, width, other, out):
        self.a = nn.ConvTranspose2d(width, out, 2, stride=2)
        self.b = nn.MaxPool2d(2)

    def forward(self, x, old):
        return self.b(torch.tanh(self.a(x)))


@image
class GroupedUp(Block):
    def make(self, width, other, out):
        self.out = even(out)
        self.a = nn.Conv2d(width, fours(out), 1)
        self.b = nn.ConvTranspose2d(fours(out), self.out, 3, padding=1, groups=2)

    def forward(self, x, old):
        return self.b(torch.tanh(self.a(x)))


@image
class Shuffle(Block):
    def make(self, width, other, out):
        self.rows, self.out = 2, even(out)
        self.a = nn.Conv2d(width, self.out, 1)

    def forward(self, x, old):
        y = self.a(x)
        n, c, h, w = y.shape
        return y.view(n, self.rows, c // self.rows, h, w).transpose(1, 2).reshape(n, c, h, w)


@image
class Pixels(Block):
    """Channels become space, and come back from it."""

    def make(self, width, other, out):
        self.out = 4 * out
        self.a, self.b = nn.Conv2d(width, 4 * out, 1), nn.Conv2d(out, out, 3, padding=1)
        self.up, self.down = nn.PixelShuffle(2), nn.PixelUnshuffle(2)

    def forward(self, x, old):
        return self.down(torch.tanh(self.b(self.up(self.a(x)))))


@image
class Twice(Block):
    """One layer, applied two times."""

    def make(self, width, other, out):
        self.out = width
        self.a = nn.Conv2d(width, width, 1)

    def forward(self, x, old):
        return torch.tanh(self.a(torch.tanh(self.a(x))))


@image
class InPlace(Block):
    """Activations and sums that write into what they are given, and into a view of it."""

    def make(self, width, other, out):
        self.out, self.half = even(out), even(out) // 2
        self.a, self.b = nn.Conv2d(width, self.out, 3, padding=1), nn.Conv2d(self.out, self.out, 1)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x, old):
        y = self.act(self.a(x))
        z = self.b(y)
        z[:, : self.half].mul_(0.5)
        z += y
        return self.act(z)


@image
class WeightNorm(Block):
    def make(self, width, other, out):
        self.a = weight_norm(nn.Conv2d(width, out, 3, padding=1))

    def forward(self, x, old):
        return torch.tanh(self.a(x))


@image
class Einsum(Block):
    def make(self, width, other, out):
        self.a = nn.Parameter(torch.randn(width, out))
        self.b = nn.Parameter(torch.randn(out, 2, 1, 1))

    def forward(self, x, old):
        y = torch.tanh(torch.einsum("nchw,cd->ndhw", x, self.a))
        return torch.einsum("ndhw,dkij->ndhw", y, self.b)


@image
class Rows(Block):
    """A one-dimensional convolution over the flattened picture."""

    def make(self, width, other, out):
        self.a = nn.Conv1d(width, out, 3, padding=1)

    def forward(self, x, old):
        return torch.tanh(self.a(x.flatten(2))).unflatten(2, x.shape[2:])


@image
class Patches(Block):
    """Attention between pixels."""

    def make(self, width, other, out):
        self.out = width
        self.a, self.b = nn.Conv2d(width, 3 * out, 1), nn.Conv2d(out, width, 1)

    def forward(self, x, old):
        q, k, v = self.a(x).flatten(2).chunk(3, dim=1)
        y = (q.transpose(1, 2) @ k).softmax(dim=2) @ v.transpose(1, 2)
        return x + self.b(y.transpose(1, 2).unflatten(2, x.shape[2:]))


@image
class States(Block):
    """Pixels are gathered in a few states, mixed by convolutions that have the states beside each other, and read back."""

    def make(self, width, other, out):
        self.a, self.b = nn.Conv2d(width, even(out), 1), nn.Conv1d(width, out, 1)
        self.c = nn.Conv1d(out, out, 3, padding=1)

    def forward(self, x, old):
        near, far = torch.tanh(self.a(x)).flatten(2).chunk(2, dim=1)
        pixels = x.flatten(2)
        mixed = torch.tanh(self.b(pixels @ near.transpose(1, 2))) @ near
        spanned = self.c(torch.tanh(self.b(pixels @ far.transpose(1, 2)))) @ far
        return (mixed + spanned).unflatten(2, x.shape[2:])
