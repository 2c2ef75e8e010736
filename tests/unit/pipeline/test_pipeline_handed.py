"""Whatever holds examples goes through the whole job: data sets, loaders, several inputs by place or name, integers as they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from drawn_stand_ins import Made, Rows, Stream, Two, small_net, two_inputs
from prunus import ModelOptimizer, load_bundle
from prunus.core.errors import DataError, ModelError, RecipeError
from prunus.core.events import silent

QUICK = {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch", "batch_size": 4}}
FAST: dict[str, Any] = {
    "strategy": {"criterion": "taylor", "keep_fraction": 0.5},
    "train": {"epochs": 2, "learning_rate": 0.01, "batch_size": 16},
    "recovery": {"epochs": 1, "batch_size": 16},
    "evaluation": QUICK,
    "seeds": [0],
    "listener": silent,
}
ANY = {"data_options": {"check_weights": False}}
IDS, NUMBERS, LABELS = two_inputs()


def optimizer(model: nn.Module, data: Any, **more: Any) -> ModelOptimizer:
    return ModelOptimizer(model, data, **{**FAST, **more})


def padded(examples: list[Any]) -> dict[str, Tensor]:
    longest = max(len(ids) for ids, _, _ in examples)
    rows = [torch.cat([ids, ids.new_zeros(longest - len(ids))]) for ids, _, _ in examples]
    return {
        "ids": torch.stack(rows),
        "x": torch.stack([x for _, x, _ in examples]),
        "labels": torch.tensor([label for _, _, label in examples]),
    }


RAGGED = [(IDS[row, : 2 + row % 4], NUMBERS[row], int(LABELS[row])) for row in range(len(IDS))]


@pytest.mark.parametrize(
    ("model", "data", "inputs"),
    [
        (small_net(), Made(), torch.zeros(4, 3, 6, 6)),
        (small_net(), DataLoader(Made(flips=True), batch_size=8), torch.zeros(4, 3, 6, 6)),
        (small_net(), DataLoader(Made(), num_workers=1), torch.zeros(4, 3, 6, 6)),
        (small_net(), {"train": Made(), "test": Made(40), "calibration": Stream()}, torch.zeros(4, 3, 6, 6)),
        (Two(), (IDS, NUMBERS, LABELS), (IDS[:4], NUMBERS[:4])),
        (Two(), ((IDS, NUMBERS), LABELS), (IDS[:4], NUMBERS[:4])),
        (Two(), TensorDataset(IDS, NUMBERS, LABELS), (IDS[:4], NUMBERS[:4])),
        (
            Two(),
            {"ids": IDS.numpy(), "x": NUMBERS.numpy(), "label": LABELS.numpy()},
            {"ids": IDS[:4], "x": NUMBERS[:4]},
        ),
        (Two(), Rows(ids=IDS, x=NUMBERS, label=LABELS, name=["n"] * len(IDS)), {"ids": IDS[:4], "x": NUMBERS[:4]}),
        (Two(), DataLoader(RAGGED, collate_fn=padded), {"ids": IDS[:4], "x": NUMBERS[:4]}),  # type: ignore[arg-type]
    ],
    ids=["set", "loader", "workers", "parts", "arrays", "pair", "tensor set", "mapping", "rows", "padding"],
)
def test_the_whole_job_takes_it(model: nn.Module, data: Any, inputs: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    made = optimizer(model, data)
    record = made.run()
    assert record.data.task == "classification"
    assert record.cost["pruned"].macs < record.cost["dense"].macs
    assert made.predict(inputs) == tuple(made.predict(inputs))
    assert set(made.predict(inputs)) <= {0, 1, 2}, "class numbers come back as numbers"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("form", ["tuple", "mapping"])
def test_a_bundle_of_several_inputs_answers_as_the_model(form: str, tmp_path: Any) -> None:
    data = (IDS, NUMBERS, LABELS) if form == "tuple" else {"ids": IDS, "x": NUMBERS, "label": LABELS}
    inputs: Any = (IDS[:6], NUMBERS[:6]) if form == "tuple" else {"ids": IDS[:6], "x": NUMBERS[:6]}
    made = optimizer(Two(), data).fit().prune()
    made.save(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert torch.allclose(bundle.predict(inputs), made.predict_outputs(inputs), atol=1e-5)


def test_many_inputs_are_predicted_in_batches_as_at_once() -> None:
    made = optimizer(Two(), (IDS, NUMBERS, LABELS), trained=True, **ANY)
    many = (IDS.repeat(9, 1), NUMBERS.repeat(9, 1))
    assert torch.allclose(made.predict_outputs(many)[: len(IDS)], made.predict_outputs((IDS, NUMBERS)), atol=1e-6)


def test_the_same_examples_give_the_same_model_whether_drawn_or_held(tmp_path: Any) -> None:
    images, labels = (
        torch.stack(parts)
        for parts in zip(*((x, torch.tensor(y)) for x, y in (Made()[n] for n in range(120))), strict=True)
    )
    whole = {"standardize": False}
    held = optimizer(small_net(), (images, labels), data_options=whole).fit().prune()
    drawn = optimizer(small_net(), Made(targets=labels), data_options=whole).fit().prune()
    for one, other in zip(held.model_.parameters(), drawn.model_.parameters(), strict=True):
        assert torch.equal(one, other)
    assert held.evaluate()["test"].value("accuracy") == drawn.evaluate()["test"].value("accuracy")


def test_a_training_reads_each_example_once_an_epoch_and_keeps_none() -> None:
    data = Made()
    made = optimizer(small_net(), data)
    before = data.n_read
    made.fit()
    assert data.n_read - before == 2 * len(made._job.data.train)


class Answers(nn.Module):
    """Gives a structure with logits, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(image), "mean": image.mean((2, 3))}


