"""What may a recipe say of training: of the dense model, and of the recovery of the pruned one?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.core.recipes.section import Count, Fraction, NonNegative, Positive, Section, Share

__all__ = ["Average", "Distil", "Lora", "Recovery", "Train"]


class Average(Section):
    """Weight averaging, which lowers the variance of the result."""

    kind: Literal["none", "swa", "ema"] = "none"
    last: Count = Field(5, description="swa: how many of the last epochs are averaged")
    decay: Share = Field(0.99, description="ema: how much of the average stays at each step")


class Train(Section):
    """How parameters are trained from where they stand."""

    epochs: int = Field(30, ge=0)
    batch_size: Count = 64
    accumulate: Count = Field(
        1, description="batches per optimizer step: as one of that many times the size, in the memory of one"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the forward and backward pass; float16 on CUDA only"
    )
    loss: str | None = Field(
        None,
        description="module:function (outputs, batch) -> one number; null: cross-entropy or squared error (recovery: train.loss). "
        "Criteria that read gradients read train.loss",
    )
    learning_rate: Positive = 2e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegative = 1e-4
    momentum: Share = Field(0.9, description="sgd only")
    decay: Literal["cosine", "constant"] = Field(
        "cosine", description="how the learning rate falls, after a short warm-up"
    )
    clip_norm: Positive | None = Field(1.0, description="largest gradient norm; null: no clipping")
    label_smoothing: Share = 0.0
    average: Average = Field(default_factory=Average)


class Distil(Section):
    """Learn from the dense model's outputs, too, and from its features."""

    temperature: Positive = 3.0
    weight: Fraction = Field(0.5, description="share of the loss that comes from the teacher")
    features: NonNegative = Field(
        0.0, description="weight of the distance between both models' intermediate features, on top; 0: outputs only"
    )
    modules: tuple[str, ...] = Field(
        (),
        description="name patterns (fnmatch) of the modules whose outputs are compared; none: blocks, or else layers",
    )


class Lora(Section):
    """Train low-rank adapters beside the layers, and merge them into the weights; needs the extra ``lora``."""

    rank: Count = 8
    alpha: Positive = Field(16.0, description="the adapters count alpha / rank times")
    modules: tuple[str, ...] = Field(
        (), description="name patterns (fnmatch) of the layers; none: all linear and convolution layers"
    )


class Recovery(Train):
    """How the pruned model gets its quality back."""

    method: Literal["none", "fine_tune", "distil", "lora"] = "fine_tune"
    gap_margin: NonNegative | None = Field(
        None,
        description="stop at over-fitting: where the pruned model's gap between training and validation examples, in the first "
        "metric, exceeds the dense one's by more than this, its training goes back to the last epoch that was within, and a "
        "schedule to its last round; null: don't",
    )
    adjust: tuple[Literal["batch_norm", "bias", "least_squares"], ...] = Field(
        (),
        description="after each cut, before the training, on the calibration set: least_squares fits the weights that "
        "are left to the outputs before the cut, layer by layer; bias only their means; batch_norm moves running "
        "statistics by what the cut did to them; what makes held-out examples worse is taken back",
    )
    distil: Distil = Field(default_factory=Distil)
    lora: Lora = Field(default_factory=Lora)
