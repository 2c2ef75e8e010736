"""What is timed is what was asked, as often as it takes, by a clock that fits; and between measured sizes nothing jumps."""

from __future__ import annotations

import itertools
import math
import os
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from prunus.core.recipes import recipe
from prunus.evaluate import measure_latency
from prunus.evaluate.timing import latency, latency_table, operation_time
from prunus.evaluate.timing import onnx_session as onnx
from prunus.evaluate.timing.latency import finish, pick_clock
from prunus.evaluate.timing.latency_table import LatencyTable, cache_folder, machine_facts
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.graph.costs.timed_operations import Operation
from prunus.graph.solver.axes import fresh
from tests_support import onnxruntime_installed

ONNX = pytest.mark.skipif(not onnxruntime_installed(), reason="no onnx")
CONVOLUTIONS = [
    ((2, 3, 4), ((5, 7), (3, 3), (1, 1), (1, 1), (1, 1), False, None)),
    ((2, 3, 4), ((9, 9), (3, 2), (2, 1), (0, 0), (2, 1), False, None)),
    ((2, 3, 4), ((5, 5), (2, 2), (2, 2), (0, 0), (1, 1), True, None)),
    ((2, 6), ((5,), (3,), (1,), (2,), (2,), False, (1, 2))),
    ((2, 6), ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), True, (3, 2))),
]


