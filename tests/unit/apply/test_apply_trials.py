"""What it costs to try which cuts a class can follow, and what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graph_zoo import randomize
from prunus.apply import follow_class
from prunus.apply.traced import trace_rewriter
from prunus.graph import AxisGraph, analyze
from prunus.graph.tracing.states import canonical_states


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Stages(nn.Module):
    """Some stages of a few residual blocks each; one of them may have blocks that can't leave."""

    runs = 0

    def __init__(self, stages: int, *, broken: int | None = None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(Residual(4) for _ in range(2)) for _ in range(stages))
        self.first, self.out, self.broken = nn.Linear(3, 4), nn.Linear(4, 2), broken

    def forward(self, x: Tensor) -> Tensor:
        type(self).runs += 1
        x = self.first(x)
        for number, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if number == self.broken:
                assert len(stage) == 2
        return self.out(x)


def runs_of_trials(stages: int) -> int:
    model, inputs = randomize(Stages(stages)), (torch.randn(2, 3),)
    graph = analyze(model, inputs)
    assert len([stack for stack in graph.stacks if stack.kind == "block"]) == stages
    Stages.runs = 0
    followed = follow_class(model, inputs, graph, kinds={"block"})
    assert followed.stacks == graph.stacks
    return Stages.runs


def test_stacks_that_lie_beside_one_another_are_tried_in_as_many_runs_as_one():
    assert runs_of_trials(6) == runs_of_trials(1)


def test_of_stacks_that_are_tried_together_the_one_that_cannot_lose_its_blocks_is_found():
    for broken in range(5):
        model, inputs = randomize(Stages(5, broken=broken)), (torch.randn(2, 3),)
        followed = follow_class(model, inputs, analyze(model, inputs))
        assert {stack.name for stack in followed.stacks} == {f"stages.{n} (blocks)" for n in range(5) if n != broken}


class Fixed(nn.Module):
    """Two hidden widths, of which one is written into ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu().view(-1, 8)).relu())


def test_a_cut_that_the_class_cannot_run_is_not_computed_another_way_and_both_halves_share_one(
    monkeypatch: pytest.MonkeyPatch,
):
    made: list[int] = []
    plain = trace_rewriter.Rewriter.run
    monkeypatch.setattr(
        trace_rewriter.Rewriter, "run", lambda rewriter: made.append(len(rewriter.sizes)) or plain(rewriter)
    )
    model, inputs = randomize(Fixed()), (torch.randn(2, 3),)
    followed = follow_class(model, inputs, analyze(model, inputs))
    assert [group.name for group in followed.groups] == ["second"]
    assert made == [1]


class WritesItsWeights(nn.Module):
    """Normalises its weights in place whenever it runs, and runs in single precision only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.third.weight.copy_(self.third.weight / self.third.weight.norm())
        hidden = self.second(self.first(x + torch.ones(3)).relu()) + torch.eye(6, dtype=torch.float32)[0]
        return self.third(hidden.relu().float())


def test_what_a_trial_writes_into_its_weights_never_reaches_the_model():
    model, inputs = randomize(WritesItsWeights()), (torch.randn(2, 3),)
    graph = analyze(model, inputs)
    before = {name: value.detach().clone() for name, value in canonical_states(model).items()}
    follow_class(model, inputs, graph)
    assert all(torch.equal(before[name], value) for name, value in canonical_states(model).items())


class Stage(nn.Module):
    """Runs its blocks, and may say how many there are: then nothing can leave, unless nobody asks."""

    def __init__(self, says: str) -> None:
        super().__init__()
        self.blocks, self.says = nn.ModuleList(Residual(4) for _ in range(2)), says

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        if self.says == "number":
            x = x * len(self.blocks)
        return x, found if self.says == "all" else []


class Staged(nn.Module):
    """Stages around their blocks; it may read what the first two blocks of one gave."""

    runs_so_far = 0

    def __init__(self, *says: str, reads: bool = False) -> None:
        super().__init__()
        self.stages, self.reads = nn.ModuleList(map(Stage, says)), reads
        self.first, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        type(self).runs_so_far += 1
        x = self.first(x)
        for stage in self.stages:
            x, found = stage(x)
            if self.reads and found:
                x = x + found[1]
        return self.out(x)


def test_blocks_that_the_module_around_them_cannot_do_without_cost_no_run_of_the_whole_model():
    runs = []
    for says in (("", "number"), ("", "number", "number", "number")):
        model, inputs = randomize(Staged(*says)), (torch.randn(2, 3),)
        graph = analyze(model, inputs)
        Staged.runs_so_far = 0
        followed = follow_class(model, inputs, graph, kinds={"block"})
        runs.append(Staged.runs_so_far)
        assert inner(followed) == {f"stages.{n}.blocks (blocks)" for n, said in enumerate(says) if not said}
    assert runs[1] == runs[0]


@pytest.mark.parametrize("reads", [False, True])
def test_a_list_with_an_entry_for_each_block_matters_only_where_it_is_read(reads):
    model, inputs = randomize(Staged("all", "", reads=reads)), (torch.randn(2, 3),)
    followed = follow_class(model, inputs, analyze(model, inputs))
    assert inner(followed) == {f"stages.{n}.blocks (blocks)" for n in ((1,) if reads else (0, 1))}


def inner(graph: AxisGraph) -> set[str]:
    return {stack.name for stack in graph.stacks if ".blocks" in stack.name}


class Pairs(Staged):
    """Takes two examples at once and no other number of them, or any; counts how many it has seen."""

    seen = 0

    def __init__(self, *, pairs: bool) -> None:
        super().__init__("number", "")
        self.pairs = pairs

    def forward(self, x: Tensor) -> Tensor:
        if self.pairs and len(x) != 2:
            raise ValueError("two examples, please")
        type(self).seen += len(x)
        return super().forward(x)


def test_blocks_are_tried_on_one_example_where_the_model_takes_one():
    seen = []
    for pairs in (False, True):
        model, inputs = randomize(Pairs(pairs=pairs)), (torch.randn(2, 3),)
        graph = analyze(model, inputs)
        Pairs.seen = 0
        assert inner(follow_class(model, inputs, graph, kinds={"block"})) == {"stages.1.blocks (blocks)"}
        seen.append(Pairs.seen)
    assert seen[0] < seen[1]


def test_a_cut_that_does_not_run_on_one_example_is_run_on_all_of_them_once_only():
    class Rigid(nn.Module):
        """Holds the widths of some of its layers as numbers."""

        whole = 0

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 8)
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            type(self).whole += len(x) > 1 and type(x) is Tensor
            x = self.first(x)
            for n, layer in enumerate(self.layers):
                x = layer(x).relu()
                x = x * torch.ones(8) if n in (1, 2, 4) else x
            return self.out(x)

    model, inputs = randomize(Rigid()), (torch.randn(2, 3),)
    graph = analyze(model, inputs)
    Rigid.whole = 0
    followed = follow_class(model, inputs, graph)
    assert 0 < len(followed.groups) < len(graph.groups)
    assert Rigid.whole <= 1
