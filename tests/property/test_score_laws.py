"""The laws of criteria, for every one that is registered."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.core.types import Stratum
from prunus.score import (
    NEEDS,
    Evidence,
    check_criterion,
    criteria,
    criteria_table,
    example_criteria,
    gather,
    score_weights,
)
from prunus.select import select
from tests_support import public_dataclasses

WEIGHED = [
    name for name in criteria if "weight" in criteria[name].granularities and "inverse_gram" not in criteria[name].needs
]
EVERY = pytest.mark.parametrize("name", list(criteria))
COMMON = settings(deadline=None, derandomize=True, max_examples=40)
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))


SIGNED = ("weight", "gradient", "hessian_gradient", "movement")
PER_UNIT = ("noise", "block_cosine")
# A unit of zeros is a filter like any other to those that compare units, and means nothing to those that read no weights.
JUDGE_OTHERWISE = ("random", "fpgm", "block_influence")


def evidence(seed, shape):
    """Every kind of evidence: what is a norm, a share or a square isn't below zero."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for kind in NEEDS:
        size = shape[:1] if kind in PER_UNIT else shape
        drawn = torch.randn if kind in SIGNED else torch.rand
        found[kind] = drawn(size, generator=draw, dtype=torch.float64)
    return found


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_there_is_one_finite_saliency_per_unit(name, seed, shape):
    saliency = criteria[name](evidence(seed, shape))
    assert saliency.shape == shape[:1]
    assert torch.isfinite(saliency).all()
    assert criteria[name].signed or (saliency >= 0).all()


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES, data=st.data())
def test_permuting_units_permutes_scores(name, seed, shape, data):
    given_ = evidence(seed, shape)
    order = torch.tensor(data.draw(st.permutations(range(shape[0]))))
    moved = criteria[name]({kind: tensor[order] for kind, tensor in given_.items()})
    torch.testing.assert_close(moved, criteria[name](given_)[order], rtol=1e-12, atol=1e-14)


@EVERY
@COMMON
@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_a_unit_of_zeros_is_worth_least(name, seed, shape):
    if name in JUDGE_OTHERWISE:
        return
    given_ = evidence(seed, shape)
    for kind in criteria[name].needs:
        if kind != "inverse_gram":  # the inverse of what is positive is never zero
            given_[kind][0] = 0
    saliency = criteria[name](given_)
    assert saliency[0] == 0
    assert criteria[name].signed or saliency.argmin() == 0 or (saliency == 0).sum() > 1


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
    held = Evidence({"w": given_["weight"]}, {"w": given_["gradient"]}, {k: {"w": v} for k, v in given_.items()})
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
    rows = criteria["taylor_sum"]({"weight": found.weight["weight"], "gradient": found.gradient["weight"]})
    for unit in range(4):
        assert rows[unit].item() == pytest.approx(_change(model, (unit,), examples, loss, base), abs=1e-10)
        for column in range(3):
            flat = single.saliency[3 * unit + column]
            assert flat == pytest.approx(_change(model, (unit, column), examples, loss, base), abs=1e-10)


def _change(model, where, examples, loss, base, whole=None):
    with torch.no_grad():
        kept = model.weight[where].clone()
        model.weight[where] = 0
        change = (loss(model(examples.inputs), whole) - base).abs().item()
        model.weight[where] = kept
    return change


@pytest.mark.parametrize("name", list(example_criteria))
@COMMON
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), data=st.data())
def test_an_example_criterion_has_one_score_per_example_and_permutes_with_them(name, seed, n, data):
    draw = torch.Generator().manual_seed(seed)
    places = "embedding" in example_criteria[name].needs
    n = max(n, 3) if places else n  # of two examples both lie equally far from their middle, and one has no neighbour
    made = {"embedding": torch.randn(n, 4, generator=draw), "label": torch.randint(2, (n,), generator=draw)}
    recorded = {need: made.get(need, torch.randn(n, generator=draw)) for need in example_criteria[name].needs}
    order = torch.tensor(data.draw(st.permutations(range(n))))
    scores = example_criteria[name](recorded)
    assert scores.shape == (n,)
    again = example_criteria[name]({k: v[order] for k, v in recorded.items()})
    # A mean, and a product of matrices, are rounded in the order of the rows.
    torch.testing.assert_close(again, scores[order], rtol=1e-4 if places else 0, atol=1e-4 if places else 0)
    (mask,) = select([Stratum("all", scores.double().numpy())], keep_fraction=1.0)
    assert mask.all()


