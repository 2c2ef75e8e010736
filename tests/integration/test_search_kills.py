"""What is killed with no word, at any moment and more than once, goes on and ends as what was never killed."""

import json
from pathlib import Path

import numpy as np
import pytest

from kills_child import killed
from prunus.ship import load_bundle

MOMENTS = pytest.mark.parametrize("n", [1, pytest.param(4, marks=pytest.mark.nightly)])
DIGITS = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 8}},
    "train": {"epochs": 2},
    "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "keep_fraction": 0.5},
    "recovery": {"method": "fine_tune", "epochs": 2},
    "evaluation": {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
    "seeds": [0],
}


@MOMENTS
def test_a_search_that_is_killed_at_random_moments_ends_with_the_same_trials_frontier_and_recommendation(tmp_path, n):
    section = {
        "space": {
            "strategy.keep_fraction": {"low": 0.3, "high": 0.9},
            "recovery.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        },
        "contract": {"metric": "accuracy", "max_drop": 0.2},
        "trials": 8,
        "batch": 4,
        "warm_starts": 2,
        "confirm": {"points": 1, "seeds": 1},
    }
    whole, *others = killed("search", {**DIGITS, "search": section}, tmp_path, n=n, seed=0)
    expected = _found(Path(whole["output"]))
    assert sum(row["kills"] for row in others) >= n
    for row in others:
        assert _found(Path(row["output"])) == expected


def _found(folder):
    """Return all that a search found but for its times and its own folder."""
    facts = json.loads((folder / "search.json").read_text())
    trials = [{key: value for key, value in row.items() if key != "seconds"} for row in facts["trials"]]
    confirmed = [
        {key: row[key] for key in ("number", "difference", "kept", "bound", "over_seeds")} for row in facts["confirmed"]
    ]
    for row in (*trials, *confirmed):
        row.pop("shares", {}).pop("latency", None)
    return trials, confirmed, facts["frontier"], facts["recommended"], facts["importances"], facts["study"]


@MOMENTS
def test_a_training_that_ends_where_it_over_fits_is_the_same_after_kills(tmp_path, n):
    tree = {**DIGITS, "recovery": {"method": "fine_tune", "epochs": 12, "learning_rate": 0.02, "gap_margin": 0.01}}
    whole, *others = killed("run", tree, tmp_path, n=n, seed=1)
    expected = _delivered(Path(whole["output"]))
    assert expected["epochs"] < 12  # it did end early
    assert sum(row["kills"] for row in others) >= n
    for row in others:
        assert _delivered(Path(row["output"])) == expected


def _delivered(folder):
    record = json.loads((folder / "record.json").read_text())
    state = load_bundle(folder / "bundle").model.state_dict()
    return {
        "epochs": len(record["curves"]["recover 1 of 1"]["loss"]),
        "gaps": record["gap_trend"],
        "weights": {name: np.asarray(value).tobytes() for name, value in state.items()},
    }
