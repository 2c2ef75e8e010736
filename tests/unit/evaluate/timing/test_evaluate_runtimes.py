"""An exported model answers as torch does (law 11), and the runtime is the one in which the dense model is fastest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.core.errors import MissingExtraError, ModelError
from prunus.core.recipes import recipe
from prunus.evaluate import fastest_runtime, in_runtime
from prunus.evaluate.timing import runtimes as module
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.evaluate.timing.runtimes import onnxruntime_installed
from prunus.graph import analyze

needs_onnx = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")
CONFIG = recipe.Latency(batch_size=4, repeats=5, warm_up=1)


class Small(nn.Module):
    """A convolution, attention over its positions, and a head; dropout shows which mode it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.norm(self.conv(x)).relu()).flatten(2).transpose(1, 2)
        return self.head(self.mix(y).mean(1))


@needs_onnx
def test_exported_output_is_torch_output_for_any_batch_also_of_a_pruned_model():
    torch.manual_seed(0)
    model, example = Small(), torch.randn(4, 1, 4, 4)
    graph = analyze(model.eval(), (example,))
    keep = {g.name: torch.arange(g.size) < max(1, g.size // 2) for g in graph.groups}
    smaller = shrink(model, (example,), graph, keep).model
    model.train()
    exported = OnnxModel(export_onnx(smaller, example))
    smaller.eval()
    for size in (1, 3, 9):
        inputs = torch.randn(size, 1, 4, 4)
        with torch.no_grad():
            assert torch.allclose(exported(inputs), smaller(inputs), atol=1e-5)


@needs_onnx
def test_what_cant_be_exported_says_why_in_one_line_and_is_as_before():
    class Untraceable(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x[:, :1]

    model = Untraceable(2, 3).train()
    with pytest.raises(ModelError, match="can't be exported to ONNX") as error:
        export_onnx(model, torch.randn(2, 2))
    assert "\n" not in str(error.value)
    assert model.training


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"prunus\[onnx\]"):
        export_onnx(nn.Linear(2, 2), torch.randn(2, 2))


def test_a_named_runtime_is_taken_and_torch_is_the_model_itself():
    model = nn.Linear(2, 2)
    name, ready = fastest_runtime(model, torch.randn(4, 2), CONFIG.model_copy(update={"runtime": "torch"}), note=print)
    assert (name, ready) == ("torch", model)
    assert in_runtime("torch", model, torch.randn(4, 2)) is model


@pytest.mark.parametrize(("torch_ms", "other_ms", "best"), [(2, 1, "onnxruntime"), (1, 2, "torch")])
def test_best_is_where_the_dense_model_is_fastest(monkeypatch, torch_ms, other_ms, best):
    now = [0.0]

    def taking(milliseconds):
        def run(inputs):
            now[0] += milliseconds / 1000

        return run

    dense, exported = taking(torch_ms), taking(other_ms)
    monkeypatch.setattr(module, "onnxruntime_installed", lambda: True)
    monkeypatch.setattr(module, "in_runtime", lambda name, model, inputs: exported)
    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(f"prunus.evaluate.timing.latency.time.{clock}", lambda: now[0])
    name, ready = fastest_runtime(dense, torch.randn(4, 2), CONFIG, note=print)
    assert name == best
    assert ready is (dense if best == "torch" else exported)


def test_best_is_torch_where_nothing_else_is_installed_or_the_export_fails(monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(module, "onnxruntime_installed", lambda: False)
    assert fastest_runtime(nn.Linear(2, 2), torch.randn(4, 2), CONFIG, note=notes.append)[0] == "torch"
    assert not notes

    def fail(*_):
        raise ModelError("it can't")

    monkeypatch.setattr(module, "onnxruntime_installed", lambda: True)
    monkeypatch.setattr(module, "in_runtime", fail)
    assert fastest_runtime(nn.Linear(2, 2), torch.randn(4, 2), CONFIG, note=notes.append)[0] == "torch"
    assert notes == ["latency is measured in torch: it can't"]
