"""In which runtime is a model's speed measured?

Dense and pruned run in the same one. ``best`` is the one in which the *dense* model is fastest, of those that are installed and
take about a second to make a model ready; ``best_of_all`` tries the compilers, too, which take up to a minute for each model. A
speed-up over a slower way to run the dense model would be worth nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from prunus.core.calls import n_examples, select_rows
from prunus.core.errors import MissingExtraError, ModelError
from prunus.core.recipes import recipe
from prunus.evaluate.timing.bench_runtimes import RUNTIMES, BenchRuntime, InTorch, Subject
from prunus.evaluate.timing.contest import Clock, Contestant
from prunus.evaluate.timing.latency import Timeable, device_of_inputs, measure_latency, pick_clock

__all__ = ["called", "fastest_runtime", "in_runtime", "put_away"]

_ROUNDS = {"repeats": 15, "warm_up": 3}


def called(name: str, known: Sequence[BenchRuntime] = RUNTIMES) -> str:
    """Return what a report calls a runtime."""
    return next(runtime.called for runtime in known if runtime.name == name)


def in_runtime(
    name: str, model: nn.Module, inputs: Any, *, known: Sequence[BenchRuntime] = RUNTIMES, clock: str = "auto"
) -> Timeable:
    """Return ``model`` in a runtime, ready to be timed on ``inputs``, once it has answered as torch does; torch takes it as it is.

    Args:
        clock: as in the recipe.

    Raises:
        ModelError: it can't be run there, or answers otherwise.
        MissingExtraError: the runtime isn't installed.
    """
    runtime = next(runtime for runtime in known if runtime.name == name)
    if runtime.name == InTorch.name:
        return model
    if missing := runtime.missing():
        raise MissingExtraError(f"evaluation.latency.runtime: {runtime.called} is {missing}")
    rows = torch.arange(4) % n_examples(inputs)
    with _in_evaluation(model):
        # What is compiled follows the model's mode, and that is the user's.
        own = copy.deepcopy(model) if isinstance(runtime, InTorch) else model
        counted = cast("Clock", pick_clock(clock, inputs)[0])
        try:
            return runtime.start(Subject(own, select_rows(inputs, rows)), inputs, torch.get_num_threads(), counted)
        except ModelError as error:
            raise ModelError(f"{error}; set evaluation.latency.runtime to torch") from error


def fastest_runtime(
    dense: nn.Module,
    inputs: Any,
    config: recipe.Latency,
    *,
    note: Callable[[str], None],
    known: Sequence[BenchRuntime] = RUNTIMES,
    seed: int = 0,
) -> tuple[str, Timeable]:
    """Return the name of the runtime that the recipe names, or in which ``dense`` answers fastest on ``inputs``; and it in there.

    Args:
        note: is told which installed runtimes can't run the model.
        known: those that there are.
    """
    if config.runtime not in ("best", "best_of_all"):
        return config.runtime, in_runtime(config.runtime, dense, inputs, known=known, clock=config.clock)
    ready: dict[str, Timeable] = {InTorch.name: dense}
    if device_of_inputs(inputs).type == "cpu":
        for runtime in known:
            if runtime.name in ready or runtime.missing() or not (runtime.is_quick or config.runtime == "best_of_all"):
                continue
            try:
                ready[runtime.name] = in_runtime(runtime.name, dense, inputs, known=known, clock=config.clock)
            except ModelError as error:
                note(f"latency isn't measured in {runtime.called}: {error}")
    if len(ready) == 1:
        return InTorch.name, dense
    found = measure_latency(ready, inputs, config.model_copy(update=_ROUNDS), seed=seed)
    best = min(ready, key=lambda name: found.milliseconds[name].value)
    for name, model in ready.items():
        if name != best:
            put_away(model)
    return best, ready[best]


def put_away(model: Timeable) -> None:
    """Give back what a model in a runtime holds: files, a process."""
    if isinstance(model, Contestant):
        model.close()


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Leave every module in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