@pytest.mark.parametrize("method", ["fine_tune", "distil"])
@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss()])
def test_an_answer_may_be_a_structure_with_logits(method: str, loss: nn.Module | None) -> None:
    data = Rows(pixels=torch.randn(60, 3, 6, 6), label=torch.arange(60) % 3)
    recovery = {"method": method, "epochs": 1, "adjust": ["least_squares"]}
    record = optimizer(Answers(), data, recovery=recovery, loss=loss).run()
    assert record.comparison[0].metric == "accuracy"
    assert len(record.curves["train"].accuracy) == 2


def test_a_regression_reads_numbers_of_any_shape() -> None:
    data = Rows(x=NUMBERS, y=NUMBERS @ torch.ones(4, 2))
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    record = optimizer(net, data).run()
    assert record.data.task == "regression"


def test_a_target_and_a_contract_are_met_with_loaders() -> None:
    more = {"target": {"macs": 0.7}, "contract": {"metric": "accuracy", "max_drop": 0.3}, "strategy": "magnitude_l2"}
    data = {"train": DataLoader(Made(200)), "validation": Made(60, targets=[n % 3 for n in range(60)])}
    record = optimizer(small_net(), data, **more).run()
    assert record.searches


@pytest.mark.parametrize("form", ["images", "set", "parts", "two inputs", "labels set aside"])
def test_inputs_alone_keep_the_dense_model_s_answers(form: str) -> None:
    images = torch.stack([Made()[row][0] for row in range(120)])
    data: Any = {
        "images": images,
        "set": DataLoader(images, batch_size=8),  # type: ignore[arg-type]
        "parts": {"train": images, "test": torch.randn(40, 3, 6, 6)},
        "two inputs": (IDS, NUMBERS),
        "labels set aside": Made(),
    }[form]
    asked = {"task": "agreement"} if form == "labels set aside" else {}
    made = optimizer(Two() if form == "two inputs" else small_net(), data, trained=True, **asked)
    assert {q.name: q.value for q in made.evaluate()["test"].metrics}["agreement"] == 1.0
    record = made.run()
    assert record.data.task == "agreement"
    assert record.comparison[0].metric == "agreement"
    assert record.comparison[0].dense == 1.0
    assert record.cost["pruned"].macs < record.cost["dense"].macs
    assert not record.curves["recover 1 of 1"].accuracy


def test_a_contract_without_labels_is_about_the_answers() -> None:
    images = torch.randn(300, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    more = {"target": {"macs": 0.8}, "strategy": "taylor", "trained": True}
    contract = {"metric": "agreement", "max_drop": 0.4}
    assert optimizer(small_net(), images, contract=contract, **more).run().searches
    with pytest.raises(RecipeError, match="agreement") as caught:
        optimizer(small_net(), images, contract={"metric": "accuracy", "max_drop": 0.1}, **more)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="the model's own answers are kept, so it has to be trained"):
        optimizer(small_net(), images)


def test_criteria_of_gradients_see_something_where_a_model_agrees_with_itself() -> None:
    made = optimizer(small_net(), torch.randn(60, 3, 6, 6), trained=True, strategy="taylor").prune(keep_fraction=0.5)
    assert made.plan_ is not None
    assert all((decision.saliency > 0).all() for decision in made.plan_.steps[0].decisions)


