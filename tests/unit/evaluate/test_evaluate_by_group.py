"""The change in each group is that of its own examples, and the intervals of all groups hold together."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunus.core.batch import Batch
from prunus.core.types import Measurement
from prunus.evaluate import Pairs, at_once, compare, group_changes
from prunus.evaluate.by_group import FEWEST, MOST_GROUPS, group_rows, rows_by_name
from prunus.evaluate.harm import Groups
from prunus.tasks import make_task, n_observed, rows_of, value_of

CLASSES = ("a", "b")
TASK = make_task("classification", class_names=CLASSES)


def observed(right, task=TASK):
    """Return what is observed of a model that is right where ``right`` says so."""
    targets = torch.arange(len(right)) % 2
    given = torch.where(torch.as_tensor(right), targets, 1 - targets)
    outputs = torch.nn.functional.one_hot(given, 2).float()
    return task.observe(outputs, Batch(torch.arange(len(right)), None, targets))


def changes(dense, pruned, groups, **options):
    found = group_changes(Pairs([observed(dense)], [observed(pruned)], TASK, **options), groups, "accuracy")
    return {item.name: item for item in found}


def test_each_group_is_compared_by_its_own_examples():
    draw = np.random.default_rng(0)
    groups = draw.choice(["north", "south"], 400, p=[0.7, 0.3])
    dense = draw.random(400) < 0.9
    pruned = dense & ~((groups == "south") & (draw.random(400) < 0.5))
    found = changes(dense, pruned, groups)
    assert list(found) == ["north", "south"], "the largest first"
    for name, item in found.items():
        rows = np.flatnonzero(groups == name)
        one = [rows_of(observed(model), rows) for model in (dense, pruned)]
        (alone,) = compare(Pairs(one[:1], one[1:], TASK), ("accuracy",))
        assert (item.n, item.dense, item.pruned) == (len(rows), alone.dense, alone.pruned)
        assert item.difference.value == pytest.approx(pruned[rows].mean() - dense[rows].mean())
        assert item.difference.low <= alone.difference.low, "wider than for one who looks at this group only"
        assert item.difference.high >= alone.difference.high
    assert (found["north"].verdict, found["south"].verdict) == ("no measurable difference", "worse")


def test_small_groups_and_those_without_a_name_are_in_it_too():
    groups = ["x"] * 30 + [""] * 20 + [f"s{i}" for i in range(5)]
    found = changes(np.ones(55, bool), np.ones(55, bool), groups)
    assert {name: item.n for name, item in found.items()} == {"x": 30, "(none)": 20, "(5 others together)": 5}
    many = [f"g{row % 60:02d}" for row in range(600)]
    assert len(changes(np.ones(600, bool), np.ones(600, bool), many)) == 51


def test_a_metric_that_a_group_can_not_have_is_nothing_and_no_error(monkeypatch):
    def but_not_of_twelve(task, name, seen):
        return np.nan if n_observed(seen) == 12 else value_of(task, name, seen)

    monkeypatch.setattr("prunus.evaluate.by_group.value_of", but_not_of_twelve)
    found = changes(np.ones(36, bool), np.ones(36, bool), ["few"] * 12 + ["many"] * 24)
    facts = {name: item.to_dict() for name, item in found.items()}
    assert facts["few"]["dense"] is None
    assert facts["few"]["difference"]["low"] is None
    assert facts["few"]["verdict"] == "no measurable difference"
    assert facts["many"]["dense"] == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.sampled_from([0.9, 0.95, 0.99]))
def test_an_interval_that_holds_with_others_is_wider_the_more_there_are(n, confidence):
    alone = Measurement("m", 1.0, 0.5, 2.0)
    one, more = at_once(alone, n, confidence), at_once(alone, n + 1, confidence)
    assert more.low < one.low <= 0.5
    assert more.high > one.high >= 2.0
    same = at_once(alone, 1, confidence)
    assert (same.low, same.high) == (pytest.approx(0.5), pytest.approx(2.0))


def test_where_nothing_changed_hardly_any_run_blames_a_group():
    draw = np.random.default_rng(1)
    groups = np.repeat([f"g{i}" for i in range(10)], 60)
    blamed = 0
    for _ in range(200):
        dense, pruned = (draw.random(600) < 0.8 for _ in range(2))
        found = changes(dense, pruned, groups, bootstrap=200)
        blamed += any(item.verdict != "no measurable difference" for item in found.values())
    assert blamed <= 20, "0.05 * 200 = 10, and three deviations; one by one it is 80"


@given(st.lists(st.sampled_from(["", "a", "b", "c", "\u00e4", "A"]), max_size=60))
def test_rows_by_name_are_those_that_a_look_at_each_name_finds(names):
    given_names = np.asarray(names, dtype=str)
    expected = {name: np.flatnonzero(given_names == name).tolist() for name in sorted(set(names))}
    assert {name: rows.tolist() for name, rows in rows_by_name(names).items()} == expected
    groups = Groups("site", names)
    assert groups.counts() == {name: len(rows) for name, rows in groups.rows().items()}


@given(st.lists(st.integers(1, 14), max_size=60), st.integers(0, 9))
@example([12] * 55, 0)
def test_small_groups_and_those_beyond_the_most_are_together_and_last(sizes, seed):
    names = [f"g{number:02}" if number else "" for number, n in enumerate(sizes) for _ in range(n)]
    np.random.default_rng(seed).shuffle(names)
    parts = group_rows(names)
    counts = {name: names.count(name) for name in sorted(set(names))}
    single = sorted((name for name, n in counts.items() if n >= FEWEST), key=lambda name: -counts[name])[:MOST_GROUPS]
    assert list(parts)[: len(single)] == [name or "(none)" for name in single]
    rest = [row for row, name in enumerate(names) if name not in single]
    assert [rows.tolist() for rows in parts.values()][len(single) :] == ([rest] if rest else [])
    assert sorted(row for rows in parts.values() for row in rows.tolist()) == list(range(len(names)))
