"""Recording along with the loops of other libraries: what they record is what a plain loop with the same batches would have."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import DataError, RecipeError
from prunus.score import Recording, RecordingCallback, RecordingLightningCallback
from prunus.tasks import Classification

N, CLASSES = 24, 3


class Network(nn.Module):
    """Remembers what it answered in training, by the example's first input, which is its position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, CLASSES)
        self.said: dict[tuple[int, int], torch.Tensor] = {}
        self.epoch = 0

    def forward(self, x, labels=None):
        logits = self.net(x)
        if self.training:
            for place, row in zip(x[:, 0].tolist(), logits.detach(), strict=True):
                self.said[self.epoch, int(place)] = row
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits} if labels is not None else logits


def made():
    inputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
    inputs[:, 0] = torch.arange(N)
    return inputs, torch.arange(N) % CLASSES


def check(recording, said, epochs=2):
    """See that what was recorded is what was said."""
    assert recording.epochs == tuple(range(epochs))
    for epoch, files in enumerate(recording.epoch_files()):
        words, whole = files.read(0, N)
        assert whole.all()
        found = recording.decoded(words)
        wanted = torch.stack([said[epoch, i] for i in range(N)])
        torch.testing.assert_close(found["probability"].float(), wanted.softmax(dim=1), rtol=2e-3, atol=2e-3)
        assert found["label"].tolist() == made()[1].tolist()


def hugging_face(model, callback, *, epochs=2, evaluate=True, **arguments):
    """The events of transformers.Trainer, in its order."""
    inputs, labels = made()
    state, args = SimpleNamespace(epoch=0), SimpleNamespace(remove_unused_columns=False, n_gpu=1)
    vars(args).update(arguments)
    callback.on_init_end(args, state, None, model=model)
    callback.on_train_begin(args, state, None, model=model, optimizer=None)
    for epoch in range(epochs):
        model.epoch = epoch
        callback.on_epoch_begin(args, state, None, model=model)
        for index in torch.randperm(N).split(5):
            model(x=inputs[index], labels=labels[index], index=index)["loss"].backward()
            state.epoch += len(index) / N
        if evaluate:
            model.eval()
            model(x=inputs[:3], labels=labels[:3])
            model.train()
    callback.on_train_end(args, state, None, model=model)
    return model


def lightning(model, callback, batches, step, *, epochs=2):
    """The hooks of lightning.Trainer, in its order."""
    trainer = SimpleNamespace(current_epoch=0)
    callback.setup(trainer, model, stage="fit")
    callback.on_train_start(trainer, model)
    for epoch in range(epochs):
        trainer.current_epoch = model.epoch = epoch
        callback.on_train_epoch_start(trainer, model)
        for number, batch in enumerate(batches):
            callback.on_train_batch_end(trainer, model, step(model, batch), batch, number)
    assert callback.state_dict() == {}
    callback.on_train_end(trainer, model)
    return model


def batches():
    inputs, labels = made()
    return [(inputs[index], labels[index], index) for index in torch.arange(N).split(7)]


