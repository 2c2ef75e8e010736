"""How does a model become an ONNX file, and how does that file answer?

The batch is dynamic, and so are the sizes that may vary; everything else has the sizes of the example. The packages are the extra
``onnx`` and are imported here only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.traced.limits import BATCH, Span
from prunus.core.calls import described
from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.files.onnx_guard import check_onnx
from prunus.core.structures.forms import tensors_of
from prunus.evaluate.timing.kernel_forms import use_fast_forms

__all__ = ["OPSET", "OnnxModel", "dynamic_sizes", "export_onnx", "named_tensors", "open_session", "quiet_exporter"]

OPSET = 20
"""Of ONNX files, whatever the exporter of this torch would take."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def export_onnx(model: nn.Module, inputs: Any, spans: Sequence[Sequence[Span]] | None = None) -> bytes:
    """Return ``model`` in evaluation mode as an ONNX file; the model is not changed.

    Args:
        inputs: one example batch, of two or more, the batch first in each tensor: a tensor, a tuple (positional) or a mapping
            (keywords). The file's inputs are called ``input``, ``input_0`` and so on, or as the keywords.
        spans: the sizes that the dimensions of each tensor may have, the batch's first: the file refuses others. Default: those of
            the example, but for the batch.

    Raises:
        ModelError: torch can't export it; it says why in one line.
        MissingExtraError: onnx or onnxscript isn't installed.
    """
    require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")
    names, given = named_tensors(inputs)
    if spans is None:
        spans = [[Span(1, None, BATCH), *(Span(n, n) for n in value.shape[1:])] for value in given]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                _Plain(model, tuple(inputs) if isinstance(inputs, Mapping) else (), spans),
                (given,),
                dynamo=True,
                dynamic_shapes=(dynamic_sizes(spans),),
                input_names=names,
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        for number, value in enumerate(made := program.model.graph.outputs):
            value.name = "output" if len(made) == 1 else f"output_{number}"
        _forget_where(program.model)
        use_fast_forms(program.model.graph)
        proto: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        raise_if_out_of_memory(error)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise ModelError(f"the model can't be exported to ONNX: {said[:200]}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    return proto


def _forget_where(model: Any) -> None:
    """Keep of what the exporter notes of each operation only which module it came from: lines of source name the user's folders."""
    graph = model.graph
    graph.metadata_props.clear()
    for node in (*graph.all_nodes(), *(node for f in model.functions.values() for node in f.all_nodes())):
        scopes = node.metadata_props.get(_SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[_SCOPES] = scopes


def named_tensors(inputs: Any) -> tuple[list[str], list[Tensor]]:
    """Return what the inputs are called in the file, and the inputs.

    Raises:
        ModelError: they aren't tensors.
    """
    held = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs] if isinstance(inputs, Tensor) else inputs
    if not isinstance(held, (list, tuple)) or not all(isinstance(value, Tensor) for value in held):
        raise ModelError(
            f"the model can't be exported to ONNX: expected tensors as its inputs, got {described(inputs)}"
        )
    if isinstance(inputs, Mapping):
        return list(inputs), list(inputs.values())
    if isinstance(inputs, Tensor):
        return ["input"], [inputs]
    return [f"input_{number}" for number in range(len(inputs))] if len(inputs) > 1 else ["input"], list(inputs)


def dynamic_sizes(spans: Sequence[Sequence[Span]]) -> list[dict[int, Any]]:
    """Return the free dimensions of each input as torch wants them: those of one name are one object."""
    free = {
        span.name: torch.export.Dim(span.name, min=max(span.least, 1), max=span.most)
        for own in spans
        for span in own
        if span.name
    }
    return [{dim: free[span.name] for dim, span in enumerate(own) if span.name} for own in spans]


class _Plain(nn.Module):
    """A model from a list of tensors to a list: the exporter reads a forward's signature, and a traced model takes anything."""

    def __init__(self, model: nn.Module, keywords: tuple[str, ...], spans: Sequence[Sequence[Span]]) -> None:
        super().__init__()
        self.model, self.keywords = model, keywords
        bounds = {s.name: (n, dim, s) for n, own in enumerate(spans) for dim, s in enumerate(own) if s.name and dim}
        self.bounds = [place for place in bounds.values() if place[2].least > 1 or place[2].most is not None]

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return what the model answers."""
        made = self.model(**dict(zip(self.keywords, inputs, strict=True))) if self.keywords else self.model(*inputs)
        first, *rest = tensors_of(made)
        for number, dim, span in self.bounds:
            first = first + _zero_within(inputs[number].shape[dim], span, first)
        return [first, *rest]


def _zero_within(size: int, span: Span, like: Tensor) -> Tensor:
    """Return a zero that is taken from a place that isn't there if the size is none of its span: runtimes refuse that."""
    given = torch.scalar_tensor(size, dtype=torch.int64)
    beyond = (span.least - given).clamp(min=0)
    if span.most is not None:
        beyond = beyond + (given - span.most).clamp(min=0)
    return torch.zeros(1, dtype=like.dtype).index_select(0, beyond.reshape(1))


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter from talking about its own ways, and from the fused attention that it can't read.

    What fails is raised; the rest (packages that aren't there, constants that it can't fold) is no business of the user's.
    """
    loggers = {name: logging.getLogger(name) for name in _TALKATIVE}
    levels, fast = {name: logger.level for name, logger in loggers.items()}, torch.backends.mha.get_fastpath_enabled()
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    _forget_kernels()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)
        _forget_kernels()


def _forget_kernels() -> None:
    """Let torch look up anew how recurrent layers run: its exporter puts others in place, and it remembers what ran before."""
    for operation in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        getattr(operation, "_dispatch_cache", {}).clear()


class OnnxModel:
    """An exported model in ONNX Runtime: called with a tensor, it answers with one.

    Args:
        file: what :func:`export_onnx` returned.
        threads: how many it may use; None means as many as torch does.
    """

    def __init__(self, file: bytes, *, threads: int | None = None) -> None:
        self.session = open_session(file, threads=threads)
        self._names = [value.name for value in self.session.get_inputs()]

    def __call__(self, inputs: Any) -> Tensor:
        """Return the first output."""
        return self.outputs(inputs)[0]

    def outputs(self, inputs: Any) -> list[Tensor]:
        """Return all outputs.

        Args:
            inputs: as the model takes them: a tensor, a tuple or a mapping. An input that it doesn't use isn't in the file.

        Raises:
            ModelError: it fails on them.
        """
        names, given = named_tensors(inputs)
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True) if name in self._names}
        try:
            return [torch.from_numpy(value) for value in self.session.run(None, arrays)]
        except Exception as error:  # its errors have no class in common
            raise_if_out_of_memory(error)
            raise ModelError(f"ONNX Runtime fails on {[tuple(v.shape) for v in given]}: {one_line(error)}") from error


def open_session(file: bytes, *, threads: int | None = None) -> Any:
    """Return a session of ONNX Runtime on the CPU that uses no more threads than torch does; the file is looked through first.

    Raises:
        WeightsError: the file reads others, needs foreign code, or is made to take all memory.
        MissingExtraError: onnxruntime isn't installed.
    """
    runtime = require("onnxruntime", extra="onnx")
    check_onnx(file)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
