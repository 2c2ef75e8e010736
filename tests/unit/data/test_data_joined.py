"""A user's own test set is the test set: whole, matched by the names of the classes, and apart from what is trained on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import ModelOptimizer
from prunus.core.errors import DataError
from prunus.core.events import silent
from prunus.core.recipes.recipe import Data
from prunus.data import PARTS, content_digests, prepare, prepare_parts
from prunus.data.joined import join
from prunus.data.sources.arrays import array_source


def rows(n: int, seed: int, classes: int = 3):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=draw), torch.arange(n) % classes


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(PARTS[:3])), st.integers(60, 120), st.integers(9, 30))
def test_own_parts_are_whole_and_the_rest_is_shared_out(own, n, n_own):
    given_parts = {part: rows(n_own, seed) for seed, part in enumerate(sorted(own), start=1)}
    data = prepare_parts({"train": rows(n, 0), **given_parts}, Data(source="arrays", standardize=False))
    seen = []
    for part in PARTS:
        found = next(iter(getattr(data, part).batches(1000)))
        seen += [tuple(row) for row in found.inputs.tolist()]
        if part in own:
            assert torch.equal(found.inputs, given_parts[part][0])
            assert torch.equal(found.targets, given_parts[part][1])
            assert all(name.startswith(f"{part}:") for name in getattr(data, part).ids)
        else:
            assert len(found.inputs) > 0
    assert len(set(seen)) == len(seen) == n + n_own * len(own)
    left = {"test": 0.2, "validation": 0.15, "calibration": 0.1}
    for part, share in left.items():
        if part not in own:
            assert abs(len(getattr(data, part)) - share * n) <= 1


def tables(folder, **parts):
    for name, (labels, n) in parts.items():
        draw = np.random.default_rng(len(name))
        lines = [f"{a:.6f},{b:.6f},{labels[i % len(labels)]}" for i, (a, b) in enumerate(draw.normal(size=(n, 2)))]
        (folder / f"{name}.csv").write_text("\n".join(["a,b,label", *lines]))
    return folder


def test_a_recipe_names_the_test_set_and_classes_go_by_their_names(tmp_path):
    folder = tables(tmp_path, train=(["dog", "ant", "cat"], 90), test=(["cat", "dog"], 20))
    data = prepare(Data(source=str(folder / "train.csv"), test=str(folder / "test.csv")))
    assert len(data.test) == 20
    assert data.test.class_names == ("ant", "cat", "dog")
    assert [data.test.class_names[number] for number in data.test.targets[:2]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("a,b,label\n1,2,bird\n3,4,cat\n", "data.test: .*got the class 'bird', which data.source doesn't have"),
        ("a,c,label\n1,2,cat\n3,4,dog\n", "test.csv: there is no column 'b'"),
        ("a,label\n1,cat\n3,dog\n", "test.csv: there is no column 'b'"),
    ],
)
def test_a_test_set_of_another_kind_is_refused(tmp_path, test, said):
    tables(tmp_path, train=(["dog", "cat"], 60))
    (tmp_path / "test.csv").write_text(test)
    with pytest.raises(DataError, match=said) as caught:
        prepare(Data(source=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv")))
    assert "\n" not in str(caught.value)


def test_examples_of_the_test_set_are_not_trained_on_and_that_is_said():
    x, y = rows(90, 0)
    told = Data(source="arrays", split={"shared": "leave_out"})
    data = prepare_parts({"train": (x, y), "test": (x[:12], y[:12])}, told)
    assert len(data.test) == 12
    trained = next(iter(data.train.batches(1000)))
    assert not {tuple(r) for r in data.scaler.undo(trained.inputs).round(decimals=3).tolist()} & {
        tuple(r) for r in x[:12].round(decimals=3).tolist()
    }
    assert sum(int(note.split()[0]) for note in data.notes if "which is your own" in note) == 12


def test_an_optimizer_takes_own_parts_and_says_that_the_test_set_is_the_user_s():
    train, test = rows(120, 0), rows(30, 1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    quick = {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch"}}
    options = {"data_options": {"check_weights": False}, "evaluation": quick, "recovery": {"epochs": 1}, "seeds": [0]}
    strategy = {"criterion": "magnitude_l2", "keep_fraction": 0.5}
    parts = {"train": train, "test": test}
    record = ModelOptimizer(model, parts, strategy=strategy, trained=True, listener=silent, **options).run()
    assert record.data.n["test"] == 30
    assert record.data.test_seen == "no"
    with pytest.raises(DataError, match=r"data\['test'\]: expected labels in all parts or in none: got none here"):
        ModelOptimizer(model, {"train": train, "test": test[0]}, strategy=strategy)


def test_digests_that_are_held_beside_the_data_are_not_made_again():
    given = [rows(n, seed) for seed, n in enumerate((30, 12))]
    first, second = (array_source(inputs, labels.numpy(), Data(source="arrays")) for inputs, labels in given)
    expected = (*content_digests(first), *content_digests(second))
    held = np.frombuffer(b"".join(content_digests(first)), np.uint8).reshape(-1, 32)

    class Held(type(first)):
        def inputs(self, rows):
            raise AssertionError("its digests are known")

    known = Held(**{**vars(first), "digests": held})
    assert content_digests(join(first, {"test": second})[0]) == expected
    assert content_digests(join(known, {"test": second})[0]) == expected
