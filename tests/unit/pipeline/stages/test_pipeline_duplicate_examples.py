"""Near-duplicates leave the training set once each, and what must be known of them is said."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Duplicates
from prunus.data import ArraySource, Examples
from prunus.pipeline.stages import duplicate_examples
from prunus.pipeline.stages.duplicate_examples import alike_apart
from prunus.score import flat_inputs


def source_of(values, labels):
    values, labels = torch.from_numpy(np.asarray(values)), torch.from_numpy(np.asarray(labels))
    return ArraySource("made", tuple(map(str, range(len(labels)))), values, labels, "classification", ("a", "b"))


def doubled(*, relabelled=0, **examples):
    """Return an optimizer over 300 examples, 100 of which are a copy of another one but for a little noise, and what it told."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(200, 16))
    labels = (inputs[:, 0] > 0).astype(int)
    inputs = np.concatenate([inputs, inputs[:100] + 0.01 * draw.normal(size=(100, 16))]).astype(np.float32)
    labels = np.concatenate([labels, labels[:100]])
    if relabelled:
        labels[-relabelled:] ^= 1
    torch.manual_seed(0)
    told = []
    optimizer = ModelOptimizer(
        nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2)),
        (inputs, labels),
        strategy="magnitude_l2",
        train={"epochs": 1},
        recovery={"epochs": 1},
        seeds=[0],
        examples={"epochs": 1, "duplicates": examples},
        listener=told.append,
    )
    return optimizer, told


