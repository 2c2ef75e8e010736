"""A plan survives the disk, reads the same, and says when it was damaged."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import PlanError
from prunus.core.files.plan_file import load_plan, plan_summary, save_plan
from prunus.core.files.sealed import sealed_tree
from prunus.core.types import Decision, Plan, Step


def decision(name: str, n: int, seed: int) -> Decision:
    rng = np.random.default_rng(seed)
    keep = rng.random(n) < 0.5
    return Decision(
        name,
        np.arange(n, dtype=np.int64),
        rng.normal(size=n),
        keep,
        np.where(keep, "kept", "low saliency").astype(object),
        round=np.where(keep, -1, 0).astype(np.int64),
        label=np.array([f"id-{i}" for i in range(n)], object) if seed % 2 else None,
        before=np.where(keep, np.nan, 3.0),
    )


def same(a: Plan, b: Plan) -> bool:
    def plain(column):
        """A column of nothing but gaps says as much as no column."""
        values = [] if column is None else list(map(repr, column))
        return None if set(values) <= {"nan"} else values

    def columns(plan: Plan) -> list[object]:
        return [
            [plain(column) for column in (d.unit, d.saliency, d.keep, d.reason, d.round, d.label, d.before, d.after)]
            for step in plan.steps
            for d in step.decisions
        ]

    return (
        columns(a) == columns(b)
        and plan_summary(a) == plan_summary(b)
        and (a.seed, a.recipe, a.fingerprints) == (b.seed, b.recipe, b.fingerprints)
    )


@given(st.lists(st.integers(0, 20), min_size=0, max_size=4), st.integers(0, 9))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_a_plan_reads_back_as_it_was_written_and_the_same_plan_has_the_same_bytes(tmp_path_factory, sizes, seed):
    folder = tmp_path_factory.mktemp("plan")
    steps = (
        Step(
            "prune",
            "channel",
            "taylor",
            tuple(decision(f"layer{i}", n, seed + i) for i, n in enumerate(sizes)),
            {"rounds": 2},
        ),
    )
    plan = Plan(steps, seed, {"name": "x"}, {"data": "abc"})
    save_plan(plan, folder / "a")
    again = load_plan(folder / "a")
    assert same(plan, again)
    save_plan(again, folder / "b")
    for name in ("plan.json", "units.parquet"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_plan(Plan((Step("prune", "channel", "m", (decision("a", 8, 1),)),), 0, {}, {}), tmp_path / "plan")
    return tmp_path / "plan"


def test_a_run_folder_or_its_json_file_also_names_the_plan(saved):
    assert load_plan(saved.parent).seed == load_plan(saved / "plan.json").seed == 0


def test_one_changed_byte_in_the_units_is_noticed(saved):
    units = saved / "units.parquet"
    data = bytearray(units.read_bytes())
    data[len(data) // 2] ^= 1
    units.write_bytes(data)
    with pytest.raises(PlanError, match="SHA-256"):
        load_plan(saved)


@pytest.mark.parametrize("change", [{"format": 99}, {"steps": 3}, {"steps": [{"units": 3}]}])
def test_a_header_that_lies_is_one_clear_error(saved, change):
    header = json.loads((saved / "plan.json").read_text())
    (saved / "plan.json").write_text(json.dumps({**header, **change}))
    with pytest.raises(PlanError) as caught:
        load_plan(saved)
    assert "\n" not in str(caught.value)


def test_a_missing_plan_says_what_is_expected(tmp_path):
    with pytest.raises(PlanError, match=r"expected plan\.json and units\.parquet"):
        load_plan(tmp_path)


def test_truncated_json_is_a_plan_error(saved):
    (saved / "plan.json").write_text('{"format": 1, ')
    with pytest.raises(PlanError, match="damaged"):
        load_plan(saved)


@pytest.mark.parametrize("change", ["a decision", "the recipe", "a fingerprint", "the seed"])
def test_a_plan_that_was_changed_by_hand_is_refused(saved, change):
    tree = json.loads((saved / "plan.json").read_text())
    if change == "a decision":
        tree["steps"][0]["strata"][0]["name"] += "x"
    elif change == "the recipe":
        tree["recipe"]["more"] = 1
    elif change == "a fingerprint":
        tree["fingerprints"]["data"] = "0" * 64
    else:
        tree["seed"] += 1
    (saved / "plan.json").write_text(json.dumps(tree))
    with pytest.raises(PlanError, match=r"plan\.json was changed after it was written.*make the plan anew"):
        load_plan(saved)


@pytest.mark.parametrize("name", ["plan.json", "units.parquet"])
def test_a_link_or_a_pipe_in_a_plan_is_refused(saved, name, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    (saved / name).rename(elsewhere)
    (saved / name).symlink_to(elsewhere)
    with pytest.raises(PlanError, match="no plain file"):
        load_plan(saved)
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(PlanError, match="no plain file"):
        load_plan(saved)


@pytest.mark.parametrize(
    "change",
    [{"seed": "0"}, {"seed": -1}, {"steps": {}}, {"steps": [{}]}, {"recipe": []}, {"more": 1}, {"fingerprints": {"a": 1}},
     {"units_sha256": "../x"}, {"format": 1}, {"format": [2]}],
)  # fmt: skip
def test_a_plan_of_other_types_is_one_line(saved, change):
    tree = json.loads((saved / "plan.json").read_text()) | change
    (saved / "plan.json").write_text(json.dumps(sealed_tree(tree)))
    with pytest.raises(PlanError, match=r"plan\.json: ") as caught:
        load_plan(saved)
    assert "\n" not in str(caught.value)
