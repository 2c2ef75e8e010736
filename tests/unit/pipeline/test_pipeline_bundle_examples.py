"""A bundle is measured on data as its model takes them, whatever they are and whatever could be fitted to them."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunus.cli.app import invoke
from prunus.core.errors import BundleError, DataError
from prunus.core.recipes.recipe import Data
from prunus.data import Scaler, prepare
from prunus.pipeline import evaluate_bundle
from prunus.ship import load_bundle, save_bundle
from prunus.tasks import Agreement, Classification, MultiLabel, Regression

N, B = 120, Path("b")
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
SCALER = Scaler(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 1.0, 3.0]))
CLASSES = ("ant", "bee", "cat")

CODE = """
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

x = torch.from_numpy(np.load("x.npy"))
y = torch.from_numpy(np.load("y.npy"))

class Named(Dataset):
    classes = ["bee", "ant", "cat"]
    def __len__(self): return len(x)
    def __getitem__(self, row): return x[row], int(y[row])

def loader(): return DataLoader(TensorDataset(x, y), batch_size=16)
def parts(): return {"train": loader(), "test": DataLoader(TensorDataset(x[:40], y[:40]), batch_size=40)}
def pairs(): return [(x[row].numpy(), int(y[row])) for row in range(len(x))]
def swapped(): return DataLoader(Named(), batch_size=16)
def tokens(): return TensorDataset((x.abs() * 100).long() % 50, y)
def several(): return {"left": x, "right": x.flip(0), "label": y}
def numbers(): return DataLoader(TensorDataset(x, (x[:, :2] * 3 + 1)), batch_size=16)
def many(): return DataLoader(TensorDataset(x, (x[:, :3] > 5).long()), batch_size=16)
def wide(): return DataLoader(TensorDataset(torch.cat([x, x], 1), y), batch_size=16)
"""


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, left, right):
        return {"logits": self.a(left) - self.a(right)}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X.numpy())
    np.save("y.npy", torch.arange(N).remainder(3).numpy())
    (tmp_path / "mine.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    yield
    sys.modules.pop("mine", None)


def saved(task, model=None, n_outputs=3, **options):
    torch.manual_seed(0)
    model = nn.Linear(4, n_outputs) if model is None else model
    given = {"built_by": None, "dense": model, "input_shape": (4,), "n_outputs": n_outputs, **options}
    save_bundle(B, model, **given, task=task, class_names=task.class_names)
    return load_bundle(B)


def accuracy(bundle, rows, inputs=X, labels=None):
    labels = torch.arange(N).remainder(3) if labels is None else labels
    found = bundle.predict(inputs[rows]).argmax(1) == labels[rows]
    return found.double().mean().item()


def value(splits, part, metric="accuracy"):
    (found,) = [row["value"] for row in splits[part]["metrics"] if row["name"] == metric]
    return found


def test_other_data_are_scaled_as_those_that_the_model_learnt_from():
    """It was measured on inputs that were scaled by what fits them: moved and stretched ones looked as good as the others."""
    bundle = saved(Classification(CLASSES), scaler=SCALER)
    labels = np.array(CLASSES)[np.arange(N) % 3]
    for name, inputs in (("own", X), ("moved", X * 4 - 20)):
        np.savez(f"{name}.npz", inputs=inputs.numpy(), labels=labels)
        config = Data(source=f"{name}.npz", target="labels")
        splits = evaluate_bundle(B, data=config)["splits"]
        for part in ("train", "test"):
            rows = getattr(prepare(config), part).rows
            assert value(splits, part) == pytest.approx(accuracy(bundle, rows, inputs))
        whole = evaluate_bundle(B, source=f"{name}.npz", target="labels")["splits"]
        assert value(whole, "all") == pytest.approx(accuracy(bundle, slice(None), inputs))


def test_an_other_target_scaling_isnt_taken_for_the_bundles():
    targets = Scaler(torch.tensor(10.0), torch.tensor(5.0))
    bundle = saved(Regression(10.0, 5.0), n_outputs=1, scaler=SCALER, target_scaler=targets)
    y = X.sum(1) * 3 + 100
    np.savez("other.npz", inputs=X.numpy(), y=y.numpy())
    error = (bundle.predict(X).flatten() - y).abs().mean().item()
    assert value(evaluate_bundle(B, source="other.npz")["splits"], "all", "mae") == pytest.approx(error, rel=1e-4)
    splits = evaluate_bundle(B, data=Data(source="other.npz"))["splits"]
    assert value(splits, "train", "mae") == pytest.approx(error, rel=0.2)


def test_classes_keep_the_bundles_numbers_where_the_data_have_some_of_them():
    bundle = saved(Classification(CLASSES), scaler=SCALER)
    rows = torch.arange(N) % 3 != 0
    labels = torch.arange(N).remainder(3)
    np.savez("some.npz", inputs=X[rows].numpy(), labels=np.array(CLASSES)[labels[rows]])
    expected = pytest.approx(accuracy(bundle, rows))
    assert value(evaluate_bundle(B, source="some.npz", target="labels")["splits"], "all") == expected
    config = Data(source="some.npz", target="labels")
    test = torch.nonzero(rows).flatten()[prepare(config).test.rows]
    assert value(evaluate_bundle(B, data=config)["splits"], "test") == pytest.approx(accuracy(bundle, test))


@pytest.mark.parametrize("source", ["loader", "pairs", "parts"])
def test_functions_that_return_loaders_and_data_sets_are_measured(source):
    bundle = saved(Classification(CLASSES if source != "pairs" else ("0", "1", "2")), scaler=SCALER)
    splits = evaluate_bundle(B, source=f"mine:{source}")["splits"]
    assert set(splits) == ({"train", "test"} if source == "parts" else {"all"})
    whole = "train" if source == "parts" else "all"
    assert value(splits, whole) == pytest.approx(accuracy(bundle, slice(None)))
    if source == "parts":
        assert value(splits, "test") == pytest.approx(accuracy(bundle, slice(40)))
    dealt = evaluate_bundle(B, data=Data(source=f"mine:{source}"))["splits"]
    assert set(dealt) == {"train", "test"}


def test_token_ids_of_a_function_stay_whole_numbers():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 3)

        def forward(self, ids):
            return self.out(self.embed(ids).mean(1))

    saved(Classification(("0", "1", "2")), Reader(), example=torch.full((2, 4), 49))
    bundle = load_bundle(B)
    ids = (X.abs() * 100).long() % 50
    found = evaluate_bundle(B, data=Data(source="mine:tokens", split={"test": 0.5}))["splits"]
    values = {name: split["metrics"][0]["value"] for name, split in found.items()}
    kept = prepare(Data(source="mine:tokens", split={"test": 0.5}))
    for part in ("train", "test"):
        assert values[part] == pytest.approx(accuracy(bundle, getattr(kept, part).rows, inputs=ids))


def test_several_inputs_are_measured():
    example = {"left": X[:2], "right": X[2:4]}
    bundle = saved(Classification(CLASSES), Two(), example=example)
    inputs = {"left": X, "right": X.flip(0)}
    right = bundle.outputs(inputs)[0].argmax(1) == torch.arange(N).remainder(3)
    found = evaluate_bundle(B, source="mine:several")
    assert value(found["splits"], "all") == pytest.approx(right.double().mean().item())
    assert found["cost"]["macs"] == 24


def test_other_tasks_are_measured(capsys):
    bundle = saved(MultiLabel(("a", "b", "c")), scaler=SCALER)
    said = bundle.predict(X) > 0
    there = X[:, :3] > 5
    found = evaluate_bundle(B, source="mine:many")["splits"]
    expected = 2 * (said & there).sum() / (said.sum() + there.sum())
    assert value(found, "all", "f1_micro") == pytest.approx(expected.item())
    assert invoke(["evaluate", "b", "--source", "mine:many"]) == 0
    assert "F1" in capsys.readouterr().out


def test_numbers_of_a_loader_are_in_their_own_units():
    bundle = saved(Regression(10.0, 5.0), n_outputs=2, target_scaler=Scaler(torch.tensor(10.0), torch.tensor(5.0)))
    error = (bundle.predict(X) - (X[:, :2] * 3 + 1)).abs().mean().item()
    assert value(evaluate_bundle(B, source="mine:numbers")["splits"], "all", "mae") == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("swapped", "expected class numbers that stand for ant, bee, cat, in this order: got bee, ant, cat"),
        (
            "wide",
            r"mine:wide: the bundle doesn't take such inputs: input 0 must have the size 4 in dimension 1: got \(1, 8\)",
        ),
        ("several", r"expected the model's arguments \(input\) among the keys: got a dict \(left"),
    ],
)
def test_data_that_dont_fit_are_one_line(source, words):
    saved(Classification(CLASSES), scaler=SCALER)
    for options in ({"source": f"mine:{source}"}, {"data": Data(source=f"mine:{source}")}):
        with pytest.raises(DataError, match=words) as error:
            evaluate_bundle(B, **options)
        assert "\n" not in str(error.value)


def test_answers_like_the_dense_models_need_it():
    saved(Agreement())
    with pytest.raises(BundleError, match=r"how closely its model answers as the dense one, which it doesn't.*--dense"):
        evaluate_bundle(B, source="mine:loader")


@pytest.mark.parametrize("source", ["mine:loader", "x.npz", "x.csv"])
def test_with_the_dense_bundle_it_is_said_how_closely_the_smaller_model_answers_as_it(source, capsys):
    """Targets are what the dense model answers, to data with labels (which aren't read) or a file without."""
    np.savez("x.npz", inputs=X.numpy())
    np.savetxt("x.csv", X.numpy(), delimiter=",", header="a,b,c,d", comments="")
    torch.manual_seed(1)
    dense = nn.Linear(4, 3)
    smaller = nn.Linear(4, 3)
    smaller.load_state_dict({name: value + 0.1 * torch.randn_like(value) for name, value in dense.state_dict().items()})
    named = {"feature_names": ("a", "b", "c", "d")} if source == "x.csv" else {}
    for folder, model in ((Path("d"), dense), (B, smaller)):
        given = {"built_by": None, "dense": model, "input_shape": (4,), "n_outputs": 3, "scaler": SCALER, **named}
        save_bundle(folder, model, **given, task=Agreement(), class_names=())
    wanted, got = (load_bundle(folder).predict(X) for folder in (Path("d"), B))
    splits = evaluate_bundle(B, dense=Path("d"), source=source)["splits"]
    same = (wanted.argmax(1) == got.argmax(1)).double().mean().item()
    assert 0 < same < 1
    assert value(splits, "all", "agreement") == pytest.approx(same)
    apart = ((got - wanted).norm(dim=1) / wanted.norm(dim=1)).mean().item()
    assert value(splits, "all", "relative_distance") == pytest.approx(apart, rel=1e-4)
    itself = evaluate_bundle(Path("d"), dense=Path("d"), source=source)["splits"]
    assert value(itself, "all", "relative_distance") == 0
    assert invoke(["evaluate", "b", "--dense", "d", "--source", source, "--trust-code", "--harm"]) == 0
    assert "agreement" in capsys.readouterr().out
