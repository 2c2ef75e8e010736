"""One call makes a trained model smaller: any inputs, with labels or without, and what was tried is said."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import prunus
from prunus.core.errors import DataError, ModelError, PlanError, PrunusError, RecipeError
from prunus.core.events import silent
from prunus.data import Batches
from prunus.pipeline.auto.implied import objective_of
from prunus.recover import distance


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 16), nn.Linear(3, 16), nn.Linear(32, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = self.head(torch.cat([self.left(x).relu(), self.right(y).relu()], dim=-1))
        return found


class Tagger(nn.Module):
    """Token ids by keyword, an answer with logits, like a model of transformers."""

    def __init__(self, per_token: bool = True) -> None:
        super().__init__()
        self.per_token = per_token
        self.embed, self.inner, self.head = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        hidden = self.inner(self.embed(input_ids)).relu()
        return {"logits": self.head(hidden if self.per_token else hidden.mean(dim=1))}


def classifier(seed: int = 0) -> nn.Sequential:
    """A network some of whose hidden units do nothing for the outputs, and others everything."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))


def examples_of(n: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


def quiet(*given: Any, **named: Any) -> Any:
    return prunus.prune(*given, listener=silent, **named)


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "a tensor": (classifier, torch.randn(40, 6), torch.randint(0, 4, (40,))),
    "two inputs": (TwoInputs, (torch.randn(40, 4), torch.randn(40, 3)), torch.randint(0, 3, (40,))),
    "ids by keyword": (Tagger, {"input_ids": torch.randint(0, 20, (40, 7))}, torch.randint(0, 5, (40, 7))),
    "a text's class": (lambda: Tagger(False), {"input_ids": torch.randint(0, 20, (40, 7))}, torch.randint(0, 5, (40,))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("data", ["none", "unlabelled", "labelled"])
def test_any_model_gets_smaller_with_whatever_data_there_are(case: str, data: str) -> None:
    make, inputs, targets = CASES[case]
    torch.manual_seed(0)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = {"none": None, "unlabelled": inputs, "labelled": (inputs, targets)}[data]
    result = quiet(model, inputs, data=given)
    assert result.after.parameters < result.before.parameters
    assert result.after.macs < 0.75 * result.before.macs
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "it isn't changed"
    from prunus.core.calls import answer, call

    assert answer(call(result.model, inputs)).shape == answer(call(model, inputs)).shape
    assert bool(result.tried) == (data != "none")


def test_without_data_every_group_keeps_its_share_of_the_largest_weights() -> None:
    model = classifier()
    result = quiet(model, torch.randn(1, 6), keep_fraction=0.25)
    assert [layer.out_features for layer in result.model if isinstance(layer, nn.Linear)] == [8, 4, 4]
    (step,) = result.plan.steps
    decision = next(d for d in step.decisions if len(d.unit) == 32)
    with torch.no_grad():
        score = model[0].weight.norm(dim=1) + model[0].bias.abs() + model[2].weight.norm(dim=0)
    assert set(decision.unit[decision.keep]) == set(score.topk(8).indices.tolist())


def test_a_smaller_model_is_nearer_than_any_other_way_that_was_cut() -> None:
    x, y = examples_of(96)
    result = quiet(classifier(), x[:1], data=(x, y))
    cut = [row for row in result.tried if row.adjusted is not None]
    (chosen,) = [row for row in result.tried if row.chosen]
    assert len(cut) == 3
    assert chosen.adjusted == min(row.adjusted for row in cut) == pytest.approx(result.distance)
    assert all(row.cost <= cut[0].cost * 1.5 for row in result.tried)
    assert [row.zeroed for row in result.tried] == sorted(row.zeroed for row in result.tried)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.2, 0.9), st.sampled_from(["macs", "params", "bytes"]), st.booleans())
def test_no_way_costs_more_than_the_target(share: float, kind: str, labelled: bool) -> None:
    x, y = examples_of()
    result = quiet(classifier(), x[:1], data=(x, y) if labelled else None, target={kind: share})
    left = {
        "macs": result.after.macs / result.before.macs,
        "params": result.after.parameters / result.before.parameters,
        "bytes": result.after.memory_bytes / result.before.memory_bytes,
    }
    assert left[kind] <= share + 1e-9
    assert all(row.cost <= share + 1e-9 for row in result.tried)


def test_units_that_do_nothing_go_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[0].weight[::2] *= 5
        model[0].bias[::2] = -100.0  # large weights, and never above zero
    x, y = examples_of()
    for data in ((x, y), x):
        result = quiet(model, x[:1], data=data, adjust=(), keep_fraction=0.5)
        (decision,) = result.plan.steps[0].decisions
        assert set(decision.unit[decision.keep]) == set(range(1, 16, 2))
        assert result.distance == pytest.approx(0, abs=1e-6)


