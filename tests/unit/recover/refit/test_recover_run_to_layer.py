from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunus.recover.refit.layer_inputs import observed
from prunus.recover.refit.run_to_layer import Memory, Replay, replayable
from recover_stand_ins import TensorExamples


class Remembers(nn.Module):
    """What it saw last is read by others."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.seen = torch.zeros(()), []

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.mean()
        return x + 1


class Appends(nn.Module):
    def forward(self, x: Tensor, found: list[Tensor]) -> Tensor:
        found.append(x)
        return x * 2


class WritesOver(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(0.5) + 1


class GivesBack(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.two(self.act(self.one(x))) + x, None


class Everything(nn.Module):
    """Every way in which a module's outputs may not be all of what it does, around layers that are fitted."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.first, self.shared, self.tied = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 7)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.writes, self.remembers = WritesOver(), Remembers()
        self.appends, self.gives = Appends(), GivesBack()
        self.tied.weight = self.table.weight
        self.mix, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        y = self.first(x)
        z = self.writes(y)  # y, too, is changed
        y = self.shared(y) + z
        y = self.appends(self.remembers(y), found)
        back = self.gives(y)
        back.mul_(0.5)  # and with it y
        try:
            for block in self.blocks:
                y, _ = block(y)
                y.mul_(0.5)
        except Exception:
            raise AssertionError from None
        mixed = self.mix(self.table(torch.arange(len(x)) % 7))
        y = mixed + self.shared(y) + found[0] + self.remembers.last + F.linear(self.tied(y), self.table.weight.T)
        return self.last(y)


def layers(model: nn.Module) -> dict[str, nn.Module]:
    order = ("first", "shared", *(f"blocks.{i}.{n}" for i in range(3) for n in ("one", "two")), "tied", "last")
    return {name: model.get_submodule(name) for name in order}


def data() -> TensorExamples:
    inputs = torch.randn(11, 6, generator=torch.Generator().manual_seed(1))
    return TensorExamples(inputs, torch.zeros(11, dtype=torch.long))


def calls(run, layer: nn.Module, batch) -> list[tuple[Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor]] = []
    with observed([layer], lambda _, given, result: seen.append((given.clone(), result.clone()))):
        run(batch)
    return seen


@pytest.mark.parametrize("memory", [1 << 30, 600, 0])
def test_what_a_layer_reads_is_bit_for_bit_that_of_a_plain_run_while_the_layers_before_change(memory):
    torch.manual_seed(0)
    model, examples = Everything().eval(), data()
    replay = Replay(model, replayable(model, examples.inputs[:2]), Memory(memory))
    todo = layers(model)
    for place, layer in enumerate(todo.values()):
        run = replay.up_to(layer, list(todo.values())[place:])
        for batch in [*examples.batches(4), *examples.batches(4)]:
            with torch.no_grad():
                plain = calls(lambda one: model(one.inputs), layer, batch)
            found = calls(run, layer, batch)
            assert len(found) == len(plain) == (2 if layer is model.shared else 1)
            for both in zip(found, plain, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
        with torch.no_grad():
            layer.weight.add_(0.1 * torch.randn_like(layer.weight))
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_modules_whose_outputs_do_not_say_all_of_what_they_do_are_not_skipped():
    model = Everything().eval()
    seen = replayable(model, data().inputs[:2])
    names = {name for name, module in model.named_modules() if module in seen.skippable}
    once = {name for name, module in model.named_modules() if module in seen.once}
    doing = {f"blocks.{i}.{n}" for i in range(3) for n in ("one", "two", "act")}
    assert once >= {"writes", "remembers", "appends", "gives", "blocks.0", *doing}
    assert "shared" not in once
    blocks = {name for name in names if name.startswith("blocks")}
    assert blocks == {f"blocks.{i}.{n}" for i in range(3) for n in ("one", "two")}  # their ReLU writes over its input
    assert names - blocks == {"first", "last", "tied", "table", "mix"}


class Counted(nn.Module):
    total = 0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        Counted.total += 1
        return self.linear(x)


def test_blocks_are_run_twice_each_and_not_once_for_every_later_layer():
    blocks = [Counted() for _ in range(12)]
    model, examples = nn.Sequential(*blocks).eval(), data()
    replay = Replay(model, replayable(model, examples.inputs[:2]), Memory())
    todo, Counted.total = [block.linear for block in blocks], 0
    for place, layer in enumerate(todo):
        for batch in examples.batches(11):
            replay.up_to(layer, todo[place:])(batch)
    assert Counted.total == 2 * 12 - 1
    left = Memory(0)
    replay, Counted.total = Replay(model, replayable(model, examples.inputs[:2]), left), 0
    for place, layer in enumerate(todo):
        replay.up_to(layer, todo[place:])(next(examples.batches(11)))
    assert Counted.total == 12 * 13 / 2
    assert left.left == 0


def test_outputs_inside_a_block_are_given_up_when_those_of_the_block_are_kept():
    model, examples, memory = nn.Sequential(Block(), Block(), nn.Linear(6, 2)).eval(), data(), Memory(10_000)
    model[0].act, model[1].act = nn.ReLU(), nn.ReLU()

    class Plain(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x)[0])[0])

    model = Plain(*model)
    replay = Replay(model, replayable(model, examples.inputs[:2]), memory)
    todo = [model[0].one, model[0].two, model[1].one, model[1].two, model[2]]
    for place, layer in enumerate(todo):
        for batch in examples.batches(11):
            replay.up_to(layer, todo[place:])(batch)
    assert memory.left == 10_000 - 2 * 11 * 6 * 4  # of two blocks


def test_outputs_of_activations_are_not_kept_beside_those_that_they_read():
    """They took half of what may be kept, and are computed as fast as they are copied."""
    model, examples, memory = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).eval(), data(), Memory(10_000)
    replay = Replay(model, replayable(model, examples.inputs[:2]), memory)
    for _ in range(2):
        for batch in examples.batches(11):
            replay.up_to(model[2], [model[2]])(batch)
    assert memory.left == 10_000 - 11 * 6 * 4