def test_the_trainer_of_transformers_records_what_the_model_answers_in_training(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    model = hugging_face(Network(), RecordingCallback(recording))
    check(recording, model.said)
    model(x=made()[0], labels=made()[1])  # nobody listens any more, and nobody asks for an index


def test_targets_may_be_given_beside_the_batch(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    callback = RecordingCallback(recording, targets=made()[1], label="not there")
    check(recording, hugging_face(Network(), callback).said)
    with pytest.raises(DataError, match="came without 'not there': give targets="):
        hugging_face(Network(), RecordingCallback(recording, label="not there"))


def test_a_training_that_would_lose_the_positions_is_refused_before_its_first_step(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    with pytest.raises(RecipeError, match=r"remove_unused_columns=False"):
        hugging_face(Network(), RecordingCallback(recording), remove_unused_columns=True)
    with pytest.raises(RecipeError, match=r"among 2 GPUs"):
        hugging_face(Network(), RecordingCallback(recording), n_gpu=2)
    with pytest.raises(TypeError, match="index"):  # under another name the model itself refuses it
        hugging_face(Network(), RecordingCallback(recording, index="row"))
    listening, callback = Network(), RecordingCallback(recording)
    callback.on_train_begin(SimpleNamespace(), None, None, model=listening)
    with pytest.raises(DataError, match="came without 'index'"):
        listening(x=made()[0])


def test_an_epoch_that_is_gone_on_with_is_still_that_one(tmp_path):
    callback = RecordingCallback(Recording(tmp_path / "r", n_examples=N))
    for said, epoch in [(None, 0), (0, 0), (0.37, 0), (0.9999999, 1), (1.0, 1), (2.5, 2)]:
        callback.on_epoch_begin(None, SimpleNamespace(epoch=said), None)
        assert callback._epoch == epoch


def test_lightning_records_what_the_module_answers_in_its_step(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)

    def step(model, batch):
        return {"loss": model(batch[0], batch[1])["loss"]}

    check(recording, lightning(Network(), RecordingLightningCallback(recording), batches(), step).said)


def test_lightning_records_a_named_part_or_what_the_step_returns(tmp_path):
    for number, (options, step) in enumerate(
        [
            ({"module": "net"}, lambda model, batch: model(batch[0]).sum()),
            ({}, lambda model, batch: {"loss": None, "logits": model(batch[0])}),
            (
                {"index": lambda batch: batch[2], "targets": lambda batch: batch[1]},
                lambda model, batch: model(batch[0]).sum(),
            ),
        ]
    ):
        recording = Recording(tmp_path / str(number), n_examples=N)
        check(recording, lightning(Network(), RecordingLightningCallback(recording, **options), batches(), step).said)


def test_a_batch_may_be_a_mapping(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    named = [{"x": x, "labels": y, "index": index} for x, y, index in batches()]
    callback = RecordingLightningCallback(recording)
    check(recording, lightning(Network(), callback, named, lambda model, batch: model(batch["x"]).sum()).said)


def test_what_lightning_does_not_show_is_asked_for(tmp_path):
    recording = Recording(tmp_path / "r", n_examples=N)
    with pytest.raises(DataError, match="no outputs were seen in training_step"):
        lightning(Network(), RecordingLightningCallback(recording), batches(), lambda model, batch: model.net(batch[0]))
    with pytest.raises(RecipeError, match="no part 'body': expected one of net"):
        lightning(Network(), RecordingLightningCallback(recording, module="body"), batches(), None)
    pairs = [batch[:2] for batch in batches()]
    with pytest.raises(DataError, match="give index="):
        lightning(Network(), RecordingLightningCallback(recording), pairs, lambda model, batch: model(batch[0]))


@pytest.mark.parametrize("callback", [RecordingCallback, RecordingLightningCallback])
def test_only_events_are_answered(callback, tmp_path):
    one = callback(Recording(tmp_path / "r", n_examples=N))
    with pytest.raises(AttributeError, match="'colour'"):
        one.colour  # noqa: B018
    assert one.on_something_new(1, b=2) is None


def installed(*names):
    missing = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")


@installed("transformers", "accelerate")
@pytest.mark.filterwarnings("ignore")
def test_the_real_trainer_of_transformers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        inputs, labels = made()
        data = [{"x": inputs[i], "labels": labels[i], "index": i} for i in range(N)]
        recording = Recording(tmp_path / "r", n_examples=N, task=Classification(n_classes=CLASSES))

        class Epochs(transformers.TrainerCallback):
            def on_epoch_begin(self, args, state, control, **others):
                model.epoch = round(state.epoch)

        model = Network()
        arguments = transformers.TrainingArguments(
            str(tmp_path / "t"), per_device_train_batch_size=5, gradient_accumulation_steps=2, num_train_epochs=3, report_to=[],
            save_strategy="no", eval_strategy="epoch", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        callbacks = [Epochs(), RecordingCallback(recording)]
        trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4], callbacks=callbacks)
        trainer.train()
    check(recording, model.said, epochs=3)
    assert np.isfinite(recording.scores().errors["aum"]).all()


@installed("lightning")
@pytest.mark.filterwarnings("ignore")
def test_the_real_trainer_of_lightning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("lightning")

        class Module(library.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Network()

            def training_step(self, batch, batch_idx):
                x, y, _ = batch
                self.inner.epoch = self.current_epoch
                return nn.functional.cross_entropy(self.inner(x), y)

            def validation_step(self, batch, batch_idx):
                self.inner(batch[0])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.05)

        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*made(), torch.arange(N)), batch_size=5, shuffle=True
        )
        recording = Recording(tmp_path / "r", n_examples=N)
        trainer = library.Trainer(
            max_epochs=2, accelerator="cpu", callbacks=[RecordingLightningCallback(recording, module="inner")], logger=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, enable_checkpointing=False,
        )  # fmt: skip
        module = Module()
        trainer.fit(module, loader, loader)
    check(recording, module.inner.said)
