"""A run says which allocation would have lost least at the same cost, on examples that no fit saw."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from prunus import ModelOptimizer, prune
from prunus.models.builtin import cnn
from prunus.report import print_summary, render_html
from prunus.report.page.repairs import allocation_line


def two_layers() -> nn.Sequential:
    """Twelve units that all matter, then twelve of which eight give nothing: as many in each layer is the wrong cut."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        model[0].weight.copy_(4 * torch.eye(12))
        model[2].weight[4:] *= 1e-4
        model[2].bias[4:] = 0
        model[4].weight[:, 4:] *= 1e-4
    return model


def cut(model: nn.Module, inputs: torch.Tensor, **settings):
    targets = torch.arange(len(inputs)) % 3
    recovery = {"method": "none", "adjust": settings.pop("adjust", [])}
    target, listener = settings.pop("target", None), settings.pop("listener", None)
    return ModelOptimizer(
        model,
        (inputs, targets),
        strategy={"criterion": "magnitude_l2", "normalize": "none", **settings},
        target=target,
        recovery=recovery,
        evaluation={
            "metrics": ["accuracy"],
            "bootstrap": 100,
            "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1},
        },
        trained=True,
        seeds=[0],
        listener=listener,
    )


INPUTS = torch.randn(240, 12, generator=torch.Generator().manual_seed(1))


def test_the_allocation_that_would_have_lost_less_is_named_in_the_summary_and_on_the_page():
    record = cut(two_layers(), INPUTS, keep_fraction=0.75).run()
    (facts,) = record.allocations
    rows = {row.allocation: row for row in facts.rows}
    assert list(rows) == ["uniform", "global", "cost"]
    assert [row.chosen for row in facts.rows] == [True, False, False]
    assert rows["global"].distance < 1e-4 < 1e-3 < rows["uniform"].distance
    assert all(row.share <= rows["uniform"].share for row in facts.rows)
    assert allocation_line(record).startswith("allocation: global would have lost less than uniform at the same MACs")
    text = io.StringIO()
    print_summary(record, Console(file=text, width=400))
    assert allocation_line(record) in text.getvalue()
    assert "global would have lost less" in render_html(record)


@pytest.mark.parametrize("settings", [{"allocation": "global", "keep_fraction": 0.75}, {"target": {"params": 0.8}}])
def test_a_good_choice_is_said_to_be_one(settings):
    record = cut(two_layers(), INPUTS, **settings).run()
    chosen = "cost" if "target" in settings else "global"
    cost = "parameters" if "target" in settings else "MACs"
    line = f"allocation: none that was tried would have lost clearly less than {chosen} at the same {cost}"
    assert allocation_line(record).startswith(line)


def scaled() -> nn.Sequential:
    """The same function as a net of equal layers, with small weights first and large ones then: L2 norms say little here."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
    with torch.no_grad():
        for layer, factor in ((0, 0.3), (2, 3.0), (4, 4.4)):
            model[layer].weight.mul_(factor)
            model[layer].bias.mul_(min(factor, 3.0))
    return model


def test_where_the_cost_aware_allocation_of_l2_loses_to_the_uniform_one_every_way_of_pruning_says_so():
    said = "would have lost less than cost at the same"
    record = cut(scaled(), INPUTS, target={"macs": 0.5}).run()
    rows = {row.allocation: row for row in record.allocations[0].rows}
    assert rows["cost"].chosen
    assert rows["uniform"].distance < 0.9 * rows["cost"].distance
    assert said in allocation_line(record)
    heard: list[str] = []
    optimizer = cut(scaled(), INPUTS, target={"macs": 0.5}, listener=lambda event: heard.append(event.message))
    optimizer.prune()
    assert any(said in message for message in heard)
    asked = {"criterion": "magnitude_l2", "target": {"macs": 0.5}, "data": INPUTS, "adjust": ()}
    named = prune(scaled(), INPUTS[:4], allocation="cost", listener=lambda event: None, **asked)
    assert f"allocation: uniform {said}" in repr(named)
    chosen = prune(scaled(), INPUTS[:4], listener=lambda event: None, **asked)
    assert not any(note.startswith("allocation") for note in chosen.notes)
    tried = {row.allocation: row for row in chosen.tried}
    assert tried["uniform"].zeroed < tried["cost"].zeroed
    assert chosen.distance == min(row.adjusted for row in chosen.tried)
    assert chosen.distance < named.distance


def test_the_distance_by_zeros_is_that_of_the_model_which_is_really_smaller():
    torch.manual_seed(0)
    model = cnn(input_shape=(1, 8, 8), n_outputs=3, width=6).eval()
    inputs = torch.randn(200, 1, 8, 8)
    record = cut(model, inputs, keep_fraction=0.5, adjust=["bias"], schedule={"kind": "linear", "rounds": 2}).run()
    first, second = record.allocations
    assert (first.cut, second.cut) == (1, 2)
    assert first.rows[0].distance == pytest.approx(record.adjustments[0].checks[0].before, rel=1e-4)


def test_single_weights_are_compared_at_the_same_number_of_them_in_every_round():
    schedule = {"kind": "linear", "rounds": 2}
    record = cut(two_layers(), INPUTS, granularity="weight", keep_fraction=0.4, schedule=schedule).run()
    assert [[row.allocation for row in facts.rows] for facts in record.allocations] == [["uniform", "global"]] * 2
    for facts in record.allocations:
        assert facts.cost == "weights"
        assert facts.rows[0].share == pytest.approx(facts.rows[1].share, abs=0.01)


def test_it_can_be_turned_off_and_changes_no_cut():
    first, second = (
        cut(two_layers(), INPUTS, keep_fraction=0.75, compare_allocations=on).prune() for on in (True, False)
    )
    for with_it, without in zip(first.model_.parameters(), second.model_.parameters(), strict=True):
        assert torch.equal(with_it, without)
    record = cut(two_layers(), INPUTS, keep_fraction=0.75, compare_allocations=False).run()
    assert record.allocations == []
    assert allocation_line(record) == ""
