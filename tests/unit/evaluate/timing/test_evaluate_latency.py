import json

import pytest
import torch
from torch import nn

from prunus.core.recipes import recipe
from prunus.evaluate import measure_latency
from prunus.evaluate.timing import latency as module

CONFIG = recipe.Latency(batch_size=4, repeats=9, warm_up=3)
INPUTS = torch.ones(4, 2)


class Clock:
    """Time that stands still except while a model runs."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(module.time, name, made.perf_counter)
    return made


def taking(clock, seconds, calls=None, name=""):
    """Return a model that takes so long; ``seconds`` may grow with the calls."""

    def run(inputs):
        clock.now += seconds() if callable(seconds) else seconds
        if calls is not None:
            calls.append(name)

    return run


def test_the_median_and_the_ratio_are_those_of_the_clock(clock):
    found = measure_latency({"dense": taking(clock, 0.006), "pruned": taking(clock, 0.002)}, INPUTS, CONFIG)
    assert found.milliseconds["dense"].value == pytest.approx(6)
    assert found.milliseconds["pruned"].value == pytest.approx(2)
    assert found.speedup.value == pytest.approx(3)
    assert found.speedup.low == pytest.approx(3) == found.speedup.high


def test_models_take_turns_in_a_random_order_and_the_warm_up_counts_for_nothing(clock):
    calls = []
    slow_at_first = iter([9.0] * 12 + [0.2] * 9)
    models = {
        "dense": taking(clock, lambda: next(slow_at_first), calls, "dense"),
        "pruned": taking(clock, 0.2, calls, "pruned"),
    }
    found = measure_latency(models, INPUTS, recipe.Latency(batch_size=4, repeats=9, warm_up=12))
    rounds = [tuple(calls[i : i + 2]) for i in range(0, 42, 2)]
    assert all(sorted(pair) == ["dense", "pruned"] for pair in rounds)
    assert len(set(rounds)) == 2
    assert found.speedup.value == pytest.approx(1)


def test_a_machine_that_slows_down_hits_both_alike(clock):
    """The times drift by a factor of ten; the paired ratio stays."""
    drift = iter(range(1000))

    def slower(base):
        return lambda: base * (1 + next(drift) / 10)

    found = measure_latency({"dense": taking(clock, slower(0.2)), "pruned": taking(clock, slower(0.1))}, INPUTS, CONFIG)
    assert found.speedup.value == pytest.approx(2, rel=0.1)
    assert found.speedup.low <= found.speedup.value <= found.speedup.high


def test_a_real_model_runs_in_evaluation_mode_without_gradients_and_is_as_before():
    seen = []

    class Watch(nn.Linear):
        def forward(self, inputs):
            seen.append((self.training, torch.is_inference_mode_enabled()))
            return super().forward(inputs)

    model = nn.Sequential(Watch(2, 2), nn.Dropout())
    model[1].eval()
    found = measure_latency({"dense": model, "other": Watch(2, 2).eval()}, INPUTS, CONFIG, runtime="a runtime")
    assert set(seen) == {(False, True)}
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert found.speedup is None
    assert found.runtime == "a runtime"
    item = found.milliseconds["dense"]
    assert 0 < item.low <= item.value <= item.high


def test_it_says_how_it_was_measured_and_goes_through_json(clock):
    found = measure_latency({"dense": taking(clock, 0.1), "pruned": taking(clock, 0.1)}, INPUTS, CONFIG)
    facts = found.to_dict()
    assert (facts["batch_size"], facts["repeats"], facts["warm_up"]) == (4, 9, 3)
    assert facts["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
