"""Does every cell train for as many steps, on nested data, without a look at the test, and is a finished one kept?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, RecipeError
from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.data import Examples
from prunus.pipeline import run
from prunus.pipeline.joint import joint_grid as module
from prunus.pipeline.joint.joint_grid import check_joint, joint_grid
from prunus.pipeline.stages import model_stage
from recipe_samples import IRIS

JOINT = {"data": [0.6, 0.3], "model": [0.5, 0.25]}


def job_of(**options):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (90, 60, 30))
    inputs = 2 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    torch.manual_seed(0)
    settings = {
        "strategy": {"criterion": "magnitude_l2", "schedule": {"kind": "linear", "rounds": 2}},
        "train": {"epochs": 3, "batch_size": 16},
        "recovery": {"epochs": 2, "batch_size": 16},
        "joint": JOINT,
        "seeds": [0, 1],
        "data_options": {"split": {"validation": 0.3}},
    }
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return ModelOptimizer(model, (inputs.astype(np.float32), labels), listener=silent, **{**settings, **options})._job


def grid_of(job):
    return joint_grid(job, dict.fromkeys(job.recipe.seeds, ()))


def counted(monkeypatch):
    """Count the optimizer steps of each training, by its stage."""
    steps, real = {}, model_stage.train

    def train(model, examples, config, *, stage, seed, **options):
        key = (seed, stage, len(steps))
        steps[key] = 0

        def after_step():
            steps[key] += 1

        return real(model, examples, config, stage=stage, seed=seed, after_step=after_step, **options)

    monkeypatch.setattr(model_stage, "train", train)
    return steps


def test_each_cell_takes_as_many_steps_and_the_test_is_never_read(monkeypatch):
    job, steps = job_of(), counted(monkeypatch)
    looked_at, real = [], module.observe
    monkeypatch.setattr(
        module, "observe", lambda m, examples, task: looked_at.append(examples) or real(m, examples, task)
    )
    facts = joint_grid(job, {0: ()})
    assert all(examples is job.data.validation for examples in looked_at)
    by_kind = {}
    for (_, stage, _), n in steps.items():
        by_kind.setdefault(stage, set()).add(n)
    per_epoch = by_kind["seed 0 / train"].pop() // 3
    assert by_kind.pop("seed 0 / train") == set()  # the same for every share of the data
    assert by_kind["seed 0 / recover 1 of 2"] == by_kind["seed 0 / recover 2 of 2"] == {2 * per_epoch}
    assert by_kind["seed 0 / control"] == {4 * per_epoch}
    assert {tuple(cell["epochs_after"]) for row in facts["cells"] for cell in row} == {(4,)}


def test_rows_are_shares_of_the_data_and_columns_of_the_model():
    job = job_of()
    facts = grid_of(job)
    n = len(job.data.train)
    assert [row["asked"] for row in facts["data"]] == [1.0, 0.6, 0.3]
    assert [row["n"] for row in facts["data"][2:]] == [[round(0.3 * n)] * 2]
    assert facts["model"] == [1.0, 0.5, 0.25]
    whole = 8 * 16 + 16 + 16 * 3 + 3
    for row in facts["cells"]:
        assert [cell["parameters"] for cell in row] == [1.0, *((12 * k + 3) / whole for k in (8, 4))]
    assert facts["cells"][0][0]["difference"] is None
    assert all(len(cell["values"]) == 2 for row in facts["cells"] for cell in row)


def test_the_whole_of_both_is_the_runs_own_control():
    job = job_of(evaluation={"control": "same_budget"}, seeds=[0])
    first = grid_of(job)["cells"][0][0]["values"][0]
    from prunus.pipeline import run_seed
    from prunus.pipeline.measure import quality_of

    control = run_seed(job, 0, job.workspace.decided).dense
    assert first == pytest.approx(quality_of(control, job.data.validation, job.recipe).metrics[0].value)


def test_more_data_or_a_larger_model_is_what_a_cell_says(monkeypatch):
    """A planted difference: training on few examples is made useless, and only those rows suffer."""
    job = job_of(seeds=[0, 1, 2], joint={"data": [0.3], "model": [1]}, train={"epochs": 12, "learning_rate": 2e-2})
    real = module.nested_selections

    def one_class(*arguments):
        kept: list[Examples] = real(*arguments)
        return [part.with_targets(torch.zeros(len(part), dtype=torch.int64)) for part in kept]

    monkeypatch.setattr(module, "nested_selections", one_class)
    facts = grid_of(job)
    bad = facts["cells"][1][0]
    assert bad["difference"]["high"] < 0
    assert not bad["kept"]
    assert facts["smallest"] is None


def test_the_smallest_is_the_least_data_times_parameters_of_what_is_kept():
    rows = [{"kept": 1.0}, {"kept": 0.5}]
    cells = [[(True, 1.0), (True, 0.4)], [(True, 1.0), (False, 0.1)]]
    plain = [[{"kept": kept, "parameters": share} for kept, share in row] for row in cells]
    assert module._smallest(rows, plain) == [0, 1]
    none = [[{**cell, "kept": (i, j) == (0, 0)} for j, cell in enumerate(row)] for i, row in enumerate(plain)]
    assert module._smallest(rows, none) is None


@pytest.mark.parametrize("target", [{"macs": 0.6}, {"params": 0.6}])
def test_with_a_target_columns_are_shares_of_its_cost(target):
    job = job_of(strategy={"criterion": "magnitude_l2"}, target=target, joint={"data": [1], "model": [0.5]}, seeds=[0])
    facts = grid_of(job)
    cell, kind = facts["cells"][0][1], next(iter(target))
    assert facts["model_is"] == kind
    assert cell["macs" if kind == "macs" else "parameters"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"trained": True, "recovery": {"method": "none"}}, RecipeError, "nothing is trained"),
        ({"joint": {"max_drop": 2}}, RecipeError, r"joint\.max_drop must be below 1 for accuracy"),
        ({"joint": {"data": [0.01]}}, RecipeError, "raise keep_fraction to"),
        (
            {"strategy": {"min_units": 12}, "target": {"params": 0.9}, "joint": {"model": [0.1]}},
            RecipeError,
            "12|floor|can't be pruned",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(monkeypatch, options, error, said):
    monkeypatch.setattr(model_stage, "train", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(error, match=said):
        job_of(**options)


def test_no_validation_examples_are_refused():
    job = job_of()
    none = job.data.validation.select(torch.zeros(len(job.data.validation), dtype=torch.bool))
    with pytest.raises(DataError, match="joint is measured on validation examples: got none"):
        check_joint(replace(job, data=replace(job.data, validation=none)))


def test_killed_and_resumed_is_never_killed_and_no_finished_cell_is_trained_again(tmp_path, monkeypatch):
    def recipe(name):
        tree = {**IRIS, "train": {"epochs": 2}, "recovery": {"epochs": 2}, "joint": {"data": [0.5], "model": [0.5]}}
        return make_recipe({**tree, "seeds": [0, 1], "output": str(tmp_path / name)})

    def kill(event):
        if event.stage == "joint / data 0.5 / model 0.5 / seed 1 / recover 1 of 1" and event.kind == "start":
            raise KeyboardInterrupt

    whole = run(recipe("whole"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe("killed"), listener=kill)
    steps = counted(monkeypatch)
    resumed = run(recipe("killed"), resume=True)
    assert [stage for _, stage, _ in steps] == ["seed 1 / recover 1 of 1", "seed 1 / control"]
    assert resumed.joint == whole.joint
    assert resumed.joint is not None
    assert resumed.fingerprints == whole.fingerprints
    assert "Data and model together" in (tmp_path / "killed" / "report.html").read_text()
    assert not (tmp_path / "killed" / ".work").exists()


def test_given_weights_recover_on_each_share_of_the_data():
    job = job_of(trained=True, seeds=[0], joint={"data": [0.5], "model": [1]})
    facts = grid_of(job)
    assert [cell["epochs_after"] for row in facts["cells"] for cell in row] == [[2], [2]]
