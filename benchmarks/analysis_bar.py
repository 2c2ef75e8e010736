"""Which common models below 150 M parameters are analysed, certified, tried and cut in 5 s, at the sizes that people use?

``python benchmarks/analysis_time.py bar`` prints them. Each model has a process of its own, forked from one that has
imported everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["BAR", "SECONDS", "build"]

SECONDS = 5.0
"""What all stages together may take, in processor seconds of one core."""

BAR: dict[str, tuple[str, str, int]] = {
    "ConvMixer-1536/20": ("timm", "convmixer_1536_20", 224),
    "ViT-B/16": ("torchvision", "vit_b_16", 224),
    "ViT-B/16 (timm)": ("timm", "vit_base_patch16_224", 224),
    "BEiT-B": ("timm", "beit_base_patch16_224", 224),
    "ConViT-B": ("timm", "convit_base", 224),
    "CaiT-XXS-24": ("timm", "cait_xxs24_224", 224),
    "wide ResNet-101": ("torchvision", "wide_resnet101_2", 224),
    "VGG-16": ("torchvision", "vgg16", 224),
    "ConvNeXt-B": ("torchvision", "convnext_base", 224),
    "ConvNeXt-T": ("torchvision", "convnext_tiny", 224),
    "Swin-T": ("torchvision", "swin_t", 224),
    "Swin-B": ("torchvision", "swin_b", 224),
    "MaxViT-T": ("torchvision", "maxvit_t", 224),
    "GCViT-T": ("timm", "gcvit_tiny", 224),
    "ResNet-18": ("torchvision", "resnet18", 224),
    "ResNet-50": ("torchvision", "resnet50", 224),
    "MobileNet-v3-L": ("torchvision", "mobilenet_v3_large", 224),
    "EfficientNet-B0": ("torchvision", "efficientnet_b0", 224),
    "EfficientNet-B4": ("torchvision", "efficientnet_b4", 380),
    "RegNet-Y-8GF": ("torchvision", "regnet_y_8gf", 224),
    "DenseNet-121": ("torchvision", "densenet121", 224),
    "DenseNet-201": ("torchvision", "densenet201", 224),
    "DeiT3-B": ("timm", "deit3_base_patch16_224", 224),
    "EfficientNetV2-M": ("torchvision", "efficientnet_v2_m", 224),
    "DeiT-S": ("timm", "deit_small_patch16_224", 224),
    "BERT-base, 128 tokens": ("transformers", "BertModel", 128),
    "RoBERTa-base, 128 tokens": ("transformers", "RobertaModel", 128),
    "DistilBERT, 128 tokens": ("transformers", "DistilBertModel", 128),
    "GPT-2, 128 tokens": ("transformers", "GPT2LMHeadModel", 128),
    "Stable-Diffusion U-Net, 64 to 256 channels": ("diffusers", "unet", 32),
    "AutoencoderKL, 64 to 256 channels": ("diffusers", "autoencoder", 64),
    "MViT-v2-S, 16 frames": ("video", "mvit_v2_s", 224),
}
"""The library, the model, and how many pixels its inputs have along a side, or how many tokens."""


def build(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return a model of random weights, two examples, and its keyword inputs."""
    import torch
    from zoo_models import import_torchvision

    suite, model, size = BAR[name]
    torchvision = import_torchvision()
    if suite == "transformers":
        import transformers

        cls = getattr(transformers, model)
        config = cls.config_class(**({"use_cache": False} if model.startswith("GPT") else {}))
        return cls(config), (), {"input_ids": torch.randint(3, config.vocab_size, (2, size))}
    if suite == "diffusers":
        return _DIFFUSERS[model](size)
    if suite == "timm":
        import timm

        return timm.create_model(model, pretrained=False), (torch.randn(2, 3, size, size),), {}
    frames = (16,) if suite == "video" else ()
    return torchvision.models.get_model(model, weights=None), (torch.randn(2, 3, *frames, size, size),), {}


def _unet(size: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    import diffusers
    import torch

    model = diffusers.UNet2DConditionModel(
        sample_size=size, block_out_channels=(64, 128, 256), layers_per_block=2, cross_attention_dim=256,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return model, (torch.randn(2, 4, size, size), torch.tensor([1, 2]), torch.randn(2, 7, 256)), {}


def _autoencoder(size: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    import diffusers
    import torch

    model = diffusers.AutoencoderKL(
        block_out_channels=(64, 128, 256), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    return model, (torch.randn(2, 3, size, size),), {}


_DIFFUSERS: dict[str, Callable[[int], tuple[Any, tuple[Any, ...], dict[str, Any]]]] = {
    "unet": _unet,
    "autoencoder": _autoencoder,
}
