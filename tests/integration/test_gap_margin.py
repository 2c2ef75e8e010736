"""Where a pruned model over-fits more than the dense one, its training and its schedule end; how it went stands in the record."""

import json

import numpy as np
import pytest

from prunus.core.files.plan_file import load_plan
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline import apply_plan, run
from prunus.report import load_record
from prunus.report.page.html import render_html
from prunus.ship import load_bundle
from scripted_gaps import scripted

BASE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 16}},
    "train": {"epochs": 2},
    "strategy": {
        "criterion": "magnitude_l2",
        "granularity": "channel",
        "keep_fraction": 0.25,
        "schedule": {"kind": "linear", "rounds": 3},
        "compare_allocations": False,
    },
    "recovery": {"method": "fine_tune", "epochs": 2},
    "evaluation": {
        "metrics": ["accuracy"],
        "bootstrap": 100,
        "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1},
    },
    "seeds": [0],
    "keep_dense": False,
}


def recipe(folder, **sections):
    made = {**BASE, "output": str(folder)}
    for name, section in sections.items():
        made[name] = {**made.get(name, {}), **section} if isinstance(section, dict) else section
    return Recipe.model_validate(made)


def test_the_course_of_the_gap_over_the_cuts_stands_in_record_and_page(tmp_path):
    record = run(recipe(tmp_path / "out"))
    assert [row.cut for row in record.gap_trend] == [1, 2, 3]
    assert [row.kept for row in record.gap_trend] == pytest.approx([0.75, 0.5, 0.25], abs=0.04)
    last = record.gap_trend[-1]
    (trained,) = record.values("pruned", "train", "accuracy")
    assert last.train == pytest.approx(trained.value, abs=0.02 if record.data.n["train"] > 1000 else 1e-12)
    assert last.gap == last.train - last.validation
    assert not any(row.taken_back for row in record.gap_trend)
    assert "Over-fitting, cut by cut" in render_html(record)
    assert load_record(tmp_path / "out" / "record.json").gap_trend == record.gap_trend


def test_a_schedule_ends_before_the_cut_after_which_the_gap_is_too_large_and_a_replay_ends_there_too(
    tmp_path, monkeypatch
):
    """Each recovery looks after both of its epochs, and then the schedule looks: three times a cut."""
    scripted(monkeypatch, [0.0] * 6 + [0.0, 0.0, 0.3])
    record = run(recipe(tmp_path / "out", recovery={"gap_margin": 0.1}))
    assert [(row.cut, row.gap, row.taken_back) for row in record.gap_trend] == [
        (1, 0, False),
        (2, 0, False),
        (3, 0.3, True),
    ]
    plan = load_plan(tmp_path / "out")
    assert len(list(plan.of("prune"))) == 2
    monkeypatch.undo()
    apply_plan(plan, recipe(tmp_path / "again", recovery={"gap_margin": 0.1}))
    models = [load_bundle(tmp_path / name / "bundle").model.state_dict() for name in ("out", "again")]
    assert all(np.array_equal(models[0][key], models[1][key]) for key in models[0])


def test_a_training_goes_back_to_its_last_epoch_within_the_margin(tmp_path, monkeypatch):
    one_cut = {"schedule": {"kind": "one_shot", "rounds": 1}}
    asked = scripted(monkeypatch, [0.0, 0.05, 0.2, 0.0])
    run(recipe(tmp_path / "a", strategy=one_cut, recovery={"gap_margin": 0.1, "epochs": 5}))
    delivered = load_bundle(tmp_path / "a" / "bundle").model.state_dict()
    assert len(asked) == 4  # the third epoch was too much; the fourth look is the trend's, at what was delivered
    assert all(np.array_equal(delivered[key], asked[1][key]) for key in delivered)
    assert len(json.loads((tmp_path / "a" / "record.json").read_text())["curves"]["recover 1 of 1"]["loss"]) == 3


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"contract": {"metric": "accuracy"}, "strategy": {"keep_fraction": None, "schedule": {}}},
            "gap_margin and contract",
        ),
        ({"recovery": {"gap_margin": 0.1, "method": "lora"}}, "adapters are merged at the end"),
        ({"strategy": {"schedule": {"kind": "linear", "rounds": 2, "rewind_to": 0}}}, "rewind_to"),
    ],
)
def test_a_margin_that_would_spoil_another_promise_is_refused(tmp_path, sections, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **{"recovery": {"gap_margin": 0.1}, **sections})
