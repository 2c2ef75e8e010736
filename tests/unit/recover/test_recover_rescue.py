from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Average, Train
from prunus.recover import train
from prunus.recover.training.loop import LOWER
from recover_stand_ins import make_examples, make_model

RATE = 0.01


def diverge(model, file, config, *, at, listener=lambda event: None):
    """Train with a loss that is NaN in epoch ``at``, and return what the error said."""
    epochs = []

    def loss(outputs, batch):
        value = nn.functional.cross_entropy(outputs, batch.targets)
        return value * float("nan") if len(epochs) == at else value

    def listen(event):
        epochs.append(event)
        listener(event)

    with pytest.raises(RunError) as caught:
        train(model, make_examples(), config, seed=0, stage="fit", checkpoint=file, loss=loss, listener=listen)
    return str(caught.value)


@pytest.mark.parametrize("average", ["none", "swa", "ema"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_after_nan_the_last_good_state_is_kept_and_a_resume_goes_on_slower(tmp_path, average, at):
    config = Train(epochs=5, batch_size=16, learning_rate=RATE, decay="constant", average=Average(kind=average, last=4))
    file, model, ends = tmp_path / "c", make_model(), []
    start = copy.deepcopy(model.state_dict())
    text = diverge(model, file, config, at=at, listener=lambda event: ends.append(copy.deepcopy(model.state_dict())))
    good = ends[-1] if ends else start
    assert f"in epoch {at + 1} of 5" in text
    assert "a resume goes on from there with the learning rate times 0.1" in text
    state = torch.load(file, weights_only=True)
    assert state["epoch"] == at
    for states in (state["model"], model.state_dict()):
        assert all(torch.equal(value, good[name]) for name, value in states.items())

    rates, told, resumed = [], [], make_model()
    history = train(
        resumed,
        make_examples(),
        config,
        seed=0,
        stage="fit",
        checkpoint=file,
        on_optimizer=lambda o: o.register_step_pre_hook(lambda owner, *_: rates.append(owner.param_groups[0]["lr"])),
        listener=told.append,
    )
    assert rates == pytest.approx([RATE * LOWER] * 4 * (5 - at))
    assert len(history.loss) == 5
    assert (told[0].kind, told[0].message) == (
        "note",
        f"it diverged before: goes on after epoch {at} with the learning rate times 0.1",
    )
    assert all(torch.isfinite(value).all() for value in resumed.state_dict().values() if value.is_floating_point())


def test_a_second_divergence_lowers_it_again_and_a_kill_keeps_the_lower_rate(tmp_path):
    config, file = Train(epochs=4, batch_size=16, learning_rate=RATE, decay="constant"), tmp_path / "c"
    diverge(make_model(), file, config, at=1)
    assert "times 0.01" in diverge(make_model(), file, config, at=2)  # one note, then one good epoch
    rates = []

    class Killed(Exception):
        pass

    def run(listener):
        train(
            make_model(),
            make_examples(),
            config,
            seed=0,
            stage="fit",
            checkpoint=file,
            checkpoint_every_s=0,
            on_optimizer=lambda o: o.register_step_pre_hook(
                lambda owner, *_: rates.append(owner.param_groups[0]["lr"])
            ),
            listener=listener,
        )

    def kill(event):
        if event.kind == "progress":
            raise Killed

    with pytest.raises(Killed):
        run(kill)
    run(lambda event: None)
    assert rates == pytest.approx([RATE * LOWER**2] * len(rates))


def test_without_a_checkpoint_nothing_is_promised(tmp_path):
    assert "resume" not in diverge(make_model(), None, Train(epochs=3, batch_size=16), at=1)


def test_a_state_that_is_finite_but_on_its_way_to_infinity_is_not_the_last_good_one(tmp_path):
    """Squares under a step that is too long grow by a constant factor: many epochs pass before the first infinity."""
    torch.manual_seed(0)
    model, config = nn.Linear(4, 1), Train(epochs=80, batch_size=15, optimizer="sgd", momentum=0, clip_norm=None)
    config = config.model_copy(update={"learning_rate": 2.0, "decay": "constant"})
    ends, losses, again = [], [], copy.deepcopy(model)

    def listen(event):
        ends.append(copy.deepcopy(model.state_dict()))
        losses.append(event.facts["loss"])

    with pytest.raises(RunError, match="back at the end of epoch 3,"):  # a slow start: the rate still rises
        train(
            model,
            make_examples(classes=0),
            config,
            seed=0,
            stage="fit",
            checkpoint=tmp_path / "c",
            listener=listen,
        )
    assert losses[10] > 1e10 > losses[3] > losses[2]
    assert all(torch.equal(value, ends[2][name]) for name, value in model.state_dict().items())
    history = train(again, make_examples(classes=0), config, seed=0, stage="fit", checkpoint=tmp_path / "c")
    assert history.loss[-1] < 1e-3