@ONNX
@pytest.mark.parametrize(("sizes", "fixed"), CONVOLUTIONS)
def test_a_convolution_is_the_same_in_both_runtimes(sizes, fixed):
    one = operation_time._in_torch("convolution", sizes, fixed, "cpu")()
    (other,) = operation_time._in_onnx("convolution", sizes, fixed)()
    assert torch.allclose(one, torch.from_numpy(other), atol=1e-5)
    assert one.shape[:2] == (2, fixed[6][1] * (6 // fixed[6][1]) if fixed[6] else 4)
    assert one.abs().max() > 0


@pytest.mark.parametrize(
    ("kind", "sizes", "shape"),
    [
        ("linear", (4, 5, 6), (4, 6)),
        ("product", (2, 3, 4, 5), (2, 3, 5)),
        ("attention", (2, 3, 4, 5, 6, 7), (2, 3, 4, 7)),
        ("move", (7,), (7,)),
    ],
)
def test_other_operations_have_the_sizes_that_are_asked_in_both_runtimes(kind, sizes, shape):
    assert operation_time._in_torch(kind, sizes, (), "cpu")().shape == shape
    if onnxruntime_installed():
        (made,) = operation_time._in_onnx(kind, sizes, ())()
        assert made.shape == shape


@pytest.mark.parametrize(("each_s", "n_runs"), [(1.0, 9), (0.0005, 9), (0.0001, 40), (0.000001, 50)])
def test_it_runs_nine_times_or_until_four_milliseconds_or_fifty_times(monkeypatch, each_s, n_runs):
    now, calls = [0.0], []

    def work():
        now[0] += each_s * (3 if len(calls) < 2 else 1)  # the first two are slow and count for nothing
        calls.append(torch.is_inference_mode_enabled())

    monkeypatch.setattr(operation_time, "_in_torch", lambda *_: work)
    monkeypatch.setattr(operation_time, "pick_clock", lambda *_: ("", lambda: now[0]))
    assert operation_time.time_operation("torch", "linear", (1, 1, 1), ()) == pytest.approx(1000 * each_s, rel=1e-6)
    assert len(calls) in (2 + n_runs, 3 + n_runs)  # rounding of a sum
    assert all(calls)


def test_the_lower_quartile_counts(monkeypatch):
    steps = iter([0.0, 0.0] + [float(n) for n in (9, 1, 8, 2, 7, 3, 6, 4, 5)])
    now = [0.0]

    def work():
        now[0] += next(steps)

    monkeypatch.setattr(operation_time, "_in_torch", lambda *_: work)
    monkeypatch.setattr(operation_time, "pick_clock", lambda *_: ("", lambda: now[0]))
    assert operation_time.time_operation("torch", "linear", (1, 1, 1), ()) == pytest.approx(3000)


def test_which_clock_counts(monkeypatch):
    given = torch.ones(1)
    for threads, name in ((1, "processor"), (2, "wall")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert pick_clock("auto", given)[0] == name
    assert pick_clock("auto", torch.ones(1, device="meta"))[0] == "wall"
    assert pick_clock("wall", given) == ("wall", latency.time.perf_counter)
    assert pick_clock("processor", given) == ("processor", latency.time.process_time)


def test_only_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    finish("cpu")
    assert not waited
    finish("cuda")
    assert waited


def test_quartiles_and_the_speedup_s_interval_are_those_of_the_times(monkeypatch):
    now, taken = [0.0], iter([float(n) for n in [50, *range(1, 10)] for _ in "ab"])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    def work(_):
        now[0] += next(taken)

    config = recipe.Latency(batch_size=3, repeats=9, warm_up=1, clock="wall")
    found = measure_latency({"dense": work, "pruned": work}, torch.ones(3, 1), config)
    for name in ("dense", "pruned"):
        item = found.milliseconds[name]
        assert (item.low, item.value, item.high) == (3000, 5000, 7000)
        assert (item.unit, item.higher_is_better) == ("ms", False)
    assert (found.speedup.low, found.speedup.value, found.speedup.high) == (1, 1, 1)
    assert (found.speedup.unit, found.speedup.higher_is_better, found.clock) == ("x", True, "wall")


def test_the_speedup_s_interval_is_that_of_a_median(monkeypatch):
    ratios = [1.0 + n / 10 for n in range(20)]
    seconds = {"dense": ratios, "pruned": [1.0] * 20}
    found = latency._speedup(seconds, 0)
    assert found.value == pytest.approx(1.95)
    # The median of twenty lies between the sixth and the fifteenth of them 19 times of 20.
    assert found.low == pytest.approx(1.5, abs=0.11)
    assert found.high == pytest.approx(2.4, abs=0.11)


@pytest.mark.parametrize("most", [1, 2, 3, 8, 13, 64, 100])
def test_the_ends_are_powers_of_two_or_the_full_size_and_hold_the_size_in_their_middle(most):
    for size in range(1, most + 3):
        ends = latency_table._ends(size, most)
        assert sum(weight for _, weight in ends) == pytest.approx(1)
        assert sum(weight * end for end, weight in ends) == pytest.approx(size)
        assert all(weight > 0 for _, weight in ends)
        if size <= most:
            assert all(end == most or end & (end - 1) == 0 for end, _ in ends)
            assert len(ends) == 1 + (size != most and size & (size - 1) != 0)


@pytest.mark.parametrize(
    ("kind", "sizes", "joined"),
    [
        ("convolution", (2, 3, 4), (2, 3, 4)),
        ("convolution", (2, 6), (2, 6)),
        ("linear", (3, 4), (1, 3, 4)),
        ("linear", (2, 5, 3, 4), (10, 3, 4)),
        ("product", (2, 3, 4, 5, 6), (6, 4, 5, 6)),
        ("attention", (2, 3, 4, 5, 6, 7), (2, 3, 4, 5, 6, 7)),
        ("move", (2, 3, 4), (24,)),
    ],
)
def test_what_is_before_the_sizes_that_count_is_multiplied(kind, sizes, joined):
    assert latency_table._joined(kind, sizes) == joined
    assert math.prod(joined) == math.prod(sizes)


def test_what_is_fixed_tells_operations_apart_and_each_is_measured_once(tmp_path):
    calls = []
    table = LatencyTable("torch", tmp_path, lambda *given: calls.append(given) or 1.0)
    for fixed in ((), (3,), ((2, 2), True), (3,)):
        operation = Operation("linear", (fresh(4), fresh(8), fresh(8)), fixed)
        assert table.price(operation, (4, 8, 8))((4, 8, 8)) == 1.0
    assert [given[3] for given in calls] == [(), (3,), ((2, 2), True)]
    assert {given[:3] for given in calls} == {("torch", "linear", (4, 8, 8))}
    assert list(table.milliseconds) == ["linear 4x8x8", "linear 4x8x8 (3,)", "linear 4x8x8 ((2, 2), True)"]


def test_between_corners_every_size_is_weighed(tmp_path):
    operation = Operation("linear", (fresh(4), fresh(8), fresh(8)))
    price = LatencyTable("torch", tmp_path, lambda _, __, sizes, ___: 3.0 * sizes[1] + sizes[2] ** 2).price(
        operation, (4, 8, 8)
    )
    for inner, outer in itertools.product(range(1, 9), repeat=2):
        below, above = max(p for p in (1, 2, 4, 8) if p <= outer), min(p for p in (1, 2, 4, 8) if p >= outer)
        share = (outer - below) / (above - below) if above > below else 0.0
        assert price((4, inner, outer)) == pytest.approx(3.0 * inner + (1 - share) * below**2 + share * above**2)


def test_only_news_are_saved(tmp_path):
    operation = Operation("linear", (fresh(4), fresh(8), fresh(8)))
    table = LatencyTable("torch", tmp_path, lambda *_: 1.0)
    table.save()
    assert not table.path.exists()
    table.price(operation, (4, 8, 8))((4, 8, 8))
    table.save()
    table.path.unlink()
    table.save()
    assert not table.path.exists()
    table.shares["model"] = 0.5
    table.save()
    again = LatencyTable("torch", tmp_path)
    assert (again.milliseconds, again.shares) == ({"linear 4x8x8": 1.0}, {"model": 0.5})
    again.save()
    assert table.path.name.startswith("latency-torch-")
    assert len(table.path.stem.rpartition("-")[2]) == 16


def test_the_cache_is_where_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/prunus")
    assert LatencyTable("torch").path.parent == Path("/somewhere/prunus")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache_folder() == Path("/home/me/.cache/prunus")


def test_a_machine_is_known_by_what_a_time_depends_on(monkeypatch):
    read = Path.read_text
    lines = "processor\t: 0\nmodel name\t: A Fast One: 3 GHz\nmodel name\t: another\n"
    monkeypatch.setattr(
        Path, "read_text", lambda path, **s: lines if path == Path("/proc/cpuinfo") else read(path, **s)
    )
    facts = machine_facts("torch")
    assert facts == {
        "processor": "A Fast One: 3 GHz",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "runtime": "torch",
        "version": metadata.version("torch"),
    }
    assert machine_facts("numpy")["version"] == metadata.version("numpy")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert machine_facts("torch", torch.device("cuda"))["device"] == "a GPU"
    monkeypatch.setattr(latency_table.platform, "machine", lambda: "machine")
    lines = "processor\t: 0\n"
    assert machine_facts("torch")["processor"] == "machine"


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_session_has_no_more_threads_than_it_may_use(monkeypatch, threads):
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=lambda *given, **named: (*given, named))
    monkeypatch.setattr(onnx, "require", lambda name, *, extra: runtime)
    empty = b":\x00"  # a graph with nothing in it
    file, options, named = onnx.open_session(empty, threads=threads)
    assert (file, named) == (empty, {"providers": ["CPUExecutionProvider"]})
    assert options.intra_op_num_threads == (threads or torch.get_num_threads())
    assert (options.inter_op_num_threads, options.log_severity_level) == (1, 4)


@ONNX
def test_of_several_outputs_the_first_is_the_answer():
    from onnx import helper

    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["made"]), helper.make_node("Neg", ["input"], ["other"])],
        "one", [shape("input", 1, ["n", 3])], [shape("made", 1, ["n", 3]), shape("other", 1, ["n", 3])],
    )  # fmt: skip
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    assert torch.equal(OnnxModel(file)(torch.tensor([[-1.0, 0.0, 2.0]])), torch.tensor([[0.0, 0.0, 2.0]]))


def test_inputs_have_the_names_that_the_model_gives_them_or_numbers():
    one, two = torch.ones(1), torch.ones(2)
    assert onnx.named_tensors(one) == (["input"], [one])
    assert onnx.named_tensors((one,)) == (["input"], [one])
    assert onnx.named_tensors([one, two]) == (["input_0", "input_1"], [one, two])
    assert onnx.named_tensors({"b": two, "a": one}) == (["b", "a"], [two, one])
