"""A runtime is timed only where it answers as torch does, and says what it lacks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.evaluate.timing import bench_runtimes as module
from prunus.evaluate.timing.bench_runtimes import RUNTIMES, InTorch, OnnxRuntime, OpenVino, Subject, check_answers
from prunus.ship.mnn.mnn_timing import Mnn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


@pytest.mark.parametrize("runtime", [InTorch(), OnnxRuntime(), OpenVino(), Mnn()], ids=lambda runtime: runtime.name)
def test_every_runtime_answers_as_torch_does_and_takes_some_time(runtime):
    assert runtime.missing() == ""
    subject = Subject(network(), torch.randn(2, 3, 8, 8))
    contestant = runtime.start(subject, torch.randn(5, 3, 8, 8), 1)
    try:
        assert contestant.seconds(20) > 0
    finally:
        contestant.close()


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVino()], ids=lambda runtime: runtime.name)
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


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVino(), Mnn()], ids=lambda runtime: runtime.name)
def test_a_file_that_answers_otherwise_is_not_timed(runtime):
    other = network()
    with torch.no_grad():
        other[3].bias += 5
    file = Subject(other, torch.randn(2, 3, 8, 8)).onnx
    with pytest.raises(ModelError, match="answers otherwise than torch: an output is apart by"):
        runtime.start(Subject(network(), torch.randn(2, 3, 8, 8), file), torch.randn(3, 3, 8, 8), 1)


def test_answers_of_other_shapes_or_numbers_are_told_apart():
    one = torch.tensor([[1.0, -4.0]])
    check_answers("x", [one], [one + 0.03])
    for got in ([one + 0.05], [one * torch.nan], [one[:, :1]], [one, one]):
        with pytest.raises(ModelError, match="x answers"):
            check_answers("x", [one], got)


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("openvino", "onnxruntime", "MNN") else name)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    said = {runtime.name: runtime.missing() for runtime in (*RUNTIMES, Mnn())}
    assert said == {
        "torch": "",
        "torch_compiled": "there is no C++ compiler: install g++",
        "onnxruntime": "not installed: pip install 'prunus[onnx]'",
        "openvino": "not installed: pip install 'prunus[openvino]'",
        "mnn": "not installed: pip install 'prunus[mnn]'",
    }
