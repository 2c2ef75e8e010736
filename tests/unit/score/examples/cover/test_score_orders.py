"""Is what these criteria keep the coverage of the papers, at every size?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.types import Stratum
from prunus.score import example_criteria, facility_location, herding, k_means
from prunus.score.examples.cover.orders import in_turns
from prunus.select import select


def kept(saliency, count):
    (mask,) = select([Stratum("all", saliency.numpy())], keep_fraction=count / len(saliency))
    return mask


@pytest.mark.parametrize(
    ("name", "order"), [("facility_location", lambda x, n: facility_location(x, n).order), ("herding", herding)]
)
def test_what_stays_of_an_order_are_its_first_picks(name, order):
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    saliency = example_criteria[name]({"embedding": rows})
    for count in (1, 7, 59):
        assert set(np.flatnonzero(kept(saliency, count))) == set(order(rows, count).tolist())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_taking_turns_gives_every_group_the_same_number_or_all_it_has(groups, seed):
    group, rank = np.array(groups), np.random.default_rng(seed).permutation(len(groups)).astype(float)
    saliency = in_turns(group, rank)
    assert sorted(saliency.tolist()) == list(range(1, 1 + len(groups)))
    for count in range(1, len(groups) + 1):
        mask = kept(saliency, count)
        n_kept = {k: int(mask[group == k].sum()) for k in set(groups)}
        most = max(n_kept.values())
        assert all(n >= min(most - 1, groups.count(k)) for k, n in n_kept.items())
        assert all(
            rank[(group == k) & mask].min(initial=np.inf) > rank[(group == k) & ~mask].max(initial=-np.inf)
            for k in n_kept
        )


def budgets(margin, budget, n_bins, n_hardest):
    """Return how many of each bin Algorithm 1 of Zheng et al. keeps: the smallest bin first, an equal part of what is left each."""
    left = np.sort(margin)[n_hardest:]
    edges = np.linspace(left.min(), left.max(), n_bins + 1)
    sizes = np.histogram(left, edges)[0]
    found, rest = np.zeros(n_bins, int), budget
    open_ = [i for i in range(n_bins) if sizes[i]]
    while open_:
        smallest = min(open_, key=lambda i: sizes[i])
        found[smallest] = min(sizes[smallest], rest // len(open_))
        rest -= found[smallest]
        open_.remove(smallest)
    return found, edges


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [100, 300, 700])
def test_coverage_centric_selection_spends_what_its_paper_spends_in_every_bin(seed, count):
    random = np.random.default_rng(seed)
    margin = random.standard_normal(1000).round(4)
    saliency = example_criteria["coverage_centric"](
        {"aum": torch.from_numpy(margin), "noise": torch.from_numpy(random.random(1000))}
    )
    mask = kept(saliency, count)
    asked, edges = budgets(margin, count, 50, 100)
    found = np.histogram(margin[mask], edges)[0]
    assert found.sum() == count
    assert np.abs(found - asked).max() <= 1  # what doesn't divide evenly
    assert not mask[np.argsort(margin, kind="stable")[:100]].any()


def test_the_hardest_come_back_last_and_the_hardest_of_all_at_the_very_end():
    margin = torch.arange(50.0)
    saliency = example_criteria["coverage_centric"]({"aum": margin, "noise": torch.rand(50)})
    assert saliency.argsort()[:5].tolist() == [0, 1, 2, 3, 4]
    same = example_criteria["coverage_centric"]({"aum": torch.ones(7), "noise": torch.arange(7.0)})
    assert same.argsort(descending=True).tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_no_cluster_is_without_an_example_as_soon_as_there_is_one_for_each():
    draw = torch.Generator().manual_seed(2)
    rows, noise = torch.randn(400, 3, generator=draw), torch.rand(400, generator=draw)
    cluster = k_means(rows, 20, noise=noise).cluster
    mask = kept(example_criteria["cluster_coverage"]({"embedding": rows, "noise": noise}), 20)
    assert len(set(cluster[mask])) == len(set(cluster))
    distance = example_criteria["cluster_distance"]({"embedding": rows, "noise": noise})
    centres = k_means(rows, 20, noise=noise).centres
    np.testing.assert_allclose(distance, torch.cdist(rows, centres).amin(dim=1), rtol=1e-4, atol=1e-4)
