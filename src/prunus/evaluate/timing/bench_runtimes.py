"""In which runtimes can a model be timed on this machine, and how is it made ready in each?

A *subject* is a model with its inputs; what a runtime needs of it (an ONNX file, say) is made once. A runtime that isn't
installed says with which extra it comes. What it answers is compared with torch before anything is timed: a fast wrong answer is
worth nothing.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.core.calls import answers, call
from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.code.signal_stack import kept_signal_stack
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.evaluate.timing.contest import Clock, Contestant, InProcess, clock_for
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx, named_tensors, open_session

__all__ = ["RUNTIMES", "BenchRuntime", "Compiled", "InTorch", "OnnxRuntime", "OpenVino", "Subject", "check_answers"]


_MOST_COMPILED = 128
INT8_APART = 0.3
"""How far runtimes may be apart on a file of whole numbers, of the largest output: they round at other places."""


class Subject:
    """A model in evaluation mode, and a batch of what it takes.

    Args:
        example: two or more examples, from which files are exported.
        file: the ONNX file, if there is one.
        file_only: it is the file that is timed, and ``model`` only answers what it should.
        openvino: instead of an ONNX file, the two parts of one that only OpenVINO reads.
        most_apart: how far answers may be from that, as a share of the largest output; half precision and fused kernels stay far
            below the default.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        file: bytes | None = None,
        *,
        file_only: bool = False,
        most_apart: float = 0.01,
        openvino: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.model, self.example, self.file_only, self.most_apart = model.eval(), example, file_only, most_apart
        self._file, self.openvino = file, openvino
        self._made: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what a runtime makes of it, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def onnx(self) -> bytes:
        """The model as an ONNX file.

        Raises:
            ModelError: it can't be exported.
        """
        if self._file is None:
            self._file = export_onnx(self.model, self.example)
        return self._file

    def expected(self, inputs: Any) -> list[Tensor]:
        """Return what torch answers."""
        with torch.inference_mode():
            return answers(call(self.model, inputs))

    def check(self, called: str, inputs: Any, got: list[Tensor]) -> None:
        """Refuse to time what answers otherwise.

        Raises:
            ModelError: an output has another shape, or is too far off.
        """
        check_answers(called, self.expected(inputs), got, self.most_apart)


class OnnxFile(nn.Module):
    """What ONNX Runtime answers for a file: other runtimes are to answer likewise."""

    def __init__(self, file: bytes, *, threads: int | None = None) -> None:
        super().__init__()
        self._session = OnnxModel(file, threads=threads)

    def forward(self, *inputs: Any, **named: Any) -> list[Tensor]:
        """Return all outputs."""
        return self._session.outputs(named or inputs)


class BenchRuntime(ABC):
    """One way to run a model; ``extra`` is what installs it, ``packages`` what it imports."""

    name: ClassVar[str]
    called: ClassVar[str]
    extra: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()
    reads_files: ClassVar[bool] = True
    """Whether it times a file, and not only a module."""
    is_quick: ClassVar[bool] = True
    """Whether a model is ready in about a second; a compiler may take half a minute for each."""

    def missing(self) -> str:
        """Return why it can't be had here, and what to do; empty where it can."""
        if all(find_spec(package) is not None for package in self.packages):
            return ""
        return f"not installed: pip install 'prunus[{self.extra}]'"

    def reads(self, subject: Subject) -> bool:
        """Tell whether it can time a subject at all."""
        return subject.openvino is None and (self.reads_files or not subject.file_only)

    @abstractmethod
    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Return the subject on ``inputs``, ready to be called with so many threads, once it has answered as torch does.

        Args:
            clock: default: the processor's with one thread, else that on the wall.

        Raises:
            ModelError: it can't be run there, or answers otherwise.
        """


class InTorch(BenchRuntime):
    """torch, as the model is or compiled."""

    name, called = "torch", "torch eager"
    compiled: ClassVar[bool] = False
    reads_files = False

    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Call the module; the number of threads is the process's."""
        model: Callable[..., Any] = torch.compile(subject.model) if self.compiled else subject.model
        try:
            # Several models of one class are in turns, each with code of its own.
            with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=_MOST_COMPILED):
                first = answers(call(model, inputs))
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"{self.called} fails on it: {one_line(error)[:200]}") from error
        subject.check(self.called, inputs, first)
        return InProcess(lambda: call(model, inputs), clock or clock_for(threads))


