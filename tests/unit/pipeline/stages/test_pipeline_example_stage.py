"""What happens to the training examples is said: a class that goes, a setting that only classes can have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import RecipeError
from prunus.core.events import silent
from prunus.core.files.example_table import read_example_table, write_example_table
from prunus.core.files.plan_file import load_plan
from prunus.core.recipes.recipe_file import make_recipe
from prunus.data import ArraySource, Examples
from prunus.pipeline import apply_plan, run
from prunus.pipeline.stages.example_stage import judge_examples, thinned_classes
from prunus.pipeline.stages.label_cleaning import label_facts
from recipe_samples import IRIS


def rare(n_rare=6, **options):
    """Return an optimizer over three classes, the last with few examples that look like the first, and what it told."""
    draw = np.random.default_rng(0)
    labels = np.r_[np.zeros(200, int), np.ones(100, int), np.full(n_rare, 2)]
    inputs = draw.normal(size=(2, 8))[labels % 2] * 2 + draw.normal(size=(len(labels), 8))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    told = []
    optimizer = ModelOptimizer(
        network,
        (inputs.astype(np.float32), labels),
        strategy="magnitude_l2",
        train={"epochs": 2},
        recovery={"epochs": 1},
        seeds=[0],
        listener=told.append,
        **options,
    )
    return optimizer, told


def left(optimizer):
    """Return how many examples of each class the removals keep, and how many there were."""
    targets = optimizer._job.data.train.targets
    kept = [0, 0, 0]
    for decision in optimizer.plan_.steps[0].decisions:
        for unit, keep in zip(decision.unit, decision.keep, strict=True):
            kept[int(targets[unit])] += bool(keep)
    return kept, torch.bincount(targets, minlength=3).tolist()


def test_a_class_of_three_examples_stays_in_the_training_and_that_it_is_thin_is_said():
    optimizer, told = rare(examples={"epochs": 2, "remove": [{"criterion": "aum", "keep_fraction": 0.3}]})
    optimizer.prune(keep_fraction=0.5)
    kept, before = left(optimizer)
    assert before[2] == 3
    assert kept[2] >= 1
    assert sum(kept) == round(0.3 * sum(before))
    warnings = [event.message for event in told if event.kind == "warning"]
    assert warnings == [f"class '2' keeps {kept[2]} of 3 training examples: raise class_floor if that is too few"]


def test_a_class_that_leaves_altogether_is_said():
    remove = {"criterion": "aum", "keep_fraction": 0.01, "class_floor": 0}  # two examples for three classes
    optimizer, told = rare(examples={"epochs": 2, "remove": [remove]})
    optimizer.prune(keep_fraction=0.5)
    kept, before = left(optimizer)
    gone = [number for number in range(3) if kept[number] == 0]
    assert gone
    for number in gone:
        line = f"no training example of class '{number}' is left of {before[number]}, so it can't be learnt"
        assert any(event.kind == "warning" and event.message.startswith(line) for event in told)


def test_only_classes_that_lose_examples_are_named():
    targets = torch.tensor([0] * 20 + [1] * 3 + [2] * 8)
    source = ArraySource(
        "set", tuple(map(str, range(31))), torch.zeros(31, 1), targets, "classification", ("a", "b", "c")
    )
    before = Examples(source, torch.arange(31))
    assert thinned_classes(before, before) == []
    thinner = before.select(np.r_[np.arange(31) < 27])
    assert [line.split(":")[0] for line in thinned_classes(before, thinner)] == [
        "class 'c' keeps 4 of 8 training examples"
    ]
    moved = before.with_targets(torch.where(targets == 1, 0, targets))
    assert [line.split(" is left")[0] for line in thinned_classes(before, moved)] == [
        "no training example of class 'b'"
    ]


def test_relabelling_values_is_refused_before_anything_is_trained():
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RecipeError, match=r"examples\.relabel .*data\.task: regression.*use examples\.remove"):
        ModelOptimizer(nn.Linear(4, 1), (inputs, inputs.sum(dim=1)), strategy=None, examples={"relabel": {}})


def test_the_facade_tells_what_should_be_known_of_the_data():
    inputs = torch.arange(40.0)[:, None]
    told = []
    ModelOptimizer(nn.Linear(1, 2), (torch.cat([inputs, inputs]), [0, 1] * 40), listener=told.append)
    assert any("same input" in event.message for event in told if event.kind == "note")


def several_labels(**examples):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=draw)
    targets = (inputs[:, :3] > 0).float()
    torch.manual_seed(0)
    return ModelOptimizer(
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)),
        list(zip(inputs, targets, strict=True)),
        task="multilabel",
        strategy="magnitude_l2",
        train={"epochs": 2},
        recovery={"epochs": 1},
        seeds=[0],
        examples={"epochs": 2, **examples},
    )


def test_examples_of_any_task_are_judged_by_their_loss():
    optimizer = several_labels(remove=[{"criterion": "loss", "keep_fraction": 0.75}])
    optimizer.prune(keep_fraction=0.5)
    (decision,) = optimizer.plan_.steps[0].decisions
    assert (decision.stratum, decision.n_kept) == ("all", round(0.75 * len(decision.unit)))
    assert decision.saliency[decision.keep].min() >= decision.saliency[~decision.keep].max()


def test_a_criterion_that_the_task_has_nothing_for_is_refused_before_anything_is_trained():
    says = "el2n reads el2n, which the task multilabel doesn't give of its examples: use .*loss, loss_dev.*, random"
    with pytest.raises(RecipeError, match=says):
        several_labels(remove=[{"criterion": "el2n", "keep_fraction": 0.75}])


def digits(noise, **options):
    """Return an optimizer over digits of which some labels were flipped behind its back, and the names of those."""
    x, y = load_digits(return_X_y=True)
    draw = np.random.default_rng(0)
    rows = draw.permutation(len(y))[: round(noise * len(y))]
    y[rows] = (y[rows] + draw.integers(1, 10, len(rows))) % 10
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    examples = {
        "epochs": 8,
        "folds": 3,
        "relabel": {"confidence": 0.6},
        "remove": [{"criterion": "aum", "keep_fraction": 0.95}],
    }
    optimizer = ModelOptimizer(
        network,
        ((x / 16).astype(np.float32), y),
        examples=examples | options.pop("examples", {}),
        train={"epochs": 8, "learning_rate": 3e-3},
        seeds=[0],
        listener=silent,
        **options,
    )
    return optimizer, {optimizer._job.data.train.source.ids[row] for row in rows}


def judged(optimizer):
    return judge_examples(optimizer._job, 0, lambda *asked: asked[2]())


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_of_labels_that_are_called_wrong_it_is_said_how_many_are(noise):
    optimizer, wrong = digits(noise)
    for step in judged(optimizer):
        called = [name for d in step.decisions for name in d.label[~d.keep].tolist()]
        told = step.settings["precision"]
        assert told["n"] == len(called)
        assert told["value"] == pytest.approx(sum(name in wrong for name in called) / len(called), abs=0.1)
        assert told["noise"] == pytest.approx(noise, abs=0.02)


def test_models_that_did_not_see_the_labels_are_asked_where_nothing_is_relabelled():
    optimizer, wrong = digits(0.2, examples={"folds": 1, "relabel": None})
    (step,) = judged(optimizer)
    called = [name for d in step.decisions for name in d.label[~d.keep].tolist()]
    assert step.settings["precision"]["value"] == pytest.approx(
        sum(name in wrong for name in called) / len(called), abs=0.1
    )


@pytest.mark.parametrize(
    "options",
    [
        {"examples": {"estimate": False}},
        {"data_options": {"label_noise": 0.1}},
        {"examples": {"relabel": None, "remove": [{"keep_fraction": 0.9}]}},
    ],
)
def test_nothing_is_estimated_that_is_known_or_was_not_asked(options):
    assert all("precision" not in step.settings for step in judged(digits(0.0, **options)[0]))


CLEAN = {"examples": {"folds": 1, "relabel": None, "remove": [], "clean": {}}}


@pytest.mark.parametrize("evidence", ["folds", "recorded"])
def test_cleaning_finds_wrong_labels_and_says_how_many_there_are(evidence):
    optimizer, wrong = digits(0.2, examples={**CLEAN["examples"], "clean": {"evidence": evidence}})
    relabel, remove = judged(optimizer)
    listed = {name for step in (relabel, remove) for d in step.decisions for name in d.label[~d.keep].tolist()}
    wrong &= set(optimizer._job.data.train.ids)
    assert len(listed & wrong) > 0.6 * len(wrong)
    assert len(listed & wrong) > 0.9 * len(listed)
    facts = label_facts((relabel, remove))
    assert facts["noise"]["value"] == pytest.approx(0.2, abs=0.03)
    assert facts["n"] == len(optimizer._job.data.train)
    assert facts["n_dropped"] + facts["n_relabelled"] == len(listed)


def test_cleaning_estimates_where_labels_were_flipped_on_purpose_too():
    optimizer, _ = digits(0.0, **CLEAN, data_options={"label_noise": 0.1})
    facts = label_facts(judged(optimizer))
    assert facts["noise"]["value"] == pytest.approx(0.1, abs=0.03)


def test_relabelled_and_dropped_examples_are_judged_by_nothing_else():
    options = {"clean": {}, "relabel": None, "remove": [{"criterion": "aum", "keep_fraction": 0.9}]}
    relabel, remove, aum = judged(digits(0.2, examples=options)[0])
    touched = [name for step in (relabel, remove) for d in step.decisions for name in d.label[~d.keep].tolist()]
    assert not set(touched) & {name for d in aum.decisions for name in d.label.tolist()}


def test_cleaning_of_values_is_refused_before_anything_is_trained():
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    for wrong in ("relabel", "both"):
        with pytest.raises(RecipeError, match=r"examples\.clean.*regression"):
            ModelOptimizer(
                nn.Linear(4, 1), (inputs, inputs.sum(dim=1)), strategy=None, examples={"clean": {"wrong": wrong}}
            )


def test_cleaning_and_relabelling_are_not_asked_together():
    with pytest.raises(RecipeError, match="clean and relabel both say which labels are wrong"):
        rare(examples={"clean": {}, "relabel": {}})


def test_a_run_does_what_an_edited_table_says_and_its_plan_can_be_carried_out_without_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {**IRIS, "examples": {"epochs": 2, "clean": {}}, "output": "first"}
    run(make_recipe(tree))
    made = read_example_table(Path("first/plan/examples.parquet"))
    decision, new_label = made.columns["decision"].copy(), made.columns["new_label"].copy()
    decision[:3], new_label[2] = ["drop", "drop", "relabel"], "virginica"
    write_example_table(made.with_columns({"decision": decision, "new_label": new_label}), Path("edited.parquet"))
    told = []
    recipe = make_recipe({**tree, "examples": {**tree["examples"], "plan": "edited.parquet"}, "output": "second"})
    run(recipe, listener=told.append)
    assert any("examples.plan decides, so examples.clean aren't asked" in event.message for event in told)
    plan = load_plan(Path("second"))
    touched = {name for step in plan.steps if step.granularity == "example" for name in left_out(step)}
    assert touched == {name for name, what in zip(made.ids, decision, strict=True) if what != "keep"}
    assert set(made.ids[:3]) <= touched
    Path("edited.parquet").unlink()
    apply_plan(plan, recipe.model_copy(update={"output": "third"}))
    assert load_plan(Path("third")).steps[0].decisions[0].label.tolist() == plan.steps[0].decisions[0].label.tolist()


def left_out(step):
    return [name for d in step.decisions for name in d.label[~d.keep].tolist()]


def house_prices(noise, **clean):
    """Return an optimizer over values of which some are another example's, and the names of those."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(900, 4)).astype(np.float32)
    y = x @ np.array([2.0, -1.0, 0.5, 0.0]) + 0.2 * draw.normal(size=900)
    rows = draw.permutation(900)[: round(noise * 900)]
    y[rows] = y[np.roll(rows, 1)]
    torch.manual_seed(0)
    optimizer = ModelOptimizer(
        nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1)),
        (x, y.astype(np.float32)),
        examples={"epochs": 30, "clean": clean},
        train={"epochs": 2, "learning_rate": 1e-2},
        seeds=[0],
        listener=silent,
    )
    return optimizer, {optimizer._job.data.train.source.ids[row] for row in rows}


