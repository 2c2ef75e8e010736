"""Contestants take turns, each often enough for the clock, and what is claimed is paired."""

from __future__ import annotations

import numpy as np
import pytest

from prunus.evaluate.timing import contest
from prunus.evaluate.timing.contest import InProcess, clock_for, milliseconds, paired_speedup, take_turns


class Scripted:
    """A contestant that takes what a function of the turn says, and notes when it was called."""

    def __init__(self, name, seconds, order, drift=lambda turn: 1.0):
        self.name, self.one, self.order, self.drift, self.turn = name, seconds, order, drift, 0

    def seconds(self, n_calls):
        self.order.append((self.name, n_calls))
        self.turn += 1
        return n_calls * self.one * self.drift(self.turn)

    def close(self): ...


def test_every_round_has_every_contestant_once_in_an_order_of_its_own():
    order = []
    found = take_turns({n: Scripted(n, 0.2, order) for n in "abc"}, repeats=20, warm_up=2, seed=0)
    rounds = [tuple(name for name, _ in order[i : i + 3]) for i in range(0, len(order), 3)]
    assert len(rounds) == 22
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) > 3
    assert {name: len(values) for name, values in found.items()} == {"a": 20, "b": 20, "c": 20}
    again = []
    take_turns({n: Scripted(n, 0.2, again) for n in "abc"}, repeats=20, warm_up=2, seed=0)
    assert again == order


def test_what_is_too_fast_for_the_clock_is_called_several_times_a_turn_and_counts_as_one_call():
    order = []
    found = take_turns(
        {"fast": Scripted("fast", 1e-5, order), "slow": Scripted("slow", 0.5, order)}, repeats=5, warm_up=1, seed=0
    )
    assert {n for name, n in order[2:] if name == "slow"} == {1}
    assert [n for name, n in order[2:] if name == "fast"] == [
        1,
        400,
    ] * 5  # one to find its caches warm, and those that count
    assert found["fast"] == pytest.approx(1e-5)
    assert found["slow"] == pytest.approx(0.5)


def test_a_turn_begins_with_a_call_that_does_not_count_where_the_caches_are_the_others():
    class Cold(Scripted):
        """The first call after another contestant's takes three times as long."""

        def seconds(self, n_calls):
            cold = not self.order or self.order[-1][0] != self.name
            self.order.append((self.name, n_calls))
            return self.one * (n_calls + 2 * cold)

    order = []
    found = take_turns({n: Cold(n, s, order) for n, s in (("a", 0.01), ("b", 0.02))}, repeats=9, warm_up=1, seed=0)
    assert found["a"] == pytest.approx(0.01)
    assert found["b"] == pytest.approx(0.02)


def test_a_machine_that_slows_down_tenfold_leaves_the_paired_ratio_as_it_is():
    def drift(turn):
        return 1 + turn

    found = take_turns(
        {"slow": Scripted("slow", 0.2, [], drift), "fast": Scripted("fast", 0.1, [], drift)},
        repeats=9,
        warm_up=1,
        seed=0,
    )
    ratio = paired_speedup(found["slow"], found["fast"], seed=0)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2, 2, 2))
    assert milliseconds(found["slow"]).value > 1000


def test_an_interval_of_noise_holds_one_and_is_the_same_for_a_seed():
    rng = np.random.default_rng(0)
    one, other = (rng.lognormal(0, 0.1, 40) for _ in range(2))
    ratio = paired_speedup(one, other, seed=3)
    assert ratio.low < 1 < ratio.high
    assert ratio == paired_speedup(one, other, seed=3)


def test_a_single_thread_is_timed_by_what_the_process_had_of_the_processor(monkeypatch):
    monkeypatch.setattr(contest.time, "process_time", iter([1.0, 1.5]).__next__)
    monkeypatch.setattr(contest.time, "perf_counter", iter([10.0, 14.0]).__next__)
    assert InProcess(lambda: None, clock_for(1)).seconds(3) == 0.5
    assert InProcess(lambda: None, clock_for(2)).seconds(3) == 4.0


def test_progress_is_told_round_by_round():
    told = []
    take_turns(
        {"a": Scripted("a", 0.1, [])}, repeats=5, warm_up=2, seed=0, tick=lambda done, total: told.append((done, total))
    )
    assert told == [(n, 7) for n in range(1, 8)]