class Compiled(InTorch):
    """``torch.compile`` with its default settings."""

    name, called = "torch_compiled", "torch compiled"
    compiled, is_quick = True, False

    def missing(self) -> str:
        """Return that no compiler is there."""
        return "" if any(map(shutil.which, ("g++", "clang++", "cl"))) else "there is no C++ compiler: install g++"


class OnnxRuntime(BenchRuntime):
    """ONNX Runtime on the processor."""

    name, called, extra, packages = "onnxruntime", "ONNX Runtime", "onnx", ("onnx", "onnxscript", "onnxruntime")

    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Open a session of the exported file."""
        session = open_session(subject.onnx, threads=threads)
        wanted = {value.name for value in session.get_inputs()}
        names, given = named_tensors(inputs)
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True) if name in wanted}
        try:
            first = [torch.from_numpy(value) for value in session.run(None, arrays)]
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"{self.called} fails on it: {one_line(error)[:200]}") from error
        subject.check(self.called, inputs, first)
        return InProcess(lambda: session.run(None, arrays), clock or clock_for(threads))


class OpenVino(BenchRuntime):
    """OpenVINO on the processor, in single precision, one stream."""

    name, called, extra, packages = "openvino", "OpenVINO", "openvino", ("openvino", "onnx", "onnxscript")

    def reads(self, subject: Subject) -> bool:
        """Tell that it reads ONNX files and its own."""
        return True

    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Compile the exported file for the sizes of these inputs."""
        openvino = require("openvino", extra=self.extra)
        file = subject.onnx if subject.openvino is None else None
        names, given = named_tensors(inputs)
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core = openvino.Core()
            graph = core.read_model(file) if file is not None else core.read_model(*(subject.openvino or ()))
            held = {name for value in graph.inputs for name in value.get_names()}
            arrays = {name: value for name, value in arrays.items() if name in held}
            graph.reshape({name: list(value.shape) for name, value in arrays.items()})
            with kept_signal_stack():
                request = core.compile_model(graph, "CPU", settings).create_infer_request()
            made = request.infer(arrays)
            first = [torch.from_numpy(made[number].copy()) for number in range(len(graph.outputs))]
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"{self.called} fails on it: {one_line(error)[:200]}") from error
        subject.check(self.called, inputs, first)
        return InProcess(lambda: request.infer(arrays), clock or clock_for(threads))


RUNTIMES: tuple[BenchRuntime, ...] = (InTorch(), Compiled(), OnnxRuntime(), OpenVino())
"""Those that need nothing of what ships; ``prunus.ship.timed.all_runtimes`` has the others beside them."""


def check_answers(called: str, expected: list[Tensor], got: list[Tensor], most_apart: float = 0.01) -> None:
    """Raise unless a runtime answers as torch does.

    Raises:
        ModelError: an output has another shape, or is apart by more than that share of the largest one.
    """
    pairs = list(zip(expected, got, strict=False))
    if len(expected) != len(got) or any(one.shape != other.shape for one, other in pairs):
        shapes = [[tuple(value.shape) for value in some] for some in (expected, got)]
        raise ModelError(f"{called} answers with other tensors than torch: expected {shapes[0]}, got {shapes[1]}")
    for one, other in pairs:
        wanted, had = one.double(), other.double()
        apart = float((wanted - had).abs().max()) if one.numel() else 0.0
        if not apart <= most_apart * max(float(wanted.abs().max()) if one.numel() else 0.0, 1e-6):
            raise ModelError(f"{called} answers otherwise than torch: an output is apart by {apart:.2g}")
