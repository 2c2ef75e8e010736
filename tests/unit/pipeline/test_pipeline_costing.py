"""A cut is corrected by what it is measured to take, and a walk knows where to go next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core import recipe
from prunus.core.errors import RecipeError
from prunus.core.recipe_file import make_recipe
from prunus.core.types import Stratum
from prunus.evaluate import LatencyTable
from prunus.graph import analyze
from prunus.pipeline.costing_latency import Timed, fit_parts
from prunus.pipeline.search import next_share, walk

CONFIG = recipe.Latency(batch_size=4, repeats=5, warm_up=1, runtime="torch")
INPUTS = torch.zeros(4, 6)


def network():
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


class Measured(Timed):
    """A machine on which a model takes an overhead and time for its parameters; its table of operations is badly off."""

    timed = 0
    overhead = 0.2

    def share(self, model):
        type(self).timed += 1
        return self.overhead + (1 - self.overhead) * (parameters(model) / parameters(self._dense)) ** 1.3


def timed(tmp_path, goal, **more):
    table = LatencyTable("torch", tmp_path, lambda runtime, kind, sizes, fixed: float(np.prod(sizes)) ** 0.9)
    return Measured(network(), INPUTS, (INPUTS,), CONFIG, goal=goal, note=print, table=table, **more)


def chosen(costing, share):
    model = costing._dense
    graph = analyze(model, (INPUTS,))
    strata = [Stratum(g.name, np.random.default_rng(0).random(g.size)) for g in graph.groups]
    keep = costing.choose(graph, graph.groups, model, strata, share)
    from prunus.apply import shrink

    masks = {g.name: torch.from_numpy(mask) for g, mask in zip(graph.groups, keep, strict=True)}
    return shrink(model, (INPUTS,), graph, masks).model


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_what_is_measured_is_what_was_asked_for(tmp_path, share):
    costing = timed(tmp_path, share)
    assert costing.share(chosen(costing, share)) == pytest.approx(share, rel=0.035)


def test_on_the_way_it_is_timed_less_often(tmp_path):
    costing = timed(tmp_path, 0.1)
    Measured.timed = 0
    share = costing.share(chosen(costing, 0.6))
    assert share == pytest.approx(0.6, rel=0.2)
    assert Measured.timed <= 6


def test_below_the_floor_of_the_overhead_is_refused_with_the_floor(tmp_path):
    with pytest.raises(
        RecipeError, match=r"0.05 of the latency is below the floor: .* costs 0\.\d+ of the dense model"
    ):
        chosen(timed(tmp_path, 0.05), 0.05)


def test_channels_of_convolutions_come_in_eights_unless_told_otherwise(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    inputs = torch.zeros(4, 1, 6, 6)
    graph = analyze(model, (inputs,))
    strata = [Stratum(g.name, np.zeros(g.size)) for g in graph.groups]
    multiples = {}
    for round_to in ("auto", 1):
        table = LatencyTable("torch", tmp_path)
        costing = Timed(model, inputs, (inputs,), CONFIG, round_to=round_to, note=print, table=table)
        multiples[round_to] = [s.multiple for s in costing._rounded(graph.groups, strata)]
    assert multiples == {"auto": [8, 1], 1: [1, 1]}


def test_the_parts_that_add_up_are_found_and_none_is_negative():
    rows = np.array([[4.0, 1.0, 1.0], [2.0, 0.7, 1.0], [1.0, 0.2, 1.0], [0.5, 0.4, 1.0]])
    assert fit_parts(rows, rows @ [0.2, 0.1, 0.3]) == pytest.approx([0.2, 0.1, 0.3])
    assert (fit_parts(rows, rows @ [0.2, -0.1, 0.3]) >= 0).all()


def recipe_of(**sections):
    return make_recipe({"data": {"source": "x.csv"}, "strategy": {}, **sections})


def test_a_walk_ends_at_its_goal_in_steps_of_a_schedule_or_of_its_own():
    alone = recipe_of(target={"macs": 0.4})
    assert walk(alone.target, alone, 0.1) == (0.4,)
    scheduled = recipe_of(target={"macs": 0.4}, strategy={"schedule": {"kind": "linear", "rounds": 3}})
    assert walk(scheduled.target, scheduled, 0.1) == pytest.approx((0.8, 0.6, 0.4))
    held = recipe_of(target={"macs": 0.5}, contract={"max_drop": 0.1})
    assert walk(held.target, held, 0.1) == pytest.approx((0.5**0.5, 0.5))
    smallest = recipe_of(contract={"max_drop": 0.1})
    shares = walk(smallest.target, smallest, 0.05)
    assert shares[-1] == 0.05
    assert all(0.6 < b / a < 0.8 for a, b in zip((1.0, *shares), shares, strict=False))


def test_a_search_that_always_fails_or_always_succeeds_comes_to_an_end():
    goals = (0.7, 0.5)
    for works in (lambda share: share >= 0.62, lambda share: False, lambda share: True):
        kept, failed, retried, tried = 1.0, None, False, []
        while len(tried) < 50:
            share, again = next_share(kept, failed, goals, 0.5, retried=retried)
            if share is None:
                break
            retried = retried or again
            tried.append(share)
            if works(share):
                kept = share
                if share <= 0.5:
                    break
            else:
                failed = share
        assert len(tried) < 20
        assert all(0.5 <= share < 1 for share in tried)
    assert tried == [0.7, 0.5]
