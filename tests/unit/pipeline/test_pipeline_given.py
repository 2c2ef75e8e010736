"""A model that is handed over as trained is taken as it is, and a job in Python is no silent one."""

import io
import logging

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.events import Event
from prunus.core.narrate import Narrator

DRAW = torch.Generator().manual_seed(0)
INPUTS = 50 + 20 * torch.randn(400, 6, generator=DRAW)
LABELS = (INPUTS[:, 0] + INPUTS[:, 1] > 100).long()


def solved():
    """Return a network that answers from raw inputs, rightly."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[:2, :2] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        model[0].bias[:2] = torch.tensor([-100.0, 100.0])
        model[2].weight[1, 0] = model[2].weight[0, 1] = 1.0
    return model


def made(**options):
    told = []
    optimizer = ModelOptimizer(
        solved(), (INPUTS, LABELS), strategy="magnitude_l2", seeds=[0], listener=told.append, **options
    )
    return optimizer, told


def test_a_trained_model_is_not_trained_again_and_gets_its_inputs_as_they_are():
    optimizer, told = made(trained=True, recovery={"method": "none"})
    optimizer.fit()
    for name, value in solved().state_dict().items():
        assert torch.equal(optimizer.model_.state_dict()[name], value)
    assert optimizer.evaluate()["test"].value("accuracy") == 1.0
    assert not any("train" in event.stage for event in told)
    assert optimizer.prune(keep_fraction=0.5).evaluate()["test"].value("accuracy") == 1.0


def test_a_trained_model_that_is_given_scaled_inputs_and_knows_raw_ones_is_warned_of():
    optimizer, told = made(trained=True, data_options={"standardize": True})
    optimizer.fit()
    (warning,) = [event.message for event in told if event.kind == "warning"]
    assert "does better on inputs as they are" in warning
    assert "data.standardize: false" in warning


def test_a_model_that_knows_scaled_inputs_is_not():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    model = ModelOptimizer(network, (INPUTS, LABELS), train={"epochs": 30, "learning_rate": 0.01}).fit().model_
    told = []
    ModelOptimizer(
        model, (INPUTS, LABELS), trained=True, data_options={"standardize": True}, listener=told.append
    ).fit()
    assert not any(event.kind == "warning" for event in told)


def narrated(*events, seconds=()):
    ticks, stream = iter((0.0, *seconds)), io.StringIO()
    narrator = Narrator(stream, every_s=3.0, clock=lambda: next(ticks))
    for event in events:
        narrator(event)
    return stream.getvalue().splitlines()


def test_progress_is_told_every_few_seconds_and_all_else_at_once():
    steps = [Event("progress", "seed 0 / train", done=n, total=9, facts={"loss": 1 / n}) for n in (1, 2, 3)]
    lines = narrated(
        Event("start", "seed 0 / train"),
        *steps,
        Event("note", "load data", "8 twins"),
        Event("warning", "load data", "no labels"),
        Event("end", "seed 0 / train", facts={"seconds": 1.26}),
        seconds=(1.0, 4.0, 4.0, 5.0),
    )
    assert lines == [
        "seed 0 / train: 2 of 9, loss 0.5",
        "load data: 8 twins",
        "warning: load data: no labels",
        "seed 0 / train: done in 1.3 s",
    ]


def test_where_nobody_watches_the_logger_is_told_and_warnings_stand_out(caplog, capfd):
    with caplog.at_level(logging.INFO, logger="prunus"):
        ModelOptimizer(solved(), (INPUTS, LABELS), strategy=None, train={"epochs": 1}, seeds=[0]).fit()
        Narrator()(Event("warning", "a", "b"))
    assert "seed 0 / train: done in" in caplog.text
    assert [record.levelname for record in caplog.records if record.message == "warning: a: b"] == ["WARNING"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("watched", [True, False])
def test_a_terminal_gets_lines_on_standard_error_without_being_asked(watched, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: watched
    monkeypatch.setattr("sys.stderr", stream)
    ModelOptimizer(solved(), (INPUTS, LABELS), strategy=None, train={"epochs": 1}, seeds=[0]).fit()
    assert ("seed 0 / train: done in" in stream.getvalue()) == watched
