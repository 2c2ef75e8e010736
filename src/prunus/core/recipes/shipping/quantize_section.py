"""How may an exported file be made of 8-bit whole numbers? The section ``quantize`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prunus.core.recipes.section import Count, Positive, Section

__all__ = ["Quantize"]


class Quantize(Section):
    """Export to int8, as far as the promise holds in the exported file; layers that cost too much stay in float."""

    to: Literal["onnx", "openvino"] = Field(
        "onnx",
        description="for which runtime: onnx by ONNX Runtime's own quantiser, openvino by NNCF; the promise is tested in it",
    )
    method: Literal["auto", "static", "dynamic"] = Field(
        "auto",
        description="static: ranges from calibration examples, for convolutions; dynamic: as the model runs, for transformers; "
        "auto: static where the model convolves; openvino: always static",
    )
    calibration: Count = Field(256, description="how many calibration examples are read")
    metric: str | None = Field(
        None, description="what is promised; default: contract.metric, else the task's first metric"
    )
    max_drop: Positive | None = Field(
        None,
        description="against the dense model, in the metric's unit; default: contract.max_drop, else 0.01 of a share",
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] | None = Field(
        None, description="one-sided; default: contract.confidence, else 0.95"
    )
    keep_float: tuple[str, ...] = Field((), description="names of layers of the file that stay in float in any case")
