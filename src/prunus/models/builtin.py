"""Which networks come with prunus, so that a first run needs no code?

Three small ones made of plain layers: ``mlp``, ``cnn`` and ``resnet``. Each takes the input's shape and the number of outputs, and
gives raw scores (logits, or one value for regression).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.core.code.registry import Registry
from prunus.core.errors import ModelError
from prunus.core.text import shown

__all__ = ["Residual", "builders", "cnn", "mlp", "resnet"]

MOST_LAYERS = 1000
"""In one direction; the sizes of what they make are checked where it is built."""

builders: Registry[Callable[..., nn.Module]] = Registry("model builder")


def mlp(
    input_shape: Sequence[int],
    n_outputs: int,
    *,
    depth: int = 2,
    width: int = 64,
    dropout: float = 0.0,
    norm: str = "none",
) -> nn.Module:
    """Return ``depth`` hidden layers of ``width`` units and a linear head; any input is flattened.

    ``norm`` is none, batch or layer.

    >>> [name for name, _ in mlp((4,), 3, depth=1).named_children()]
    ['linear1', 'relu1', 'head']
    """
    _whole(depth, "depth", least=0, most=MOST_LAYERS)
    _whole(width, "width")
    _share(dropout, "dropout")
    norms: dict[str, Callable[[int], nn.Module] | None] = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    _one_of(norm, "norm", norms)
    make_norm = norms[norm]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) != 1:
        layers["flatten"] = nn.Flatten()
    size = _product(input_shape)
    for number in range(1, depth + 1):
        layers[f"linear{number}"] = nn.Linear(size, width)
        if make_norm is not None:
            layers[f"norm{number}"] = make_norm(width)
        layers[f"relu{number}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        size = width
    layers["head"] = nn.Linear(size, n_outputs)
    return nn.Sequential(layers)


def cnn(
    input_shape: Sequence[int],
    n_outputs: int,
    *,
    width: int = 32,
    depth: int = 3,
    dropout: float = 0.0,
    pool: str = "average",
) -> nn.Module:
    """Return ``depth`` blocks of 3x3 convolution, batch norm and ReLU, twice as wide and half as large each, and a linear head.

    Sides of one pixel are not halved, so images of any size fit. ``pool`` is average (over the whole image) or flatten.

    Shapes:
        Inputs are ``(n, channels, height, width)``; ``(n, height, width)`` counts as one channel.
    """
    _whole(width, "width")
    _whole(depth, "depth", most=MOST_LAYERS)
    _share(dropout, "dropout")
    _one_of(pool, "pool", ("average", "flatten"))
    channels, height, side = _image(input_shape, "cnn")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) == 2:
        layers["one_channel"] = nn.Unflatten(1, (1, height))
    for number in range(1, depth + 1):
        wider = width * 2 ** (number - 1)
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(wider)
        layers[f"relu{number}"] = nn.ReLU()
        if min(height, side) > 1 and number < depth:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, side = height // 2, side // 2
        channels = wider
    if pool == "average":
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        height = side = 1
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["head"] = nn.Linear(channels * height * side, n_outputs)
    return nn.Sequential(layers)


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip connection; a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
            self.skip = nn.Sequential(OrderedDict(conv=projection, norm=nn.BatchNorm2d(width)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, ``(n, width, height / stride, width / stride)``."""
        y = self.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.norm2(self.conv2(y)) + self.skip(x))
        return out


def resnet(
    input_shape: Sequence[int], n_outputs: int, *, width: int = 16, stages: int = 3, blocks: int = 1
) -> nn.Module:
    """Return a small residual network: a stem, ``stages`` of ``blocks`` each, twice as wide and half as large, and a linear head.

    Shapes:
        Inputs are ``(n, channels, height, width)``; ``(n, height, width)`` counts as one channel.
    References:
        He et al., CVPR 2016, arXiv:1512.03385, the CIFAR form; the skip is a 1x1 convolution where the shape changes.
    """
    _whole(width, "width")
    _whole(stages, "stages", most=MOST_LAYERS)
    _whole(blocks, "blocks", most=MOST_LAYERS)
    channels, height, _ = _image(input_shape, "resnet")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) == 2:
        layers["one_channel"] = nn.Unflatten(1, (1, height))
    layers["stem"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    layers["norm"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    channels = width
    for stage in range(1, stages + 1):
        wider = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            layers[f"stage{stage}_block{block}"] = Residual(channels, wider, 2 if stage > 1 and block == 1 else 1)
            channels = wider
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, n_outputs)
    return nn.Sequential(layers)


for _builder in (mlp, cnn, resnet):
    builders.add(_builder.__name__, _builder)


def _image(shape: Sequence[int], builder: str) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image input."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) != 3:
        raise ModelError(
            f"model.builder {builder} needs images, (channels, height, width): got inputs of shape {tuple(shape)}; set "
            "model.builder: mlp, which takes any numbers"
        )
    return shape[0], shape[1], shape[2]


def _product(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _whole(value: Any, name: str, *, least: int = 1, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"model.args.{name} must be a whole number of at least {least}, got {shown(value)}")
    if most is not None and value > most:
        raise ModelError(f"model.args.{name} must be at most {most}, got {shown(value)}")


def _share(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ModelError(f"model.args.{name} must be a share, at least 0 and below 1, got {value!r}")


def _one_of(value: Any, name: str, known: Any) -> None:
    if value not in tuple(known):
        raise ModelError(f"model.args.{name} must be one of {', '.join(known)}, got {value!r}")
