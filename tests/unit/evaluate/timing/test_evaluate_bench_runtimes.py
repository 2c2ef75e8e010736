"""A runtime is timed only where it answers as torch does, and says what it lacks."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.evaluate.timing import bench_runtimes as module
from prunus.evaluate.timing.bench_runtimes import InTorch, OnnxRuntime, OpenVino, Subject, check_answers
from prunus.evaluate.timing.own_process import InOwnProcess
from prunus.ship.timed.all_runtimes import ALL_RUNTIMES
from prunus.ship.timed.litert_timing import TimedLiteRt
from prunus.ship.timed.mnn_timing import Mnn

needs_litert = pytest.mark.skipif(bool(TimedLiteRt().missing()), reason="the extra litert isn't installed")


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} isn't installed")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


@pytest.mark.parametrize(
    "runtime",
    [
        InTorch(),
        OnnxRuntime(),
        pytest.param(OpenVino(), marks=needs("openvino")),
        pytest.param(Mnn(), marks=needs("MNN")),
        pytest.param(TimedLiteRt(), marks=needs_litert),
    ],
    ids=lambda runtime: runtime.name,
)
def test_every_runtime_answers_as_torch_does_and_takes_some_time(runtime):
    assert runtime.missing() == ""
    subject = Subject(network(), torch.randn(2, 3, 8, 8))
    contestant = runtime.start(subject, torch.randn(5, 3, 8, 8), 1)
    try:
        assert contestant.seconds(20) > 0
    finally:
        contestant.close()


@pytest.mark.parametrize(
    "runtime",
    [OnnxRuntime(), pytest.param(OpenVino(), marks=needs("openvino")), pytest.param(TimedLiteRt(), marks=needs_litert)],
    ids=lambda runtime: runtime.name,
)
def test_several_inputs_by_name_and_whole_numbers_are_handed_over(runtime):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, ids, scale):
            return self.embed(ids).mean(1) * scale

    def batch(n):
        return {"ids": torch.arange(3 * n).reshape(n, 3) % 9, "scale": torch.ones(n, 4)}

    runtime.start(Subject(Two(), batch(2)), batch(6), 1).close()


@pytest.mark.parametrize(
    "runtime",
    [OnnxRuntime(), pytest.param(OpenVino(), marks=needs("openvino")), pytest.param(Mnn(), marks=needs("MNN"))],
    ids=lambda runtime: runtime.name,
)
def test_a_file_that_answers_otherwise_is_not_timed(runtime):
    other = network()
    with torch.no_grad():
        other[3].bias += 5
    file = Subject(other, torch.randn(2, 3, 8, 8)).onnx
    with pytest.raises(ModelError, match="answers otherwise than torch: an output is apart by"):
        runtime.start(Subject(network(), torch.randn(2, 3, 8, 8), file), torch.randn(3, 3, 8, 8), 1)


@needs_litert
def test_a_litert_file_is_made_once_for_sizes_and_timed_by_either_clock_and_number_of_threads(monkeypatch):
    subject, inputs = Subject(network(), torch.randn(2, 3, 8, 8)), torch.randn(5, 3, 8, 8)
    TimedLiteRt().start(subject, inputs, 1).close()
    monkeypatch.setattr("prunus.ship.timed.litert_timing._converted", None)
    contestant = TimedLiteRt().start(subject, inputs, 2, "wall")
    assert contestant.seconds(3) > 0
    contestant.close()


@needs_litert
def test_litert_is_not_timed_where_torch_cannot_follow_the_model():
    class Untraceable(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x[:, :1]

    with pytest.raises(ModelError, match="torch can't follow the model for LiteRT"):
        TimedLiteRt().start(Subject(Untraceable(2, 3), torch.randn(2, 2)), torch.randn(2, 2), 1)


def test_a_process_that_ends_is_told_in_one_line_and_leaves_no_files():
    folder = TemporaryDirectory(prefix="prunus-bench-")
    script = Path(folder.name) / "script.py"
    script.write_text("print('hello')\nprint('seconds', 2.5 * int(input()))")
    contestant = InOwnProcess("It", script, [], folder)
    assert contestant.seconds(2) == 5.0
    with pytest.raises(ModelError, match="It's process ended while it was timed; leave it out with --runtime"):
        contestant.seconds(1)
    contestant.close()
    contestant.close()
    assert not Path(folder.name).exists()


def test_what_nobody_closes_ends_with_its_contestant():
    folder = TemporaryDirectory(prefix="prunus-bench-")
    script = Path(folder.name) / "script.py"
    script.write_text("while True: print('seconds', int(input()))")
    contestant = InOwnProcess("It", script, [], folder)
    assert contestant.seconds(1) == 1.0
    process = contestant._process
    del contestant
    gc.collect()
    assert process.poll() is not None
    assert not Path(folder.name).exists()


def test_answers_of_other_shapes_or_numbers_are_told_apart():
    one = torch.tensor([[1.0, -4.0]])
    check_answers("x", [one], [one + 0.03])
    for got in ([one + 0.05], [one * torch.nan], [one[:, :1]], [one, one]):
        with pytest.raises(ModelError, match="x answers"):
            check_answers("x", [one], got)


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(
        module, "find_spec", lambda name: None if name in ("openvino", "onnxruntime", "MNN", "litert_torch") else name
    )
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    said = {runtime.name: runtime.missing() for runtime in ALL_RUNTIMES}
    assert said == {
        "torch": "",
        "torch_compiled": "there is no C++ compiler: install g++",
        "onnxruntime": "not installed: pip install 'prunus[onnx]'",
        "openvino": "not installed: pip install 'prunus[openvino]'",
        "mnn": "not installed: pip install 'prunus[mnn]'",
        "litert": "not installed: pip install 'prunus[litert]'",
    }
