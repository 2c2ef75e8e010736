"""How fast is each of some models on this machine?

They take turns in one run, in a fresh random order each round, so that whatever else the machine does hits all of them
alike; the claim is the median of the paired ratios. Where one thread of the processor does it all, the clock is that of the
process, which stands still while another process has the core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.core.calls import call, tensors
from prunus.core.recipes import recipe
from prunus.core.runtime import derive_seed
from prunus.core.types import Measurement
from prunus.evaluate.resample import interval
from prunus.evaluate.timing.contest import COLD_S, Contestant

__all__ = ["Latency", "Timeable", "device_of_inputs", "finish", "measure_latency", "pick_clock"]

Timeable = nn.Module | Callable[[Any], Any] | Contestant
"""A module, what is called with the inputs, or a model in a runtime that holds its inputs and has a clock of its own."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch (median, with quartiles), and how many times faster ``pruned`` is than ``dense``."""

    runtime: str
    batch_size: int
    repeats: int
    warm_up: int
    threads: int
    clock: str
    milliseconds: dict[str, Measurement]
    speedup: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        facts = {key: getattr(self, key) for key in ("runtime", "batch_size", "repeats", "warm_up", "threads", "clock")}
        times = {name: value.to_dict() for name, value in self.milliseconds.items()}
        return {**facts, "milliseconds": times, "speedup": self.speedup and self.speedup.to_dict()}


def measure_latency(
    models: Mapping[str, Timeable],
    inputs: Any,
    config: recipe.Latency,
    *,
    runtime: str = "torch eager",
    seed: int = 0,
) -> Latency:
    """Return the latency of every model on ``inputs``, measured in turns.

    Args:
        models: modules, anything that is called with the inputs, or models in a runtime, ready for these inputs.
        inputs: as the models take them: a tensor, a tuple (positional) or a mapping (keywords).
        config: how many rounds, and how many before they count.
    """
    modules = [module for model in models.values() if isinstance(model, nn.Module) for module in model.modules()]
    modes = {module: module.training for module in modules}
    rng = np.random.default_rng(derive_seed(seed, "latency"))
    names = list(models)
    named, clock = pick_clock(config.clock, inputs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    last = dict.fromkeys(names, 0.0)
    try:
        for module in modules:
            module.training = False
        with torch.inference_mode():
            for turn in range(config.warm_up + config.repeats):
                for position in rng.permutation(len(names)):
                    if turn and last[names[position]] < COLD_S:
                        _time(models[names[position]], inputs, clock)
                    taken = last[names[position]] = _time(models[names[position]], inputs, clock)
                    if turn >= config.warm_up:
                        seconds[names[position]].append(taken)
    finally:
        for module, training in modes.items():
            module.training = training
    times = {name: _quartiles(name, 1000 * np.array(values), "ms") for name, values in seconds.items()}
    speedup = _speedup(seconds, seed) if {"dense", "pruned"} <= set(names) else None
    threads = torch.get_num_threads()
    size = next((len(value) for _, value in tensors(inputs) if value.dim()), 1)
    return Latency(runtime, size, config.repeats, config.warm_up, threads, named, times, speedup)


def pick_clock(name: str, inputs: Any) -> tuple[str, Callable[[], float]]:
    """Return which clock counts, and how it is read in seconds; ``auto`` is the processor's where one thread does it all."""
    if name == "auto":
        name = "processor" if device_of_inputs(inputs).type == "cpu" and torch.get_num_threads() == 1 else "wall"
    # All threads count, as for models in other runtimes, which have threads of their own.
    return name, time.process_time if name == "processor" else time.perf_counter


def device_of_inputs(inputs: Any) -> torch.device:
    """Return where inputs lie."""
    return next((value.device for _, value in tensors(inputs)), torch.device("cpu"))


def _time(model: Timeable, inputs: Any, clock: Callable[[], float]) -> float:
    if isinstance(model, Contestant):
        return model.seconds(1)
    device = device_of_inputs(inputs)
    run = call if isinstance(model, nn.Module) else _called
    finish(device)
    start = clock()
    run(model, inputs)
    finish(device)
    return clock() - start


def _called(model: Callable[[Any], Any], inputs: Any) -> Any:
    return model(inputs)


def finish(device: str | torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _quartiles(name: str, values: Any, unit: str) -> Measurement:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Measurement(name, float(median), float(low), float(high), unit, False)


def _speedup(seconds: Mapping[str, list[float]], seed: int) -> Measurement:
    ratios = np.array(seconds["dense"]) / np.array(seconds["pruned"])
    rng = np.random.default_rng(derive_seed(seed, "latency", "bootstrap"))
    medians = np.median(ratios[rng.integers(0, len(ratios), (1000, len(ratios)))], axis=1)
    return Measurement("speedup", float(np.median(ratios)), *interval(medians, 0.95), "x", True)
