"""How does an ONNX file become one whose layers compute in 8-bit whole numbers?

By ONNX Runtime's own quantiser. *Static*: the ranges of all activations are read off calibration examples once, and pairs of
quantise/dequantise nodes tell the runtime (QDQ), weights with a scale for each output. *Dynamic*: only the products with stored
weights, and the tables of embeddings; the ranges of activations are found as the model runs. What is wanted in float stays so,
by the names of its nodes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from torch import Tensor, nn

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.files.plain_files import atomic_path
from prunus.evaluate.timing.bench_runtimes import INT8_APART, OnnxFile, Subject
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.ship.bundle import Bundle
from prunus.ship.deploy import export_file
from prunus.ship.quantize.int8_runtime import Feed, Int8, Int8Runtime, Method

__all__ = ["DynamicInt8", "OnnxInt8", "StaticInt8", "method_for", "prepared"]

_LAYERS = {"static": ("Conv", "ConvTranspose", "Gemm", "MatMul"), "dynamic": ("MatMul", "Gemm", "Gather")}
"""Operations with stored weights that may stay in float one by one."""


class OnnxInt8(Int8Runtime[bytes]):
    """ONNX Runtime and its own quantiser."""

    name, called, packages = "onnx", "ONNX Runtime", ("onnx", "onnxscript", "onnxruntime")

    def float_file(self, bundle: Bundle) -> bytes:
        """Return the bundle's ONNX file."""
        with TemporaryDirectory(prefix="prunus-int8-") as folder:
            path = Path(folder) / "float.onnx"
            export_file(bundle, self.name, path)
            return path.read_bytes()

    def prepared(self, file: bytes) -> bytes:
        """Return it with batch norms folded and every node with a name."""
        return prepared(file)

    def int8(self, ready: bytes, asked: Literal["auto", "static", "dynamic"], feeds: Sequence[Feed]) -> Int8[bytes]:
        """Return static int8 where the model convolves, dynamic where its work is products."""
        if (method_for(ready) if asked == "auto" else asked) == "dynamic":
            return DynamicInt8(ready)
        wanted = {value.name for value in require("onnx", extra="int8").load_from_string(ready).graph.input}
        return StaticInt8(ready, [{name: array for name, array in feed.items() if name in wanted} for feed in feeds])

    def session(self, file: bytes) -> Callable[[Any], list[Tensor]]:
        """Open it in ONNX Runtime."""
        return OnnxModel(file).outputs

    def timed(self, file: bytes, example: Any, model: nn.Module | None) -> Subject:
        """Time it in every runtime that reads ONNX files."""
        if model is not None:
            return Subject(model, example, file)
        return Subject(OnnxFile(file), example, file, file_only=True, most_apart=INT8_APART)

    def write(self, file: bytes, path: Path) -> None:
        """Write it."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(file)


class _OfOnnx(Int8[bytes]):
    """One way from a float file to int8 files of it.

    Args:
        file: an ONNX file, as :func:`prepared` returns it.
    """

    def __init__(self, file: bytes) -> None:
        self.file = file
        self.layers = _layers(file, _LAYERS[self.method])
        if not self.layers:
            raise ModelError(
                f"int8 ({self.method}) needs layers with stored weights ({', '.join(_LAYERS[self.method])}): the model has none"
            )

    def of_all_but(self, in_float: Collection[str]) -> bytes:
        """Return the file with every layer in int8 but those named."""
        return self._made(None, list(in_float))

    def of_only(self, layer: str) -> bytes:
        """Return the file with one layer in int8."""
        return self._made([layer], [])

    def _made(self, only: list[str] | None, without: list[str]) -> bytes:
        try:
            with _quiet():
                return self._quantized(only, without)
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"ONNX Runtime can't quantise the model: {one_line(error)[:200]}") from error

    @abstractmethod
    def _quantized(self, only: list[str] | None, without: list[str]) -> bytes: ...


class StaticInt8(_OfOnnx):
    """Ranges from calibration examples."""

    method = "static"

    def __init__(self, file: bytes, feeds: Sequence[Feed]) -> None:
        super().__init__(file)
        try:
            with _quiet():
                self._ranges = _ranges(file, feeds)
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"ONNX Runtime can't calibrate the model: {one_line(error)[:200]}") from error

    def _quantized(self, only: list[str] | None, without: list[str]) -> bytes:
        quantization = require("onnxruntime.quantization", extra="int8")
        registry = require("onnxruntime.quantization.registry", extra="int8")
        qdq = require("onnxruntime.quantization.qdq_quantizer", extra="int8")
        model = require("onnx", extra="int8").load_from_string(self.file)
        kind = quantization.QuantType
        quantizer = qdq.QDQQuantizer(
            model,
            True,  # a scale for each output of a weight
            False,  # all of the 8 bits
            kind.QInt8,
            kind.QUInt8,
            self._ranges,
            only or [],
            without,
            sorted({*registry.QDQRegistry, *registry.QLinearOpsRegistry}),
            {},
        )
        quantizer.quantize_model()
        made: bytes = quantizer.model.model.SerializeToString()
        return made


class DynamicInt8(_OfOnnx):
    """Ranges as the model runs."""

    method = "dynamic"

    def _quantized(self, only: list[str] | None, without: list[str]) -> bytes:
        quantization = require("onnxruntime.quantization", extra="int8")
        model = require("onnx", extra="int8").load_from_string(self.file)
        with TemporaryDirectory(prefix="prunus-int8-") as folder:
            path = Path(folder) / "int8.onnx"
            quantization.quantize_dynamic(
                model,
                str(path),
                op_types_to_quantize=list(_LAYERS["dynamic"]),
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_quantize=only,
                nodes_to_exclude=without,
                extra_options={"MatMulConstBOnly": True},
            )
            return path.read_bytes()


def prepared(file: bytes) -> bytes:
    """Return an ONNX file ready for the quantiser: batch norms folded, constants computed, shapes known, every node with a name.

    Raises:
        ModelError: ONNX Runtime can't read it.
    """
    onnx = require("onnx", extra="int8")
    shapes = require("onnxruntime.quantization.shape_inference", extra="int8")
    with TemporaryDirectory(prefix="prunus-int8-") as folder:
        path, ready = Path(folder) / "float.onnx", Path(folder) / "ready.onnx"
        path.write_bytes(file)
        try:
            with _quiet():
                shapes.quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            model = onnx.load(str(ready))
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"ONNX Runtime can't prepare the model for int8: {one_line(error)[:200]}") from error
    del model.graph.value_info[:]  # shapes that the quantiser finds anew, of names that it changes
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]  # where torch's exporter notes the lines of Python
    taken = {node.name for node in model.graph.node}
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(
                name for k in range(len(taken) + 1) if (name := f"{node.op_type}_{number + k}") not in taken
            )
            taken.add(node.name)
    made: bytes = model.SerializeToString()
    return made


def method_for(file: bytes) -> Method:
    """Return what suits a model: static where it convolves, dynamic where its work is products (of transformers)."""
    graph = require("onnx", extra="int8").load_from_string(file).graph
    return "static" if any(node.op_type in ("Conv", "ConvTranspose") for node in graph.node) else "dynamic"


def _layers(file: bytes, operations: Collection[str]) -> tuple[str, ...]:
    """Return the names of the nodes with stored weights, in the order of the file."""
    graph = require("onnx", extra="int8").load_from_string(file).graph
    stored = {tensor.name for tensor in graph.initializer}
    return tuple(
        node.name
        for node in graph.node
        if node.op_type in operations and node.input[0 if node.op_type == "Gather" else 1] in stored
    )


def _ranges(file: bytes, feeds: Sequence[Feed]) -> Any:
    """Return the least and the largest value of every activation on the calibration examples."""
    quantization = require("onnxruntime.quantization", extra="int8")
    registry = require("onnxruntime.quantization.registry", extra="int8")
    with TemporaryDirectory(prefix="prunus-int8-") as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(file)
        calibrator = quantization.create_calibrator(
            path,
            sorted({*registry.QDQRegistry, *registry.QLinearOpsRegistry}),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        given = iter(feeds)

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def get_next(self) -> Feed | None:
                return next(given, None)

        calibrator.collect_data(Reader())
        return calibrator.compute_data()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice to itself: what fails is raised."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
