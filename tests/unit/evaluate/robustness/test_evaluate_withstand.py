"""What corruptions cost, and what they cost the pruned model beyond what pruning costs anyway."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.data import Batches
from prunus.evaluate import observe
from prunus.evaluate.robustness import facts_of, placed, replaced, withstood
from prunus.evaluate.robustness.corrupted import Changed
from prunus.evaluate.robustness.input_kind import Place
from prunus.tasks import Classification, Language


def seen_of(right):
    true = np.zeros(len(right), dtype=np.int64)
    return {"true": true, "predicted": np.where(right, 0, 1), "right": right}


def test_the_excess_is_what_is_lost_beyond_the_loss_on_clean_inputs():
    rng = np.random.default_rng(0)
    n = 800
    clean = {"dense": seen_of(rng.random(n) < 0.95), "pruned": seen_of(rng.random(n) < 0.9)}
    worse = [{"dense": seen_of(rng.random(n) < 0.8), "pruned": seen_of(rng.random(n) < 0.5)} for _ in range(2)]
    rows = withstood(
        "noise", clean, worse, Classification(("a", "b")), "accuracy", confidence=0.95, bootstrap=400, seed=0
    )
    assert [row.severity for row in rows] == [0, 1, 2]
    means = {name: one["right"].mean() for name, one in clean.items()}
    here = [{name: one["right"].mean() for name, one in part.items()} for part in worse]
    for row, part in zip(rows[1:], here, strict=True):
        assert row.difference.value == pytest.approx(part["pruned"] - part["dense"])
        assert row.excess.value == pytest.approx(part["pruned"] - part["dense"] - means["pruned"] + means["dense"])
        assert row.excess.low <= row.excess.value <= row.excess.high < 0
    assert rows[0].excess.value == pytest.approx(np.mean([row.excess.value for row in rows[1:]]))


def test_pruning_that_costs_as_much_everywhere_has_no_excess():
    rng, n_found = np.random.default_rng(0), 0
    for _ in range(60):
        dense = rng.random(400) < 0.9
        clean = {"dense": seen_of(dense), "pruned": seen_of(dense & (rng.random(400) < 0.9))}
        worse = {"dense": seen_of(dense), "pruned": seen_of(dense & (rng.random(400) < 0.9))}
        rows = withstood(
            "x", clean, [worse], Classification(("a", "b")), "accuracy", confidence=0.95, bootstrap=200, seed=0
        )
        n_found += not rows[0].excess.low <= 0 <= rows[0].excess.high
    assert n_found <= 8


def test_both_models_see_the_same_changed_inputs():
    x, y = torch.randn(30, 5), torch.zeros(30, dtype=torch.long)

    def noisy(value, draw):
        return value + torch.randn(value.shape, generator=draw)

    changed = Changed(Batches([(x, y)]), Place("", "table"), noisy, lambda v: 2 * v, lambda v: v / 2, 7)
    one, two = (torch.cat([batch.inputs for batch in changed.batches(10)]) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, x)
    observe(nn.Linear(5, 2), changed, Classification(("a", "b")))


def test_a_change_is_made_to_the_datas_own_numbers():
    """A bias of one in the data's numbers is one over the deviation in the model's."""
    x, y = torch.randn(8, 3), torch.zeros(8, dtype=torch.long)
    changed = Changed(
        Batches([(x, y)]), Place("", "table"), lambda v, _: v + 1, lambda v: (v - 5) / 4, lambda v: 4 * v + 5, 0
    )
    (batch,) = changed.batches(8)
    assert torch.allclose(batch.inputs, x + 0.25, atol=1e-6)


def test_a_language_models_targets_are_its_unchanged_tokens():
    ids = torch.arange(1, 13).reshape(2, 6)
    changed = Changed(Batches([(ids, None)]), Place("", "tokens"), lambda v, _: v * 0, lambda v: v, lambda v: v, 0)
    (batch,) = changed.batches(8)
    assert torch.equal(batch.targets, ids)
    assert int(batch.inputs.sum()) == 0
    scores = torch.randn(2, 6, 13)
    assert Language().observe(scores, batch)["tokens"].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("inputs", "named", "expected"),
    [
        (torch.zeros(2, 1, 8, 8), False, Place("", "image")),
        (torch.zeros(2, 200), True, Place("", "table")),
        (torch.zeros(2, 200), False, Place("", "sequence")),
        (torch.zeros(2, 40, 3), False, Place("", "sequence")),
        (
            {"attention_mask": torch.ones(2, 5).long(), "input_ids": torch.ones(2, 5).long()},
            False,
            Place("input_ids", "tokens"),
        ),
        ((torch.zeros(2, 4), torch.zeros(2, 3, 4, 4)), False, Place("[0]", "table")),
        (torch.zeros(2, 1, 2, 3, 4), False, None),
    ],
)
def test_the_kind_of_inputs_is_read_off_their_tensors(inputs, named, expected):
    assert placed(inputs, named=named) == expected


def test_one_tensor_among_several_is_replaced():
    a, b = torch.zeros(2, 3), torch.ones(2)
    made = replaced({"x": (a, [b]), "y": b}, "x[1][0]", b + 1)
    assert made["x"][0] is a
    assert torch.equal(made["x"][1][0], b + 1)
    assert made["y"] is b


def test_the_range_of_each_feature_is_found_and_padding_is_what_fills_rows():
    x = torch.stack([torch.linspace(-1, 3, 50), (torch.arange(50) % 2).float()], dim=1)
    facts = facts_of(Batches([(x, None)]), Place("", "table"), lambda v: v)
    assert facts.low.tolist() == [-1, 0]
    assert facts.high.tolist() == [3, 1]
    assert facts.graded.tolist() == [True, False]
    ids = torch.full((10, 6), 9)
    ids[:, :3] = torch.randint(0, 5, (10, 3))
    facts = facts_of(Batches([(ids, None)]), Place("", "tokens"), lambda v: v)
    assert facts.padding == 9
    assert float(facts.tokens.sum()) == 30
