"""The sign law: higher means *keep*. Where one unit surely matters more than another, every criterion says so.

The networks are built so that this can be checked by removal: what is called costly raises the loss at least ten times as much as
what is called cheap. The targets ask for more of the costly unit than it gives, so that training moves it away from zero.
"""

import copy

import pytest
import torch
from torch import nn

from prunus.data import Batch
from prunus.graph import analyze
from prunus.score import (
    ExampleRecorder,
    MovementRecorder,
    block_paths,
    criteria,
    example_criteria,
    gather,
    gradient_norms,
    influence_evidence,
    norm_scales,
    score_groups,
    score_weights,
)
from prunus.tasks import Classification

COSTLY, CHEAP = 1, 4
SEEDS = pytest.mark.parametrize("seed", range(3))
OVERSHOT = ("grasp",)
"""Keeps what the gradient flows through: there the targets ask for a little less than the unit gives."""


def judging(granularity):
    """Every criterion that is registered for a granularity, but chance."""
    named = [name for name in criteria if granularity in criteria[name].granularities and name != "random"]
    return pytest.mark.parametrize("name", named)


class Rows:
    """Examples in the way in which criteria read them."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def batches(self, batch_size, generator=None):
        for index in torch.arange(len(self)).split(batch_size):
            yield Batch(index, self.inputs[index], self.targets[index])


def squared_error(outputs, batch):
    return (outputs - batch.targets).square().sum(dim=1).mean()


def widths(seed, asked):
    """Six units behind a normalisation: one carries the answer, one whispers, the others lie between.

    Returns the model, its examples, and the names of the two weights along which a unit is cut.
    """
    draw = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2, bias=False)).eval()
    size = torch.full((6,), 0.3)
    size[COSTLY], size[CHEAP] = 3.0, 0.01
    with torch.no_grad():
        model[0].weight.copy_((1 + 0.1 * torch.rand(6, 3, generator=draw)) * size[:, None])
        model[1].weight.copy_(size)
        model[1].bias.copy_(torch.where(torch.arange(6) == CHEAP, -0.002, 0.0))
        model[3].weight.copy_((1 + 0.1 * torch.rand(2, 6, generator=draw)) * size)
    inputs = 1 + torch.randn(64, 3, generator=draw)
    with torch.no_grad():
        targets = asked * model(inputs)
    return model, Rows(inputs, targets), ("0.weight", "3.weight")


def blocks(seed, asked):
    """Six residual blocks, of which one turns what passes and one hardly does."""
    draw = torch.Generator().manual_seed(seed)

    class Block(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.up, self.down = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
            with torch.no_grad():
                for layer in (self.up, self.down):
                    layer.weight.copy_(size * torch.randn(5, 5, generator=draw))

        def forward(self, x):
            return x + self.down(self.up(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(3, 5), nn.Linear(5, 2)
            self.blocks = nn.ModuleList(Block({COSTLY: 1.5, CHEAP: 0.01}.get(i, 0.3)) for i in range(6))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    torch.manual_seed(seed)
    model = Net().eval()
    inputs = torch.randn(64, 3, generator=draw)
    with torch.no_grad():
        targets = asked * model(inputs)
    return model, Rows(inputs, targets)


def loss_of(model, rows):
    with torch.no_grad():
        return float(squared_error(model(rows.inputs), Batch(None, None, rows.targets)))


def surely_costlier(model, rows, remove):
    """Check by removal that the oracle holds: the network is what the law needs."""
    base, found = loss_of(model, rows), {}
    for unit in (COSTLY, CHEAP):
        smaller = copy.deepcopy(model)
        with torch.no_grad():
            remove(smaller, unit)
        found[unit] = abs(loss_of(smaller, rows) - base)
    assert found[COSTLY] > 10 * found[CHEAP], found


def evidence_of(name, model, rows, names, blocks=()):
    """Gather as a run does; movement is that of a short training."""
    chosen = criteria[name]
    found = gather(model, names, rows, squared_error, chosen.needs, blocks=blocks)
    if "movement" in chosen.needs:
        moved = copy.deepcopy(model)
        recorder = MovementRecorder(moved, names)
        optimizer = torch.optim.SGD(moved.parameters(), lr=1e-5)
        recorder.attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            squared_error(moved(rows.inputs), Batch(None, None, rows.targets)).backward()
            optimizer.step()
        found = found.replaced("movement", recorder.movement)
    return found


def asked_of(name):
    return 0.9 if name in OVERSHOT else 1.25


@SEEDS
@judging("channel")
def test_the_width_whose_removal_costs_more_is_worth_more(name, seed):
    model, rows, _ = widths(seed, asked_of(name))

    def remove(smaller, unit):
        smaller[0].weight[unit], smaller[1].weight[unit], smaller[1].bias[unit] = 0, 0, 0

    surely_costlier(model, rows, remove)
    (group,) = analyze(model, (rows.inputs[:2],)).groups
    names = [member.tensor for member in group.members if member.is_parameter]
    found = evidence_of(name, model, rows, names)
    (stratum,) = score_groups([group], found, name, norm_scales=norm_scales(model))
    assert stratum.saliency[COSTLY] > stratum.saliency[CHEAP]


@SEEDS
@judging("weight")
def test_the_weight_whose_removal_costs_more_is_worth_more(name, seed):
    model, rows, (_, read) = widths(seed, asked_of(name))

    def remove(smaller, unit):
        smaller[3].weight[0, unit] = 0

    surely_costlier(model, rows, remove)
    found = evidence_of(name, model, rows, [read])
    (stratum,) = score_weights(found, [read], name)
    assert stratum.saliency[COSTLY] > stratum.saliency[CHEAP]


@SEEDS
@judging("block")
def test_the_block_whose_removal_costs_more_is_worth_more(name, seed):
    model, rows = blocks(seed, asked_of(name))

    def remove(smaller, unit):
        smaller.blocks[unit].down.weight.zero_()

    surely_costlier(model, rows, remove)
    (stack,) = analyze(model, (rows.inputs[:2],)).stacks
    names = [parameter for parameter, _ in model.named_parameters() if parameter.startswith("blocks.")]
    found = evidence_of(name, model, rows, names, block_paths([stack]))
    (stratum,) = score_groups([stack], found, name)
    assert stratum.saliency[COSTLY] > stratum.saliency[CHEAP]


WRONG, EASY, HARD = 0, 1, 2
FIRST_TO_GO = {
    "aum": (WRONG, EASY),
    "confidence": (WRONG, EASY),
    "coverage_centric": (WRONG, EASY),
    "el2n": (EASY, HARD),
    "entropy": (EASY, HARD),
    "forgetting": (EASY, WRONG),
    "grand": (EASY, HARD),
    "influence": (WRONG, EASY),
    "last_gradient": (EASY, HARD),
    "loss": (EASY, HARD),
    "margin": (EASY, HARD),
}
"""Of two examples, which goes first: one that contradicts the model, or one that it has long known."""


OF_MOVES = ("loss_deviation", "variability")
"""These judge how an answer moves from epoch to epoch, wherever it is."""
OF_PLACES = ("density", "moderate", "prototype")
"""These judge where an example lies."""
OF_SETS = ("facility_location", "k_centre")
"""These judge what an example adds to those that stay anyway."""
OF_CLUSTERS = ("cluster_coverage", "cluster_distance", "herding")
"""These judge by the means of crowds; each has a law of its own."""
ELSEWHERE = (*OF_MOVES, *OF_PLACES, *OF_SETS, *OF_CLUSTERS, "random")


@SEEDS
@pytest.mark.parametrize("name", [n for n in example_criteria if n not in ELSEWHERE])
def test_the_example_that_a_criterion_is_there_to_drop_is_worth_less(name, seed):
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(40) % 2
    inputs = (4.0 * targets - 2)[:, None] + 0.3 * torch.randn(40, 2, generator=draw)
    inputs[[WRONG, EASY]] = torch.tensor([[2.5, 2.5], [3.0, 3.0]])
    targets[[WRONG, EASY]] = torch.tensor([0, 1])
    inputs[HARD] = torch.tensor([0.1, 0.1])
    model = nn.Linear(2, 2)
    recorder = ExampleRecorder(40, Classification(("a", "b")))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(10):
        for batch in Rows(inputs, targets).batches(10):
            outputs = model(batch.inputs)
            recorder(epoch, batch, outputs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs, batch.targets).backward()
            optimizer.step()
    evidence = {**recorder.tensors(), "noise": torch.rand(40, generator=draw)}
    for need, layers in (("gradient", None), ("last_gradient", 1)):
        norms = gradient_norms(model, Rows(inputs, targets), Classification(("a", "b")), layers=layers)
        evidence[need] = torch.from_numpy(norms.value)
    clean = torch.arange(2, 40)
    known, task = Rows(inputs[clean], targets[clean]), Classification(("a", "b"))
    evidence |= influence_evidence([model.eval()], Rows(inputs, targets), known, task, layers=1)
    scores = example_criteria[name](evidence)
    first, later = FIRST_TO_GO[name]
    assert scores[first] < scores[later]


@pytest.mark.parametrize("name", OF_MOVES)
def test_an_answer_that_stays_is_worth_less_than_one_that_moves(name):
    recorder = ExampleRecorder(2, Classification(("a", "b")))
    batch = Batch(torch.arange(2), None, torch.zeros(2, dtype=torch.int64))
    for epoch in range(4):
        recorder(epoch, batch, torch.tensor([[2.0, 0.0], [2.0 * (-1) ** epoch, 0.0]]))
    stays, moves = example_criteria[name](recorder.tensors()).tolist()
    assert stays < moves


@SEEDS
@pytest.mark.parametrize("name", OF_PLACES)
def test_a_typical_example_is_worth_less_than_one_apart_from_the_crowd(name, seed):
    rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
    rows[:2] = torch.tensor([[0.02, 0.0, 0.0], [2.5, 0.0, 0.0]])
    evidence = {"embedding": rows, "label": torch.zeros(60, dtype=torch.int64)}
    worth = example_criteria[name](evidence)
    typical, apart = worth[:2].tolist()
    if name == "moderate":  # neither the typical one nor the one apart: what is as far as half of the class
        assert max(typical, apart) < worth.quantile(0.9)
        assert worth.max() == 0
    else:
        assert typical < apart


@SEEDS
@pytest.mark.parametrize("name", OF_SETS)
def test_a_twin_of_an_example_that_stays_is_worth_less_than_one_in_an_empty_place(name, seed):
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    rows[:3] = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.01, 0.0], [-9.0, 0.0, 0.0]])
    worth = example_criteria[name]({"embedding": rows, "label": torch.zeros(40, dtype=torch.int64)})
    assert worth[:2].min() < worth[3:].median() < worth[:2].max()
    assert worth[:2].min() < worth[2]


def crowds(seed):
    """Return six crowds of five, each with one in its middle, numbers 0 to 5, and one at its edge, numbers 6 to 11."""
    draw = torch.Generator().manual_seed(seed)
    middles = torch.zeros(6, 3)
    middles[:, 0] = torch.arange(0, 60, 10.0)
    edges = middles + torch.tensor([0.0, 2.0, 0.0])
    around = middles.repeat_interleave(5, 0) + 0.1 * torch.randn(30, 3, generator=draw)
    return torch.cat([middles, edges, around]), torch.rand(42, generator=draw)


@SEEDS
def test_an_example_in_the_middle_of_its_crowd_is_worth_less_than_one_at_its_edge(seed):
    rows, noise = crowds(seed)
    worth = example_criteria["cluster_distance"]({"embedding": rows, "noise": noise})
    assert (worth[:6] < worth[6:12]).all()


@SEEDS
def test_the_first_of_a_crowd_is_worth_more_than_the_second_of_any(seed):
    rows, noise = crowds(seed)
    worth = example_criteria["cluster_coverage"]({"embedding": rows, "noise": noise})
    crowd = (rows[:, 0] / 10).round()
    assert len(set(crowd[worth.argsort(descending=True)[:6]].tolist())) == 6


@SEEDS
def test_what_herding_keeps_has_the_mean_of_all_more_nearly_than_as_many_by_chance(seed):
    rows, _ = crowds(seed)

    def off(picked):
        return (rows[picked].mean(dim=0) - rows.mean(dim=0)).norm()

    draw = torch.Generator().manual_seed(seed)
    by_chance = torch.stack([off(torch.randperm(42, generator=draw)[:6]) for _ in range(100)])
    order = example_criteria["herding"]({"embedding": rows}).argsort(descending=True)
    assert off(order[:6]) < by_chance.quantile(0.1)
