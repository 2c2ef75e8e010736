"""Which models of other libraries are in the zoo: diffusers, segmentation-models-pytorch and PyTorch Geometric?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["DIFFUSERS", "GEOMETRIC", "SEGMENTATION", "Sample"]

Inputs = Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]
Sample = tuple[Callable[[], nn.Module], Inputs]
"""How a model is made, and what it takes for so many examples."""

_GRAPH = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2, 0, 3], [1, 2, 3, 4, 5, 0, 0, 1, 2, 5]])


def _latents(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randn(n, 4, 16, 16), torch.arange(1, n + 1), torch.randn(n, 7, 32)), {}


def _noisy(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randn(n, 3, 16, 16), torch.arange(1, n + 1)), {}


def _labelled(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    timesteps = {"timestep": torch.arange(1, n + 1), "class_labels": torch.arange(n) % 10}
    return (torch.randn(n, 4, 16, 16),), timesteps


def _pictures(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randn(n, 3, 64, 64),), {}


def _nodes(n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As many copies of one small graph as there are examples."""
    edges = torch.cat([_GRAPH + 6 * example for example in range(n)], dim=1)
    return (torch.randn(6 * n, 5), edges), {}


def _diffusers(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import diffusers

        model: nn.Module = getattr(diffusers, name)(**options)
        return model

    return build


def _segmentation(name: str, encoder: str = "resnet18", **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import segmentation_models_pytorch as smp

        model: nn.Module = getattr(smp, name)(encoder, encoder_weights=None, classes=3, **options)
        return model

    return build


def _geometric(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torch_geometric.nn as geometric

        model: nn.Module = getattr(geometric, name)(5, 16, 3, out_channels=4, **options)
        return model

    return build


_SMALL: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
DIFFUSERS: dict[str, Sample] = {
    "autoencoder_kl": (
        _diffusers(
            "AutoencoderKL", **_SMALL, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        _pictures,
    ),
    "dit": (_diffusers("DiTTransformer2DModel", num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=2, sample_size=16, num_embeds_ada_norm=10), _labelled),
    "unet_2d": (
        _diffusers("UNet2DModel", sample_size=16, **_SMALL, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        _noisy,
    ),
    "unet_2d_condition": (
        _diffusers(
            "UNet2DConditionModel", sample_size=16, **_SMALL | {"layers_per_block": 2}, cross_attention_dim=32, attention_head_dim=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        _latents,
    ),
}  # fmt: skip
SEGMENTATION: dict[str, Sample] = {
    name.lower(): (_segmentation(name), _pictures)
    for name in (
        "DeepLabV3",
        "DeepLabV3Plus",
        "FPN",
        "Linknet",
        "MAnet",
        "PSPNet",
        "Unet",
        "UnetPlusPlus",
        "UPerNet",
    )
}
SEGMENTATION["dpt"] = (_segmentation("DPT", "tu-vit_tiny_patch16_224", dynamic_img_size=True), _pictures)
GEOMETRIC: dict[str, Sample] = {
    "gat": (_geometric("GAT", heads=4), _nodes),
    "gatv2": (_geometric("GAT", heads=4, v2=True), _nodes),
    "gcn": (_geometric("GCN"), _nodes),
    "gin": (_geometric("GIN"), _nodes),
    "graphsage": (_geometric("GraphSAGE"), _nodes),
    "graphsage_max": (_geometric("GraphSAGE", aggr="max"), _nodes),
}
