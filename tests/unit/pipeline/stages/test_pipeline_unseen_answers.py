"""Who may learn from which label, where models say what they think of labels that they didn't see."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.pipeline.stages import unseen_answers
from prunus.pipeline.stages.example_stage import judge_examples
from prunus.pipeline.stages.unseen_answers import FOLDS, probabilities_again


def digits(noise, **clean):
    """Return a job over digits of which some have another label, and the ids of those."""
    x, y = load_digits(return_X_y=True)
    draw = np.random.default_rng(3)
    rows = draw.permutation(len(y))[: round(noise * len(y))]
    given = y.copy()
    given[rows] = (y[rows] + draw.integers(1, 10, len(rows))) % 10
    torch.manual_seed(0)
    job = ModelOptimizer(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        ((x / 16).astype(np.float32), given),
        strategy=None,
        examples={"epochs": 10, "folds": 1, "relabel": None, "remove": [], "clean": clean},
        train={"epochs": 10, "learning_rate": 3e-3},
        seeds=[0],
        listener=silent,
    )._job
    return job, {job.data.train.source.ids[row] for row in rows} & set(job.data.train.ids)


def settings(job):
    return job.recipe.train.model_copy(update={"epochs": 1})


def said(given, doubted):
    """Return probabilities that are sure of each label, and of another class where it is doubted."""
    best = torch.where(doubted, (given + 1) % 10, given)
    return 0.99 * torch.nn.functional.one_hot(best, 10).double() + 0.001


def learners(job, monkeypatch):
    """Return a list that fills with the ids of the examples that each model learns from; nothing is trained."""
    taught = []
    monkeypatch.setattr(
        unseen_answers, "train", lambda model, examples, *rest, **more: taught.append(set(examples.ids))
    )
    return taught


def test_no_model_of_the_second_round_learns_from_a_doubted_label_nor_from_its_own_fold(monkeypatch):
    job, _ = digits(0.0)
    train = job.data.train
    doubted = torch.arange(len(train)) % 7 == 0
    taught = learners(job, monkeypatch)
    found = probabilities_again(job, 0, FOLDS, settings(job), "stage", said(train.targets, doubted))
    assert len(taught) == FOLDS
    trusted = {name for name, one in zip(train.ids, doubted.tolist(), strict=True) if not one}
    assert set.union(*taught) == trusted
    # Each trusted label is hidden from the one model that judges it.
    assert sum(map(len, taught)) == (FOLDS - 1) * len(trusted)
    assert found.shape == (len(train), 10)
    assert found.sum(dim=1) == pytest.approx(np.ones(len(train)))  # those that were doubted are judged, too


@pytest.mark.parametrize("doubted", ["few", "a class"])
def test_the_first_answers_stand_where_few_labels_are_doubted_or_nobody_of_a_class_is_trusted(doubted, monkeypatch):
    job, _ = digits(0.0)
    train = job.data.train
    taught = learners(job, monkeypatch)
    which = torch.arange(len(train)) < len(train) * 0.009 if doubted == "few" else train.targets == 4
    first = said(train.targets, which)
    assert probabilities_again(job, 0, FOLDS, settings(job), "stage", first) is first
    assert taught == []


def test_cleaning_listens_to_the_second_round_unless_it_is_told_otherwise():
    listed = {}
    for rounds in (1, 2, None):
        job, wrong = digits(0.2, wrong="drop", **({"rounds": rounds} if rounds else {}))
        (step,) = judge_examples(job, 0, lambda *asked: asked[2]())
        listed[rounds] = {name for d in step.decisions for name in d.label[~d.keep].tolist()}
        assert len(listed[rounds] & wrong) > 0.9 * len(listed[rounds])
    assert listed[1] != listed[2] == listed[None]
