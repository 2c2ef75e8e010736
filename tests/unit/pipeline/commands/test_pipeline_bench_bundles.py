"""What is claimed of a pruned model's speed is against the dense model's fastest runtime, at each batch size and thread count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.core.errors import BundleError, MissingExtraError, ModelError, RecipeError, UnknownNameError
from prunus.core.recipes.recipe import Model
from prunus.evaluate.timing.bench_runtimes import BenchRuntime, Subject
from prunus.evaluate.timing.in_turns import bench_subjects
from prunus.models import build
from prunus.pipeline.commands.bench_bundles import bench_bundles
from prunus.report.bench_text import bench_headline
from prunus.ship import export_file, load_bundle, save_bundle

INPUTS = {1: torch.zeros(1, 4), 8: torch.zeros(8, 4)}


class Planted(BenchRuntime):
    """A runtime in which a model takes what a table says."""

    def __init__(self, name, seconds, missing=""):
        self.name, self.called, self._seconds, self._missing = name, name.upper(), seconds, missing

    def missing(self):
        return self._missing

    def start(self, subject, inputs, threads):
        seconds = self._seconds[subject.model.name]
        if seconds is None:
            raise ModelError("it has no such operation")
        return Takes(seconds * len(inputs) / threads)


class Takes:
    def __init__(self, one):
        self.one = one

    def seconds(self, n_calls):
        return n_calls * self.one

    def close(self): ...


def subject(name):
    model = nn.Linear(4, 4)
    model.name = name
    return Subject(model, INPUTS[8])


def timed(*runtimes, models=("dense", "pruned"), **more):
    return bench_subjects(
        {name: subject(name) for name in models},
        INPUTS,
        **{"batch_sizes": (1, 8), "threads": (1,), "repeats": 5, "warm_up": 1, "known": runtimes, **more},
    )


SLOW = Planted("slow", {"dense": 0.4, "pruned": 0.1})
FAST = Planted("fast", {"dense": 0.1, "pruned": 0.2})


def test_the_baseline_is_the_dense_models_fastest_runtime_and_not_the_pruned_models():
    found = timed(SLOW, FAST, models=("dense", "pruned"))
    for cell in found["cells"]:
        assert cell["baseline"]["runtime"] == "fast"
        assert {row["model"]: row["runtime"] for row in cell["best"]} == {"dense": "fast", "pruned": "slow"}
    (verdict,) = found["verdict"]
    assert verdict["faster"] == []
    assert {place["speedup"]["value"] for place in verdict["not_faster"]} == {1.0}
    (line,) = bench_headline(found)
    assert line.text.startswith("pruned is NOT faster than the best dense model: 1.00x")
    assert "(SLOW against FAST)" in line.text
    assert not line.good


def test_one_that_is_faster_says_by_how_much_and_where():
    found = timed(SLOW, Planted("fast", {"dense": 0.2, "pruned": 0.05}))
    (line,) = bench_headline(found)
    assert line.good
    assert line.text == (
        "pruned is faster than the best dense model: 4.0x (4.0x to 4.0x) at a batch of 1, 1 thread (FAST); "
        "4.0x (4.0x to 4.0x) at a batch of 8, 1 thread (FAST)"
    )


def test_a_runtime_that_is_not_there_and_one_that_fails_are_told_and_the_rest_is_timed():
    found = timed(
        Planted("gone", {}, "not installed: pip install 'prunus[gone]'"),
        Planted("half", {"dense": 1, "pruned": None}),
        SLOW,
    )
    assert found["missing"] == [
        {"name": "gone", "called": "GONE", "reason": "not installed: pip install 'prunus[gone]'"}
    ]
    assert {(f["model"], f["runtime"], f["reason"]) for f in found["failed"]} == {
        ("pruned", "half", "it has no such operation")
    }
    assert all(cell["baseline"]["runtime"] == "slow" for cell in found["cells"])


def test_where_no_runtime_is_there_the_package_is_named():
    with pytest.raises(
        MissingExtraError, match=r"^no runtime to time in: GONE is not installed: pip install 'prunus\[gone\]'$"
    ):
        timed(Planted("gone", {}, "not installed: pip install 'prunus[gone]'"))


def test_each_number_of_threads_has_a_baseline_of_its_own_and_torchs_own_is_as_before():
    before = torch.get_num_threads()
    found = timed(SLOW, FAST, threads=(2, 1))
    assert [(cell["threads"], cell["batch_size"]) for cell in found["cells"]] == [(1, 1), (1, 8), (2, 1), (2, 8)]
    assert [cell["clock"] for cell in found["cells"]] == ["processor"] * 2 + ["wall"] * 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"batch_sizes": (0,)}, RecipeError, "batch sizes must be different numbers of at least 1: got"),
        ({"threads": (2, 2)}, RecipeError, "threads must be different numbers"),
        ({"repeats": 2}, RecipeError, "repeats must be at least 5"),
        ({"runtimes": ["slo"]}, UnknownNameError, "unknown runtime 'slo'.*slow"),
    ],
)
def test_what_cannot_be_timed_is_said_before_anything_is(asked, error, said):
    with pytest.raises(error, match=said):
        timed(SLOW, **asked)


def bundle(folder, width, facts=None):
    built_by = Model(builder="mlp", args={"width": width, "depth": 2})
    model = build(built_by, input_shape=(6,), n_outputs=3, seed=0)
    save_bundle(
        folder, model, built_by=built_by, input_shape=(6,), n_outputs=3, task="classification", class_names="abc"
    )
    return folder


QUICK = {"batch_sizes": (2,), "threads": (1,), "runtimes": ["torch"], "repeats": 5, "warm_up": 1}


def test_the_dense_model_is_the_one_beside_the_bundle_the_one_that_is_named_or_the_first(tmp_path):
    pruned, dense = bundle(tmp_path / "run" / "bundle", 8), bundle(tmp_path / "run" / "dense", 64)
    other = bundle(tmp_path / "other", 16)

    def took_part(*paths, **more):
        return [(model["name"], model["bundle"]) for model in bench_bundles(paths, **QUICK, **more)["models"]]

    assert took_part(tmp_path / "run") == [("dense", str(dense)), ("pruned", str(pruned))]
    assert took_part(pruned, dense=other) == [("dense", str(other)), ("pruned", str(pruned))]
    assert took_part(other, pruned) == [("dense", str(other)), (str(tmp_path / "run"), str(pruned))]
    assert took_part(tmp_path / "run", other) == [
        ("dense", str(dense)),
        (str(tmp_path / "run"), str(pruned)),
        (str(other), str(other)),
    ]


def test_an_exported_file_is_timed_beside_its_bundle_where_a_runtime_reads_files(tmp_path):
    pruned = bundle(tmp_path / "run" / "bundle", 8)
    bundle(tmp_path / "run" / "dense", 64)
    export_file(load_bundle(pruned), "onnx", tmp_path / "small.onnx")
    found = bench_bundles([pruned, tmp_path / "small.onnx"], **{**QUICK, "runtimes": ["torch", "onnxruntime"]})
    file = str(tmp_path / "small.onnx")
    assert found["models"][2] == {"name": file, "file": file, "size_bytes": (tmp_path / "small.onnx").stat().st_size}
    assert {row["runtime"] for row in found["cells"][0]["times"] if row["model"] == file} == {"onnxruntime"}
    assert [item["model"] for item in found["verdict"]] == ["pruned", file]
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"bad.onnx: ONNX Runtime can't open it"):
        bench_bundles([pruned, tmp_path / "bad.onnx"], **QUICK)
    with pytest.raises(RecipeError, match="a file is timed beside a bundle"):
        bench_bundles([tmp_path / "small.onnx"], **QUICK)


def test_without_one_the_dense_structure_is_built_anew_and_that_is_said(tmp_path):
    found = bench_bundles([bundle(tmp_path / "alone", 8)], **QUICK)
    assert found["models"][0] == {"name": "dense", "bundle": None, "weights": "drawn", "parameters": 155}


def test_bundles_that_nothing_can_be_compared_with_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(6, 3))
    save_bundle(
        tmp_path / "own",
        model,
        built_by=None,
        dense=model,
        input_shape=(6,),
        n_outputs=3,
        task="classification",
        class_names="abc",
    )
    with pytest.raises(BundleError, match=r"there is no dense model to compare with: .*--dense BUNDLE"):
        bench_bundles([tmp_path / "own"], **QUICK)
    with pytest.raises(RecipeError, match="every bundle may be given once"):
        bench_bundles([tmp_path / "own"] * 2, **QUICK)
