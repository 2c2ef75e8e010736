"""A cut is corrected by what it is measured to take, and a walk knows where to go next."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.core.errors import RecipeError
from prunus.core.recipes import recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.types import Stratum
from prunus.evaluate import LatencyTable
from prunus.graph import analyze
from prunus.pipeline.costing.latency_targets import Timed, fit_parts
from prunus.pipeline.costing.share_walk import next_share, walk
from prunus.pipeline.target_search import Trial, _Search

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


def smooth(runtime, kind, sizes, fixed):
    return float(np.prod(sizes)) ** 0.9


def timed(tmp_path, goal, price=smooth, **more):
    table = LatencyTable("torch", tmp_path, price)
    return Measured(network(), INPUTS, (INPUTS,), CONFIG, goal=goal, note=print, table=table, **more)


def chosen(costing, share):
    model = costing._dense
    graph = analyze(model, (INPUTS,))
    strata = [Stratum(g.name, np.random.default_rng(0).random(g.size)) for g in graph.groups]
    keep = costing.choose(graph, graph.groups, model, strata, share)
    masks = {g.name: torch.from_numpy(mask) for g, mask in zip(graph.groups, keep, strict=True)}
    return shrink(model, (INPUTS,), graph, masks).model


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_what_is_measured_is_what_was_asked_for(tmp_path, share):
    costing = timed(tmp_path, share)
    assert costing.share(chosen(costing, share)) == pytest.approx(share, rel=0.035)


@pytest.mark.parametrize("stair", [9000, 1e9], ids=["few steps", "one step"])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_where_the_table_leaps_over_what_was_asked_for_the_cut_is_found_between(tmp_path, share, stair):
    costing = timed(tmp_path, share, lambda runtime, kind, sizes, fixed: float(np.ceil(np.prod(sizes) / stair)))
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


@pytest.mark.parametrize("block", [8, 16])
def test_channels_of_convolutions_come_in_the_blocks_of_the_kernels_unless_told_otherwise(tmp_path, block):
    def padded(runtime, kind, sizes, fixed):
        return float(np.prod([-(-size // block) for size in sizes]))

    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 6, 3), nn.Flatten(), nn.Linear(24, 3))
    inputs = torch.zeros(4, 1, 6, 6)
    graph = analyze(model, (inputs,))
    strata = [Stratum(g.name, np.zeros(g.size)) for g in graph.groups]
    multiples = {}
    for round_to in ("auto", 1):
        table = LatencyTable("torch", tmp_path, padded)
        costing = Timed(model, inputs, (inputs,), CONFIG, round_to=round_to, note=print, table=table)
        multiples[round_to] = [s.multiple for s in costing._rounded(graph.groups, strata)]
    assert multiples == {"auto": [block, 1], 1: [1, 1]}


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


def test_a_bisection_that_always_fails_or_always_succeeds_comes_to_an_end():
    for works in (lambda share: share >= 0.62, lambda share: False, lambda share: True):
        kept, failed, retried, tried = 1.0, 0.7, False, []
        while len(tried) < 50:
            share, again = next_share(kept, failed, 0.5, retried=retried)
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


class Scripted(_Search):
    """A search whose candidates cost what is asked for, and of whose quality a function of the share tells."""

    def __init__(self, judge, passes=lambda share: True, most=4):
        recipe = recipe_of(target={"latency": 0.5}, contract={"max_drop": 0.01, "max_candidates": most})
        self.job = SimpleNamespace(recipe=recipe, data=SimpleNamespace(validation="validation"), workspace=self)
        self.target, self.contract, self.floor, self.seed = recipe.target, recipe.contract, 0.1, 0
        self.judge, self.passes, self.trials, self.tested = judge, passes, [], []

    @contextmanager
    def stage(self, name):
        yield

    def _try(self, start, share, kept, **options):
        drop, promising = self.judge(share)
        found = SimpleNamespace(drop=drop, bound=drop + 0.02)
        trial = Trial(len(self.trials) + 1, share, share, None, (), {}, start.number, found, promising)
        self.trials.append(trial)
        return trial

    def _compare(self, trial, examples):
        self.tested.append(trial.share)
        return SimpleNamespace(kept=self.passes(trial.share))

    def found(self):
        self._walk(Trial(0, 1.0, 1.0, None, (), {}, 0))
        delivered = self._test()
        return (
            [round(t.asked, 3) for t in self.trials],
            [round(s, 3) for s in self.tested],
            delivered and delivered.share,
        )


def test_a_search_goes_down_while_no_drop_is_seen_and_tests_the_safe_ones_first():
    """The calibration examples are too few for a promise below 0.8, and show no drop: so the goal is tried and tested, last."""
    tried, tested, delivered = Scripted(lambda share: (0.0, share > 0.8)).found()
    assert tried == [0.707, 0.5, 0.841, 0.771]
    assert tested == [0.841, 0.707, 0.5]
    assert delivered == 0.5
    search = Scripted(lambda share: (share - 1, share > 0.8), passes=lambda share: share > 0.8)
    assert search.found() == ([0.707, 0.5, 0.841, 0.771], [0.841, 0.5], pytest.approx(0.841, abs=1e-3))


def test_a_drop_ends_the_way_down():
    assert Scripted(lambda share: (0.02, share > 0.8)).found()[0] == [0.707, 0.841, 0.771, 0.805]
    assert Scripted(lambda share: (0.0, True)).found() == ([0.707, 0.5], [0.707, 0.5], 0.5)
    assert Scripted(lambda share: (0.02, False), passes=lambda share: False).found()[2] is None
    # One that promises below one that doesn't is tested behind safer ones.
    search = Scripted(lambda share: (0.0, share < 0.6 or share > 0.8), passes=lambda share: share > 0.6)
    assert search.found() == ([0.707, 0.5, 0.841, 0.771], [0.841, 0.5], pytest.approx(0.841, abs=1e-3))


class InSteps(Timed):
    """A machine on which the second layer takes its time in steps of sixteen units."""

    def share(self, model):
        first, second = (p.shape[0] for name, p in model.named_parameters() if name in ("0.weight", "2.weight"))
        return 0.4 * first / 64 + 0.6 * (-(-second // 16)) / 4


def test_one_step_from_too_fast_to_too_slow_another_layer_is_a_step_narrower(tmp_path):
    table = LatencyTable("torch", tmp_path, smooth)
    costing = InSteps(network(), INPUTS, (INPUTS,), CONFIG, goal=0.6, note=print, table=table)
    graph = analyze(costing._dense, (INPUTS,))
    strata = [Stratum(g.name, np.ones(g.size), multiple=8) for g in graph.groups]
    keep = costing.choose(graph, graph.groups, costing._dense, strata, 0.6)
    masks = {g.name: torch.from_numpy(mask) for g, mask in zip(graph.groups, keep, strict=True)}
    small = shrink(costing._dense, (INPUTS,), graph, masks).model
    assert costing.share(small) == pytest.approx(0.6), "0.5 and 0.65 are one step apart"
