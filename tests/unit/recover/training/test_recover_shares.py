"""Somebody else's losses and models: what a batch's loss is a mean over, gradients that are sparse, parts that stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.core.recipes.recipe import Average, Distil, Train
from prunus.recover import distillation_loss, given_loss, train
from prunus.tasks import Classification, Language, Segmentation, TokenClassification
from recover_stand_ins import TensorExamples, make_batch, make_examples

FIT = {"seed": 0, "stage": "fit"}
N, LENGTH, KINDS = 24, 7, 5


class Tagger(nn.Module):
    """Scores for each token; as a picture, for each pixel."""

    def __init__(self, *, pixels=False, sparse=False):
        super().__init__()
        self.embed = nn.Embedding(11, 6, sparse=sparse)
        self.head = nn.Linear(6, KINDS)
        self.pixels = pixels

    def forward(self, inputs):
        found = self.head(self.embed(inputs))
        return found.transpose(1, 2)[:, :, None] if self.pixels else found


def tokens(task, *, pixels=False):
    """Return sequences of very different lengths."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, KINDS, (N, LENGTH), generator=draw)
    targets = torch.randint(0, KINDS, (N, LENGTH), generator=draw)
    lengths = torch.randint(2, LENGTH + 1, (N, 1), generator=draw)
    targets = targets.where(torch.arange(LENGTH) < lengths, -100)
    found = TensorExamples(inputs, targets[:, None] if pixels else targets)
    found.task = task
    return found


def two_ways(make, examples, loss=None):
    """Return a model trained with batches of 12, and with two of 6 a step."""
    found = []
    for size, times in ((12, 1), (6, 2)):
        config = Train(
            epochs=3, batch_size=size, accumulate=times, optimizer="sgd", learning_rate=0.5, decay="constant"
        )
        torch.manual_seed(0)
        model = make().double()
        train(model, examples, config, loss=loss, **FIT)
        found.append(model)
    return [dict(model.named_parameters()) for model in found]


def assert_same(one, other):
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "task", [TokenClassification(), Language(targets_are_next=True), Language()], ids=["tags", "next", "moved"]
)
def test_accumulated_batches_of_tokens_are_one_batch(task):
    """Their loss is a mean over tokens, of which batches have different numbers."""
    assert_same(*two_ways(Tagger, tokens(task)))


def test_accumulated_batches_of_pixels_are_one_batch():
    task = Segmentation(class_names=tuple("abcde"))
    assert_same(*two_ways(lambda: Tagger(pixels=True), tokens(task, pixels=True)))


def rows():
    examples = make_examples(n=N)
    examples.inputs = examples.inputs.double()
    return examples


WEIGHT = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=WEIGHT),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(),
    ],
    ids=["weights", "ignored", "sum", "mean"],
)
def test_accumulated_batches_of_a_module_that_is_a_loss_are_one_batch(loss):
    one, other = two_ways(lambda: nn.Linear(4, 3), rows(), given_loss(loss, "loss"))
    assert_same(one, other)


def test_accumulated_batches_of_weighted_classes_are_one_batch():
    examples = rows()
    examples.task = Classification(class_weights=tuple(WEIGHT.tolist()))
    assert_same(*two_ways(lambda: nn.Linear(4, 3), examples))


def test_sparse_gradients_train_as_dense_ones():
    ends = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = Tagger(sparse=sparse)
        train(model, tokens(TokenClassification()), Train(epochs=2, batch_size=6), **FIT)
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_parts_that_stay_in_evaluation_mode_keep_their_statistics(average):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.Sequential(nn.BatchNorm1d(8)), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)
    )
    before = copy.deepcopy(model.state_dict())
    config = Train(epochs=2, batch_size=16, average=Average(kind=average, last=1))
    train(model, make_examples(), config, still=("1", "not there"), **FIT)
    after = model.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(after[f"1.0.{name}"], before[f"1.0.{name}"])
        assert not torch.equal(after[f"3.{name}"], before[f"3.{name}"])
    assert not torch.equal(after["1.0.weight"], before["1.0.weight"])


@pytest.mark.parametrize("task", [TokenClassification(), Language()], ids=["tags", "moved"])
def test_no_teacher_has_to_answer_what_a_task_does_not_ask_for(task):
    examples = tokens(task)
    teacher, student = Tagger(), Tagger()
    loss = distillation_loss(teacher, Distil(weight=1.0), lambda outputs, batch: outputs.sum() * 0, examples=examples)
    batch = make_batch(examples.inputs, examples.targets)
    scores = student(batch.inputs).detach()
    asked = batch.targets != -100
    if isinstance(task, Language):  # the scores of a place are for the token after it
        asked = torch.cat([asked[:, 1:], torch.zeros(N, 1, dtype=torch.bool)], dim=1)
    found = loss(scores, batch)
    torch.testing.assert_close(loss(scores.where(asked[..., None], 100.0), batch), found)
    own = teacher(batch.inputs).detach()[asked]
    temperature = Distil().temperature
    wanted = (own / temperature).softmax(dim=1)
    apart = wanted * (wanted.log() - (scores[asked] / temperature).log_softmax(dim=1))
    torch.testing.assert_close(found, apart.sum(dim=1).mean() * temperature**2)
    nothing = make_batch(examples.inputs, torch.full_like(examples.targets, -100))
    assert float(loss(scores, nothing)) == 0
