"""The loops of other libraries: small stand-ins with the real order of events here, the real ones where they are installed."""

from __future__ import annotations

import copy
import importlib.util
import logging
import pickle
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prunus.core.errors import RecipeError, RunError
from prunus.recover import PrunusCallback, PrunusLightningCallback
from recover_stand_ins import make_examples


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def steps(model, n):
    """Yield after each optimizer step of a plain loop."""
    examples = make_examples(n=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    for number in range(1, n + 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(examples.inputs), examples.targets).backward()
        optimizer.step()
        yield number


def kept(model):
    flat = torch.cat([model[0].weight.flatten(), model[2].weight.flatten()])
    return int((flat != 0).sum())


def hugging_face(model, callback, n=20, start=0, stop=None):
    """The events of transformers.Trainer, in its order."""
    counts, state = [], SimpleNamespace(global_step=start, max_steps=n)
    callback.on_init_end(None, state, None, model=model)
    callback.on_train_begin(None, state, None, model=model, optimizer=None)
    for _ in steps(model, (stop or n) - start):
        callback.on_optimizer_step(None, state, None, model=model)
        state.global_step += 1
        callback.on_step_end(None, state, None, model=model)
        counts.append(kept(model))
    callback.on_train_end(None, state, None, model=model)
    return counts


def lightning(model, callback, n=20, start=0, stop=None):
    """The hooks of lightning.Trainer, in its order."""
    counts, trainer = [], SimpleNamespace(global_step=start, estimated_stepping_batches=n)
    callback.setup(trainer, model, stage="fit")
    callback.on_fit_start(trainer, model)
    callback.on_train_start(trainer, model)
    for number in steps(model, (stop or n) - start):
        callback.on_before_zero_grad(trainer, model, None)
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, number - 1)
        counts.append(kept(model))
    assert callback.state_dict() == {}
    callback.on_train_end(trainer, model)
    callback.teardown(trainer, model, stage="fit")
    return counts


LOOPS = [(hugging_face, PrunusCallback), (lightning, PrunusLightningCallback)]


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_a_schedule_closes_the_masks_while_the_loop_trains(loop, callback):
    model = network()
    counts = loop(model, callback(keep_fraction=0.25, schedule="linear", rounds=4, until=0.5))
    total = 16 * 4 + 16 * 3
    assert counts == sorted(counts, reverse=True)
    assert set(counts) == {round(share * total) for share in (0.8125, 0.625, 0.4375, 0.25)}
    assert counts[9:] == [28] * 11


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_two_of_four_hold_in_every_block_after_training(loop, callback):
    model = network()
    loop(model, callback(granularity="2:4", exclude=["2"]))
    assert bool(((model[0].weight.view(-1, 4) != 0).sum(dim=1) == 2).all())
    assert torch.count_nonzero(model[2].weight) == model[2].weight.numel()


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_without_options_a_pruned_model_keeps_its_zeros(loop, callback):
    model = network()
    with torch.no_grad():
        model[0].weight[model[0].weight.abs() < 0.25] = 0
    gone = model[0].weight == 0
    before = model[0].weight.detach().clone()
    loop(model, callback())
    assert torch.equal(model[0].weight == 0, gone)
    assert not torch.equal(model[0].weight, before)
    bare = network()
    with torch.no_grad():
        bare[0].weight.copy_(before)
    for _ in steps(bare, 5):
        pass
    assert not torch.equal(bare[0].weight == 0, gone), "the zeros would have stayed without the callback"


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_a_training_that_ends_early_says_so(loop, callback, caplog):
    with caplog.at_level(logging.WARNING, logger="prunus"):
        loop(network(), callback(keep_fraction=0.1, schedule="linear", rounds=5, until=1.0), stop=10)
    assert "ended after 3 of 5 rounds of pruning: 46.4 % of the weights stay" in caplog.text
    caplog.clear()
    loop(network(), callback(keep_fraction=0.1))
    assert not caplog.text


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_a_resumed_loop_goes_on_at_its_place_in_the_schedule(loop, callback):
    model = network()
    loop(model, callback(keep_fraction=0.2, schedule="linear", rounds=5, until=1.0), stop=10)
    half = kept(model)
    counts = loop(model, callback(keep_fraction=0.2, schedule="linear", rounds=5, until=1.0), start=10)
    assert counts[0] == half
    assert counts[-1] == round(0.2 * 112)


@pytest.mark.parametrize("callback", [PrunusCallback, PrunusLightningCallback])
def test_a_wrong_setting_is_told_when_the_callback_is_made(callback):
    with pytest.raises(RecipeError, match=r"keep_fraction must be in \(0, 1\]"):
        callback(keep_fraction=1.5)
    with pytest.raises(TypeError, match="sparsity"):
        callback(sparsity=0.5)


@pytest.mark.parametrize("callback", [PrunusCallback, PrunusLightningCallback])
def test_only_events_are_answered_and_copies_work(callback):
    one = callback(keep_fraction=0.5)
    with pytest.raises(AttributeError, match="'colour'"):
        one.colour  # noqa: B018
    assert one.on_something_new(1, b=2) is None
    assert copy.deepcopy(one).options == pickle.loads(pickle.dumps(one)).options == {"keep_fraction": 0.5}


def test_lightning_without_a_number_of_steps_is_refused():
    trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=float("inf"))
    with pytest.raises(RunError, match="give the trainer max_steps or max_epochs"):
        PrunusLightningCallback(keep_fraction=0.5).on_train_start(trainer, network())


def installed(*names):
    missing = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")


@installed("transformers", "accelerate")
@pytest.mark.filterwarnings("ignore")
def test_the_real_trainer_of_transformers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")

        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = network()

            def forward(self, x, labels):
                logits = self.net(x)
                return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

        examples = make_examples(n=64)
        data = [{"x": x, "labels": y} for x, y in zip(examples.inputs, examples.targets, strict=True)]
        arguments = transformers.TrainingArguments(
            str(tmp_path), per_device_train_batch_size=8, gradient_accumulation_steps=2, num_train_epochs=5, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, learning_rate=0.05, weight_decay=0.1,
        )  # fmt: skip
        model, callback = Wrapped(), PrunusCallback(keep_fraction=0.25, rounds=4)
        before = model.net[0].weight.detach().clone()
        transformers.Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
    assert kept(model.net) == round(0.25 * 112)
    assert callback.pruning.is_done
    assert not torch.equal(model.net[0].weight[model.net[0].weight != 0], before[model.net[0].weight != 0])


@installed("lightning")
@pytest.mark.filterwarnings("ignore")
def test_the_real_trainer_of_lightning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("lightning")

        class Module(library.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = network()

            def training_step(self, batch, batch_idx):
                x, y = batch
                return nn.functional.cross_entropy(self.net(x), y)

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.1)

        examples = make_examples(n=64)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(examples.inputs, examples.targets), batch_size=8
        )
        module, callback = Module(), PrunusLightningCallback(granularity="2:4", exclude=["net.2"])
        trainer = library.Trainer(
            max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, accumulate_grad_batches=2,
        )  # fmt: skip
        trainer.fit(module, loader)
        trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert trainer.global_step == 16
    assert callback.pruning.is_done
    assert bool(((module.net[0].weight.view(-1, 4) != 0).sum(dim=1) == 2).all())
