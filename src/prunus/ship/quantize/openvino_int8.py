"""How does a file of OpenVINO become one whose layers compute in 8-bit whole numbers?

By NNCF: the ranges of activations are read off calibration examples, weights have a scale for each output, biases are corrected
for what rounding does on average, and where the model attends, activations are smoothed at the weights' expense. What is wanted in
float it is told to ignore, by the names of operations.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.code.signal_stack import kept_signal_stack
from prunus.core.errors import ModelError, RecipeError, raise_if_out_of_memory
from prunus.core.files.plain_files import atomic_folder
from prunus.evaluate.timing.bench_runtimes import INT8_APART, Subject
from prunus.ship.bundle import Bundle
from prunus.ship.deploy import check_place, export_file
from prunus.ship.formats import format_of
from prunus.ship.formats.to_openvino import name_by_place
from prunus.ship.openvino_file import XML, OpenVinoFile, OpenVinoModel, OpenVinoModule
from prunus.ship.quantize.int8_runtime import Feed, Int8, Int8Runtime

__all__ = ["NncfInt8", "OpenVinoInt8"]

_ROUNDS = "FakeQuantize"
_PASSES = (
    *("AdaptiveMaxPool", "BatchToSpace", "Broadcast", "Concat", "Convert", "ConvertLike"),
    *("DepthToSpace", "Gather", "GatherElements", "GatherND", "MaxPool", "Maximum"),
    *("Minimum", "Pad", "ReduceMax", "Reshape", "ScatterElementsUpdate", "ScatterNDUpdate"),
    *("ScatterUpdate", "ShuffleChannels", "Slice", "SpaceToBatch", "SpaceToDepth", "Split"),
    *("Squeeze", "StridedSlice", "Tile", "Transpose", "Unsqueeze", "VariadicSplit"),
)
"""What computes with whole numbers as with any: it lies between a rounding and the operation that gains by it."""
_APART = "/WithoutBiases"
"""What OpenVINO's reader of ONNX adds to the name of an operation whose bias it splits off."""


class OpenVinoInt8(Int8Runtime[OpenVinoFile]):
    """OpenVINO, and NNCF."""

    name, called, packages = "openvino", "OpenVINO", ("nncf", "openvino", "onnx", "onnxscript")

    def float_file(self, bundle: Bundle) -> OpenVinoFile:
        """Return what ``prunus export --to openvino`` writes."""
        with TemporaryDirectory(prefix="prunus-int8-") as folder:
            path = Path(folder) / "float"
            export_file(bundle, self.name, path)
            return OpenVinoFile.at(path)

    def prepared(self, file: OpenVinoFile) -> OpenVinoFile:
        """Return it as it is: NNCF takes any."""
        return file

    def int8(
        self, ready: OpenVinoFile, asked: Literal["auto", "static", "dynamic"], feeds: Sequence[Feed]
    ) -> Int8[OpenVinoFile]:
        """Return static int8."""
        if asked == "dynamic":
            raise RecipeError(
                "quantize.method: OpenVINO's files have ranges from calibration examples (static): got 'dynamic', which is "
                "ONNX Runtime's; leave method out, or export to onnx"
            )
        return NncfInt8(ready, feeds)

    def session(self, file: OpenVinoFile) -> Callable[[Any], list[Tensor]]:
        """Compile it."""
        return OpenVinoModel(file).outputs

    def timed(self, file: OpenVinoFile, example: Any, model: nn.Module | None) -> Subject:
        """Time it in OpenVINO; in float, its model in the others, too."""
        if model is not None:
            return Subject(model, example)
        parts = (file.xml, file.weights)
        return Subject(OpenVinoModule(file), example, file_only=True, most_apart=INT8_APART, openvino=parts)

    def write(self, file: OpenVinoFile, path: Path) -> None:
        """Write the folder."""
        check_place(format_of(self.name), path)
        with atomic_folder(path) as temporary:
            file.write_into(temporary)


