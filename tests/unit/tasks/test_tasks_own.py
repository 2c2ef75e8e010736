"""Tasks of one's own: a class, a loss, a metric; under resampling as on paper, and each mistake in one line."""

import dataclasses
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import PearsonCorrCoef

from prunus.core.errors import ModelError, RecipeError, UnknownNameError
from prunus.evaluate import Pairs, compare, measure_quality
from prunus.tasks import Classification, Regression, default_metrics, metrics
from prunus.tasks.own import as_task, own_task
from task_samples import Answer, batch_of, value_of


def top_two(outputs, targets):
    return (outputs.topk(2, dim=1).indices == targets[:, None]).any(dim=1).float().mean()


def drawn(seed=0, n=40):
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (n,), generator=draw)
    return torch.randn(n, 4, generator=draw) + functional.one_hot(targets, 4), targets


def test_a_metric_that_is_a_mean_is_measured_with_an_interval():
    outputs, targets = drawn()
    task = own_task(loss=nn.CrossEntropyLoss(), metric=top_two, higher_is_better=True)
    assert default_metrics(task.name) == ("top_two",)
    task.check(outputs, batch_of(targets))
    seen = task.observe(outputs, batch_of(targets))
    (item,) = measure_quality(seen, task, bootstrap=200).metrics
    right = (outputs.topk(2, dim=1).indices == targets[:, None]).any(dim=1).double().numpy()
    assert item.value == pytest.approx(right.mean())
    rng = np.random.default_rng(0)
    means = [right[rng.integers(0, 40, 40)].mean() for _ in range(500)]
    assert item.low == pytest.approx(np.quantile(means, 0.025), abs=0.05)
    assert item.high == pytest.approx(np.quantile(means, 0.975), abs=0.05)


def test_a_metric_of_torchmetrics_that_is_no_mean_is_computed_anew_for_each_resample():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(30, generator=draw)
    outputs = targets + torch.randn(30, generator=draw)
    task = own_task(metric=PearsonCorrCoef(), higher_is_better=True)
    assert task.keeps(outputs, targets)
    seen = task.observe(outputs, batch_of(targets))
    weights = np.random.default_rng(0).integers(0, 3, (2, 30)).astype(float)
    found = task.totals(seen, weights)["PearsonCorrCoef"]
    for row, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(30), row.astype(int))
        assert value == pytest.approx(np.corrcoef(outputs.numpy()[rows], targets.numpy()[rows])[0, 1], rel=1e-4)


def test_torchmetrics_says_itself_what_is_better_and_reads_the_logits():
    outputs, targets = drawn()
    task = own_task(metric={"top1": MulticlassAccuracy(4, average="micro"), "own_top2": top_two}, higher_is_better=True)
    assert default_metrics(task.name) == ("top1", "own_top2")
    only = own_task(metric={"top1": MulticlassAccuracy(4, average="micro")})
    expected = float((outputs.argmax(dim=1) == targets).float().mean())
    assert value_of(only, "top1", outputs, batch_of(targets)) == pytest.approx(expected)
    assert value_of(only, "top1", Answer(outputs), batch_of(targets)) == pytest.approx(expected)


def test_of_wide_answers_the_mean_over_the_examples_is_measured():
    draw = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(5, 3, 20, 20, generator=draw), torch.randn(5, 3, 20, 20, generator=draw)

    def root(outputs, targets):
        return (outputs - targets).square().mean().sqrt()

    task = own_task(metric=root, higher_is_better=False)
    assert not task.keeps(outputs, targets)
    each = [(a - b).square().mean().sqrt() for a, b in zip(outputs, targets, strict=True)]
    assert value_of(task, "root", outputs, batch_of(targets)) == pytest.approx(
        float(torch.stack(each).mean()), rel=1e-5
    )
    task.check(outputs, batch_of(targets))
    assert metrics["root"].label == "root (mean over examples)"
    small = outputs[:, 0, 0], targets[:, 0, 0]
    task.check(small[0], batch_of(small[1]))
    assert metrics["root"].label == "root"


def test_of_a_structure_each_example_is_given_alone():
    outputs, targets = drawn()

    def named(answer, targets):
        assert isinstance(answer, Answer)
        assert len(answer.logits) == len(targets) == 1
        return top_two(answer.logits, targets)

    task = own_task(metric=named, higher_is_better=True)
    assert value_of(task, "named", Answer(outputs), batch_of(targets)) == pytest.approx(
        float(top_two(outputs, targets))
    )


def test_models_are_compared_by_a_metric_of_ones_own():
    outputs, targets = drawn(n=200)
    task = own_task(metric={"two_best": top_two}, higher_is_better=True)
    good, bad = (task.observe(one, batch_of(targets)) for one in (outputs, -outputs))
    (found,) = compare(Pairs([good], [bad], task, bootstrap=200), ["two_best"])
    assert found.verdict == "worse"


def test_another_loss_leaves_the_task_as_it_is():
    outputs, targets = drawn()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    task = own_task(Classification(n_classes=4), loss=nn.CrossEntropyLoss(weight=weight))
    batch = batch_of(targets)
    task.check(outputs, batch)
    assert task.name == "classification"
    assert torch.allclose(task.loss(outputs, batch), functional.cross_entropy(outputs, targets, weight=weight))
    assert torch.allclose(
        task.losses(outputs, batch), functional.cross_entropy(outputs, targets, weight=weight, reduction="none")
    )
    assert value_of(task, "accuracy", outputs, batch) == value_of(
        Classification(n_classes=4), "accuracy", outputs, batch
    )
    seen = task.observe(outputs, batch)
    assert measure_quality(seen, task, bootstrap=20).confusion is not None


