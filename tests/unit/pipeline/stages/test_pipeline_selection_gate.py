"""Are the three ways trained for as many steps, on what they say, without a look at the test examples?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, RecipeError
from prunus.core.events import silent
from prunus.evaluate import ARMS
from prunus.pipeline.stages import selection_gate as module
from prunus.pipeline.stages.selection_gate import AllInTurn, by_chance, gate_selection


def job_of(**options):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (150, 60, 12))
    inputs = 2 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    torch.manual_seed(0)
    settings = {"train": {"epochs": 3, "batch_size": 16}, "recovery": {"epochs": 3, "batch_size": 16}, "seeds": [0, 1]}
    return ModelOptimizer(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        (inputs.astype(np.float32), labels),
        strategy="magnitude_l2",
        listener=silent,
        **{**settings, **options},
    )._job


def halves(job):
    n = len(job.data.train)
    keep = torch.arange(n) % 2 == 0
    return {seed: job.data.train.select(keep) for seed in job.recipe.seeds}


@pytest.mark.parametrize(("total", "n"), [(10, 3), (10, 7), (10, 10), (7, 1), (9, 8)])
def test_all_come_in_turn_and_none_twice_in_an_epoch(total, n):
    job = job_of()
    examples = job.data.train.select(torch.arange(len(job.data.train)) < total)
    turns = AllInTurn(examples, n, seed=1)
    times = np.zeros(total, int)
    for _ in range(50):
        dealt = turns.deal()
        assert len(set(dealt.tolist())) == len(dealt) == n
        np.add.at(times, dealt.numpy(), 1)
        assert times.max() - times.min() <= 2
    first, again = AllInTurn(examples, n, seed=1), AllInTurn(examples, n, seed=1)
    assert [first.deal().tolist() for _ in range(5)] == [again.deal().tolist() for _ in range(5)]
    (batch,) = list(AllInTurn(examples, n, seed=1).batches(100))
    assert len(batch.index) == n
    assert len(turns) == n
    assert turns.task is examples.task


def test_chance_keeps_as_many_of_every_class_in_proportion_and_another_set_for_another_seed():
    train = job_of().data.train
    for n in (3, 20, 100, len(train)):
        kept = by_chance(train, n, 0)
        assert len(kept) == n
        shares = torch.bincount(kept.targets, minlength=3) - n / len(train) * torch.bincount(train.targets, minlength=3)
        assert shares.abs().max() <= 1.5
        assert torch.bincount(kept.targets, minlength=3).min() >= 1
    assert by_chance(train, 20, 0).ids == by_chance(train, 20, 0).ids != by_chance(train, 20, 1).ids


def test_every_way_takes_the_same_steps_from_the_same_start_and_never_sees_the_test(monkeypatch):
    job, seen = job_of(), []
    real = module.train

    def train(model, examples, config, **options):
        n_batches = 0
        start = [parameter.detach().clone() for parameter in model.parameters()]

        class Told:
            def __getattr__(self, name):
                return getattr(examples, name)

            def __len__(self):
                return len(examples)

            def batches(self, *arguments):
                nonlocal n_batches
                for batch in examples.batches(*arguments):
                    n_batches += 1
                    yield batch

        history = real(model, Told(), config, **options)
        seen.append((n_batches, start, options["seed"]))
        return history

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(type(job.data), "test", property(lambda self: pytest.fail("the test was read")), raising=False)
    facts = gate_selection(job, halves(job))
    assert len(seen) == len(ARMS) * 2
    assert {n for n, *_ in seen} == set(facts["n_steps"])
    for seed in (0, 1):
        starts = [start for _, start, own in seen if own == seed]
        assert all(torch.equal(a, b) for start in starts for a, b in zip(start, starts[0], strict=True))
    assert facts["n_validation"] == len(job.data.validation)
    assert facts["seeds"] == [0, 1]


def test_a_selection_that_loses_a_class_loses_to_chance():
    job = job_of(
        train={"epochs": 15, "learning_rate": 1e-2},
        data_options={"split": {"validation": 0.4}},
        seeds=list(range(4)),
    )
    train = job.data.train
    bad = torch.zeros(len(train), dtype=torch.bool)
    bad[torch.nonzero(train.targets == 0).flatten()[:60]] = True
    facts = gate_selection(job, {seed: train.select(bad) for seed in range(4)})
    found = {(item["one"], item["other"]): item["verdict"] for item in facts["comparisons"]}
    assert found["selection", "random"] == "worse"
    assert facts["recommended"] == "full_short"


def test_without_validation_examples_or_a_training_it_is_refused_before_anything_is_trained():
    job = job_of()
    none = job.data.validation.select(torch.zeros(len(job.data.validation), dtype=torch.bool))
    with pytest.raises(DataError, match="the gate judges a selection on validation examples: got none"):
        gate_selection(replace(job, data=replace(job.data, validation=none)), {})
    with pytest.raises(RecipeError, match=r"got train\.epochs 0"):
        gate_selection(job_of(train={"epochs": 0}), {})
