"""Labels are contradicted by the model and the neighbours together, or not at all."""

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError, RecipeError, ShapeError
from prunus.core.recipes.recipe import Relabel
from prunus.score import nearest_neighbours, suggest_labels
from prunus.score.examples import neighbours
from prunus.tasks import Regression


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [3, 1024])
def test_neighbours_are_those_of_brute_force(monkeypatch, metric, block):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) + 3
    found = nearest_neighbours(rows, 4, metric=metric)
    x = rows.double().numpy()
    for i in range(20):
        if metric == "cosine":
            far = [1 - x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(20)]
        else:
            far = [np.linalg.norm(x[i] - x[j]) for j in range(20)]
        far[i] = np.inf
        assert found[i].tolist() == np.argsort(far)[:4].tolist()


@pytest.mark.parametrize(("n", "k"), [(5000, 7), (4096, 64), (4097, 300)])
def test_among_many_rows_none_that_is_near_is_passed_over(monkeypatch, n, k):
    monkeypatch.setattr(neighbours, "_CELLS", 100 * n)
    # Whole numbers: distances are exact, and whole rows of them are equally far.
    rows = torch.randint(-20, 20, (n, 6), generator=torch.Generator().manual_seed(n)).float()
    found = nearest_neighbours(rows, k, metric="euclidean")
    squared = (rows[:, None, :3] - rows[None, :, :3]).square().sum(2) + (
        rows[:, None, 3:] - rows[None, :, 3:]
    ).square().sum(2)
    squared.fill_diagonal_(torch.inf)
    assert torch.equal(squared.gather(1, found), squared.sort(dim=1).values[:, :k])
    assert all(len(set(row)) == k for row in found[:50].tolist())


def test_there_are_never_more_neighbours_than_other_examples():
    assert nearest_neighbours(torch.zeros(3, 2), 10, metric="cosine").shape == (3, 2)


def test_far_from_the_origin_distances_keep_their_digits():
    rows = torch.tensor([[0.0], [1.0], [2.5], [6.0]]) + 1_000_000
    assert nearest_neighbours(rows, 1, metric="euclidean").flatten().tolist() == [1, 0, 1, 2]


@pytest.fixture
def clusters(examples_of):
    """Two tight clusters; examples 0 and 1 sit in the second with the first one's label."""
    draw = torch.Generator().manual_seed(1)
    truth = torch.tensor([1] * 12 + [0] * 10)
    targets = truth.clone()
    targets[:2] = 0
    embedding = torch.nn.functional.one_hot(truth, 2).float() + 0.05 * torch.randn(22, 2, generator=draw)
    probability = torch.nn.functional.one_hot(truth, 2).float() * 0.94 + 0.03
    return examples_of(torch.zeros(22, 1), targets), probability, embedding


def test_labels_that_both_contradict_are_replaced_and_the_old_ones_kept(clusters):
    examples, probability, embedding = clusters
    step = suggest_labels(probability, embedding, examples, Relabel(confidence=0.9, neighbours=5, agreement=0.6))
    (decision,) = step.decisions
    assert (step.operation, step.granularity, step.n_units, step.n_kept) == ("relabel", "example", 22, 20)
    assert np.flatnonzero(~decision.keep).tolist() == [0, 1]
    assert decision.before[:2].tolist() == [0, 0]
    assert decision.after[:2].tolist() == [1, 1]
    assert np.isnan(decision.after[2:]).all()
    assert decision.label.tolist()[:2] == ["id0", "id1"]
    assert decision.reason[0].startswith("model 0.97 and")
    np.testing.assert_allclose(decision.saliency[[0, 5]], [-0.94, 0.94], rtol=1e-6)
    assert step.settings["neighbours"] == 5


@pytest.mark.parametrize(
    "config",
    [
        Relabel(confidence=0.98, neighbours=5, agreement=0.6),
        Relabel(confidence=0.9, neighbours=21, agreement=0.6),  # 21 others, of which only 10 or 11 carry the new label
    ],
)
def test_one_of_the_two_is_not_enough(clusters, config):
    examples, probability, embedding = clusters
    (decision,) = suggest_labels(probability, embedding, examples, config).decisions
    assert decision.keep.all()