def test_a_plan_is_carried_out_again_to_the_bit() -> None:
    x, y = examples_of()
    model = classifier()
    first = quiet(model, x[:1], data=(x, y))
    again = quiet(model, x[:1], data=(x, y), plan=first.plan)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    with pytest.raises(PlanError, match="made for another model"):
        quiet(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), x[:1], plan=first.plan)


def test_a_seed_gives_the_same_model() -> None:
    x, _ = examples_of()
    one, two = (quiet(classifier(), x[:1], data=x, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_what_is_excluded_and_rounded_stays_so() -> None:
    x, y = examples_of()
    result = quiet(classifier(), x[:1], data=(x, y), exclude=["0"], round_to=4, target={"macs": 0.8})
    widths = [layer.out_features for layer in result.model if isinstance(layer, nn.Linear)]
    assert widths[0] == 32
    assert widths[1] % 4 == 0
    assert widths[1] < 16


def test_modes_and_precision_stay_the_models() -> None:
    x, _ = examples_of()
    model = classifier().double()
    model.train()
    model[1].eval()
    result = quiet(model, x[:1].double(), data=x.double())
    assert result.model.training
    assert model.training
    assert not model[1].training
    assert next(result.model.parameters()).dtype == torch.float64


TARGETS: dict[str, tuple[tuple[int, ...], Tensor, str, str]] = {
    "classes": ((8, 4), torch.randint(0, 4, (8,)), "cross-entropy", "kl"),
    "classes in a column": ((8, 4), torch.randint(0, 4, (8, 1)), "cross-entropy", "kl"),
    "a map of classes": ((8, 4, 5, 5), torch.randint(0, 4, (8, 5, 5)), "cross-entropy", "kl"),
    "a class for each token": ((8, 7, 4), torch.randint(0, 4, (8, 7)), "cross-entropy", "kl_last"),
    "yes or no": ((8, 1), torch.tensor([0, 1] * 4), "binary cross-entropy", "kl"),
    "several labels": ((8, 4), torch.tensor([[0.0, 1, 1, 0]] * 8), "binary cross-entropy of each label", "relative"),
    "a mask": (
        (8, 1, 3, 3),
        (torch.arange(72) % 2).float().view(8, 1, 3, 3),
        "binary cross-entropy of each label",
        "relative",
    ),
    "numbers": ((8, 3), torch.randn(8, 3), "squared error", "relative"),
    "a number": ((8, 1), torch.randn(8), "squared error", "relative"),
}


class Fixed(nn.Module):
    """A network that answers in one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.scale = shape, nn.Parameter(torch.randn(shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *[1] * (len(self.shape) - 1)) * self.scale


@pytest.mark.parametrize("case", TARGETS)
def test_targets_imply_the_loss(case: str) -> None:
    shape, targets, said, measure = TARGETS[case]
    model, x = Fixed(shape), torch.randn(shape[0], 1)
    objective = objective_of(model, Batches([(x, targets)]))
    assert objective.said.startswith(said)
    assert objective.measure == measure
    batch = next(iter(Batches([(x, targets)]).batches(8)))
    outputs = model(x)
    oracle = {
        "classes": lambda: functional.cross_entropy(outputs, targets),
        "classes in a column": lambda: functional.cross_entropy(outputs, targets[:, 0]),
        "a map of classes": lambda: functional.cross_entropy(outputs, targets),
        "a class for each token": lambda: functional.cross_entropy(outputs.reshape(56, 4), targets.reshape(56)),
        "yes or no": lambda: functional.binary_cross_entropy(outputs[:, 0].sigmoid(), targets.float()),
        "several labels": lambda: functional.binary_cross_entropy(outputs.sigmoid(), targets),
        "a mask": lambda: functional.binary_cross_entropy(outputs.sigmoid(), targets),
        "numbers": lambda: (outputs - targets).square().mean(),
        "a number": lambda: (outputs[:, 0] - targets).square().mean(),
    }[case]()
    assert objective.loss(outputs, batch).item() == pytest.approx(oracle.item(), rel=1e-5)


def test_targets_that_are_the_inputs_ask_for_the_next_token() -> None:
    ids = torch.randint(0, 5, (8, 7))
    model = nn.Embedding(5, 5)
    objective = objective_of(model, Batches([(ids, ids.clone())]))
    assert objective.said.startswith("cross-entropy of the next token")
    batch = next(iter(Batches([(ids, ids.clone())]).batches(8)))
    scores = model(ids)
    oracle = functional.cross_entropy(scores[:, :-1].reshape(-1, 5), ids[:, 1:].reshape(-1))
    assert objective.loss(scores, batch).item() == pytest.approx(oracle.item(), rel=1e-5)


def test_places_that_are_not_counted_do_not_count() -> None:
    shape, targets, _, _ = TARGETS["a class for each token"]
    ignored = targets.clone()
    ignored[:, 3:] = -100
    model, x = Fixed(shape), torch.randn(8, 1)
    objective = objective_of(model, Batches([(x, ignored)]))
    batch = next(iter(Batches([(x, ignored)]).batches(8)))
    oracle = functional.cross_entropy(model(x)[:, :3].reshape(-1, 4), targets[:, :3].reshape(-1))
    assert objective.loss(model(x), batch).item() == pytest.approx(oracle.item(), rel=1e-5)


def test_a_module_or_a_function_is_the_loss() -> None:
    x, y = examples_of()
    weight = torch.tensor([1.0, 5.0, 1.0, 1.0])
    by_module = quiet(classifier(), x[:1], data=(x, y), loss=nn.CrossEntropyLoss(weight=weight), criterion="taylor")
    by_function = quiet(
        classifier(),
        x[:1],
        data=(x, y),
        loss=lambda o, t: functional.cross_entropy(o, t, weight=weight),
        criterion="taylor",
    )
    assert by_module.objective == "CrossEntropyLoss of outputs and targets"
    for one, two in zip(by_module.model.parameters(), by_function.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"keep_fraction": 0}, RecipeError, r"keep_fraction: expected a number in \(0, 1\]"),
        ({"keep_fraction": 1.5}, RecipeError, "got 1.5"),
        ({"target": {"latency": 0.5}}, RecipeError, "expected one of params, macs, bytes"),
        ({"target": {"macs": 0.5}, "keep_fraction": 0.5}, RecipeError, "not both"),
        ({"target": {"macs": 1e-9}}, RecipeError, "below the floor"),
        ({"criterion": "magnitude"}, RecipeError, "magnitude"),
        ({"criterion": "movement"}, RecipeError, "takes a training"),
        ({"criterion": "wanda"}, DataError, "criterion wanda needs examples"),
        ({"allocation": "fair"}, RecipeError, "allocation"),
        ({"adjust": ["bias", "wish"]}, RecipeError, "adjust: expected 'auto' or some of"),
        ({"exclude": ["nothing*"]}, RecipeError, "exclude: 'nothing\\*' fits no layer"),
        ({"granularity": "chanel"}, RecipeError, "granularity: did you mean 'channel'?"),
        ({"target": 0.5}, RecipeError, "target: expected one of .*got 0.5"),
        ({"exclude": "layer9"}, RecipeError, "exclude: 'layer9' fits no layer"),
        ({"data": "digits.npz"}, DataError, "got the text 'digits.npz'"),
        ({"data": (examples_of()[0], ["a", "b"] * 32)}, DataError, "a list of texts; encode labels"),
        ({"data": examples_of(), "loss": nn.MSELoss}, ModelError, "got the class MSELoss, which is no loss yet"),
        ({"granularity": "2:4"}, RecipeError, "sets single weights to zero"),
        ({"granularity": "head"}, PrunusError, "the model has no head"),
        ({"data": examples_of()[0][:, :3].long()}, DataError, "expected batches that hold what the model takes"),
        ({"data": (examples_of()[0], examples_of()[1] + 9)}, DataError, "look at the label column"),
        ({"data": (examples_of()[0], torch.randn(64, 9))}, DataError, "give loss="),
        ({"data": examples_of()[0], "loss": nn.MSELoss()}, DataError, "the data have none"),
        ({"data": examples_of(), "loss": lambda o, t: o}, ModelError, "must give one number"),
        ({"data": examples_of(), "loss": lambda o, t: 1 / 0}, ModelError, "the loss <lambda> failed"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: dict[str, Any], error: type[PrunusError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        quiet(classifier(), torch.randn(1, 6), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [None, "images", DataLoader(TensorDataset(torch.randn(4, 6))), ()])
def test_inputs_are_an_example_not_a_set(inputs: Any) -> None:
    with pytest.raises(DataError, match="inputs: expected"):
        quiet(classifier(), inputs)


def test_it_shows_itself_shortly() -> None:
    x, y = examples_of()
    result = quiet(classifier(), x[:1], data=(x, y))
    lines = repr(result).splitlines()
    assert lines[0].startswith("Sequential: ")
    assert len(lines) < 14
    assert "<table>" in result._repr_html_()
    assert "&lt;" not in result._repr_html_()


def test_few_examples_choose_nothing_by_themselves() -> None:
    x, y = examples_of(5)
    result = quiet(classifier(), x[:1], data=(x, y))
    assert result.tried == ()
    assert any("too few to hold some out" in note for note in result.notes)


def test_a_distance_by_the_last_dimension_is_that_of_the_tokens() -> None:
    torch.manual_seed(0)
    one, two, ids = nn.Embedding(9, 5), nn.Embedding(9, 5), torch.randint(0, 9, (6, 4))
    found = distance(one, two, Batches([(ids, None)]), measure="kl_last")
    new, old = one(ids).log_softmax(-1), two(ids).log_softmax(-1)
    assert found == pytest.approx((old.exp() * (old - new)).sum(-1).mean().item(), rel=1e-4)
