"""Is the simplest way recommended that nothing beats, by the paired intervals of a comparison?"""

import itertools

import numpy as np
import pytest
import torch

from prunus.core.batch import Batch
from prunus.core.errors import DataError
from prunus.evaluate import ARMS, Pairs, compare, judge_arms
from prunus.evaluate.arms import recommended
from prunus.tasks import Classification

TASK = Classification(class_names=("no", "yes"))
SAYINGS = ("better", "worse", "no measurable difference")


@pytest.mark.parametrize("said", list(itertools.product(SAYINGS, repeat=3)))
def test_a_way_is_recommended_only_where_it_measurably_beats_all_that_is_simpler(said):
    verdicts = dict(
        zip((("selection", "random"), ("selection", "full_short"), ("random", "full_short")), said, strict=True)
    )
    best, smaller = recommended(verdicts)
    assert smaller == ("selection" if said[0] == "better" else "random")
    if best == "selection":
        assert said[0] == said[1] == "better"
    elif best == "random":
        assert said[0] != "better"
        assert said[2] == "better"
    else:
        assert verdicts[smaller, "full_short"] != "better"


def seen(accuracy, seed, n=400):
    """Return what is observed of a model that answers so many of n examples right."""
    target = torch.arange(n) % 2
    right = torch.from_numpy(np.random.default_rng(seed).permutation(n) < accuracy * n)
    said = torch.where(right, target, 1 - target)
    return TASK.observe(torch.eye(2)[said], Batch(torch.arange(n), None, target))


def arms(selection, random, full_short, n_seeds=3):
    shares = dict(zip(ARMS, (selection, random, full_short), strict=True))
    return {
        name: [seen(share, 10 * at + seed) for seed in range(n_seeds)]
        for at, (name, share) in enumerate(shares.items())
    }


@pytest.mark.parametrize(
    ("shares", "best", "smaller"),
    [
        ((0.95, 0.7, 0.72), "selection", "selection"),
        ((0.9, 0.7, 0.9), "full_short", "selection"),
        ((0.5, 0.9, 0.7), "random", "random"),
        ((0.8, 0.8, 0.8), "full_short", "random"),
    ],
)
def test_what_is_clearly_best_is_found(shares, best, smaller):
    found = judge_arms(arms(*shares), TASK, "accuracy")
    assert (found.recommended, found.smaller) == (best, smaller)
    for name, share in zip(ARMS, shares, strict=True):
        assert found.values[name] == pytest.approx([share] * 3)


def test_differences_are_those_of_a_paired_comparison():
    observed = arms(0.85, 0.8, 0.82)
    found = judge_arms(observed, TASK, "accuracy", bootstrap=200, seed=3)
    for one, other, comparison in found.comparisons:
        # Three intervals that hold together: each misses in a third of 5 %.
        pairs = Pairs(observed[other], observed[one], TASK, confidence=1 - 0.05 / 3, bootstrap=200, seed=3)
        assert comparison == compare(pairs, ["accuracy"])[0]
    facts = found.to_dict()
    assert [arm["mean"] for arm in facts["arms"]] == pytest.approx([0.85, 0.8, 0.82])
    assert facts["comparisons"][0]["value"] == pytest.approx(0.05)
    assert facts["higher_is_better"] is True


def test_a_seed_without_its_partner_is_refused():
    observed = arms(0.8, 0.8, 0.8)
    observed["random"].pop()
    with pytest.raises(DataError, match="one dense and one pruned model per seed"):
        judge_arms(observed, TASK, "accuracy")
