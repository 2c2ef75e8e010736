"""In which runtime is a model's speed measured?

Dense and pruned run in the same one. ``best`` is the one in which the *dense* model is fastest, of those installed: a speed-up
over a slower way to run the dense model would be worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from prunus.core.calls import select_rows
from prunus.core.errors import ModelError
from prunus.core.recipes import recipe
from prunus.evaluate.timing.latency import device_of_inputs, measure_latency
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx

__all__ = ["CALLED", "RuntimeName", "fastest_runtime", "in_runtime", "onnxruntime_installed"]

RuntimeName = Literal["torch", "onnxruntime"]
CALLED = {"torch": "torch eager", "onnxruntime": "ONNX Runtime"}
"""What a report calls them."""
_ROUNDS = {"repeats": 15, "warm_up": 3}


def in_runtime(name: str, model: nn.Module, inputs: Any) -> Callable[[Any], Any]:
    """Return what answers as ``model`` does, in a runtime.

    Raises:
        ModelError: it can't be exported.
        MissingExtraError: the runtime isn't installed.
    """
    if name == "torch":
        return model
    try:
        return OnnxModel(export_onnx(model, select_rows(inputs, torch.arange(4))))
    except ModelError as error:
        raise ModelError(f"{error}; set evaluation.latency.runtime to torch") from error


def fastest_runtime(
    dense: nn.Module, inputs: Any, config: recipe.Latency, *, note: Callable[[str], None], seed: int = 0
) -> tuple[RuntimeName, Callable[[Any], Any]]:
    """Return the runtime that the recipe names, or the one in which ``dense`` answers fastest on ``inputs``; and it in there.

    Args:
        note: is told when ONNX Runtime can't be had, and torch takes its place.
    """
    if config.runtime != "best":
        return config.runtime, in_runtime(config.runtime, dense, inputs)
    if device_of_inputs(inputs).type != "cpu" or not onnxruntime_installed():
        return "torch", dense
    try:
        exported = in_runtime("onnxruntime", dense, inputs)
    except ModelError as error:
        note(f"latency is measured in torch: {error}")
        return "torch", dense
    found = measure_latency(
        {"torch": dense, "onnxruntime": exported}, inputs, config.model_copy(update=_ROUNDS), seed=seed
    )
    faster = found.milliseconds["torch"].value < found.milliseconds["onnxruntime"].value
    return ("torch", dense) if faster else ("onnxruntime", exported)


def onnxruntime_installed() -> bool:
    """Tell whether models can be exported and run in ONNX Runtime."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
