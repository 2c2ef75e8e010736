"""One of two processes that train together; rank 0 writes what came of each case. ``trainings`` says what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from patience import PATIENCE_S, free_port
from prunus.apply import Masks
from prunus.core.code.place import place
from prunus.core.recipes.recipe import Average, Distil, Train
from prunus.core.structures.tensor_parts import local, part_like
from prunus.recover import (
    ProximalL1,
    default_loss,
    distillation_loss,
    follow_trainings,
    leading,
    open_meeting,
    sparsity_step,
    train,
)
from recover_stand_ins import TensorExamples, make_examples

STEPS = 100


class Recorder:
    """A watcher that keeps the order in which examples came, and what was said of them."""

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def __call__(self, epoch: int, batch: Any, outputs: Tensor) -> None:
        self.index.append(batch.index.clone())
        self.outputs.append(outputs.clone())


@dataclass(frozen=True)
class StillZero:
    """Hold the zeros, and look after every step on every rank whether they are zero."""

    masks: Masks
    model: nn.Module
    name: str
    gone: Tensor
    shards = True

    def __call__(self, optimizer: Optimizer) -> None:
        self.masks.guard(optimizer)
        optimizer.register_step_post_hook(self.look)

    def look(self, *_: Any) -> None:
        weight = self.model.get_parameter(self.name).detach()
        own, gone = local(weight), part_like(self.gone, weight)
        if bool(own[gone].any()) or not bool(own[~gone].all()):
            raise AssertionError("a weight that is gone came back, or one that stays left")


class Unused(nn.Module):
    """A layer that no forward pass runs, and one that only some examples need."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)
        self.rare = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.used(inputs)
        rare = inputs[:, 0] > 1.0
        return outputs + self.rare(inputs) * rare.unsqueeze(1) if bool(rare.any()) else outputs


