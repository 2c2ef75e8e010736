# ruff: noqa: F811, F401 - fixtures are imported by name
from __future__ import annotations

import errno
import hashlib
import json
import re
import resource
import shutil
import sys
import types

import pytest
import torch
from torch import nn

from prunus import models
from prunus.apply.repair import SelectInputs
from prunus.core.errors import BundleError, DataError, OutputError, ShapeError
from prunus.core.recipes.recipe import Model
from prunus.data import Scaler
from prunus.pipeline.bundle_commands import predict_file
from prunus.ship import bundle_sha256, bundle_size_bytes, load_bundle, read_manifest, save_bundle, stored_size_bytes
from prunus.tasks import Detection
from ship_stand_ins import build, made, options, pruned, rewritten, stand_in_build


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_a_bundle_gives_back_weights_and_outputs_bit_for_bit(made):
    bundle = load_bundle(made.folder)
    assert states_equal(bundle.model, made.model)
    assert not bundle.model.training
    scaled = (made.inputs - torch.arange(6.0)) / 2
    assert torch.equal(bundle.predict(made.inputs), made.model.eval()(scaled).detach())
    assert torch.equal(
        bundle.predict(made.inputs, batch_size=4), torch.cat([bundle.predict(p) for p in made.inputs.split(4)])
    )
    assert bundle.sha256 == made.sha256 == bundle_sha256(made.folder)
    assert (bundle.task, bundle.input_shape, bundle.class_names) == ("classification", (6,), ("a", "b", "c"))
    assert bundle.manifest.facts == {"seed": 0}


def test_saving_leaves_the_model_as_it_was(build, pruned, options, tmp_path):
    before = {name: value.clone() for name, value in pruned.state_dict().items()}
    save_bundle(tmp_path / "b", pruned, **options)
    assert pruned.training
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def test_labels_and_probabilities_come_from_the_outputs(made):
    bundle = load_bundle(made.folder)
    prediction = bundle.postprocess(bundle.predict(made.inputs))
    expected = bundle.predict(made.inputs).softmax(dim=1)
    assert prediction.labels == tuple("abc"[i] for i in expected.argmax(dim=1))
    assert torch.allclose(prediction.probabilities, expected)


def test_the_same_model_gives_the_same_bytes_and_another_gives_others(made, options, tmp_path):
    assert save_bundle(tmp_path / "again", made.model, **options) == made.sha256
    for name in ("model.safetensors", "graph.json", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (made.folder / name).read_bytes()
    with torch.no_grad():
        made.model[0].weight[0, 0] += 1
    assert save_bundle(tmp_path / "other", made.model, **options) != made.sha256


def test_anyone_can_compute_the_hash_from_the_manifest(made):
    tree = made.manifest()
    assert tree.pop("sha256") == made.sha256
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == made.sha256


def test_the_size_is_that_of_the_files(made):
    files = list(made.folder.iterdir())
    assert sorted(file.name for file in files) == [
        "README.md",
        "bom.cdx.json",
        "graph.json",
        "manifest.json",
        "model.safetensors",
    ]
    assert bundle_size_bytes(made.folder) == sum(file.stat().st_size for file in files)
    assert stored_size_bytes(made.model) == (made.folder / "model.safetensors").stat().st_size


def test_selected_inputs_come_back(build, options, tmp_path):
    model = SelectInputs(
        nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)), torch.tensor([1, 4])
    )
    save_bundle(tmp_path / "b", model, **options)
    bundle = load_bundle(tmp_path / "b")
    inputs = torch.randn(4, 6)
    scaled = (inputs - torch.arange(6.0)) / 2
    assert torch.equal(bundle.predict(inputs), model.eval()(scaled).detach())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.two(self.one(x).relu()))