def test_neighbours_vote_by_their_given_labels_and_not_by_what_the_model_says_of_them(clusters):
    examples, _, embedding = clusters
    sure = torch.tensor([[0.02, 0.98]]).expand(22, 2)  # the model calls everything 1
    (decision,) = suggest_labels(
        sure, embedding, examples, Relabel(confidence=0.9, neighbours=5, agreement=0.6)
    ).decisions
    assert np.flatnonzero(~decision.keep).tolist() == [0, 1]


def test_exactly_the_asked_share_of_neighbours_is_enough(examples_of):
    targets = torch.tensor([0] + [1] * 7 + [0] * 3)
    embedding = torch.cat([torch.zeros(1), torch.linspace(0.1, 0.2, 10)])[:, None]
    probability = torch.tensor([[0.05, 0.95]]).expand(11, 2)
    (decision,) = suggest_labels(
        probability, embedding, examples_of(torch.zeros(11, 1), targets), Relabel(), metric="euclidean"
    ).decisions
    assert not decision.keep[0]


def test_what_has_no_classes_or_other_shapes_is_refused(clusters, examples_of):
    examples, probability, embedding = clusters
    with pytest.raises(ShapeError, match=r"got \(22, 2\) and \(21, 2\)"):
        suggest_labels(probability, embedding[:-1], examples, Relabel())
    for wrong in (probability[:-1], torch.cat([probability, probability[:1]]), probability[:, 0]):
        with pytest.raises(ShapeError, match=r"needs probabilities \(22, classes\) and 22 embeddings"):
            suggest_labels(wrong, embedding, examples, Relabel())
    with pytest.raises(ShapeError, match=r"and \(23, 2\)"):
        suggest_labels(probability, torch.cat([embedding, embedding[:1]]), examples, Relabel())
    with pytest.raises(DataError, match="relabel needs classes"):
        suggest_labels(
            probability, embedding, examples_of(examples.inputs, examples.targets, task=Regression()), Relabel()
        )
    embedding[4, 0] = float("nan")
    with pytest.raises(DataError, match="example 4 has NaN"):
        suggest_labels(probability, embedding, examples, Relabel())
    with pytest.raises(DataError, match="at least two examples: got 1"):
        nearest_neighbours(torch.zeros(1, 2), 1, metric="cosine")
    with pytest.raises(RecipeError, match="got 0 by 'cosine'"):
        nearest_neighbours(torch.zeros(3, 2), 0, metric="cosine")


@pytest.mark.parametrize("seed", range(5))
def test_a_label_is_replaced_where_enough_neighbours_carry_the_one_that_the_model_is_sure_of(examples_of, seed):
    """Brute force, for classes of any number: only the very same label is a vote for it."""
    draw = torch.Generator().manual_seed(seed)
    targets, embedding = torch.randint(0, 4, (60,), generator=draw), torch.randn(60, 2, generator=draw)
    probability = (3 * torch.randn(60, 4, generator=draw)).softmax(1)
    config = Relabel(confidence=0.6, neighbours=5, agreement=0.4)
    (decision,) = suggest_labels(probability, embedding, examples_of(torch.zeros(60, 1), targets), config).decisions
    near = nearest_neighbours(embedding, 5, metric="cosine")
    for i in range(60):
        best = int(probability[i].argmax())
        votes = sum(int(targets[j]) == best for j in near[i].tolist())
        stays = best == targets[i] or probability[i, best] < 0.6 or votes < 2
        assert bool(decision.keep[i]) == stays
        others = [float(p) for c, p in enumerate(probability[i]) if c != targets[i]]
        assert decision.saliency[i] == pytest.approx(float(probability[i, targets[i]]) - max(others))
    assert 0 < (~decision.keep).sum() < 60
