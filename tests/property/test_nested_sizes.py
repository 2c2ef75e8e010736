"""Every smaller size is a prefix of the same plan: its units are among those of the size before, its shared weights are equal."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from prunus.core.errors import BundleError, OutputError
from prunus.core.files.plan_file import load_plan
from prunus.core.recipes.recipe import Contract, Recipe
from prunus.pipeline.sizes import Chosen, make_sizes
from prunus.recover.sizes import SharedSizes, sliced
from prunus.ship import load_bundle
from prunus.ship.sizes import find_sizes, list_sizes, write_size

SHARES = (0.75, 0.5, 0.25)


def recipe(folder, builder, **more):
    tree = {
        "data": {"source": "sklearn:digits", "split": {"validation": 0.1, "calibration": 0.1, "test": 0.2}},
        "model": {"builder": builder},
        "train": {"epochs": 1},
        "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "compare_allocations": False},
        "sizes": {"keep_fractions": list(SHARES)},
        "recovery": {"method": "fine_tune", "epochs": 1},
        "evaluation": {"bootstrap": 100},
        "seeds": [0],
        "output": str(folder),
    }
    return Recipe.model_validate({**tree, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_sizes(recipe(tmp_path_factory.mktemp("sizes") / "out", "cnn"))


def test_the_units_of_each_size_are_among_those_of_the_size_before(made):
    steps = list(load_plan(made.record.parent).of("prune"))
    assert len(steps) == len(SHARES)
    kept = {}
    for share, step in zip(SHARES, steps, strict=True):
        assert step.n_kept > 0
        for decision in step.decisions:
            units = set(decision.unit[decision.keep].tolist())
            assert units <= kept.get(decision.stratum, units)
            kept[decision.stratum] = units
        total = sum(len(decision.unit) for decision in steps[0].decisions)
        assert abs(step.n_kept - share * total) <= 8  # widths come in multiples of eight here


def test_shared_matrices_are_those_of_the_largest_and_vectors_are_not(made):
    largest = load_bundle(made.folder, size=0.75).model.state_dict()
    for share in SHARES[1:]:
        small = load_bundle(made.folder, size=share).model
        own = set()
        for name, value in small.state_dict().items():
            among = bool(torch.isin(value, largest[name]).all())
            assert among or value.dim() < 2, name
            own |= set() if among else {name}
        assert {name for name, value in small.named_parameters() if value.dim() == 1} - own <= {
            "norm1.weight",
            "norm1.bias",
        }


def test_a_size_that_is_taken_out_needs_no_other_and_answers_the_same(made, tmp_path):
    inputs = torch.randn(5, *load_bundle(made.folder, size=0.5).manifest.input_shape)
    assert list_sizes(made.folder) == SHARES
    for share in SHARES:
        write_size(made.folder, share, tmp_path / f"{share}")
        alone = load_bundle(tmp_path / f"{share}").model
        assert torch.equal(alone(inputs), load_bundle(made.folder, size=share).model(inputs))
    assert list_sizes(find_sizes(made.record.parent)) == SHARES
    assert load_bundle(made.record.parent, size=0.5).sha256 == load_bundle(made.folder, size=0.5).sha256
    with pytest.raises(OutputError, match=r"0.5 is there already: .*--overwrite"):
        write_size(made.folder, 0.25, tmp_path / "0.5")
    assert load_bundle(tmp_path / "0.5").sha256 == load_bundle(made.folder, size=0.5).sha256
    write_size(made.folder, 0.25, tmp_path / "0.5", overwrite=True)
    assert load_bundle(tmp_path / "0.5").sha256 == load_bundle(made.folder, size=0.25).sha256
    rows = json.loads(made.record.read_text())["sizes"]
    assert all(row["size_bytes"] < row["size_bytes_alone"] for row in rows[2:])


def test_a_damaged_bundle_that_has_sizes_beside_it_is_said_to_be_damaged(made, tmp_path):
    bundle = tmp_path / "one"
    write_size(made.folder, 0.5, bundle)
    shutil.copytree(made.folder, bundle / "sizes")
    assert load_bundle(bundle).sha256 == load_bundle(made.folder, size=0.5).sha256
    with pytest.raises(BundleError, match="expected") as another:
        load_bundle(bundle, sha256="0" * 64)
    with (bundle / "model.safetensors").open("ab") as file:
        file.write(b"0")
    with pytest.raises(BundleError, match=r"model\.safetensors: expected") as damaged:
        load_bundle(bundle)
    assert "several sizes" not in f"{another.value} {damaged.value}"


def test_the_same_seed_gives_the_same_bytes_and_a_finished_folder_is_read(tmp_path, monkeypatch):
    folders = [make_sizes(recipe(tmp_path / name, "mlp")).folder for name in ("a", "b")]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in folders]
    assert files[0] == files[1]
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in files[0])
    monkeypatch.setattr(sys.modules[make_sizes.__module__], "open_job", lambda *_: pytest.fail("made again"))
    make_sizes(recipe(tmp_path / "a", "mlp"), resume=True)


def test_what_was_changed_or_is_not_there_is_one_line(made, tmp_path):
    for folder in (made.folder, made.record.parent):
        with pytest.raises(BundleError, match=r"several sizes \(0.75, 0.5, 0.25\): say which.*sizes/keep-0.25"):
            load_bundle(folder)
    with pytest.raises(BundleError, match=r"no size 0.6: expected one of 0.75, 0.5, 0.25, got 0.6"):
        load_bundle(made.folder, size=0.6)
    shutil.copytree(made.folder, tmp_path / "sizes")
    own = tmp_path / "sizes" / "keep-0.5" / "own.safetensors"
    tensors = load_file(own)
    name = next(key for key in tensors if key.startswith("places/"))
    for wrong in (tensors[name] + 10_000, tensors[name].flip(0), tensors[name] - 10_000):
        save_file({**tensors, name: wrong.contiguous()}, own)
        with pytest.raises(BundleError, match=r"positions don't fit|was changed"):
            load_bundle(tmp_path / "sizes", size=0.5)
    index = tmp_path / "sizes" / "sizes.json"
    index.write_text(index.read_text().replace("keep-0.25", "../../etc"))
    with pytest.raises(BundleError, match="was changed"):
        load_bundle(tmp_path / "sizes", size=0.5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sizes": {"keep_fractions": [0.5, 0.75]}}, "from the largest size down"),
        ({"strategy": {"granularity": "weight"}}, "one granularity of widths"),
        ({"strategy": {"granularity": "channel", "keep_fraction": 0.5}}, "both say how much stays"),
        ({"strategy": None}, "sizes need a strategy"),
    ],
)
def test_sizes_that_contradict_the_recipe_are_refused(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, "mlp", **more)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**16))
def test_gradients_of_a_smaller_size_reach_its_weights_in_the_largest_and_no_others(width, kept, seed):
    draw = torch.Generator().manual_seed(seed)
    kept = min(kept, width - 1)
    places = torch.randperm(width, generator=draw)[:kept].sort().values
    large, small = (nn.Sequential(nn.Linear(3, n), nn.Tanh(), nn.Linear(n, 2)) for n in (width, kept))
    taken = {"0.weight": (places, None), "0.bias": (places,), "2.weight": (None, places), "2.bias": (None,)}
    shared = SharedSizes(large, [(small, taken)])
    inputs = torch.randn(4, 3, generator=draw)
    shared.answer(1, inputs).square().sum().backward()
    gone = np.setdiff1d(np.arange(width), places.numpy())
    assert large[0].weight.grad[gone].abs().sum() == 0
    assert large[2].weight.grad[:, gone].abs().sum() == 0
    assert large[0].weight.grad[places].abs().sum() > 0
    shared.settle()
    assert torch.equal(small(inputs), shared.answer(1, inputs))
    assert torch.equal(small[0].weight, sliced(large[0].weight, (places, None)))


def test_what_each_group_must_keep_is_looked_at_for_every_size(tmp_path):
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((600, 4)).round(3)
    lines = [f"{a},{b},{c},{d},{int(a + b > 0)},{'ab'[int(c > 0)]}" for a, b, c, d in rows]
    (tmp_path / "rows.csv").write_text("\n".join(["p,q,r,s,y,group", *lines]))
    asked = recipe(
        tmp_path / "out",
        "mlp",
        data={
            "source": str(tmp_path / "rows.csv"),
            "target": "y",
            "groups": "group",
            "split": {"validation": 0.1, "calibration": 0.1, "test": 0.4},
        },
    )
    contract = Contract.model_validate({"max_drop": 0.9, "harm": {"worst_group": 0.5}})
    sizes = make_sizes(asked, chosen=Chosen({}, 1, contract, lambda *_: None)).facts["sizes"]
    assert [row["kept"] for row in sizes] == [True] * len(SHARES)


def test_the_sizes_together_take_as_many_steps_as_each_would_take_by_itself(tmp_path):
    answered, real = [], SharedSizes.answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SharedSizes, "answer", lambda shared, size, inputs: answered.append(size) or real(shared, size, inputs)
        )
        made = make_sizes(recipe(tmp_path / "out", "mlp", recovery={"epochs": 2, "batch_size": 300}))
    answered = answered[len(SHARES) :]  # the look at each one's first loss takes no step
    n_batches = len(answered) / (2 * len(SHARES))
    assert n_batches == -(-round(1797 * 0.6) // 300)
    assert [answered.count(size) for size in range(len(SHARES))] == [2 * n_batches] * len(SHARES)
    assert made.facts["weights"] == "shared"


def test_averaged_weights_of_every_size_come_with_statistics_of_its_own(tmp_path):
    averaged = {"method": "fine_tune", "epochs": 1, "average": {"kind": "ema"}}
    made = make_sizes(recipe(tmp_path / "out", "cnn", recovery=averaged))
    for share in SHARES:
        state = load_bundle(made.folder, size=share).model.state_dict()
        means = [value for name, value in state.items() if name.endswith("running_mean")]
        assert means
        assert all(float(value.abs().max()) > 0 for value in means)
