"""Does a smaller share keep nothing that a larger one doesn't, after what the recipe says is done?"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import RecipeError
from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline.stages.example_stage import clean, judge_examples
from prunus.pipeline.stages.nested_cover import check_nested, nested_selections


def shapes(examples, noise=0.0):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (120, 60, 20))
    inputs = 6 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    inputs, labels = np.concatenate([inputs, inputs[:10] + 1e-3]), np.concatenate([labels, labels[:10]])
    torch.manual_seed(0)
    return ModelOptimizer(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        (inputs.astype(np.float32), labels),
        train={"epochs": 6, "learning_rate": 1e-2},
        seeds=[0],
        listener=silent,
        data_options={"label_noise": noise},
        examples=examples,
    )._job


def judged(job):
    return judge_examples(job, 0, lambda asked, name, compute: compute())


SHARES = (0.8, 0.5, 0.2)


@pytest.mark.parametrize(
    "examples",
    [
        None,
        {"remove": [{"criterion": "random", "keep_fraction": 0.9}]},
        {"cover": {"keep_fraction": 0.4}},
        {"epochs": 2, "cover": {"keep_fraction": 0.4, "criterion": "k_centre"}},
        {"epochs": 2, "cover": {"keep_fraction": 0.4, "criterion": "coverage_centric", "clean_first": False}},
    ],
)
def test_each_share_is_within_the_one_before_and_as_large_as_asked(examples):
    job = shapes(examples)
    steps = judged(job)
    n = len(job.data.train)
    kept = nested_selections(job, 0, SHARES, steps)
    names = [set(part.ids) for part in kept]
    assert all(small < large for large, small in pairwise(names))
    assert [len(part) for part in kept[1:]] == [round(share * n) for share in SHARES[1:]]
    assert len(kept[0]) <= round(0.8 * n)
    assert all(torch.bincount(part.targets, minlength=3).min() >= 1 for part in kept)
    again = nested_selections(job, 0, SHARES, steps)
    assert [part.ids for part in again] == [part.ids for part in kept]


def test_the_largest_share_is_what_the_run_itself_keeps_at_it():
    job = shapes({"cover": {"keep_fraction": 0.6}})
    steps = judged(job)
    (kept,) = nested_selections(job, 0, [0.6], steps)
    assert kept.ids == clean(job.data.train, steps).ids


def test_what_is_wrong_goes_first_and_what_was_relabelled_stays_so():
    job = shapes({"clean": {"wrong": "both", "drop_probability": 0.5, "relabel_probability": 0.5}}, noise=0.2)
    steps = judged(job)
    cleaned = clean(job.data.train, steps)
    (kept,) = nested_selections(job, 0, [0.5], steps)
    now = dict(zip(cleaned.ids, cleaned.targets.tolist(), strict=True))
    assert set(kept.ids) <= set(cleaned.ids)
    assert kept.targets.tolist() == [now[name] for name in kept.ids]
    given = dict(zip(job.data.train.ids, job.data.train.targets.tolist(), strict=True))
    assert any(now[name] != given[name] for name in kept.ids)


def test_without_a_section_wrong_labels_and_doubles_go_as_before_any_cover():
    bare = shapes(None, noise=0.2)
    plain = shapes({"cover": {"keep_fraction": 0.5}}, noise=0.2)
    (kept,) = nested_selections(bare, 0, [0.5], ())
    assert kept.ids == clean(plain.data.train, judged(plain)).ids


def test_a_share_without_room_for_each_class_is_refused_before_anything_is_trained():
    job = shapes({"cover": {"keep_fraction": 0.5, "min_per_class": 5}})
    check_nested(job, SHARES)
    with pytest.raises(RecipeError, match=r"keep_fraction 0\.05 .* raise keep_fraction to"):
        check_nested(job, (0.5, 0.05))


def test_a_table_is_done_first_and_the_cover_chooses_among_what_it_leaves(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    from prunus.core.files.example_table import write_example_table
    from prunus.pipeline.stages.plan_table import table_of_steps

    job = shapes({"cover": {"keep_fraction": 1.0, "clean_first": False}})
    table = table_of_steps(job.data.train, (), job.data.fingerprint)
    decision = table.columns["decision"].copy()
    decision[:30] = "drop"
    path = tmp_path / "edited.parquet"
    write_example_table(table.with_columns({"decision": decision}), path)
    section = {"plan": str(path), "cover": {"keep_fraction": 0.5}}
    tree = job.recipe.model_dump(mode="json") | {"examples": section}
    asked = replace(job, recipe=make_recipe(tree))
    kept = clean(job.data.train, judged(asked))
    assert len(kept) == round(0.5 * len(job.data.train))
    assert not set(kept.ids) & set(table.ids[:30])
    share = (len(table) - 30) / len(table)
    every = replace(job, recipe=make_recipe(tree | {"examples": section | {"cover": {"keep_fraction": share}}}))
    assert set(clean(job.data.train, judged(every)).ids) == set(table.ids[30:])