def test_tied_weights_are_stored_once_and_stay_tied(build, monkeypatch, options, tmp_path):
    model = Tied()
    options |= {"built_by": None, "dense": Tied()}
    save_bundle(tmp_path / "b", model, **options)
    entries = read_manifest(tmp_path / "b").tensors
    assert (entries["two.weight"].stored, entries["two.weight"].same_as) == ("alias", "one.weight")
    loaded = load_bundle(tmp_path / "b", builder=Tied).model
    assert loaded.two.weight is loaded.one.weight
    assert states_equal(loaded, model)


def test_a_model_that_is_mostly_zeros_takes_fewer_bytes_and_comes_back(build, options, tmp_path):
    model = build(Model(args={"width": 32}), input_shape=(6,), n_outputs=3, seed=5)
    dense_bytes = stored_size_bytes(model)
    with torch.no_grad():
        model[0].weight[torch.rand(32, 6) < 0.9] = 0
        model[0].weight[0, 0] = -0.0
    save_bundle(tmp_path / "b", model, **options)
    assert read_manifest(tmp_path / "b").tensors["0.weight"].stored == "bitmask"
    loaded = load_bundle(tmp_path / "b").model
    assert states_equal(loaded, model)
    assert torch.signbit(loaded[0].weight[0, 0])
    assert stored_size_bytes(model) < dense_bytes


def test_a_module_function_is_not_imported_unless_trusted(build, pruned, options, tmp_path, monkeypatch):
    module = types.ModuleType("their_code")
    module.make = lambda width: nn.Sequential(
        nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)
    )
    monkeypatch.setitem(sys.modules, "their_code", module)
    options["built_by"] = Model(builder="their_code:make", args={"width": 32})
    save_bundle(tmp_path / "b", pruned, **options)
    monkeypatch.setattr(module, "make", lambda width: pytest.fail("code that nobody trusts ran"))
    bundle = load_bundle(tmp_path / "b")
    assert bundle.kind == "graph"
    assert re.search(r"their_code:make.*code outside of prunus and wasn't run.*--trust-code", bundle.note)
    assert states_equal(bundle.model, pruned)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "their_code", module)
    monkeypatch.setattr(models, "build", stand_in_build)
    assert load_bundle(tmp_path / "b", trust_code=True).kind == "eager"
    assert states_equal(load_bundle(tmp_path / "b", trust_code=True).model, pruned)
    assert states_equal(load_bundle(tmp_path / "b", builder=module.make).model, pruned)
    with pytest.raises(BundleError, match=r"must return an nn.Module: got int"):
        load_bundle(tmp_path / "b", builder=lambda width: width)
    with pytest.raises(BundleError, match=r"the builder has no argument 'width'"):
        load_bundle(tmp_path / "b", builder=lambda: pruned)
    with pytest.raises(BundleError, match=r"doesn't fit|can only make|no parameter|no module"):
        load_bundle(tmp_path / "b", builder=lambda width: nn.Linear(6, 3))


def test_a_model_without_a_known_builder_needs_one_for_its_class_alone(build, pruned, options, tmp_path):
    dense = build(Model(args={"width": 32}), input_shape=(6,), n_outputs=3, seed=0)
    with pytest.raises(BundleError, match=r"needs built_by .* or dense"):
        save_bundle(tmp_path / "b", pruned, **options | {"built_by": None})
    save_bundle(tmp_path / "b", pruned, **options | {"built_by": None, "dense": dense})
    bundle = load_bundle(tmp_path / "b", trust_code=True)
    assert bundle.kind == "graph"
    assert "for the Python class pass load_bundle(..., builder=FUNCTION)" in bundle.note
    assert states_equal(bundle.model, pruned)
    assert states_equal(load_bundle(tmp_path / "b", builder=lambda: dense).model, pruned)


@pytest.mark.parametrize("bad", [torch.zeros(6), torch.zeros(2, 5), torch.zeros(2, 6, 1)])
def test_inputs_of_another_shape_are_refused(made, bad):
    said = (
        r"input 0 must have (2 dimensions|the size 6 in dimension 1): got .*; the model takes inputs of shape \(n, 6\)"
    )
    with pytest.raises(ShapeError, match=said):
        load_bundle(made.folder).predict(bad)


