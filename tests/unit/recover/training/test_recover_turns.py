"""Models that take turns: whose turn it is, and what is worth going back to when their training diverges."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Average, Train
from prunus.recover import train
from prunus.recover.sizes import SharedSizes
from prunus.recover.training.turns import Yardstick
from recover_stand_ins import make_examples

SIZES = 3
CONFIG = Train(epochs=9, batch_size=16, learning_rate=0.01, decay="constant", clip_norm=None)


class Killed(Exception):
    pass


def net(width):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))


def shared(worse=0.0):
    """Return three sizes; the smaller ones begin ``worse`` by so much, as what was just cut does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        largest, smaller = net(16), [net(8), net(4)]
    taken = []
    for width, small in zip((8, 4), smaller, strict=True):
        places = torch.arange(width)
        taken.append((small, {"0.weight": (places, None), "4.weight": (None, places)}))
        with torch.no_grad():
            small[4].bias.copy_(torch.tensor([worse, 0.0, -worse]))
    return SharedSizes(largest, taken)


def of_turn(model, batch):
    return nn.functional.cross_entropy(model.answer(model.turn, batch.inputs), batch.targets)


class Spike:
    """Let the learning rate jump in one step, counted over all that train with it."""

    def __init__(self, step):
        self.step, self.n = step, 0

    def __call__(self, optimizer):
        optimizer.register_step_pre_hook(self.before)

    def before(self, optimizer, args, kwargs):
        for group in optimizer.param_groups:
            group["lr"] = 1e30 if self.n == self.step else group["lr"]
        self.n += 1


def fit(model, file=None, *, listener=lambda event: None, config=CONFIG, spike=None, step=of_turn):
    return train(
        model,
        make_examples(),
        config,
        seed=0,
        stage="fit",
        training_step=step if isinstance(model, SharedSizes) else None,
        checkpoint=file,
        checkpoint_every_s=0,
        listener=listener,
        on_optimizer=spike,
    )


def kill_at(epoch):
    def listener(event):
        if event.done == epoch:
            raise Killed

    return listener


def states(model):
    return copy.deepcopy(model.state_dict())


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [shared, lambda: net(16)], ids=["sizes in turns", "one model"])
def test_a_learning_rate_that_jumps_takes_a_training_back_to_its_last_good_epoch(tmp_path, make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make()
    steps, ends = 4, []
    text = r"the loss became .* in epoch 6 of 9.*back at the end of epoch 5, and a resume goes on .* times 0.1"
    with pytest.raises(RunError, match=text):
        fit(model, tmp_path / "c", listener=lambda event: ends.append(states(model)), spike=Spike(5 * steps + 1))
    assert equal(model.state_dict(), ends[4])


def test_small_sizes_that_begin_far_worse_than_the_largest_leave_good_epochs_good(tmp_path):
    """What was measured of the largest alone said of every epoch here that it was on its way to infinity."""
    model, seen = shared(worse=12.0), []

    def listen(event):
        seen.append(event.facts["loss"])

    with pytest.raises(RunError, match="back at the end of epoch 5"):
        fit(model, tmp_path / "c", listener=listen, spike=Spike(5 * 4 + 1))
    with torch.no_grad():
        first = float(of_turn(shared(worse=12.0).eval(), next(make_examples().batches(16))))
    assert min(seen) > 2 * first


@pytest.mark.parametrize("killed", [2, 5])
def test_a_diverged_training_of_sizes_that_was_killed_before_equals_one_that_was_not(tmp_path, killed):
    ends = []
    for name, kills in (("whole", False), ("killed", True)):
        file, model, n_steps = tmp_path / name, shared(worse=3.0), 4
        if kills:
            with pytest.raises(Killed):
                fit(shared(worse=3.0), file, listener=kill_at(killed))
        with pytest.raises(RunError, match="back at the end of epoch 5"):
            fit(model, file, spike=Spike((5 - killed * kills) * n_steps + 1))
        after = shared(worse=3.0)
        with pytest.raises(Killed):
            fit(after, file, listener=kill_at(7))
        history = fit(after := shared(worse=3.0), file)
        ends.append((states(after), history))
    assert equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_one_that_is_killed_on_its_way_to_infinity_goes_back_as_far_as_one_that_was_not(tmp_path):
    torch.manual_seed(0)
    start, config = nn.Linear(4, 1), Train(epochs=80, batch_size=15, optimizer="sgd", momentum=0, clip_norm=None)
    config = config.model_copy(update={"learning_rate": 2.0, "decay": "constant"})

    def run(file, listener=lambda event: None):
        model = copy.deepcopy(start)
        examples = make_examples(classes=0)
        options = {"seed": 0, "stage": "fit", "checkpoint": file, "checkpoint_every_s": 0, "listener": listener}
        try:
            return model, train(model, examples, config, **options)
        except RunError as error:
            return model, str(error)

    whole, said = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at(10))
    killed, told = run(tmp_path / "killed")
    assert said == told
    assert equal(whole.state_dict(), killed.state_dict())
    assert run(tmp_path / "whole")[1] == run(tmp_path / "killed")[1]


