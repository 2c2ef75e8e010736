"""Sizes that over-fit more than the dense model end their recovery, together or each by itself; what each minimises is its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.sizes import make_sizes
from prunus.recover import FeatureMatch
from prunus.report import print_sizes
from prunus.ship import load_bundle
from scripted_gaps import scripted

SHARES = (0.75, 0.5, 0.25)


def recipe(folder, **more):
    tree = {
        "data": {"source": "sklearn:digits", "split": {"validation": 0.1, "calibration": 0.1, "test": 0.2}},
        "model": {"builder": "mlp", "args": {"width": 16}},
        "train": {"epochs": 1},
        "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "compare_allocations": False},
        "sizes": {"keep_fractions": list(SHARES), "weights": more.pop("weights", "shared")},
        "evaluation": {"bootstrap": 100},
        "seeds": [0],
        "output": str(folder),
        **more,
    }
    tree["recovery"] = {"method": "fine_tune", "epochs": 4, "batch_size": 128, **tree.get("recovery", {})}
    return Recipe.model_validate(tree)


def delivered(made):
    return [load_bundle(made.folder, size=share).model.state_dict() for share in SHARES]


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def said(facts):
    console = Console(width=200)
    with console.capture() as text:
        print_sizes(facts, console)
    return " ".join(text.get().split())


def test_sizes_that_share_weights_all_go_back_to_the_last_epoch_in_which_all_were_within(tmp_path, monkeypatch):
    """Each of them is looked at once an epoch of theirs, which is three of the training's; then once as it is delivered."""
    within, beyond, at_the_end = [0.0, 0.05, 0.09], [0.0, 0.3, 0.0], [0.0, 0.05, 0.09]
    asked = scripted(monkeypatch, [*within, *within, *beyond, *at_the_end])
    made = make_sizes(recipe(tmp_path / "out", recovery={"gap_margin": 0.1}))
    assert len(asked) == 12
    assert all(same(have, seen) for have, seen in zip(delivered(made), asked[3:6], strict=True))
    assert not same(delivered(made)[2], asked[8])
    rows = made.facts["sizes"]
    assert [(row["epochs"], row["over_fits"]) for row in rows] == [(2, True)] * 3
    assert [row["gap"]["gap"] for row in rows] == at_the_end
    assert json.loads(made.record.read_text()) == made.facts
    assert "size 0.75 has epoch 2, 0.5 has epoch 2, 0.25 has epoch 2" in said(made.facts)


def test_where_no_epoch_was_within_the_first_one_stays_and_that_is_said(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.0, 0.0, 0.3, 0.0, 0.0, 0.3])
    events = []
    made = make_sizes(recipe(tmp_path / "out", recovery={"gap_margin": 0.1}), listener=events.append)
    assert [(row["epochs"], row["over_fits"]) for row in made.facts["sizes"]] == [(1, True)] * 3
    (warned,) = [event.message for event in events if "recovery.gap_margin" in event.message]
    assert warned.startswith("after 1 epoch the gap of size 0.25 between training and validation examples is 0.3")


def test_sizes_with_weights_of_their_own_end_each_by_itself(tmp_path, monkeypatch):
    ends = [[0.0, 0.2], [0.0] * 4, [0.0, 0.0, 0.0, 0.2]]
    asked = scripted(monkeypatch, [*ends[0], *ends[1], *ends[2], 0.0, 0.0, 0.0])
    made = make_sizes(recipe(tmp_path / "out", weights="own", recovery={"gap_margin": 0.1}))
    assert [(row["epochs"], row["over_fits"]) for row in made.facts["sizes"]] == [(1, True), (4, False), (3, True)]
    assert all(same(have, asked[place]) for have, place in zip(delivered(made), (0, 5, 8), strict=True))
    assert "of 4 epochs, size 0.75 has epoch 1, 0.25 has epoch 3" in said(made.facts)


@pytest.mark.parametrize("weights", ["shared", "own"])
def test_sizes_that_were_stopped_and_gone_on_with_are_those_of_one_run(tmp_path, weights):
    class Killed(Exception):
        pass

    def kill(event):
        if event.kind == "progress" and "recover" in event.stage and event.done == 4:
            raise Killed

    margin = {"shared": 0.07, "own": 0.052}[weights]  # so that the fourth epoch is too much, of all or of one

    def at(name):
        asked = {"gap_margin": margin, "epochs": 5, "learning_rate": 0.01}
        return recipe(tmp_path / name, weights=weights, recovery=asked)

    whole = make_sizes(at("whole"))
    with pytest.raises(Killed):
        make_sizes(at("killed"), listener=kill)
    killed = make_sizes(at("killed"), resume=True)
    assert killed.facts == whole.facts
    assert all(same(*pair) for pair in zip(delivered(whole), delivered(killed), strict=True))
    assert {row["epochs"] for row in whole.facts["sizes"] if row["over_fits"]} == {3}


def test_the_gap_of_every_size_is_known_without_a_margin_and_nothing_ends(tmp_path):
    made = make_sizes(recipe(tmp_path / "out", recovery={"epochs": 1}))
    for row in made.facts["sizes"]:
        gap = row["gap"]
        assert gap["gap"] == pytest.approx(gap["train"] - gap["validation"])
        assert (row["epochs"], row["over_fits"]) == (1, False)
    assert "gap between training and validation examples, dense" in said(made.facts)
    assert "gap_margin" not in said(made.facts)


def test_features_are_compared_for_each_size_with_its_own(tmp_path):
    compared, real = [], FeatureMatch.distance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureMatch, "distance", lambda own: compared.append(own.student) or real(own))
        distil = {"method": "distil", "epochs": 1, "distil": {"features": 0.5}}
        made = make_sizes(recipe(tmp_path / "out", recovery=distil))
    widths = [sum(value.numel() for value in model.parameters()) for model in compared[:6]]
    assert widths[:3] == sorted(set(widths), reverse=True)  # the look at the first losses
    assert widths[3:] == widths[:3]
    assert all(
        bool(torch.isfinite(torch.as_tensor(value)).all()) for state in delivered(made) for value in state.values()
    )
