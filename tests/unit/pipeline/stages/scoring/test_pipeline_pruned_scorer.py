"""Does a smaller model score where one is asked for, and does the record say which, how much cheaper, and how alike?"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from prunus import ModelOptimizer
from prunus.cli.app import invoke
from prunus.core.errors import RecipeError
from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.pipeline.stages.example_stage import judge_examples
from prunus.pipeline.stages.scoring import example_evidence, pruned_scorer
from prunus.pipeline.stages.scoring.pruned_scorer import scorer_facts, scoring_job
from prunus.report import load_record
from recipe_samples import IRIS

CUT = {"epochs": 3, "scorer": "pruned", "remove": [{"criterion": "aum", "keep_fraction": 0.8}], "estimate": False}


def job_of(examples=CUT, **options):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 100)
    inputs = 2.5 * np.eye(3, 8)[labels] + draw.normal(size=(len(labels), 8))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    settings = {"train": {"epochs": 6, "learning_rate": 1e-2}, "seeds": [0]}
    settings |= {"strategy": {"criterion": "taylor", "keep_fraction": 0.25}}
    data = (inputs.astype(np.float32), labels)
    return ModelOptimizer(model, data, listener=silent, examples=examples, **{**settings, **options})._job


def judged(job, seed=0):
    return judge_examples(job, seed, lambda asked, name, compute: compute())


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_model_that_scores_is_the_small_one_but_for_the_comparison(monkeypatch):
    trained, real = [], example_evidence.train

    def train(model, examples, *arguments, stage, **options):
        trained.append((stage.rpartition(" / ")[2], n_parameters(model), len(examples)))
        return real(model, examples, *arguments, stage=stage, **options)

    monkeypatch.setattr(example_evidence, "train", train)
    job = job_of({**CUT, "scorer": {"model": "pruned", "sample": 60}})
    small, whole, n = 12 * 4 + 3, 12 * 16 + 3, len(job.data.train)
    steps = judged(job)
    assert trained == [
        ("judge examples", small, n),
        ("compare scorers", small, 60),
        ("compare scorers", whole, 60),
        ("compare scorers", whole, 60),
    ]
    facts = scorer_facts(steps)
    assert facts["parameters"] == small / whole
    assert facts["macs"] == 11 * 4 / (11 * 16)
    assert (facts["keep_fraction"], facts["n_sample"]) == (0.25, 60)
    assert [one["score"] for one in facts["agreement"]] == ["aum"]
    assert -1 <= facts["agreement"][0]["low"] <= facts["agreement"][0]["value"] <= facts["agreement"][0]["high"] <= 1


def test_the_dense_model_scores_unasked_and_a_pruned_one_decides_otherwise():
    job = job_of({**CUT, "scorer": "dense"})
    assert scoring_job(job, 0) is job
    assert scorer_facts(judged(job)) is None
    one, other = (np.concatenate([d.saliency for d in judged(j)[0].decisions]) for j in (job, job_of()))
    assert not np.array_equal(one, other)


def test_a_scorer_that_is_the_dense_model_agrees_fully():
    """keep_fraction 1 cuts nothing: same model, same draws, same scores."""
    facts = scorer_facts(judged(job_of({**CUT, "scorer": {"model": "pruned", "keep_fraction": 1.0, "sample": 80}})))
    assert facts["macs"] == 1
    assert facts["agreement"][0]["value"] == pytest.approx(1)
    assert facts["agreement"][0]["between_dense"] < 1


def test_without_a_sample_nothing_is_compared_and_later_seeds_compare_nothing():
    assert scorer_facts(judged(job_of({**CUT, "scorer": {"model": "pruned", "sample": 0}})))["agreement"] == []
    job = job_of(seeds=[0, 1])
    assert scorer_facts(judged(job, seed=1))["n_sample"] == 0


def test_folds_of_a_cleaning_are_answered_by_the_small_model(monkeypatch):
    from prunus.pipeline.stages import unseen_answers

    sizes, real = [], unseen_answers.train

    def train(model, *arguments, **options):
        sizes.append(n_parameters(model))
        return real(model, *arguments, **options)

    monkeypatch.setattr(unseen_answers, "train", train)
    steps = judged(job_of({"epochs": 3, "scorer": "pruned", "clean": {"rounds": 1}}))
    assert sizes == [12 * 4 + 3] * 3
    assert scorer_facts(steps)["agreement"][0]["score"] == "confidence"


def test_zeros_save_nothing_and_are_refused_and_unread_models_are_said(monkeypatch):
    with pytest.raises(RecipeError, match="since zeros save no time: got granularity weight"):
        job_of(strategy={"granularity": "weight", "keep_fraction": 0.5})
    told = []
    job = job_of({"scorer": "pruned", "remove": [{"criterion": "random", "keep_fraction": 0.8}]})
    monkeypatch.setattr(job.workspace, "listener", told.append)
    assert scorer_facts(judged(job)) is None
    assert any("nothing here reads a model" in event.message for event in told)


def test_a_run_records_it_and_a_killed_one_ends_alike(tmp_path, monkeypatch):
    def recipe(name):
        examples = {**CUT, "scorer": {"model": "pruned", "sample": 40}}
        return make_recipe({**IRIS, "examples": examples, "output": str(tmp_path / name)})

    whole = run(recipe("whole"))
    assert whole.scorer is not None
    assert whole.scorer.n_sample == 40
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "examples scored by" in page
    assert "rank correlation with the dense model’s scores" in page.replace("&#x27;", "’")

    def dies(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pruned_scorer, "rank_correlation", dies)
    with pytest.raises(KeyboardInterrupt):
        run(recipe("killed"))
    monkeypatch.undo()
    trained, real = [], example_evidence.train
    monkeypatch.setattr(example_evidence, "train", lambda *a, **o: trained.append(o["stage"]) or real(*a, **o))
    resumed = run(recipe("killed"), resume=True)
    assert trained == []
    assert resumed.scorer == whole.scorer == load_record(tmp_path / "whole" / "record.json").scorer
    assert resumed.fingerprints == whole.fingerprints


@pytest.mark.parametrize("command", ["select", "score", "clean"])
def test_the_commands_about_examples_score_by_it_too(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scorer = {"model": "pruned", "sample": 40}
    examples = {"epochs": 2, "scorer": scorer, "cover": {"keep_fraction": 0.8, "criterion": "k_centre"}}
    Path("r.yaml").write_text(yaml.safe_dump({**IRIS, "examples": examples, "output": "out"}))
    assert invoke([command, "r.yaml", "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)["scorer"]
    assert said["keep_fraction"] == 0.5
    assert 0 < said["macs"] < 0.7
    assert said["agreement"]
