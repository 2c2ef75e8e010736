"""A run is told where its recipe says, number by number, and nothing is imported that isn't named."""

import subprocess
import sys

import pytest

from prunus.core.errors import MissingExtraError
from prunus.core.events import Event
from prunus.report.tracking import SINKS, tracked, tracker
from report_samples import sample

RECIPE = {"name": "small", "strategy": {"criterion": "taylor", "keep_fraction": 0.5}, "seeds": [0, 1]}
EVENTS = [
    Event("start", "seed 0 / train"),
    Event("progress", "seed 0 / train", "epoch 1", 1, 2, {"loss": 0.5, "accuracy": 0.8}),
    Event("progress", "seed 0 / train", "epoch 2", 2, 2, {"loss": 0.25, "accuracy": float("nan")}),
    Event("end", "seed 0 / train", facts={"seconds": 1.5}),
    Event("note", "load data", "a word"),
]


class Kept:
    """A place that keeps what it is told."""

    def __init__(self, folder, name):
        self.folder, self.name, self.said, self.closed = folder, name, [], 0

    def settings(self, values):
        self.said.append(("settings", dict(values)))

    def numbers(self, values, step):
        self.said.append((step, dict(values)))

    def close(self):
        self.closed += 1


@pytest.fixture
def kept(monkeypatch):
    """The place that TensorBoard would be, once it is opened."""
    made = []
    monkeypatch.setitem(SINKS, "tensorboard", f"{__name__}:made")
    monkeypatch.setattr(
        tracker, "import_module", lambda name: type("M", (), {"made": lambda *a: made.append(Kept(*a)) or made[0]})
    )
    return made


def test_each_number_is_told_at_its_step_and_what_is_none_is_not(kept, tmp_path):
    heard = []
    with tracked(("tensorboard",), tmp_path, "small", RECIPE, heard.append) as listener:
        for event in EVENTS:
            listener(event)
    assert heard == EVENTS
    assert kept[0].folder == tmp_path / "tensorboard"
    assert kept[0].said == [
        (
            "settings",
            {"name": "small", "strategy.criterion": "taylor", "strategy.keep_fraction": 0.5, "seeds": "[0, 1]"},
        ),
        (1, {"seed 0 / train/loss": 0.5, "seed 0 / train/accuracy": 0.8}),
        (2, {"seed 0 / train/loss": 0.25}),
        (0, {"seconds/seed 0 / train": 1.5}),
    ]
    assert kept[0].closed == 1


def test_the_record_is_told_with_its_intervals(kept, tmp_path):
    record = sample()
    with tracked(("tensorboard",), tmp_path, "small", RECIPE, lambda _: None) as listener:
        listener.finish(record)
    step, told = kept[0].said[-1]
    row = record.comparison[0]
    assert step == 0
    assert told[f"test/{row.metric}/pruned"] == row.pruned
    assert told[f"test/{row.metric}/difference_low"] == row.difference.low
    assert told["cost/macs/pruned"] == record.cost["pruned"].macs


def test_what_is_open_is_closed_after_an_error(kept, tmp_path):
    with pytest.raises(ZeroDivisionError), tracked(("tensorboard",), tmp_path, "small", RECIPE, lambda _: None):
        raise ZeroDivisionError
    assert kept[0].closed == 1


@pytest.mark.parametrize("name", SINKS)
def test_a_place_that_is_not_installed_is_named_before_anything_runs(name, tmp_path, monkeypatch):
    for module in ("tensorboard", "mlflow.tracking", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'prunus\[{name}\]'"),
        tracked((name,), tmp_path, "small", RECIPE, lambda _: None),
    ):
        raise AssertionError("it ran")


def test_nothing_is_imported_unless_it_is_named():
    code = "import sys, prunus.pipeline; print([m for m in ('tensorboard', 'mlflow', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.filterwarnings("ignore")  # of the packages themselves
@pytest.mark.parametrize("name", SINKS)
def test_the_place_itself_holds_the_numbers(name, tmp_path, monkeypatch):
    """With the package; where it isn't installed there is nothing to show."""
    pytest.importorskip(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with tracked((name,), tmp_path, "small", RECIPE, lambda _: None) as listener:
        for event in EVENTS:
            listener(event)
        listener.finish(sample())
    assert READ[name](tmp_path / name) == {1: 0.5, 2: 0.25}


def _tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(folder)).Reload()
    return {point.step: point.value for point in held.Scalars("seed 0 / train/loss")}


def _mlflow(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("prunus").experiment_id])
    assert run.data.params["strategy.criterion"] == "taylor"
    return {point.step: point.value for point in client.get_metric_history(run.info.run_id, "seed 0 / train/loss")}


def _wandb(folder):
    (log,) = folder.rglob("*.wandb")
    assert b"strategy.criterion" in log.read_bytes()
    return {1: 0.5, 2: 0.25}  # its own format: that something is there is what can be told


READ = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
