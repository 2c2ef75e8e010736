"""How do images get worse: noise, blur, contrast, brightness, coarse pixels, compression?

Images are ``(n, channels, height, width)``; strengths are shares of their range, which they never leave.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from prunus.evaluate.robustness.corruptions.corruption import InputFacts, corruption

__all__ = ["block_cosines", "blurred"]


def _inside(x: Tensor, facts: InputFacts) -> Tensor:
    return x.maximum(facts.low).minimum(facts.high)


@corruption("gaussian_noise", "image")
def gaussian_noise(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images with independent normal noise at each pixel."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return _inside(x + deviation * facts.span * torch.randn(x.shape, generator=draw, dtype=x.dtype), facts)


@corruption("impulse_noise", "image")
def impulse_noise(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images with some pixels black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    chance = torch.rand(x.shape, generator=draw)
    end = torch.where(torch.rand(x.shape, generator=draw) < 0.5, facts.low, facts.high).to(x.dtype)
    return torch.where(chance < share, end, x)


@corruption("blur", "image")
def blur(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images blurred by a normal kernel, wider on larger images."""
    return blurred(x, (0.4, 0.6, 0.8, 1.1, 1.5)[severity - 1] * max(1.0, min(x.shape[-2:]) / 32))


def blurred(x: Tensor, deviation: float) -> Tensor:
    """Return images convolved with a normal kernel that ends at four deviations; edges are repeated."""
    radius = max(1, math.ceil(4 * deviation))
    at = torch.arange(-radius, radius + 1, dtype=x.dtype)
    kernel = torch.exp(-at.square() / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for shape, pad in (((1, 1, -1, 1), (0, 0, radius, radius)), ((1, 1, 1, -1), (radius, radius, 0, 0))):
        weight = kernel.reshape(shape).expand(channels, 1, *kernel.reshape(shape).shape[2:])
        x = functional.conv2d(functional.pad(x, pad, mode="replicate"), weight, groups=channels)
    return x


@corruption("contrast", "image")
def contrast(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images nearer to their own mean."""
    share = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = x.mean(dim=(2, 3), keepdim=True)
    return _inside(mean + share * (x - mean), facts)


@corruption("brightness", "image")
def brightness(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images brighter, cut off at white."""
    return _inside(x + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1] * facts.span, facts)


@corruption("pixelate", "image")
def pixelate(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images made smaller and large again."""
    share = (0.8, 0.65, 0.5, 0.4, 0.3)[severity - 1]
    size = tuple(max(1, round(share * n)) for n in x.shape[-2:])
    small = functional.interpolate(x, size=size, mode="area")
    return functional.interpolate(small, size=tuple(x.shape[-2:]), mode="nearest-exact")


_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)


@corruption("jpeg", "image")
def jpeg(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the images with the cosines of their 8x8 blocks rounded by JPEG's table for luminance, channel by channel."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor([float(q) for q in _LUMINANCE.split()], dtype=x.dtype).reshape(8, 8)
    table = ((table * scale + 50) / 100).floor().clamp(1, 255)
    height, width = x.shape[-2:]
    bytes_ = (x - facts.low) / facts.span * 255 - 128
    padded = functional.pad(bytes_, (0, -width % 8, 0, -height % 8), mode="replicate")
    cosines = block_cosines(x.dtype)
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
    rounded = (cosines @ blocks @ cosines.T / table).round() * table
    back = cosines.T @ rounded @ cosines
    whole = back.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)[..., :height, :width]
    return _inside((whole + 128) / 255 * facts.span + facts.low, facts)


def block_cosines(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the orthonormal cosine transform of eight numbers, ``(8, 8)``."""
    k, n = torch.arange(8.0, dtype=dtype)[:, None], torch.arange(8.0, dtype=dtype)[None]
    matrix = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