def test_an_input_that_isn_t_finite_is_named(made):
    made.inputs[4, 2] = float("nan")
    with pytest.raises(DataError, match="input row 4 has a NaN or infinite value"):
        load_bundle(made.folder).predict(made.inputs)
    assert load_bundle(made.folder).predict(torch.zeros(0, 6)).shape == (0, 3)


@pytest.mark.parametrize(
    ("place", "value"), [("0.weight", float("nan")), ("3.bias", float("inf")), ("1.running_mean", float("nan"))]
)
def test_a_broken_model_is_not_shipped(build, pruned, options, tmp_path, place, value):
    with torch.no_grad():
        pruned.state_dict()[place].flatten()[0] = value
    with pytest.raises(BundleError, match=rf"'{place}' has 1 values that are NaN or infinite"):
        save_bundle(tmp_path / "b", pruned, **options)
    assert not (tmp_path / "b").exists()


class Doubling(nn.Linear):
    """Reads something that no edit holds."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.how = types.SimpleNamespace(factor=1.0)

    def forward(self, x):
        return super().forward(x) * self.how.factor


def test_a_model_that_would_not_come_back_is_not_written(build, options, tmp_path):
    model = Doubling()
    model.how.factor = 2.0
    with pytest.raises(BundleError, match="has other outputs than the one that was saved"):
        save_bundle(tmp_path / "b", model, **options | {"built_by": None, "dense": Doubling()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("facts", [{"a": object()}, {"a": float("nan")}])
def test_facts_that_json_can_t_hold_are_refused(build, pruned, options, tmp_path, facts):
    with pytest.raises(BundleError, match="facts must be plain values"):
        save_bundle(tmp_path / "b", pruned, **options | {"facts": facts})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": ("a",)}, "3 outputs need as many class_names, got 1"),
        ({"input_shape": (6, 0)}, "input_shape.1: .*greater than or equal to 1, got '0'"),
        ({"facts": {1: 2}}, "facts"),
    ],
)
def test_facts_that_don_t_fit_the_model_are_refused_when_saving(build, pruned, options, tmp_path, change, words):
    dense = build(options["built_by"], input_shape=(6,), n_outputs=3, seed=0)
    with pytest.raises(BundleError, match=words):
        save_bundle(tmp_path / "b", pruned, dense=dense, **options | change)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_bundle_that_was_there(made, options, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prunus.ship.save.save_tensors", full)
    with torch.no_grad():
        made.model[0].weight.zero_()
    with pytest.raises(OutputError, match="no space left to write"):
        save_bundle(made.folder, made.model, **options)
    assert bundle_sha256(made.folder) == made.sha256
    assert [entry.name for entry in made.folder.parent.iterdir()] == ["bundle"]


def test_a_file_that_may_not_grow_leaves_the_bundle_that_was_there(made, options):
    """No stand-in: the kernel itself refuses to write more than 300 bytes to a file."""
    with torch.no_grad():
        made.model[0].weight.add_(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(OutputError, match="no space left to write"):
            save_bundle(made.folder, made.model, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert bundle_sha256(made.folder) == made.sha256
    assert [entry.name for entry in made.folder.parent.iterdir()] == ["bundle"]


def test_others_may_read_a_bundle(made):
    assert {oct(path.stat().st_mode & 0o777) for path in made.folder.iterdir()} == {"0o644"}
    assert oct(made.folder.stat().st_mode & 0o777) == "0o755"


def test_a_new_bundle_takes_the_place_of_the_old_one(made, options):
    (made.folder / "stray").write_text("x")
    options["facts"] = {"seed": 1}
    assert save_bundle(made.folder, made.model, **options) != made.sha256
    assert sorted(file.name for file in made.folder.iterdir()) == [
        "README.md",
        "bom.cdx.json",
        "graph.json",
        "manifest.json",
        "model.safetensors",
    ]


def test_a_bundle_may_be_moved(made, tmp_path):
    shutil.move(made.folder, tmp_path / "elsewhere")
    assert load_bundle(tmp_path / "elsewhere").sha256 == made.sha256


def test_a_regression_without_scaler_ships(build, tmp_path):
    model = nn.Linear(2, 1)
    options = {"built_by": None, "dense": nn.Linear(2, 1), "input_shape": (2,), "n_outputs": 1, "task": "regression"}
    save_bundle(tmp_path / "b", model, **options)
    bundle = load_bundle(tmp_path / "b", builder=lambda: nn.Linear(2, 1))
    inputs = torch.randn(3, 2)
    assert bundle.scaler is None
    assert bundle.postprocess(bundle.predict(inputs)).labels == tuple(model(inputs).detach().flatten().tolist())


def saved_for(task, folder, **options):
    given = {"built_by": None, "dense": nn.Linear(2, 6), "input_shape": (2,), "n_outputs": 6}
    save_bundle(folder, nn.Linear(2, 6), **given, task=task, **options)
    return load_bundle(folder)


def test_a_tasks_options_go_along(tmp_path):
    task = Detection(("cat", "dog"), activation="sigmoid", nms=0.5, shown_from=0.1)
    bundle = saved_for(task, tmp_path / "b", class_names=("cat", "dog"))
    assert bundle.manifest.task_options == {"activation": "sigmoid", "nms": 0.5, "shown_from": 0.1}
    assert bundle.reader() == task
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.21, 0.2]]])
    answer = {"logits": torch.tensor([[[-1.0, -9.0], [-1.1, -9.0]]]), "pred_boxes": boxes}
    assert bundle.postprocess(answer) == task.decode(answer)
    assert [len(found) for found in bundle.postprocess(answer).labels] == [
        1
    ]  # two without nms, none above the usual 0.5
    assert bundle.postprocess(answer, task=Detection(activation="sigmoid", shown_from=0.1)).labels != task.decode(
        answer
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nms": "much"}, "task detection: nms must be a float: got 'much'"),
        ({"sound": 1}, "task detection has the options activation, .*: got 'sound'"),
        ({"activation": "os:system"}, "activation is softmax or sigmoid: got 'os:system'"),
    ],
)
def test_options_that_were_changed_are_checked(change, words, tmp_path):
    saved_for(Detection(nms=0.5), tmp_path / "b")
    rewritten(tmp_path / "b", lambda tree: tree["task_options"].update(change))
    with pytest.raises(BundleError, match=words):
        load_bundle(tmp_path / "b")


def test_a_task_of_ones_own_says_that_it_needs_its_code(tmp_path):
    class Mine(Detection):
        name = "mine"

    bundle = saved_for(Mine(), tmp_path / "b")
    words = r"this bundle's task is \S+:\S+Mine, Python code that no bundle holds: .* postprocess\(outputs, task=TASK\)"
    with pytest.raises(BundleError, match=words):
        bundle.postprocess(torch.zeros(1, 6))
    answer = {"logits": torch.zeros(1, 1, 3), "pred_boxes": torch.full((1, 1, 4), 0.5)}
    assert bundle.postprocess(answer, task=Mine(activation="softmax")).labels
    with pytest.raises(BundleError, match="Python code that no bundle holds"):
        predict_file(tmp_path / "b", str(tmp_path / "nothing.csv"))


def test_an_image_scaler_ships(build, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    scaler = Scaler(torch.ones(2, 1, 1), torch.full((2, 1, 1), 4.0))
    options = {"built_by": None, "dense": model, "input_shape": (2, 2, 2), "n_outputs": 2, "task": "classification"}
    save_bundle(tmp_path / "b", model, scaler=scaler, **options)
    inputs = torch.randn(3, 2, 2, 2)
    got = load_bundle(tmp_path / "b", builder=lambda: model).predict(inputs)
    assert torch.equal(got, model((inputs - 1) / 4).detach())