def doubled_tokens(*, relabelled=0, **examples):
    """Return an optimizer over 300 sequences of tokens, 100 of which copy another one but for one token, and what it told."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 200, (200, 24))
    tokens = np.concatenate([tokens, tokens[:100]])
    tokens[np.arange(200, 300), draw.integers(0, 24, 100)] = draw.integers(1, 200, 100)
    labels = np.arange(300) % 2
    labels[200:] = labels[:100]
    if relabelled:
        labels[-relabelled:] ^= 1
    torch.manual_seed(0)
    told = []
    optimizer = ModelOptimizer(
        nn.Sequential(nn.Embedding(200, 4), nn.Flatten(), nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 2)),
        (tokens, labels),
        strategy="magnitude_l2",
        train={"epochs": 1},
        recovery={"epochs": 1},
        seeds=[0],
        examples={"epochs": 1, "duplicates": {"space": "tokens", **examples}},
        listener=told.append,
    )
    return optimizer, told


def originals(ids):
    """Return which of the 200 each example is or copies."""
    numbers = np.array([int(name.rsplit(":", 1)[-1]) for name in ids])
    return np.where(numbers >= 200, numbers - 200, numbers)


def test_of_two_that_are_alike_one_stays_and_the_plan_says_which():
    optimizer, _ = doubled()
    optimizer.prune(keep_fraction=0.5)
    train = optimizer._job.data.train
    step = optimizer.plan_.steps[0]
    assert (step.operation, step.granularity, step.criterion) == ("remove", "example", "near_duplicates")
    gone = {
        name: reason
        for d in step.decisions
        for name, keep, reason in zip(d.label, d.keep, d.reason, strict=True)
        if not keep
    }
    known = originals(train.ids)
    assert len(gone) == len(known) - len(set(known.tolist())) > 0
    for name, reason in gone.items():
        other = reason.removeprefix("like ").partition(",")[0]
        assert other in train.ids
        assert other not in gone
        assert originals([name]) == originals([other])
        assert float(reason.rpartition(" ")[2]) >= 0.99


def test_nothing_is_trained_to_compare_inputs():
    optimizer, told = doubled()
    optimizer.prune(keep_fraction=0.5)
    assert not any("judge examples" in event.stage and "epoch" in event.message for event in told)
    assert {event.stage for event in told if event.kind == "progress" and "judge" in event.stage} == set()


def test_by_the_embedding_of_a_short_training_it_finds_them_too():
    optimizer, _ = doubled(space="embedding", cosine=0.999)
    optimizer.prune(keep_fraction=0.5)
    step = optimizer.plan_.steps[0]
    train = optimizer._job.data.train
    known = originals(train.ids)
    assert step.n_units - step.n_kept >= (len(known) - len(set(known.tolist()))) * 0.9


@pytest.mark.parametrize("width", [None, 1])
def test_of_two_that_share_most_tokens_one_stays_and_nothing_is_trained_for_it(width):
    optimizer, told = doubled_tokens(jaccard=0.7, width=width)
    optimizer.prune(keep_fraction=0.5)
    train = optimizer._job.data.train
    known = originals(train.ids)
    step = optimizer.plan_.steps[0]
    reasons = [
        (name, reason)
        for d in step.decisions
        for name, keep, reason in zip(d.label, d.keep, d.reason, strict=True)
        if not keep
    ]
    assert len(reasons) == len(known) - len(set(known.tolist())) > 0
    for name, reason in reasons:
        other, _, similarity = reason.removeprefix("like ").rpartition(", Jaccard ")
        assert originals([name]) == originals([other])
        assert 0.7 <= float(similarity) <= 1
    assert not any("judge examples" in event.stage and "epoch" in event.message for event in told)


def test_tokens_with_another_label_and_those_that_the_test_shares_are_named():
    optimizer, told = doubled_tokens(jaccard=0.7, relabelled=100)
    optimizer.prune(keep_fraction=0.5)
    data = optimizer._job.data
    assert optimizer.plan_.steps[0].n_kept == optimizer.plan_.steps[0].n_units
    warnings = [event.message for event in told if event.kind == "warning"]
    assert any("near-duplicates of one with another label (Jaccard >= 0.7) and stay" in text for text in warnings)
    shared = np.isin(originals(data.test.ids), originals(data.train.ids)).sum()
    assert shared > 0
    found = alike_apart(data.train, data.test, Duplicates(space="tokens", jaccard=0.7, width=1)).leaked
    assert len(found) == shared
    for one, other, similarity in found:
        here, there = (
            set(part.inputs_at(torch.tensor([at]))[0].tolist()) for part, at in ((data.test, one), (data.train, other))
        )
        assert similarity == pytest.approx(len(here & there) / len(here | there))
    assert any(
        text.startswith(f"{shared} of {len(data.test)} test examples are near-duplicates of training examples (Jaccard")
        for text in warnings
    )


def test_those_with_another_label_stay_and_are_named():
    optimizer, told = doubled(relabelled=100)
    optimizer.prune(keep_fraction=0.5)
    step = optimizer.plan_.steps[0]
    assert step.n_kept == step.n_units
    warnings = [event.message for event in told if event.kind == "warning"]
    assert any(
        "near-duplicates of one with another label (cosine >= 0.99) and stay: the first is" in text for text in warnings
    )


def test_test_examples_that_the_training_knows_are_counted():
    optimizer, told = doubled()
    optimizer.prune(keep_fraction=0.5)
    data = optimizer._job.data
    shared = np.isin(originals(data.test.ids), originals(data.train.ids)).sum()
    assert shared > 0
    text = next(e.message for e in told if e.kind == "warning" and "test examples are near-duplicates" in e.message)
    assert text.startswith(f"{shared} of {len(data.test)} test examples are near-duplicates of training examples")
    assert "data.split.groups" in text


def test_inputs_are_compared_as_deviations_from_the_mean_of_the_first_set_and_features_by_their_scale():
    values = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32) * [1, 1000, 0.001] + [0, 5000, 3]
    source = source_of(values.astype(np.float32), np.arange(50) % 2)
    train, test = (Examples(source, torch.arange(*part)) for part in ((0, 40), (40, 50)))
    rows = flat_inputs(train, test, batch_size=7)
    mean, deviation = values[:40].mean(axis=0), values[:40].std(axis=0)
    np.testing.assert_allclose(rows.numpy(), (values - mean) / deviation, rtol=1e-2, atol=1e-3)


def test_wide_inputs_are_projected_and_keep_their_cosines():
    draw = np.random.default_rng(2)
    values = draw.normal(size=(40, 3, 16, 16)).astype(np.float32)
    values[20:] = values[:20] + 0.1 * draw.normal(size=(20, 3, 16, 16))
    source = source_of(values, np.arange(40) % 2)
    rows = flat_inputs(Examples(source, torch.arange(40)))
    assert rows.shape == (40, 256)
    centred = (values - values.mean(axis=0)).reshape(40, -1)

    def cosine(table):
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        return (unit[:20] * unit[20:]).sum(axis=1)

    np.testing.assert_allclose(cosine(rows.numpy()), cosine(centred), atol=0.006)


def test_what_cannot_be_compared_is_refused_in_a_line():
    tokens = source_of(np.arange(40).reshape(20, 2) % 7, np.arange(20) % 2)
    with pytest.raises(
        DataError, match=r"likeness of inputs is measured of one tensor of numbers: got .*int64.*space: tokens"
    ):
        flat_inputs(Examples(tokens, torch.arange(20)))
    with pytest.raises(RecipeError, match=r"examples.duplicates.cosine"):
        doubled(cosine=1.5)
    with pytest.raises(RecipeError, match=r"examples.duplicates.space"):
        doubled(space="pixels")
    with pytest.raises(RecipeError, match=r"examples.duplicates.width"):
        doubled_tokens(width=0)
    with pytest.raises(DataError, match=r"space: tokens compares sequences of integers.*got .*float32.*space: inputs"):
        doubled(space="tokens")[0].prune(keep_fraction=0.5)


def test_inputs_without_likeness_are_refused_before_anything_is_trained():
    told = []
    tokens = torch.randint(7, (80, 5), generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match=r"one tensor of numbers: got .*int64.*space: tokens"):
        ModelOptimizer(
            nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2)),
            (tokens, tokens[:, 0] % 2),
            strategy="magnitude_l2",
            train={"epochs": 1},
            seeds=[0],
            examples={"duplicates": {}},
            listener=told.append,
        ).prune(keep_fraction=0.5)
    assert not any("train" in event.stage for event in told)


@pytest.mark.parametrize(("shape", "strict"), [((9,), True), ((31,), True), ((32,), False), ((1, 8, 8), False)])
def test_rows_of_a_small_table_are_duplicates_by_default_only_where_they_are_all_but_equal(shape, strict):
    from types import SimpleNamespace

    from prunus.pipeline.stages.duplicate_examples import usual_duplicates

    assert usual_duplicates(SimpleNamespace(input_shape=shape)).cosine == (0.99999 if strict else 0.99)


def test_what_is_alike_is_searched_once_in_a_run(monkeypatch):
    """Once over the training examples alone and once with the test examples, and once per class where copies go."""
    optimizer, _ = doubled()
    searched, real = [], duplicate_examples.near_duplicates

    def near(rows, **options):
        searched.append(len(rows))
        return real(rows, **options)

    monkeypatch.setattr(duplicate_examples, "near_duplicates", near)
    optimizer.run()
    data = optimizer._job.data
    n, both = len(data.train), len(data.train) + len(data.test)
    assert (searched.count(n), searched.count(both)) == (1, 1)
