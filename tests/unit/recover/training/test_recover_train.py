from __future__ import annotations

import copy
import resource

import pytest
import torch
from torch import nn

from prunus.apply import Masks
from prunus.core.errors import DataError, ModelError, OutputError, RunError
from prunus.core.recipes.recipe import Average, Train
from prunus.recover import History, train
from prunus.recover.training.optimizers import make_optimizer
from prunus.recover.training.training_state import Checkpoint, fingerprint
from recover_stand_ins import make_examples, make_model


class Killed(Exception):
    pass


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def kill_at(epoch):
    def listener(event):
        if event.done == epoch:
            raise Killed

    return listener


CONFIGS = {
    "adamw": Train(epochs=5, batch_size=16),
    "sgd": Train(epochs=5, batch_size=16, optimizer="sgd", learning_rate=0.05, decay="constant", clip_norm=None),
    "swa": Train(epochs=5, batch_size=16, average=Average(kind="swa", last=3)),
    "ema": Train(epochs=5, batch_size=16, average=Average(kind="ema", decay=0.9)),
    "accumulated": Train(epochs=5, batch_size=8, accumulate=2, average=Average(kind="ema", decay=0.9)),
    "bfloat16": Train(epochs=5, batch_size=16, precision="bfloat16"),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_a_training_killed_after_any_epoch_and_resumed_equals_one_never_stopped(name, epoch, tmp_path):
    examples, config, file = make_examples(), CONFIGS[name], tmp_path / "checkpoint"
    whole = make_model()
    expected = train(whole, examples, config, seed=3, stage="fit")
    with pytest.raises(Killed):
        train(
            make_model(),
            examples,
            config,
            seed=3,
            stage="fit",
            checkpoint=file,
            checkpoint_every_s=0,
            listener=kill_at(epoch),
        )
    resumed, told = make_model(), []
    history = train(
        resumed, examples, config, seed=3, stage="fit", checkpoint=file, listener=lambda event: told.append(event.done)
    )
    assert told == list(range(epoch + 1, 6))
    assert history == expected
    assert states_equal(resumed, whole)


def test_a_checkpoint_that_is_some_epochs_old_gives_the_same_result(tmp_path):
    examples, config, file = make_examples(), CONFIGS["adamw"], tmp_path / "checkpoint"
    whole, resumed, told = make_model(), make_model(), []
    train(whole, examples, config, seed=0, stage="fit")
    with pytest.raises(Killed):
        train(
            make_model(), examples, config, seed=0, stage="fit", checkpoint=file, listener=kill_at(3)
        )  # saved at epoch 1
    train(resumed, examples, config, seed=0, stage="fit", checkpoint=file, listener=lambda e: told.append(e.done))
    assert told == [2, 3, 4, 5]
    assert states_equal(resumed, whole)


def test_the_caller_s_randomness_neither_changes_a_training_nor_is_changed_by_it():
    torch.manual_seed(1)
    one, other = make_model(), make_model()
    train(one, make_examples(), CONFIGS["adamw"], seed=0, stage="fit")
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    train(other, make_examples(), CONFIGS["adamw"], seed=0, stage="fit")
    assert states_equal(one, other)


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": "other"}])
def test_another_seed_or_stage_trains_another_way(change):
    one, other = make_model(), make_model()
    train(one, make_examples(), CONFIGS["adamw"], seed=0, stage="fit")
    train(other, make_examples(), CONFIGS["adamw"], **{"seed": 0, "stage": "fit", **change})
    assert not states_equal(one, other)


def test_a_checkpoint_of_another_training_is_ignored(tmp_path):
    examples, config = make_examples(), CONFIGS["adamw"]
    relabelled = make_examples()
    relabelled.targets = relabelled.targets.flip(0)
    others = [
        fingerprint(make_model(), examples, config, seed=1, stage="fit"),
        fingerprint(make_model(), examples, config, seed=0, stage="other"),
        fingerprint(make_model(), examples, config.model_copy(update={"epochs": 6}), seed=0, stage="fit"),
        fingerprint(make_model(seed=1), examples, config, seed=0, stage="fit"),
        fingerprint(make_model(outputs=4), examples, config, seed=0, stage="fit"),
        fingerprint(make_model(), make_examples(n=61), config, seed=0, stage="fit"),
        fingerprint(make_model(), relabelled, config, seed=0, stage="fit"),
    ]
    own = fingerprint(make_model(), examples, config, seed=0, stage="fit")
    assert len({own, *others}) == 8
    Checkpoint(tmp_path / "c", "one", every_s=0).save({"epoch": 1})
    assert Checkpoint(tmp_path / "c", "another", every_s=0).load() is None
    assert Checkpoint(tmp_path / "c", "one", every_s=0).load() == {"epoch": 1, "identity": "one"}


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_starts_the_training_anew(content, tmp_path):
    file, one, other = tmp_path / "c", make_model(), make_model()
    file.write_bytes(content)
    train(one, make_examples(), CONFIGS["adamw"], seed=0, stage="fit", checkpoint=file)
    train(other, make_examples(), CONFIGS["adamw"], seed=0, stage="fit")
    assert states_equal(one, other)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint ran code",))


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    torch.save({"identity": "x", "evil": Evil()}, tmp_path / "c")
    assert Checkpoint(tmp_path / "c", "x", every_s=0).load() is None


def test_a_checkpoint_that_can_t_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose an output folder"):
        train(make_model(), make_examples(), CONFIGS["adamw"], seed=0, stage="fit", checkpoint=tmp_path / "file" / "c")


def test_a_full_disk_keeps_the_last_checkpoint_and_is_an_output_error(tmp_path):
    """No stand-in: the kernel itself refuses to write more than 300 bytes to a file."""
    file, before = tmp_path / "c", resource.getrlimit(resource.RLIMIT_FSIZE)
    Checkpoint(file, "x", every_s=0).save({"epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(OutputError, match="no space left to write"):
            Checkpoint(file, "x", every_s=0).save({"epoch": 2, "model": {"weight": torch.zeros(10_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Checkpoint(file, "x", every_s=0).load() == {"epoch": 1, "identity": "x"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_watcher_that_forgets_makes_a_resume_start_anew(tmp_path):
    def run(watch, listener):
        train(
            make_model(),
            make_examples(),
            CONFIGS["adamw"],
            seed=0,
            stage="fit",
            checkpoint=tmp_path / "c",
            checkpoint_every_s=0,
            watch=watch,
            listener=listener,
        )

    with pytest.raises(Killed):
        run(lambda epoch, batch, outputs: None, kill_at(2))
    seen = []
    run(lambda epoch, batch, outputs: seen.append(epoch), lambda event: None)
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]


class Recorder:
    def __init__(self):
        self.sums = torch.zeros(5)

    def __call__(self, epoch, batch, outputs):
        assert not outputs.requires_grad
        self.sums[epoch] += outputs.sum()

    def state_dict(self):
        return {"sums": self.sums}

    def load_state_dict(self, state):
        self.sums.copy_(state["sums"])


def test_a_watcher_that_can_be_saved_goes_through_the_checkpoint(tmp_path):
    whole, resumed = Recorder(), Recorder()
    options = {"seed": 0, "stage": "fit"}
    train(make_model(), make_examples(), CONFIGS["adamw"], watch=whole, **options)
    options |= {"checkpoint": tmp_path / "c", "checkpoint_every_s": 0}
    with pytest.raises(Killed):
        train(make_model(), make_examples(), CONFIGS["adamw"], watch=Recorder(), listener=kill_at(3), **options)
    train(make_model(), make_examples(), CONFIGS["adamw"], watch=resumed, **options)
    assert torch.equal(whole.sums, resumed.sums)


def test_a_loss_that_becomes_nan_names_the_place_and_leaves_the_last_good_epoch():
    model, examples, good = make_model(), make_examples(), []

    def loss(outputs, batch):
        value = nn.functional.cross_entropy(outputs, batch.targets)
        return value * float("nan") if len(good) == 2 and not poisoned.append(1) and len(poisoned) == 3 else value

    poisoned: list[int] = []

    def listener(event):
        good.append(copy.deepcopy(model.state_dict()))

    with pytest.raises(RunError) as caught:
        train(model, examples, CONFIGS["adamw"], seed=0, stage="seed 0 / train", loss=loss, listener=listener)
    text = str(caught.value)
    for part in ("seed 0 / train", "the loss became nan", "epoch 3 of 5", "step 3 of 4", "lower the learning_rate"):
        assert part in text
    assert "the end of epoch 2" in text
    assert len(good) == 2
    assert all(torch.equal(value, good[-1][name]) for name, value in model.state_dict().items())
    assert not model.training


def test_a_parameter_that_becomes_infinite_in_the_last_step_is_noticed():
    model = nn.Linear(4, 3)
    start = copy.deepcopy(model.state_dict())

    def spoil():
        with torch.no_grad():
            model.weight[0, 0] = float("inf")

    with pytest.raises(RunError, match=r"a parameter became NaN or infinite in epoch 1.*back at its start"):
        config = Train(epochs=1, batch_size=100)
        train(model, make_examples(), config, seed=0, stage="fit", after_step=spoil)
    assert torch.equal(model.weight, start["weight"])


def test_a_loss_without_gradient_and_a_model_without_parameters_are_model_errors():
    options = {"seed": 0, "stage": "fit"}
    with pytest.raises(ModelError, match="has no gradient"):
        loss = lambda outputs, batch: outputs.detach().sum()  # noqa: E731
        train(make_model(), make_examples(), Train(), loss=loss, **options)
    with pytest.raises(ModelError, match=r"must be one number.*got \(60,\)"):
        loss = lambda outputs, batch: outputs.sum(dim=1)  # noqa: E731
        train(make_model(), make_examples(), Train(batch_size=60), loss=loss, **options)
    with pytest.raises(ModelError, match="no parameter that can be trained"):
        train(nn.Identity(), make_examples(), Train(), **options)
    with pytest.raises(ModelError, match=r"must return one tensor of floating-point scores, or .* got a tuple"):
        train(nn.LSTM(4, 3), make_examples(), Train(), **options)
    with pytest.raises(DataError, match="at least one example"):
        train(make_model(), make_examples(n=0), Train(), **options)


@pytest.mark.parametrize(("n", "batch_size"), [(9, 4), (9, 8), (17, 16), (2, 2), (5, 3)])
def test_batch_norm_survives_a_last_batch_of_one(n, batch_size):
    sizes = []
    config = Train(epochs=1, batch_size=batch_size, average=Average(kind="swa"))
    watch = lambda epoch, batch, outputs: sizes.append(len(outputs))  # noqa: E731
    train(make_model(), make_examples(n=n), config, seed=0, stage="fit", watch=watch)
    assert sum(sizes) == n
    assert min(sizes) >= 2


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (4, 1)])
def test_batch_norm_over_single_examples_says_what_to_do(n, batch_size):
    with pytest.raises(
        ModelError, match=r"batch norm can't train on a batch of one example.*use a batch_size of at least 2"
    ):
        train(make_model(), make_examples(n=n), Train(epochs=1, batch_size=batch_size), seed=0, stage="fit")


def test_training_learns_and_its_history_says_so():
    model, told = nn.Linear(4, 3), []
    config = Train(epochs=40, batch_size=16, learning_rate=0.05)
    history = train(model, make_examples(n=200), config, seed=0, stage="fit", listener=told.append)
    assert history.loss[-1] < history.loss[0] / 2
    assert history.accuracy[-1] > 0.9
    assert [event.done for event in told] == list(range(1, 41))
    assert told[-1].facts == {"loss": history.loss[-1], "accuracy": history.accuracy[-1]}
    assert (told[-1].kind, told[-1].total, told[-1].stage) == ("progress", 40, "fit")


def test_the_history_is_the_mean_over_examples_not_over_batches():
    examples = make_examples(n=10)
    model = nn.Linear(4, 3)
    frozen = Train(epochs=1, batch_size=4, learning_rate=1e-30, weight_decay=0)
    history = train(model, examples, frozen, seed=0, stage="fit")
    with torch.no_grad():
        outputs = model(examples.inputs)
    assert history.loss[0] == pytest.approx(float(nn.functional.cross_entropy(outputs, examples.targets)), rel=1e-5)
    assert history.accuracy[0] == pytest.approx(float((outputs.argmax(1) == examples.targets).float().mean()))


def test_regression_has_no_accuracy_and_fits_a_line():
    model = nn.Linear(4, 1)
    config = Train(epochs=60, batch_size=16, learning_rate=0.1, weight_decay=0, clip_norm=None)
    history = train(model, make_examples(n=100, classes=0), config, seed=0, stage="fit")
    assert history.accuracy == ()
    assert history.loss[-1] < 1e-3


def test_no_epochs_change_nothing():
    model, before = make_model(), make_model()
    assert train(model, make_examples(), Train(epochs=0), seed=0, stage="fit") == History()
    assert states_equal(model, before)
    assert not model.training


def test_only_parameters_of_two_dimensions_decay():
    model = make_model()
    optimizer = make_optimizer(list(model.parameters()), Train(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decays[id(p)] == (0.1 if p.ndim >= 2 else 0.0) for p in model.parameters())
    assert len(decays) == len(list(model.parameters()))


def test_one_step_equals_plain_torch():
    """The oracle: AdamW written out by hand from torch's own parts, with clipping, on one batch."""
    examples, model = make_examples(n=20), nn.Linear(4, 3)
    reference = copy.deepcopy(model)
    train(model, examples, Train(epochs=1, batch_size=20, clip_norm=0.1, learning_rate=0.01), seed=0, stage="fit")
    groups = [
        {"params": [reference.weight], "weight_decay": 1e-4},
        {"params": [reference.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, foreach=False)
    nn.functional.cross_entropy(reference(examples.inputs), examples.targets).backward()
    nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
    optimizer.step()
    assert torch.allclose(model.weight, reference.weight, atol=1e-6)
    assert torch.allclose(model.bias, reference.bias, atol=1e-6)


def test_frozen_parameters_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model, make_examples(), Train(epochs=2), seed=0, stage="fit")
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("name", CONFIGS)
def test_masked_weights_stay_zero_through_training_and_averaging(name):
    model = make_model()
    masks = Masks(model, {"0.weight": torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) > 0.5})
    train(model, make_examples(), CONFIGS[name], seed=0, stage="fit", on_optimizer=masks.guard)
    gone = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) <= 0.5
    assert torch.equal(model[0].weight == 0, gone)