def test_a_loss_without_a_reduction_of_its_own_is_taken_for_each_example():
    outputs, targets = drawn(n=5)
    task = own_task(Classification(), loss=lambda outputs, targets: functional.cross_entropy(outputs, targets))
    expected = functional.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(task.losses(outputs, batch_of(targets)), expected)


def test_a_task_is_found_by_name_by_class_by_instance_and_by_module(tmp_path, monkeypatch):
    (tmp_path / "my_tasks_here.py").write_text(
        textwrap.dedent(
            """
            from prunus.tasks import Classification

            class Mine(Classification):
                pass

            mine = Mine(("a", "b"))
            number = 3
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    assert as_task("classification", class_names=("a", "b")).class_names == ("a", "b")
    assert as_task(Classification, n_classes=3).n_classes == 3
    given = Classification()
    assert as_task(given) is given
    assert as_task("my_tasks_here:mine").class_names == ("a", "b")
    assert as_task("my_tasks_here:Mine", class_names=("x",)).class_names == ("x",)
    with pytest.raises(RecipeError, match=r"got 'my_tasks_here:number', a int"):
        as_task("my_tasks_here:number")
    with pytest.raises(RecipeError, match="has no 'lacks'"):
        as_task("my_tasks_here:lacks")
    with pytest.raises(UnknownNameError, match="did you mean 'classification'"):
        as_task("clasification")
    with pytest.raises(RecipeError, match="task must be one of agreement, classification"):
        as_task(3)


def test_a_class_that_needs_more_than_is_known_is_one_line():
    @dataclasses.dataclass(frozen=True)
    class Needy(Classification):
        depth: int = dataclasses.field(kw_only=True)

    with pytest.raises(RecipeError, match=r"Needy can't be made: TypeError.*'depth'; give an instance"):
        as_task(Needy)


def test_a_class_without_a_metric_is_one_line():
    class Nameless(Classification):
        name = "nameless"

    for given in (Nameless, Nameless()):
        with pytest.raises(RecipeError, match="task Nameless has no metric: give it a name"):
            as_task(given)


def test_a_bundle_reads_the_answers_of_ones_own_task_as_those_of_its_base_or_as_numbers():
    metric = {"metric": {"top_of_two": top_two}, "higher_is_better": True}
    assert own_task(**metric).reader == Regression()
    assert own_task(Classification(), **metric).reader == Classification()
    assert own_task(Classification(), loss=nn.CrossEntropyLoss(), **metric).reader == Classification()
    assert own_task(loss=nn.CrossEntropyLoss(), **metric).reader == Regression()


def several(outputs, targets):
    return (outputs - targets).abs().mean(dim=0)


def nothing(outputs, targets):
    return torch.tensor(float("nan"))


def broken(outputs, targets):
    raise ValueError("first\nsecond")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (several, r"the metric several must give one number: got float32 \[3\]"),
        (nothing, r"the metric nothing gave nan on outputs float32 \[4, 3\]"),
        (broken, "the metric broken failed on outputs .* ValueError: first second"),
        (lambda outputs, targets: "good", "must give one number: got a str"),
        (lambda outputs, targets: {"a": 1.0}, "must give one number: got a dict"),
    ],
)
def test_a_metric_that_is_no_number_is_one_line(metric, said):
    task = own_task(metric=metric, higher_is_better=True)
    with pytest.raises(ModelError, match=said) as caught:
        task.check(torch.zeros(4, 3), batch_of(torch.ones(4, 3)))
    assert "\n" not in str(caught.value)


def test_an_object_that_gives_an_array_is_one_line():
    outputs, targets = drawn()
    task = own_task(metric=MulticlassConfusionMatrix(4), higher_is_better=True)
    with pytest.raises(ModelError, match=r"must give one number: got int64 \[4, 4\]"):
        task.check(outputs, batch_of(targets))


def test_a_loss_that_is_no_number_is_one_line():
    outputs, targets = drawn()
    task = own_task(Classification(), loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(ModelError, match="the loss CrossEntropyLoss must give one number, the mean over the batch"):
        task.check(outputs, batch_of(targets))
    task = own_task(Classification(), loss=nn.MSELoss())
    with pytest.raises(ModelError, match="the loss MSELoss failed on outputs"):
        task.check(outputs, batch_of(targets))


def test_what_can_not_be_known_is_asked():
    with pytest.raises(RecipeError, match="metric top_two: is higher better"):
        own_task(metric=top_two)
    with pytest.raises(RecipeError, match="something to measure"):
        own_task(loss=nn.MSELoss())
    with pytest.raises(RecipeError, match="something to measure"):
        own_task(metric={})
    with pytest.raises(RecipeError, match="metric must be a function of outputs and targets, or a module: got str"):
        own_task(metric="accuracy")
    with pytest.raises(RecipeError, match="loss must be a function"):
        own_task(loss="mse", metric=top_two, higher_is_better=True)
    with pytest.raises(RecipeError, match="has no loss: give loss="):
        own_task(metric=top_two, higher_is_better=True).loss(*([torch.zeros(2, 4), batch_of(torch.zeros(2).long())]))


def test_a_name_that_is_taken_is_one_line():
    with pytest.raises(RecipeError, match="metric 'accuracy' is there already"):
        own_task(metric={"accuracy": top_two}, higher_is_better=True)
    own_task(metric={"same_name_twice": top_two}, higher_is_better=True)
    own_task(metric={"same_name_twice": several}, higher_is_better=True)
    with pytest.raises(RecipeError, match="is there already"):
        own_task(metric={"same_name_twice": top_two}, higher_is_better=False)
    assert metrics["same_name_twice"].higher_is_better