@pytest.mark.parametrize("wrong", [None, "drop"])
def test_values_that_look_wrong_are_flagged_and_dropped_only_when_asked(wrong):
    optimizer, bad = house_prices(0.1, **({} if wrong is None else {"wrong": wrong}))
    (step,) = judged(optimizer)
    listed = {
        name for d in step.decisions for name, text in zip(d.label, d.reason, strict=True) if "value wrong" in text
    }
    assert len(listed & bad) > 0.9 * len(listed) > 20
    assert (step.n_units - step.n_kept) == (len(listed) if wrong == "drop" else 0)
    assert label_facts([step])["noise"]["value"] == pytest.approx(0.1, abs=0.03)


def test_several_labels_are_judged_each_by_itself():
    optimizer = several_labels(clean={"wrong": "drop"})
    (step,) = judged(optimizer)
    assert [d.stratum for d in step.decisions] == ["all"]
    assert label_facts([step])["n"] == len(optimizer._job.data.train)


def test_tokens_are_judged_each_by_itself_and_their_sentence_goes():
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(0, 30, (300, 6), generator=draw)
    targets = words % 3
    wrong = torch.rand(300, 6, generator=draw) < 0.05
    targets = torch.where(wrong, (targets + 1) % 3, targets)
    targets[:, 5] = -100
    torch.manual_seed(0)
    optimizer = ModelOptimizer(
        nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)),
        list(zip(words, targets, strict=True)),
        task="token_classification",
        train={"epochs": 2, "learning_rate": 1e-2},
        examples={"epochs": 12, "clean": {"wrong": "drop"}},
        seeds=[0],
        listener=silent,
    )
    (step,) = judged(optimizer)
    train = optimizer._job.data.train
    truly = {name for name, row in zip(train.ids, train.rows.tolist(), strict=True) if wrong[row, :5].any()}
    gone = set(left_out(step))
    assert len(gone & truly) > 0.9 * len(gone)
    assert len(gone & truly) > 0.7 * len(truly)
    assert label_facts([step])["noise"]["value"] == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("wrong", ["relabel", "both"])
def test_a_label_among_many_is_never_replaced(wrong):
    with pytest.raises(RecipeError, match=r"examples\.clean\.wrong: .* several labels .*multilabel.*use drop or flag"):
        several_labels(clean={"wrong": wrong})


def test_what_has_no_labels_is_not_cleaned():
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RecipeError, match=r"examples\.clean .*agreement; use examples\.remove"):
        ModelOptimizer(nn.Linear(4, 3), inputs, trained=True, examples={"clean": {}})
