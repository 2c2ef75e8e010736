"""Does a recipe's influence ask whom an example helps, on the part that it names, with errors that reach plan and table?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, RecipeError
from prunus.core.events import silent
from prunus.core.files.plan_file import load_plan, save_plan
from prunus.core.types import Plan
from prunus.pipeline.stages.example_stage import check_examples, judge_examples
from prunus.pipeline.stages.plan_table import table_of_steps
from prunus.pipeline.stages.scoring import example_evidence as module

CUT = {"epochs": 6, "remove": [{"criterion": "influence", "keep_fraction": 0.8}]}


def job_of(examples=CUT, model=None, **options):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 150)
    inputs = 2.5 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    settings = {"train": {"epochs": 6, "learning_rate": 1e-2}, "data_options": {"split": {"validation": 0.3}}}
    settings |= {"seeds": [0], "strategy": "magnitude_l2"}
    data = (inputs.astype(np.float32), labels)
    return ModelOptimizer(model, data, listener=silent, examples=examples, **{**settings, **options})._job


def judged(job):
    return judge_examples(job, 0, lambda asked, name, compute: compute())


@pytest.mark.parametrize(
    "examples", [CUT, {"epochs": 6, "cover": {"keep_fraction": 0.8, "criterion": "influence", "clean_first": False}}]
)
def test_what_harms_the_target_goes_first(examples):
    job = job_of(examples, data_options={"split": {"validation": 0.3}, "label_noise": 0.2})
    step = judged(job)[-1]
    gone = {name for d in step.decisions for name in d.label[~d.keep].tolist()}
    flipped = set(job.data.noise.ids)
    share = len(gone & flipped) / len(gone)
    assert len(gone) == round(0.2 * len(job.data.train))
    assert share > 0.6  # by chance it would be 0.2


@pytest.mark.parametrize("part", ["validation", "calibration"])
def test_the_target_is_the_part_that_the_recipe_names(part, monkeypatch):
    asked, real = [], module.influence_evidence

    def spy(checkpoints, examples, target, task, **options):
        asked.append(target)
        return real(checkpoints, examples, target, task, **options)

    monkeypatch.setattr(module, "influence_evidence", spy)
    job = job_of({**CUT, "target": part})
    judged(job)
    assert asked == [getattr(job.data, part)]


def test_errors_go_along_into_the_plan_and_the_table(tmp_path):
    job = job_of()
    steps = judged(job)
    error = np.concatenate([d.error for d in steps[0].decisions])
    assert np.isfinite(error).all()
    assert (error > 0).mean() > 0.9
    save_plan(Plan(steps, 0, {}, {}), tmp_path / "plan")
    again = load_plan(tmp_path / "plan").steps
    assert np.array_equal(np.concatenate([d.error for d in again[0].decisions]), error)
    table = table_of_steps(job.data.train, again, job.data.fingerprint)
    assert {"influence", "influence_error"} <= set(table.columns)
    assert np.isfinite(table.columns["influence_error"].astype(float)).all()


def test_a_plan_without_errors_has_no_column_for_them(tmp_path):
    job = job_of({"remove": [{"criterion": "random", "keep_fraction": 0.8}]})
    save_plan(Plan(judged(job), 0, {}, {}), tmp_path / "plan")
    assert load_plan(tmp_path / "plan").steps[0].decisions[0].error is None
    assert b"error" not in (tmp_path / "plan" / "units.parquet").read_bytes()


def test_a_model_of_one_layer_is_asked_by_all_its_weights():
    assert judged(job_of(model=nn.Linear(8, 3), strategy=None))[0].criterion == "influence"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"examples": {**CUT, "gate": True}}, r"examples\.gate"),
        ({"contract": {"max_drop": 0.2}, "strategy": {"criterion": "magnitude_l2"}}, "contract"),
        ({"joint": {"model": [1]}}, "joint"),
    ],
)
def test_what_chooses_by_the_validation_examples_cannot_be_judged_on_them(more, named):
    with pytest.raises(RecipeError, match=rf"on which {named} is judged.*examples\.target: calibration"):
        job_of(**more)
    fitting = {**more.get("examples", CUT), "target": "calibration"}
    job_of(**{**more, "examples": fitting})


def test_a_part_without_examples_is_refused():
    job = job_of({**CUT, "target": "calibration"})
    none = job.data.calibration.select(torch.zeros(len(job.data.calibration), dtype=torch.bool))
    with pytest.raises(DataError, match=r"examples\.target: calibration: .* got no calibration examples"):
        check_examples(replace(job, data=replace(job.data, calibration=none)))
