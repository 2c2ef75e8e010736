"""Times are measured at few sizes, interpolated in between, and kept for the same machine and runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prunus.evaluate.timing import latency_table, operation_time
from prunus.evaluate.timing.latency_table import LatencyTable
from prunus.evaluate.timing.operation_time import time_operation
from prunus.graph.costs.timed_operations import Operation
from prunus.graph.solver.axes import fresh
from tests_support import onnxruntime_installed

RUNTIMES = [
    "torch",
    pytest.param("onnxruntime", marks=pytest.mark.skipif(not onnxruntime_installed(), reason="no onnx")),
]


def counting(calls):
    def measure(runtime, kind, sizes, fixed):
        calls.append(sizes)
        rows, n_in, n_out = sizes
        return rows * n_in * n_out * 1e-6 + 0.01

    return measure


@pytest.fixture
def linear():
    return Operation("linear", (fresh(4), fresh(100), fresh(60)))


def test_between_measured_sizes_a_product_and_a_constant_are_exact(tmp_path, linear):
    calls: list[tuple[int, ...]] = []
    price = LatencyTable("torch", tmp_path, counting(calls)).price(linear, (4, 100, 60))
    for n_in, n_out in ((100, 60), (64, 32), (70, 41), (5, 3), (1, 1)):
        assert price((4, n_in, n_out)) == pytest.approx(4 * n_in * n_out * 1e-6 + 0.01)
    assert all(n in (1, 2, 4, 8, 64, 100) for _, n, _ in calls)
    assert len(set(calls)) == len(calls), "no size is measured twice"


def test_leading_sizes_are_rows(tmp_path):
    calls: list[tuple[int, ...]] = []
    operation = Operation("linear", (fresh(4), fresh(5), fresh(8), fresh(8)))
    LatencyTable("torch", tmp_path, counting(calls)).price(operation, (4, 5, 8, 8))((4, 5, 8, 8))
    assert calls == [(20, 8, 8)]


def test_times_are_kept_and_read_again_beside_what_others_kept(tmp_path, linear):
    first = LatencyTable("torch", tmp_path, counting([]))
    other = LatencyTable("torch", tmp_path, counting([]))
    first.price(linear, (4, 100, 60))((4, 100, 60))
    first.save()
    other.price(linear, (4, 100, 60))((4, 64, 32))
    other.shares["model"] = 0.5
    other.save()
    calls: list[tuple[int, ...]] = []
    again = LatencyTable("torch", tmp_path, counting(calls))
    again.price(linear, (4, 100, 60))((4, 100, 60))
    again.price(linear, (4, 100, 60))((4, 64, 32))
    assert not calls
    assert again.shares == {"model": 0.5}
    assert json.loads(again.path.read_text())["about"]["runtime"] == "torch"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"milliseconds": {"a": "b"}}'])
def test_a_damaged_file_holds_nothing(tmp_path, content):
    path = LatencyTable("torch", tmp_path).path
    path.write_text(content)
    assert LatencyTable("torch", tmp_path).milliseconds == {}


def test_nothing_takes_no_time_and_is_not_measured(tmp_path, linear):
    calls: list[tuple[int, ...]] = []
    price = LatencyTable("torch", tmp_path, counting(calls)).price(linear, (4, 100, 60))
    assert [price(sizes) for sizes in ((4, 0, 60), (4, 100, 0), (0, 100, 60))] == [0.0, 0.0, 0.0]
    assert not calls


def test_a_folder_that_is_not_there_is_made(tmp_path, linear):
    table = LatencyTable("torch", tmp_path / "cache" / "prunus", counting([]))
    table.price(linear, (4, 100, 60))((4, 100, 60))
    table.save()
    assert table.path.is_file()


def test_a_processor_that_the_system_does_not_tell_has_the_name_that_python_knows(monkeypatch):
    read = Path.read_text

    def missing(path, **settings):
        if path == Path("/proc/cpuinfo"):
            raise FileNotFoundError
        return read(path, **settings)

    monkeypatch.setattr(Path, "read_text", missing)
    for name, known in (("x86", "x86"), ("", "machine")):
        monkeypatch.setattr(latency_table.platform, "processor", lambda name=name: name)
        monkeypatch.setattr(latency_table.platform, "machine", lambda: "machine")
        assert latency_table.machine_facts("torch")["processor"] == known


def test_what_stands_in_for_a_runtime_and_its_version_have_a_file_of_their_own(tmp_path, monkeypatch):
    """Once ONNX Runtime is installed, what torch took in its place is no longer its time, nor is an older version's."""
    monkeypatch.setattr(latency_table.metadata, "version", lambda name: "1")
    paths = {LatencyTable("openvino", tmp_path).path}
    monkeypatch.setattr(latency_table.metadata, "version", lambda name: "2" if name == "onnxruntime" else "1")
    paths.add(LatencyTable("openvino", tmp_path).path)
    monkeypatch.setattr(latency_table, "find_spec", lambda _: None)
    paths.add(LatencyTable("openvino", tmp_path).path)
    assert len(paths) == 3


