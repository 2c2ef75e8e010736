"""A run that rewinds, or prunes while it trains, ends the same when it is killed and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunus import load_recipe
from prunus.core.events import Event
from prunus.pipeline import run


@pytest.mark.parametrize(
    ("schedule", "killed_at"),
    [
        ({"kind": "geometric", "rounds": 2, "rewind_to": 1}, "seed 0 / recover 1 of 2"),
        ({"kind": "cubic", "rounds": 1, "during": "train"}, "seed 0 / train 2 of 2"),
    ],
)
def test_killed_and_moved_and_resumed_is_never_killed(small_recipe, tmp_path: Path, schedule, killed_at):
    strategy = {"criterion": "magnitude_l2", "granularity": "weight", "keep_fraction": 0.3, "schedule": schedule}
    strategy |= {"allocation": "sensitivity", "sensitivity_steps": [0.5]}

    def recipe(name: str):
        path = small_recipe(f"{name}.yaml", strategy=strategy, output=str(tmp_path / name))
        return load_recipe(path)

    def kill(event: Event) -> None:
        if event.stage == killed_at:
            raise KeyboardInterrupt

    whole = run(recipe("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe("killed"), listener=kill)
    (tmp_path / "killed").rename(tmp_path / "moved")
    resumed = run(recipe("moved"), resume=True)
    assert resumed.fingerprints == whole.fingerprints
    assert resumed.sensitivity == whole.sensitivity != []
    assert [layer.name for layer in resumed.layers] == [curve.name for curve in resumed.sensitivity]
