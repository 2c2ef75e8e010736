"""What is wrong goes first, then every class keeps its share, and what can't be is refused before anything is trained."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import RecipeError, RunError, UnknownNameError
from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline.stages.example_cover import check_class_left, cover_examples
from prunus.pipeline.stages.example_stage import clean, judge_examples
from prunus.score import example_criteria, example_strata, facility_location


def shapes(cover, noise=0.0, sizes=(120, 60, 20), **more):
    """Return a job over three classes that lie apart, with a share of the labels flipped and ten rows twice."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), sizes)
    inputs = 6 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    inputs = np.concatenate([inputs, inputs[:10] + 1e-3])
    labels = np.concatenate([labels, labels[:10]])
    torch.manual_seed(0)
    return ModelOptimizer(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        (inputs.astype(np.float32), labels),
        strategy="magnitude_l2",
        train={"epochs": 8, "learning_rate": 1e-2},
        seeds=[0],
        listener=silent,
        data_options={"label_noise": noise},
        examples={"epochs": 8, "cover": cover, **more},
    )._job


def judged(job):
    return judge_examples(job, 0, lambda asked, name, compute: compute())


def counts(examples):
    return torch.bincount(examples.targets, minlength=3).tolist()


@pytest.mark.parametrize(
    "criterion", ["random", "facility_location", "k_centre", "herding", "cluster_coverage", "coverage_centric"]
)
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_a_cover_keeps_the_share_of_every_class_that_was_asked(criterion, keep):
    job = shapes({"keep_fraction": keep, "criterion": criterion, "clean_first": False})
    left = clean(job.data.train, judged(job))
    assert len(left) == round(keep * len(job.data.train))
    for kept, there in zip(counts(left), counts(job.data.train), strict=True):
        assert abs(kept - keep * there) <= 1


def test_what_is_wrong_or_double_goes_before_and_counts_as_gone():
    job = shapes({"keep_fraction": 0.7}, noise=0.15)
    steps = judged(job)
    assert [step.criterion for step in steps][-2:] == ["near_duplicates", "random"]
    for decision in (part for step in steps for part in step.decisions):
        assert [job.data.train.ids[unit] for unit in decision.unit.tolist()] == decision.label.tolist()
    wrong = set(job.data.noise.ids)
    left = clean(job.data.train, steps)
    assert len(left) == round(0.7 * len(job.data.train))
    assert len(wrong & set(left.ids)) < 0.5 * len(wrong)
    (twins,) = (step for step in steps if step.criterion == "near_duplicates")
    assert twins.n_kept < twins.n_units


def test_where_cleaning_leaves_less_than_the_share_nothing_is_taken_back():
    job = shapes({"keep_fraction": 1.0}, noise=0.15)
    steps = judged(job)
    assert steps[-1].n_kept == steps[-1].n_units < len(job.data.train)


def test_a_cleaning_of_ones_own_takes_the_place_of_the_default_one():
    own = shapes({"keep_fraction": 0.5}, duplicates={"cosine": 0.9999})
    assert [step.criterion for step in judged(own)] == ["near_duplicates", "random"]
    none = shapes({"keep_fraction": 0.5, "clean_first": False})
    assert [step.criterion for step in judged(none)] == ["random"]


def test_an_order_covers_the_class_alone():
    job = shapes({"keep_fraction": 0.2, "criterion": "facility_location", "clean_first": False})
    train = job.data.train
    rows = torch.randn(len(train), 3, generator=torch.Generator().manual_seed(1))
    strata = example_strata("facility_location", {"embedding": rows}, train, by_class=True)
    for stratum, number in zip(strata, range(3), strict=True):
        own = torch.nonzero(train.targets == number).flatten()
        assert torch.equal(torch.from_numpy(stratum.units), own)
        first = facility_location(rows[own], 1).order[0]
        assert stratum.saliency.argmax() == first
    whole = example_strata("facility_location", {"embedding": rows}, train)
    every = example_criteria["facility_location"]({"embedding": rows})
    assert np.array_equal(
        np.concatenate([s.saliency for s in whole]), every.numpy()[np.concatenate([s.units for s in whole])]
    )


def test_what_stays_of_a_class_are_the_first_picks_among_that_class():
    job = shapes({"keep_fraction": 0.2, "criterion": "facility_location", "clean_first": False})
    train = job.data.train
    rows = torch.randn(len(train), 3, generator=torch.Generator().manual_seed(1))
    step = cover_examples(train, train, job.recipe.examples.cover, {"embedding": rows}, 0)
    for decision in step.decisions:
        picks = facility_location(rows[torch.from_numpy(decision.unit)], decision.n_kept).order
        assert set(np.flatnonzero(decision.keep).tolist()) == set(picks.tolist())


def test_a_class_of_one_example_is_compared_with_nothing():
    job = shapes({"keep_fraction": 0.5})
    one = job.data.train.select(torch.cat([torch.ones(1), torch.zeros(len(job.data.train) - 1)]).bool())
    (stratum,) = example_strata("density", {"embedding": torch.ones(1, 2)}, one, by_class=True)
    assert stratum.saliency.tolist() == [0.0]


def test_a_share_in_which_not_every_class_has_its_floor_is_refused_before_anything_is_trained():
    n = len(shapes({"keep_fraction": 0.5}).data.train)
    with pytest.raises(RecipeError, match=r"min_per_class 1 asks for 3 of 3 classes: raise keep_fraction to 0\.0"):
        shapes({"keep_fraction": 1.4 / n})
    with pytest.raises(RecipeError, match=r"min_per_class 9 asks for 27 of 3 classes.*or lower min_per_class"):
        shapes({"keep_fraction": 0.1, "min_per_class": 9})
    left = clean((job := shapes({"keep_fraction": 0.25, "min_per_class": 9})).data.train, judged(job))
    assert min(counts(left)) >= 9


def test_a_criterion_that_the_task_has_nothing_for_or_that_isnt_there_is_refused():
    tree = {"data": {"source": "sklearn:diabetes"}, "model": {"builder": "mlp"}}
    with pytest.raises(UnknownNameError, match="unknown example criterion: got 'facilities'"):
        shapes({"keep_fraction": 0.5, "criterion": "facilities"})
    assert make_recipe({**tree, "examples": {"cover": {"keep_fraction": 0.5}}}).examples.cover.criterion == "random"
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RecipeError, match=r"examples\.cover: the criterion prototype reads label"):
        ModelOptimizer(
            nn.Linear(4, 1),
            (inputs, inputs.sum(dim=1)),
            strategy=None,
            examples={"cover": {"keep_fraction": 0.5, "criterion": "prototype"}},
        )


def test_values_are_covered_too_without_a_search_for_wrong_ones():
    inputs = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    job = ModelOptimizer(
        nn.Linear(4, 1),
        (inputs, inputs.sum(dim=1)),
        strategy="magnitude_l2",
        seeds=[0],
        listener=silent,
        examples={"cover": {"keep_fraction": 0.5}},
    )._job
    steps = judged(job)
    assert [step.criterion for step in steps] == ["near_duplicates", "random"]
    assert len(clean(job.data.train, steps)) == round(0.5 * len(job.data.train))


def test_a_class_that_would_be_left_without_an_example_is_refused_unless_asked_for():
    job = shapes({"keep_fraction": 0.5})
    train = job.data.train
    without = train.select(train.targets != 2)
    with pytest.raises(RunError, match=r"no training example of class '2' would be left of \d+.*allow_empty_classes"):
        check_class_left(train, without, job.recipe.examples)
    check_class_left(train, without, job.recipe.examples.model_copy(update={"allow_empty_classes": True}))