def test_names_come_from_the_data_set_or_the_model() -> None:
    assert set(optimizer(small_net(), Made(classes=["r", "g", "b"])).predict(torch.zeros(2, 3, 6, 6))) <= {
        "r",
        "g",
        "b",
    }
    model = small_net()
    model.config = type("Config", (), {"id2label": {0: "x", 1: "y", 2: "z"}})()  # type: ignore[assignment]
    assert optimizer(model, Made())._job.data.train.class_names == ("x", "y", "z")
    model.config.id2label = {n: f"LABEL_{n}" for n in range(3)}  # type: ignore[union-attr, operator]
    assert optimizer(model, Made())._job.data.train.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "kind"), [(LABELS, int), (LABELS.numpy() > 0, bool), ([f"c{n}" for n in LABELS.tolist()], str)]
)
def test_labels_come_back_in_the_type_in_which_they_went_in(labels: Any, kind: type) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2 if kind is bool else 3))
    (label, *_) = optimizer(net, (NUMBERS, labels)).predict(NUMBERS[:3])
    assert type(label) is kind
    assert label in (labels if isinstance(labels, list) else labels.tolist())


def test_the_record_says_whose_the_test_set_is() -> None:
    assert optimizer(small_net(), {"train": Made(), "test": Made(40)}).run().data.test_set == "your own"
    record = optimizer(Two(), (IDS, NUMBERS, LABELS)).run()
    assert record.data.test_set.startswith("drawn at random")
    assert "int64 [4, 5]" in record.data.inputs


def test_examples_are_cleaned_where_labels_are_known() -> None:
    examples = {"epochs": 1, "remove": [{"criterion": "el2n", "keep_fraction": 0.5}]}
    made = optimizer(small_net(), Made(targets=[n % 3 for n in range(120)]), examples=examples)
    assert made.run().classes[0].removed > 0
    with pytest.raises(DataError, match="expected the labels in a list"):
        optimizer(small_net(), Made(), examples=examples)


def test_data_that_were_opened_are_not_scaled_unless_that_is_asked_for() -> None:
    assert not optimizer(small_net(), Made())._job.data.scaler.scales
    assert optimizer(small_net(), Made(), data_options={"standardize": True})._job.data.scaler.scales


class Spoilt(Made):
    """One example in the middle is no number, another has a label that isn't there; which, the test says."""

    def __getitem__(self, row: int) -> Any:
        image, label = super().__getitem__(row)
        return (float("nan") * image if row == self.nan else image), (9 if row == self.wrong else label)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"nan": 40, "wrong": -1}, "expected numbers in the inputs: got NaN in example 40; leave such examples out"),
        ({"nan": -1, "wrong": 40}, r"example 40: label out of range: expected a class number 0\.\.2, got 9"),
    ],
)
def test_a_spoilt_example_is_named_when_it_is_read(spoilt: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        for part in ("train", "validation", "calibration", "test"):
            for _ in getattr(optimizer(small_net(), Spoilt(classes=["r", "g", "b"], **spoilt))._job.data, part).batches(
                16
            ):
                pass
    assert "\n" not in str(caught.value)


def test_labels_that_are_text_are_to_be_encoded() -> None:
    with pytest.raises(DataError, match="encode text as class numbers, or say task="):
        optimizer(small_net(), [(Made()[row][0], "abc"[row % 3]) for row in range(60)])


class Wide(nn.Module):
    """Three arguments, one more than the data hold."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a + b + c


@pytest.mark.parametrize(
    ("model", "data", "more", "error", "said"),
    [
        (small_net(), Stream(), {}, DataError, "random access needed"),
        (small_net(), {"train": Made(), "test": Stream()}, {}, DataError, r"data\['test'\]: random access needed"),
        (small_net(), DataLoader(Made(0)), {}, DataError, "the data yield no example"),
        (
            small_net(),
            TensorDataset(torch.zeros(60, 4, 6, 6), torch.zeros(60, 2)),
            {},
            ModelError,
            "the model fails on inputs",
        ),
        (
            small_net(),
            Rows(x=torch.zeros(60, 3, 6, 6), y=torch.zeros(60, 7)),
            {},
            DataError,
            "don't tell what is asked",
        ),
        (
            small_net(),
            torch.zeros(60, 3, 6, 6),
            {"task": "classification", "trained": True},
            DataError,
            "the task classification needs targets: got inputs alone",
        ),
        (
            small_net(),
            Rows(x=torch.zeros(60, 3, 6, 6), y=torch.full((60,), 5)),
            {},
            DataError,
            r"expected class numbers 0\.\.2 for the model's 3 outputs: got 5\.\.5",
        ),
        (Wide(), (NUMBERS, NUMBERS), {}, DataError, "expected the 3 arguments of the model"),
        (small_net(), 7, {}, DataError, "expected a map-style Dataset"),
        (small_net(), Made(), {"features": {"tolerance": 0.1}}, RecipeError, "only tables have features"),
    ],
    ids=range(10),
)
def test_what_cannot_be_used_is_said_in_one_line_before_anything_is_trained(
    model: nn.Module, data: Any, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        optimizer(model, data, **more).prune()
    assert "\n" not in str(caught.value)