def test_the_turn_follows_from_the_number_of_the_step_however_often_it_was_stopped(tmp_path):
    turns = []

    def step(model, batch):
        turns.append(model.turn)
        return of_turn(model, batch)

    with pytest.raises(Killed):
        fit(shared(), tmp_path / "c", listener=kill_at(3), step=step)
    fit(shared(), tmp_path / "c", step=step)
    assert turns[:SIZES] == [0, 1, 2]  # each size's first loss
    assert turns[SIZES:] == [number % SIZES for number in range(9 * 4)]


def test_the_look_at_the_first_losses_moves_nothing(tmp_path):
    ends = []
    for look in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not look:
                patch.setattr(Yardstick, "begin", lambda own, loss_of: setattr(own, "first", [1.0] * own.n_turns))
            model = shared()
            history = fit(model, config=CONFIG.model_copy(update={"epochs": 2}))
            ends.append((states(model), history))
    assert equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize("average", ["none", "ema"])
def test_accumulated_batches_of_sizes_are_one_batch(average):
    """A step is one size's, whatever number of batches it is worth."""
    ends = []
    for size, times in ((20, 1), (10, 2)):
        update = {"batch_size": size, "accumulate": times, "epochs": 3, "average": Average(kind=average)}
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double() for width in (6, 3, 2)]
        taken = [
            (small, {"0.weight": (torch.arange(width), None)}) for width, small in zip((3, 2), nets[1:], strict=True)
        ]
        model, examples = SharedSizes(nets[0], taken), make_examples()
        examples.inputs = examples.inputs.double()
        train(model, examples, CONFIG.model_copy(update=update), seed=0, stage="fit", training_step=of_turn)
        ends.append(states(model))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-9, atol=1e-12)


def test_a_yardstick_holds_each_against_its_own_beginning():
    sizes = torch.ones(4)
    each = Yardstick(2, first=[0.1, 4.0])
    assert each.is_sound(torch.tensor([0.2, 3.0, 0.1, 2.0]), sizes, 0)
    assert not each.is_sound(torch.tensor([8.2, 3.0, 0.1, 2.0]), sizes, 4)  # its mean
    assert not each.is_sound(torch.tensor([0.1, 2.0, 4.3, 2.0]), sizes, 8)  # its last one
    assert not each.is_sound(torch.tensor([2.0]), torch.ones(1), 13)  # of the other nothing new is known
    assert each.is_sound(torch.tensor([0.1]), torch.ones(1), 14)
    zero = Yardstick(2, first=[0.0, 2.0])  # distilled from itself
    assert zero.is_sound(torch.tensor([0.3, 2.0]), torch.ones(2), 0)
    alone = Yardstick(1)
    assert alone.is_sound(torch.tensor([1.0, 1.5]), torch.ones(2), 0)
    assert not alone.is_sound(torch.tensor([1.0, 2.1]), torch.ones(2), 2)
