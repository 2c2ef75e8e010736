"""How does torch itself write down what a bundle's model computes, for the formats that start from that?

``torch.export`` follows the model once on inputs of two examples. The free sizes have the names and bounds that they have in the
bundle, and the program refuses others. Nothing of the machine goes along: where a line of source stood is left out.
"""

from __future__ import annotations

import contextlib
from inspect import Parameter, Signature
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram, _patches

from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.evaluate.timing.onnx_session import dynamic_sizes, quiet_exporter
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.named_layers import innermost_called, said_by

__all__ = ["exported_program", "traced"]


def exported_program(source: ExportSource, to: str) -> ExportedProgram:
    """Return the program; its module is called as the model is, and gives a tensor, or a tuple of them where there are several.

    Args:
        to: what the format is called, for messages.

    Raises:
        ModelError: torch can't follow the model; it says why, and in which layer, in one line.
    """
    try:
        with quiet_exporter(), torch.no_grad():
            program = traced(source)
    except Exception as error:
        raise_if_out_of_memory(error)
        if isinstance(error, ModelError):
            raise
        with quiet_exporter(), torch.no_grad():
            where = innermost_called(source.model, lambda: traced(source))
        said = f"{said_by(error)}, in the layer {where!r}" if where else said_by(error)
        raise ModelError(f"the model can't be exported to {to}: {said}") from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def traced(source: ExportSource) -> ExportedProgram:
    """Return the program as torch makes it, or raise what torch raises.

    To torch a size of 1 is another case than others. Where sizes can't be followed so, it is told to take it for no other.
    """
    try:
        return _traced(source)
    except UserError:
        with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return _traced(source)


def _traced(source: ExportSource) -> ExportedProgram:
    inputs = source.inputs(source.traced_on)
    given, named = ((), dict(inputs)) if source.keywords else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    dynamic = dict(zip(source.names, dynamic_sizes(source.spans), strict=True))
    with contextlib.ExitStack() as stack:  # recurrent layers of any length, as torch has them in ONNX files
        if source.is_free:
            stack.enter_context(_patches.register_lstm_while_loop_decomposition())
            stack.enter_context(_patches.register_gru_while_loop_decomposition())
        return torch.export.export(_signed(source), given, named, dynamic_shapes=dynamic, strict=False)


def _signed(source: ExportSource) -> nn.Module:
    """Return the model with a signature that names each input, which torch reads."""

    class Signed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = source.model

        def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
            outputs = self.model(*inputs, **named)
            outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

    kind = Parameter.POSITIONAL_OR_KEYWORD
    try:
        parameters = [Parameter(name, kind) for name in ("self", *source.names)]
    except ValueError as error:
        raise ModelError(f"the model can't be exported: {error}; give its inputs other names") from error
    Signed.forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return Signed()
