from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError, RecipeError
from prunus.core.recipes.recipe import Train
from prunus.recover import bound, check_precision, guarded, named_loss, train
from prunus.recover.training.mixed_precision import Precision, Scaled
from prunus.recover.training.step import Stepper
from prunus.recover.training.training_batches import parts_of
from recover_stand_ins import make_batch, make_examples, make_model

FIT = {"seed": 0, "stage": "fit"}


def plain_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize(("n", "batch_size", "times"), [(64, 8, 4), (61, 8, 3), (50, 7, 3), (33, 16, 2), (12, 1, 5)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulating_n_batches_of_b_equals_batches_of_n_times_b(n, batch_size, times, optimizer):
    examples, models, histories = make_examples(n=n), [], []
    for size, accumulate in ((batch_size, times), (batch_size * times, 1)):
        config = Train(epochs=3, batch_size=size, accumulate=accumulate, optimizer=optimizer, learning_rate=0.02)
        models.append(plain_model().double())
        double = make_examples(n=n)
        double.inputs = examples.inputs.double()
        histories.append(train(models[-1], double, config, **FIT))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, other, atol=1e-9)
    assert histories[0].loss == pytest.approx(histories[1].loss)
    assert histories[0].accuracy == histories[1].accuracy


def test_without_accumulation_the_law_would_fail():
    models = [plain_model(), plain_model()]
    for model, size in zip(models, (8, 32), strict=True):
        train(model, make_examples(n=64), Train(epochs=3, batch_size=size), **FIT)
    assert not torch.allclose(models[0][0].weight, models[1][0].weight, atol=1e-4)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (6, 4), (9, 4), (3, 1), (10, 3)])
def test_parts_keep_every_example_in_order_and_none_alone(n, size):
    batch = make_batch(torch.arange(n * 2).view(n, 2), torch.arange(n))
    parts = list(parts_of(batch, size))
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    assert n == 1 or size == 1 or min(len(part.targets) for part in parts) > 1
    assert max(len(part.targets) for part in parts) <= size + 1


def test_bfloat16_computes_in_it_and_keeps_single_precision_parameters():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    model, taken = Spy(4, 3), []
    loss = lambda outputs, batch: (  # noqa: E731
        taken.append(outputs.dtype) or nn.functional.cross_entropy(outputs, batch.targets)
    )
    history = train(
        model, make_examples(n=200), Train(epochs=20, precision="bfloat16", learning_rate=0.05), loss=loss, **FIT
    )
    assert set(seen) == {torch.bfloat16}
    assert set(taken) == {torch.float32}
    assert model.weight.dtype == torch.float32
    assert history.loss[-1] < 0.5 * history.loss[0]


def test_bfloat16_follows_single_precision_closely():
    losses = [
        train(plain_model(), make_examples(n=64), Train(epochs=5, precision=precision), **FIT).loss
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def stepper(model, precision, config, loss) -> Stepper:
    parameters = list(model.parameters())
    return Stepper(model, config, "fit", loss, None, parameters, torch.optim.SGD(parameters, lr=0.1), precision)


def cross_entropy(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch.targets)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_scaled_steps_are_unscaled_before_they_are_clipped_and_taken(accumulate):
    """On the CPU the same scaler runs: with a power of two as scale nothing is lost, so plain half precision is the oracle."""
    batch = next(make_examples(n=16).batches(16))
    config = Train(batch_size=16 // accumulate, accumulate=accumulate, clip_norm=0.05)
    models, values = [], []
    for precision in (Scaled("cpu"), Precision("cpu", torch.float16)):
        model = plain_model()
        values.append(stepper(model, precision, config, cross_entropy).take(batch, 0.1, lambda *_: None, check=True))
        models.append(model)
    assert torch.equal(values[0], values[1])
    start = plain_model()
    for one, other, before in zip(*(m.parameters() for m in models), start.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)
        assert not torch.equal(one, before)


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_scale_falls():
    model, precision = plain_model(), Scaled("cpu")
    before, scale = copy.deepcopy(model.state_dict()), precision.scaler.get_scale()
    take = stepper(model, precision, Train(), lambda outputs, batch: outputs.sum() * 1e36)
    take.take(next(make_examples(n=8).batches(8)), 0.1, lambda *_: None, check=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert precision.scaler.get_scale() == scale / 2
    other = Scaled("cpu")
    other.load(precision.state())
    assert other.scaler.get_scale() == scale / 2


def test_a_precision_that_isn_t_there_is_refused_before_anything_moves():
    with pytest.raises(RecipeError, match=r"float16 trains on CUDA only.*got device cpu; use bfloat16 or float32"):
        train(plain_model(), make_examples(), Train(precision="float16"), **FIT)
    with pytest.raises(RecipeError, match=r"recovery\.precision: bfloat16 isn't there on device meta"):
        check_precision("bfloat16", torch.device("meta"), key="recovery.precision")


def test_a_training_step_takes_the_place_of_forward_and_loss():
    by_loss, by_step = make_model(), make_model()

    def step(model, batch):
        return cross_entropy(model(batch.inputs), batch)

    expected = train(by_loss, make_examples(), Train(epochs=3), **FIT)
    history = train(by_step, make_examples(), Train(epochs=3), training_step=step, **FIT)
    assert history.loss == expected.loss
    assert history.accuracy == ()
    assert all(torch.equal(a, b) for a, b in zip(by_loss.parameters(), by_step.parameters(), strict=True))
    with pytest.raises(RecipeError, match="shows no outputs to watch"):
        train(make_model(), make_examples(), Train(), training_step=step, watch=lambda *_: None, **FIT)


def test_a_bound_step_runs_the_model_that_it_is_bound_to():
    model, batch = plain_model(), next(make_examples(n=8).batches(8))
    loss = bound(lambda network, part: network(part.inputs).sum() + len(part.targets), model)
    assert torch.equal(loss(torch.zeros(8, 3), batch), model(batch.inputs).sum() + 8)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda model, batch: model(batch.inputs).sum(dim=1), r"must be one number.*got \(60,\)"),
        (lambda model, batch: None, "must be one number.*got NoneType"),
        (lambda model, batch: model(batch.inputs).detach().sum(), "has no gradient"),
        (guarded(lambda model, batch: 1 / 0, "training_step"), "training_step failed: ZeroDivisionError"),
    ],
)
def test_a_step_that_gives_nothing_to_minimise_is_a_model_error(step, words):
    with pytest.raises(ModelError, match=words):
        train(plain_model(), make_examples(), Train(epochs=1), training_step=step, **FIT)


def test_a_named_loss_is_found_and_a_mistake_is_named(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "LIMIT = 3\ndef first(outputs, batch):\n    return outputs[0, 0]\ndef bad(outputs):\n    return outputs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outputs = torch.ones(2, 2)
    assert named_loss("own_losses:first", key="train.loss")(outputs, None) == 1
    with pytest.raises(RecipeError, match=r"train\.loss: 'own_losses:frist'.*did you mean 'first'"):
        named_loss("own_losses:frist", key="train.loss")
    with pytest.raises(RecipeError, match=r"train\.loss: 'own_losses:LIMIT' must be a function, got int"):
        named_loss("own_losses:LIMIT", key="train.loss")
    with pytest.raises(ModelError, match=r"train\.loss own_losses:bad failed: TypeError"):
        named_loss("own_losses:bad", key="train.loss")(outputs, None)
    with pytest.raises(RecipeError, match="loss must be a function that returns one number to minimise: got int"):
        guarded(3, "loss")