def plain(seed: int = 0, *, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Linear(4, 12), nn.BatchNorm1d(12) if norm else nn.Identity(), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def doubled(n: int = 61) -> TensorExamples:
    examples = make_examples(n)
    return TensorExamples(examples.inputs.double(), examples.targets)


@dataclass
class Case:
    """A training, as both sides run it: together, and on one process as the oracle."""

    model: nn.Module
    config: Train
    examples: TensorExamples = field(default_factory=doubled)
    options: dict[str, Any] = field(default_factory=dict)


IN_PARTS = ("accumulated", "average", "one example", "masks", "evaluated before")
"""Cases that run under FSDP, too."""


GONE_ON = {"ddp": ("adamw", "masks"), "fsdp": ("average",)}
"""Cases that are stopped after two epochs, and go on."""

OTHER_NUMBER = "average"
"""The case that goes on with another number of processes."""


def sgd(**settings: Any) -> Train:
    return Train(**{"epochs": 3, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.05, **settings})


def trainings() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield every case by its name."""
    yield "momentum", lambda: Case(plain(), sgd(momentum=0.9, clip_norm=0.5))
    yield "adamw", lambda: Case(plain(), sgd(optimizer="adamw", learning_rate=0.003, label_smoothing=0.1))
    yield "accumulated", lambda: Case(plain(norm=True), sgd(accumulate=3, batch_size=7))
    yield "batch norm", lambda: Case(plain(norm=True), sgd(batch_size=6))
    yield "average", lambda: Case(plain(norm=True), sgd(average=Average(kind="ema", decay=0.9)))
    yield "one example", lambda: Case(plain(), sgd(), doubled(1))
    yield "fewer than the batch", lambda: Case(plain(norm=True), sgd(), doubled(3))
    yield "masks", masked
    yield "distilled", distilled
    yield "l1", penalised
    yield "l0", lambda: gated()
    yield "evaluated before", lambda: Case(dropped().eval(), sgd())
    yield "late momentum", lambda: Case(unused(), sgd(momentum=0.9, batch_size=4))
    yield "unused", lambda: Case(unused(), sgd(optimizer="adamw", weight_decay=0.1))


def dropped() -> nn.Module:
    """A model of which training mode leaves the last bias alone: all else would learn in evaluation mode."""
    *layers, last = plain().children()
    return nn.Sequential(*layers, nn.Dropout(1.0), last)


def unused() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Unused().double()


def masked() -> Case:
    model = plain(norm=True)
    gone = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    hook = StillZero(Masks(model, {"3.weight": ~gone}), model, "3.weight", gone)
    config = sgd(epochs=-(-STEPS // 8), momentum=0.9, weight_decay=0.01, clip_norm=0.5)
    return Case(model, config, options={"on_optimizer": hook})


def distilled() -> Case:
    case = Case(plain(), sgd())
    loss = distillation_loss(plain(5).double(), Distil(weight=0.5), default_loss(case.examples.task))
    case.options["loss"] = loss
    return case


def penalised() -> Case:
    model = plain()
    return Case(model, sgd(), options={"on_optimizer": ProximalL1(model, ["3.weight"], 0.5).attach})


def gated() -> Case:
    model = plain().float()
    examples = make_examples(61)
    penalty = sparsity_step(model, kind="l0", names=["3.weight"], strength=0.01, seed=0)
    return Case(model, sgd(), examples, {"on_optimizer": penalty.attach})


def result(case: Case, **options: Any) -> dict[str, Any]:
    history = train(case.model, case.examples, case.config, seed=3, stage="test", **case.options, **options)
    found = {"loss": history.loss, "accuracy": history.accuracy, "state": case.model.state_dict()}
    return {**found, "in training mode": case.model.training}


def stop(done: int) -> None:
    """Stop a training after two epochs, from outside."""
    if done == 2:
        raise KeyboardInterrupt


def lead(folder: Path, sharding: str) -> None:
    """Run every case on rank 0, and what only it can do: watch, stop, and go on from a kept state."""
    found: dict[str, Any] = {}
    for name, make in trainings():
        if sharding == "ddp" or name in IN_PARTS:
            found[name] = result(make())
    watch = Recorder()
    result(Case(plain(), sgd()), watch=watch)
    found["watched"] = {"index": watch.index, "outputs": watch.outputs}

    options = {"checkpoint": folder / "kept", "checkpoint_every_s": 0.0}
    for name in GONE_ON[sharding]:
        (folder / "kept").unlink(missing_ok=True)
        case = dict(trainings())[name]
        try:
            result(case(), **options, after_epoch=stop)
        except KeyboardInterrupt:
            found[f"{name}, gone on"] = result(case(), **options)
    # What one process kept goes on with two, and what two keep with one.
    told: list[Any] = []
    one, two = {"checkpoint": folder / "of one"}, {"checkpoint": folder / "of two", "checkpoint_every_s": 0.0}
    found["of one, gone on"] = result(dict(trainings())[OTHER_NUMBER](), **one, listener=told.append)
    found["told"] = [event.message for event in told if event.kind == "note"]
    with suppress(KeyboardInterrupt):
        result(dict(trainings())[OTHER_NUMBER](), **two, after_epoch=stop)
    torch.save(found, folder / "found.pt")


def main() -> None:
    folder, sharding = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    here = place()
    meeting = open_meeting(here, cuda=False)
    meeting.sharding = sharding
    if not here.leads:
        raise SystemExit(0 if follow_trainings(meeting) else 1)
    try:
        with leading(meeting):
            lead(folder, sharding)
    finally:
        meeting.end()


def start(command: list[str], n_ranks: int = 2, **options: Any) -> list[subprocess.Popen[str]]:
    """Start a command on several ranks, as torchrun does; ``options`` go to each process, callables by its rank."""
    together = {"WORLD_SIZE": str(n_ranks), "LOCAL_WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1"}
    together["MASTER_PORT"] = str(free_port())
    started = []
    for rank in range(n_ranks):
        own = {key: value(rank) if callable(value) else value for key, value in options.items()}
        environment = {**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        environment |= own.pop("env", {})
        started.append(
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **own)
        )
    return started


def ended(started: list[subprocess.Popen[str]], timeout_s: float = PATIENCE_S) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of each process."""
    try:
        return [(process.wait(), *said) for process in started for said in [process.communicate(timeout=timeout_s)]]
    finally:
        for process in started:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main()
