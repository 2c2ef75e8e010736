"""Do zeros make an exported model faster? Time a ResNet-50, dense and with zeros, in MNN and in ONNX Runtime, in turns.

The models are written by ``prunus export``'s own function, after magnitude pruning by prunus's tiles: single weights, or 4x1
blocks. Every round runs each candidate once, in an order that turns; printed are medians with quartiles, of the times and of the
paired ratios to the dense model in the same runtime and in the faster one of the two (above 1: faster than dense). Random weights:
the time doesn't depend on them. Every file was checked to answer as the model does; MNN runs in this process, on one thread.

Usage: python benchmarks/sparse_export.py [ROUNDS]   (needs timm, and pip install 'prunus[onnx,mnn]')
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from zoo_models import import_torchvision

from prunus.core.units import as_mask
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.pipeline.cut.weight_tiles import tiles_of
from prunus.select.choose import top
from prunus.ship.deploy import relative_difference
from prunus.ship.mnn.mnn_file import run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import best_block, relative_time, weight_layers

SHAPE = (1, 3, 224, 224)
ZEROS = (("weight", 0.75), ("weight", 0.8), ("weight", 0.9), ("4x1", 0.5), ("4x1", 0.75), ("4x1", 0.9))
Key = tuple[str, str]


def resnet() -> nn.Module:
    """Return a ResNet-50 with random weights."""
    import_torchvision()
    import timm

    torch.manual_seed(0)
    # The default starts each block's last batch norm at zero, which would fold to whole layers of zeros.
    return timm.create_model("resnet50", zero_init_last=False).eval()


@torch.no_grad()
def with_zeros(model: nn.Module, granularity: str, share: float) -> nn.Module:
    """Return a copy in which the tiles of the smallest magnitude are zero, the same share in every layer."""
    mask = as_mask(granularity)
    assert mask is not None
    pruned = copy.deepcopy(model)
    parameters = dict(pruned.named_parameters())
    for name, tiles in tiles_of(pruned, (), mask).items():
        flat = parameters[name].view(-1)
        where = torch.from_numpy(tiles)
        saliency = flat[where].square().sum(dim=1).numpy()
        kept = torch.from_numpy(top(saliency, np.arange(len(saliency)), round((1 - share) * len(saliency))))
        flat[where[~kept].flatten()] = 0
    return pruned


def in_onnx_runtime(file: bytes, x: torch.Tensor) -> Callable[[], object]:
    """Return one run in ONNX Runtime on one thread."""
    session = OnnxModel(file, threads=1)
    return lambda: session(x)


def in_mnn(path: Path, x: torch.Tensor) -> Callable[[], object]:
    """Return one run in MNN on one thread, the copies of input and output with it."""
    import MNN

    interpreter = MNN.Interpreter(str(path))
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})
    given = interpreter.getSessionInput(session)
    interpreter.resizeTensor(given, SHAPE)
    interpreter.resizeSession(session)
    array = x.numpy()

    def run() -> object:
        given.copyFrom(MNN.Tensor(SHAPE, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe))
        interpreter.runSession(session)
        answer = interpreter.getSessionOutput(session)
        got = np.zeros(answer.getShape(), np.float32)
        answer.copyToHostTensor(MNN.Tensor(got.shape, MNN.Halide_Type_Float, got, MNN.Tensor_DimensionType_Caffe))
        return got

    return run


def times(candidates: dict[Key, Callable[[], object]], rounds: int) -> dict[Key, np.ndarray]:
    """Return the milliseconds of every round, all candidates in turns."""
    names = list(candidates)
    found: dict[Key, list[float]] = {name: [] for name in names}
    for number in range(rounds + 3):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            candidates[name]()
            if number >= 3:  # the first rounds warm up
                found[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in found.items()}


def quartiles(values: np.ndarray, digits: int = 2) -> str:
    """Return a median with its quartiles."""
    low, middle, high = (f"{value:.{digits}f}" for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Print one Markdown row per candidate."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dense, x = resnet(), torch.randn(SHAPE)
    models = {"dense": dense}
    models |= {f"{share:.0%} {kind}": with_zeros(dense, kind, share) for kind, share in ZEROS}
    candidates: dict[Key, Callable[[], object]] = {}
    facts: dict[Key, tuple[Any, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            file, path = export_onnx(model, x.repeat(2, 1, 1, 1)), Path(folder) / f"{name}.mnn".replace(" ", "-")
            layers = weight_layers(file)
            block = best_block(layers)
            # A file that export leaves dense is marked here all the same: the row shows what that would have cost.
            marked = None if name == "dense" else block or (4 if "x" in name else 1)
            write_mnn(file, path, block=marked)
            with torch.no_grad():
                apart = relative_difference([model(x)], run_mnn(path, [x]))
            assert apart < 1e-3, (name, apart)
            candidates["ONNX Runtime", name], candidates["MNN", name] = in_onnx_runtime(file, x), in_mnn(path, x)
            facts["ONNX Runtime", name] = (len(file), "", "")
            chosen = "dense" if block is None else f"{block}x1"
            predicted = "" if marked is None else f"{1 / relative_time(layers, marked):.2f}"
            facts["MNN", name] = (path.stat().st_size, chosen, predicted)
        measured = times(candidates, rounds)
    fastest = min((key for key in measured if key[1] == "dense"), key=lambda key: np.median(measured[key]))
    print(f"ResNet-50, 224 x 224, batch of 1, one thread, {rounds} rounds; torch {torch.__version__}\n")
    print("| runtime | zeros | kernels chosen | MB | ms | against its dense | against the fastest dense | predicted |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (runtime, name), values in sorted(measured.items(), key=lambda item: item[0][0], reverse=True):
        n_bytes, chosen, predicted = facts[runtime, name]
        ratios = [quartiles(measured[key] / values) for key in ((runtime, "dense"), fastest)]
        cells = [runtime, name, chosen, f"{n_bytes / 1e6:.0f}", quartiles(values, 0), *ratios, predicted]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