def test_another_number_of_threads_has_another_file(tmp_path, monkeypatch):
    path = LatencyTable("torch", tmp_path).path
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert LatencyTable("torch", tmp_path).path != path


@pytest.mark.parametrize(
    ("sizes", "transposed", "each", "n_groups"),
    [
        ((2, 3, 4), False, None, 1),
        ((2, 3, 4), True, None, 1),
        ((2, 6), False, (1, 2), 3),
        ((2, 8), True, (3, 2), 4),
        ((2, 1), False, (3, 2), 1),
    ],
)
def test_the_convolution_that_is_timed_has_the_sizes_that_are_asked(sizes, transposed, each, n_groups):
    fixed = ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), transposed, each)
    given, weight, groups = operation_time._convolution(sizes, fixed)
    made = torch.convolution(given, weight, None, (1, 1), (1, 1), (1, 1), transposed, (0, 0), groups)
    n_in, n_out = sizes[1:] if each is None else (n_groups * each[0], n_groups * each[1])
    assert (groups, given.shape, made.shape) == (n_groups, (2, n_in, 5, 5), (2, n_out, 5, 5))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("kind", "sizes", "fixed"),
    [
        ("convolution", (2, 3, 4), ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), False, None)),
        ("convolution", (2, 3, 4), ((5, 5), (2, 2), (2, 2), (0, 0), (1, 1), True, None)),
        ("convolution", (2, 6), ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), False, (1, 2))),
        ("linear", (4, 5, 6), ()),
        ("product", (2, 3, 4, 5), ()),
        ("attention", (2, 2, 3, 4, 3, 4), ()),
        ("move", (7,), ()),
    ],
)
def test_every_kind_of_operation_can_be_timed_alone(runtime, kind, sizes, fixed):
    assert time_operation(runtime, kind, sizes, fixed) > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_work_takes_longer(runtime, work_clock):
    small = time_operation(runtime, "linear", (64, 32, 32), ())
    assert time_operation(runtime, "linear", (64, 512, 512), ()) > 2 * small > 0


@pytest.mark.parametrize("block", [4, 8, 16])
def test_the_block_of_the_kernels_is_what_a_width_between_two_multiples_costs(tmp_path, block):
    def padded(runtime, kind, sizes, fixed):
        return float(-(-sizes[1] // block) * -(-sizes[2] // block))

    assert LatencyTable("torch", tmp_path, padded).block() == max(8, block)


def test_the_block_is_measured_once_on_a_machine(tmp_path):
    calls = []

    def smooth(runtime, kind, sizes, fixed):
        calls.append(sizes)
        return float(sizes[2])

    table = LatencyTable("torch", tmp_path, smooth)
    assert table.block() == table.block() == 8
    assert len(calls) == 4
