"""An exported model answers as torch does (law 11), and the runtime is the one in which the dense model is fastest."""

from __future__ import annotations

import time
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.cli.bundles import bench_command
from prunus.core.errors import MissingExtraError, ModelError
from prunus.core.recipes import recipe
from prunus.evaluate import fastest_runtime, in_runtime, measure_latency
from prunus.evaluate.timing.bench_runtimes import BenchRuntime, InTorch
from prunus.evaluate.timing.contest import InProcess
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.graph import analyze
from prunus.ship.timed.all_runtimes import ALL_RUNTIMES
from tests_support import onnxruntime_installed

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


class Planted(BenchRuntime):
    """A runtime in which one call takes so long; it says when it is put away."""

    def __init__(self, name, seconds=0.0, *, fails="", missing="", quick=True):
        self.name, self.called, self.is_quick = name, name.upper(), quick
        self._seconds, self._fails, self._missing, self.open = seconds, fails, missing, 0

    def missing(self):
        return self._missing

    def start(self, subject, inputs, threads, clock=None):
        if self._fails:
            raise ModelError(self._fails)
        assert not subject.model.training
        self.open += 1
        return self

    def seconds(self, n_calls):
        return n_calls * self._seconds

    def close(self):
        self.open -= 1


def slow_torch(monkeypatch, seconds):
    """A model that takes so long in torch by the clocks that count."""
    now = [0.0]

    class Slow(nn.Linear):
        def forward(self, x):
            now[0] += seconds
            return super().forward(x)

    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"prunus.evaluate.timing.latency.time.{clock}", lambda: now[0])
    return Slow(2, 2)


@pytest.mark.parametrize(
    ("asked", "torch_s", "best"),
    [("best", 0.002, "quick"), ("best", 0.0005, "torch"), ("best_of_all", 0.002, "slow to start")],
)
def test_best_is_where_the_dense_model_is_fastest_and_the_others_are_put_away(monkeypatch, asked, torch_s, best):
    notes: list[str] = []
    quick, other = Planted("quick", 0.001), Planted("other", 0.003)
    slow = Planted("slow to start", 0.0001, quick=False)
    gone, fails = Planted("gone", missing="not installed"), Planted("fails", fails="it has no such operation")
    dense, config = slow_torch(monkeypatch, torch_s).train(), CONFIG.model_copy(update={"runtime": asked})
    known = (InTorch(), quick, other, slow, gone, fails)
    name, ready = fastest_runtime(dense, torch.randn(4, 2), config, note=notes.append, known=known)
    assert name == best
    assert ready is {"torch": dense, "quick": quick, "slow to start": slow}[best]
    assert {runtime.name for runtime in (quick, other, slow) if runtime.open} == {best} - {"torch"}
    assert notes == [
        "latency isn't measured in FAILS: it has no such operation; set evaluation.latency.runtime to torch"
    ]
    assert dense.training


def test_the_processor_s_clock_counts_all_threads_in_torch_as_in_every_other_runtime(monkeypatch):
    """A call that occupies two threads for 3 ms takes 6 ms of the processor, of which each thread saw 3."""
    of_all, of_one = [0.0], [0.0]

    def work(_=None):
        of_all[0] += 0.006
        of_one[0] += 0.003

    for clock, now in (("process_time", of_all), ("thread_time", of_one)):
        monkeypatch.setattr(time, clock, lambda now=now: now[0])
    models = {"torch": work, "other": InProcess(work, "processor")}
    config = CONFIG.model_copy(update={"clock": "processor"})
    found = measure_latency(models, torch.ones(1, 2), config).milliseconds
    assert found["torch"].value == pytest.approx(6)
    assert found["other"].value == pytest.approx(6)


def test_where_nothing_else_is_installed_it_is_torch_and_nothing_is_said():
    notes: list[str] = []
    known = (InTorch(), Planted("gone", missing="not installed: pip install 'prunus[gone]'"))
    dense = nn.Linear(2, 2)
    assert fastest_runtime(dense, torch.randn(4, 2), CONFIG, note=notes.append, known=known) == ("torch", dense)
    assert not notes
    with pytest.raises(MissingExtraError, match=r"evaluation.latency.runtime: GONE is not installed: pip install"):
        in_runtime("gone", dense, torch.randn(4, 2), known=known)


def test_a_model_in_a_runtime_is_timed_by_its_own_clock_beside_modules():
    fast, slow = Planted("fast", 0.001), Planted("slow", 0.004)
    found = measure_latency({"dense": slow, "pruned": fast}, torch.randn(4, 2), CONFIG)
    assert found.speedup.value == pytest.approx(4)
    assert found.milliseconds["dense"].value == pytest.approx(4)


@needs_onnx
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_of_any_size_and_a_model_in_training_are_timed_in_a_runtime(batch):
    model = Small().train()
    ready = in_runtime("onnxruntime", model, torch.randn(batch, 1, 4, 4))
    assert ready.seconds(3) > 0
    assert all(module.training for module in model.modules())


def test_the_recipe_the_command_and_the_list_name_the_same_runtimes():
    names = [runtime.name for runtime in ALL_RUNTIMES]
    assert list(get_args(recipe.Latency.model_fields["runtime"].annotation)) == ["best", "best_of_all", *names]
    (option,) = get_args(get_type_hints(bench_command.bench, include_extras=True)["runtime"])[1:]
    assert option.help.partition(";")[0].split(", ") == names