class Regression:
    """Inputs with targets: what is quadratic in the weights of a linear layer."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def batches(self, batch_size):
        for index in torch.arange(len(self)).split(batch_size):
            yield Batch(index, self.inputs[index], self.targets[index])


class Batch(NamedTuple):
    index: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor


def least_squares(seed, n, *, fitted):
    """A linear layer without bias and a mean squared error of which it is (or isn't) the minimum."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=draw, dtype=torch.float64)
    y = torch.randn(n, 2, generator=draw, dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        best = torch.linalg.lstsq(x, y).solution.t()
        model.weight.copy_(best if fitted else torch.randn(2, 3, generator=draw))
    return model, Regression(x, y)


def squared_error(outputs, batch):
    return (outputs - batch.targets).square().sum(dim=1).mean()


@COMMON
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(5, 12),
    batch_size=st.integers(1, 13),
    name=st.sampled_from(["taylor2", "fisher"]),
)
def test_taylor2_and_fisher_are_the_change_of_loss_itself_where_the_loss_is_quadratic(seed, n, batch_size, name):
    """taylor2 everywhere; fisher, which leaves the gradient out, at the minimum."""
    model, examples = least_squares(seed, n, fitted=name == "fisher")
    needs = criteria[name].needs
    found = gather(model, ["weight"], examples, squared_error, needs, batch_size=batch_size)
    (single,) = score_weights(found, ["weight"], name)
    base = squared_error(model(examples.inputs), examples)
    for flat in range(6):
        change = _change(model, divmod(flat, 3), examples, squared_error, base, whole=examples)
        assert single.saliency[flat] == pytest.approx(change, rel=1e-8, abs=1e-10)


@COMMON
@given(seed=st.integers(0, 10**6), n=st.integers(5, 12), batch_size=st.integers(1, 13))
def test_obs_is_the_least_rise_of_the_error_when_the_rest_of_the_row_makes_up_for_a_weight(seed, n, batch_size):
    model, examples = least_squares(seed, n, fitted=False)
    found = gather(
        model, ["weight"], examples, squared_error, ("weight", "inverse_gram"), batch_size=batch_size, damping=0.0
    )
    (single,) = score_weights(found, ["weight"], "obs")
    weight = model.weight.detach()
    for row, column in np.ndindex(2, 3):
        others = [c for c in range(3) if c != column]
        made_up = torch.linalg.lstsq(examples.inputs[:, others], examples.inputs @ weight[row]).solution
        error = examples.inputs[:, others] @ made_up - examples.inputs @ weight[row]
        assert single.saliency[3 * row + column] == pytest.approx(float(error.square().mean() / 2), rel=1e-6, abs=1e-12)


@COMMON
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9), width=st.integers(1, 3))
def test_lamp_and_fpgm_equal_their_sums_over_pairs(seed, n, width):
    weight = evidence(seed, (n, width))["weight"]
    weight[n // 2] = weight[0]
    squares = weight.square().sum(1)
    lamp = [s / sum(o for o in squares if o >= s) for s in squares]
    torch.testing.assert_close(criteria["lamp"]({"weight": weight}), torch.stack(lamp))
    distances = [sum((a - b).norm() for b in weight) for a in weight]
    torch.testing.assert_close(criteria["fpgm"]({"weight": weight}), torch.stack(distances), rtol=1e-10, atol=1e-12)


@COMMON
@given(seed=st.integers(0, 10**6))
def test_fpgm_does_not_care_where_the_origin_is(seed):
    weight = evidence(seed, (5, 2))["weight"]
    torch.testing.assert_close(criteria["fpgm"]({"weight": weight + 3}), criteria["fpgm"]({"weight": weight}))


@EVERY
def test_every_criterion_judges_something_and_names_evidence_that_is_explained(name):
    assert set(criteria[name].needs) <= set(NEEDS)
    assert criteria[name].granularities
    for granularity in criteria[name].granularities:
        assert check_criterion(name, granularity) is criteria[name]


def test_the_table_lists_every_name_with_what_it_is():
    rows = criteria_table()
    assert [r["name"] for r in rows] == [*criteria, *example_criteria]
    assert all(r["summary"] and r["judges"] for r in rows)
    assert np.unique([sorted(r) for r in rows], axis=0).shape[0] == 1


def test_what_is_handed_out_can_not_be_changed_by_one_who_has_it_behind_the_back_of_another():
    shown = list(public_dataclasses("prunus.score"))
    assert len(shown) >= 3
    assert [kind.__name__ for kind in shown if not kind.__dataclass_params__.frozen] == []
