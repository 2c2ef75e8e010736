"""The laws of criteria, for every one that is registered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.core.types import Stratum
from prunus.score import Evidence, criteria, criteria_table, example_criteria, gather, score_weights
from prunus.select import select

WEIGHED = [
    name for name in criteria if "weight" in criteria[name].granularities and "inverse_gram" not in criteria[name].needs
]
EVERY = pytest.mark.parametrize("name", list(criteria))
COMMON = settings(deadline=None, derandomize=True, max_examples=40)
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))


def evidence(seed, shape):
    draw = torch.Generator().manual_seed(seed)
    found = {kind: torch.randn(shape, generator=draw, dtype=torch.float64) for kind in ("weight", "gradient")}
    found["inverse_gram"] = torch.rand(shape, generator=draw, dtype=torch.float64) + 0.1
    return {**found, "noise": torch.rand(shape[0], generator=draw, dtype=torch.float64)}


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_there_is_one_finite_saliency_per_unit(name, seed, shape):
    saliency = criteria[name](evidence(seed, shape))
    assert saliency.shape == shape[:1]
    assert torch.isfinite(saliency).all()
    assert (saliency >= 0).all()


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES, data=st.data())
def test_permuting_units_permutes_scores(name, seed, shape, data):
    given_ = evidence(seed, shape)
    order = torch.tensor(data.draw(st.permutations(range(shape[0]))))
    moved = criteria[name]({kind: tensor[order] for kind, tensor in given_.items()})
    torch.testing.assert_close(moved, criteria[name](given_)[order], rtol=1e-12, atol=0)


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_a_unit_of_zeros_is_worth_least(name, seed, shape):
    if name == "random":
        return
    given_ = evidence(seed, shape)
    for kind in ("weight", "gradient"):
        given_[kind][0] = 0
    saliency = criteria[name](given_)
    assert saliency[0] == 0
    assert saliency.argmin() == 0 or (saliency == 0).sum() > 1


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_the_order_inside_a_unit_does_not_matter(name, seed, shape):
    given_ = evidence(seed, shape)
    turned = {kind: tensor.flip(dims=[1, 2]) if tensor.ndim > 1 else tensor for kind, tensor in given_.items()}
    torch.testing.assert_close(criteria[name](turned), criteria[name](given_), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", WEIGHED)
@COMMON
@given(seed=st.integers(0, 10**6))
def test_the_same_seed_makes_the_same_plan(name, seed):
    given_ = evidence(seed, (4, 3, 2))
    held = Evidence({"w": given_["weight"]}, {"w": given_["gradient"]})
    first, again = (select(score_weights(held, ["w"], name, seed=seed), keep_fraction=0.5) for _ in range(2))
    assert (first[0] == again[0]).all()
    assert first[0].sum() == 12


class Examples:
    """Random inputs with a linear loss."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def batches(self, batch_size):
        for index in torch.arange(len(self)).split(batch_size):
            yield type("Batch", (), {"index": index, "inputs": self.inputs[index], "targets": index})


@COMMON
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9), batch_size=st.integers(1, 10))
def test_taylor_is_the_change_of_loss_itself_where_the_loss_is_linear(seed, n, batch_size):
    draw = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    examples = Examples(torch.randn(n, 3, generator=draw, dtype=torch.float64))
    price = torch.randn(4, generator=draw, dtype=torch.float64)

    def loss(outputs, batch):
        return (outputs @ price).mean()

    found = gather(model, ["weight"], examples, loss, ("weight", "gradient"), batch_size=batch_size)
    base = loss(model(examples.inputs), None)
    (single,) = score_weights(found, ["weight"], "taylor")
    rows = criteria["taylor"]({"weight": found.weight["weight"], "gradient": found.gradient["weight"]})
    for unit in range(4):
        assert rows[unit].item() == pytest.approx(_change(model, (unit,), examples, loss, base), abs=1e-10)
        for column in range(3):
            flat = single.saliency[3 * unit + column]
            assert flat == pytest.approx(_change(model, (unit, column), examples, loss, base), abs=1e-10)


def _change(model, where, examples, loss, base):
    with torch.no_grad():
        kept = model.weight[where].clone()
        model.weight[where] = 0
        change = (loss(model(examples.inputs), None) - base).abs().item()
        model.weight[where] = kept
    return change


@pytest.mark.parametrize("name", list(example_criteria))
@COMMON
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), data=st.data())
def test_an_example_criterion_has_one_score_per_example_and_permutes_with_them(name, seed, n, data):
    draw = torch.Generator().manual_seed(seed)
    recorded = {need: torch.randn(n, generator=draw) for need in example_criteria[name].needs}
    order = torch.tensor(data.draw(st.permutations(range(n))))
    scores = example_criteria[name](recorded)
    assert scores.shape == (n,)
    assert torch.equal(example_criteria[name]({k: v[order] for k, v in recorded.items()}), scores[order])
    (mask,) = select([Stratum("all", scores.double().numpy())], keep_fraction=1.0)
    assert mask.all()


def test_the_table_lists_every_name_with_what_it_is():
    rows = criteria_table()
    assert [r["name"] for r in rows] == [*criteria, *example_criteria]
    assert all(r["summary"] and r["judges"] for r in rows)
    assert np.unique([sorted(r) for r in rows], axis=0).shape[0] == 1