class NncfInt8(Int8[OpenVinoFile]):
    """Ranges from calibration examples.

    Args:
        file: in float.
        feeds: batches of raw inputs by name.
    """

    method = "static"

    def __init__(self, file: OpenVinoFile, feeds: Sequence[Feed]) -> None:
        self.file = file
        openvino = require("openvino", extra="int8")
        self._core = openvino.Core()
        model = file.read(self._core)
        taken = {one.any_name for one in model.inputs}
        # One by one: NNCF takes the mean over batches of what it finds in each.
        self._feeds = [
            {name: array[row : row + 1] for name, array in feed.items() if name in taken}
            for feed in feeds
            for row in range(len(next(iter(feed.values()))))
        ]
        nodes = model.get_ordered_ops()
        self._attends = any(map(_attends, nodes))
        self._never = [node.get_friendly_name() for node in nodes if _table_size(node) == 1]  # our own check of sizes
        self._whole = self._quantized((), stored=False)
        found = [node.get_friendly_name() for node in self._whole.get_ordered_ops() if _is_rounded(node)]
        self._names = {name.removesuffix(_APART): name for name in found}
        self.layers = tuple(self._names)
        if not self.layers:
            raise ModelError("int8 (static) needs operations that NNCF knows in 8 bits: the model has none")

    def of_all_but(self, in_float: Collection[str]) -> OpenVinoFile:
        """Return the file as NNCF makes it, with those layers left out."""
        return _serialised(self._quantized([self._names[name] for name in in_float], stored=True))

    def of_only(self, layer: str) -> OpenVinoFile:
        """Return the file with what one layer reads rounded, and nothing else; it is only measured."""
        model = self._whole.clone()
        for node in model.get_ordered_ops():
            if node.get_type_name() != _ROUNDS:
                continue
            exact = node.input_value(0)
            for reader in list(node.output(0).get_target_inputs()):
                if not _leads_to(reader.get_node(), self._names[layer]):
                    reader.replace_source_output(exact)
        model.validate_nodes_and_infer_types()
        return _serialised(model)

    def _quantized(self, without: Collection[str], *, stored: bool) -> Any:
        """Return NNCF's model, its weights as whole numbers, or still in float with their rounding beside them."""
        nncf = require("nncf", extra="int8")
        try:
            with _quiet(), kept_signal_stack():
                return nncf.quantize(
                    self.file.read(self._core),
                    nncf.Dataset(self._feeds),
                    subset_size=len(self._feeds),
                    model_type=nncf.ModelType.TRANSFORMER if self._attends else None,
                    ignored_scope=nncf.IgnoredScope(names=sorted({*without, *self._never})),
                    advanced_parameters=nncf.AdvancedQuantizationParameters(
                        backend_params={} if stored else {"compress_weights": False}
                    ),
                )
        except Exception as error:
            raise_if_out_of_memory(error)
            raise ModelError(f"NNCF can't quantise the model: {one_line(error)[:200]}") from error


def _serialised(model: Any) -> OpenVinoFile:
    openvino = require("openvino", extra="int8")
    with TemporaryDirectory(prefix="prunus-int8-") as folder:
        name_by_place(model)
        openvino.save_model(model, Path(folder) / XML, compress_to_fp16=False)
        return OpenVinoFile.at(Path(folder))


def _attends(node: Any) -> bool:
    """Tell whether an operation is attention, or weighs by a softmax in a product."""
    if node.get_type_name() == "ScaledDotProductAttention":
        return True
    return node.get_type_name() == "Softmax" and any(
        reader.get_node().get_type_name() == "MatMul" for reader in node.output(0).get_target_inputs()
    )


def _is_rounded(node: Any) -> bool:
    """Tell whether an operation computes with rounded inputs: it reads a rounding, at once or through what passes it on."""
    if _passes(node):
        return False
    waiting, seen = [source.get_node() for source in node.input_values()], set[str]()
    while waiting:
        one = waiting.pop()
        own = one.get_friendly_name()
        if one.get_type_name() == _ROUNDS:
            return True
        if own not in seen and _passes(one):
            seen.add(own)
            waiting += [source.get_node() for source in one.input_values()]
    return False


def _passes(node: Any) -> bool:
    """Tell whether an operation only hands on, rounds or holds what others compute with; a table of embeddings is more."""
    kind = node.get_type_name()
    return (kind in _PASSES and _table_size(node) < 2) or kind in (_ROUNDS, "Constant", "Parameter", "Result")


def _table_size(node: Any) -> int:
    """Return how many numbers the stored table has that an operation looks up in; none if it does nothing like it."""
    if node.get_type_name() != "Gather":
        return 0
    held = node.input_value(0).get_node()
    while held.get_type_name() in (_ROUNDS, "Convert"):
        held = held.input_value(0).get_node()
    kept = held.get_type_name() == "Constant" and held.get_element_type().is_real()
    return int(np.prod(list(held.get_output_shape(0)))) if kept else 0


def _leads_to(node: Any, name: str) -> bool:
    """Tell whether an operation is the layer, or hands on to it."""
    waiting, seen = [node], set[str]()
    while waiting:
        one = waiting.pop()
        own = one.get_friendly_name()
        if own == name:
            return True
        if own not in seen and _passes(one) and one.get_type_name() != _ROUNDS:
            seen.add(own)
            waiting += [reader.get_node() for output in one.outputs() for reader in output.get_target_inputs()]
    return False


class _Silent:
    """Stands where NNCF has what reports to its maker, if somebody imported it that way before."""

    def start_session(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    send_event = end_session = start_session


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's progress and advice to itself, and let it report nothing to anyone: what fails is raised."""
    reporting = require("nncf.telemetry.decorator", extra="int8")
    before, reporting.telemetry = reporting.telemetry, _Silent()
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        reporting.telemetry = before
