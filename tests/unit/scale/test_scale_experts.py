from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.core.errors import RecipeError
from prunus.scale import prune_layerwise

EXPERTS, WIDTH, INNER = 4, 8, 12


class Mixture(nn.Module):
    """Each row goes to one expert by its first value; how the experts are stored and multiplied is ``kind``."""

    def __init__(self, kind: str, used: int = EXPERTS) -> None:
        super().__init__()
        self.kind, self.used = kind, used
        draw = torch.Generator().manual_seed(0)
        ups, downs = (
            torch.randn(EXPERTS, INNER, WIDTH, generator=draw),
            torch.randn(EXPERTS, WIDTH, INNER, generator=draw),
        )
        if kind == "layers":
            self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER, bias=False) for _ in range(EXPERTS))
            self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH, bias=False) for _ in range(EXPERTS))
            for i in range(EXPERTS):
                self.ups[i].weight.data, self.downs[i].weight.data = ups[i].clone(), downs[i].clone()
        elif "flipped" in kind:
            self.up, self.down = nn.Parameter(ups.mT.contiguous()), nn.Parameter(downs.mT.contiguous())
        else:
            self.up, self.down = nn.Parameter(ups), nn.Parameter(downs)

    def matrices(self) -> list[torch.Tensor]:
        """The experts' matrices as (outputs, inputs)."""
        if self.kind == "layers":
            return [layer.weight.detach() for layer in (*self.ups, *self.downs)]
        found = [*self.up.detach(), *self.down.detach()]
        return [matrix.mT for matrix in found] if "flipped" in self.kind else found

    def product(self, weight: nn.Parameter, expert: int, rows: torch.Tensor) -> torch.Tensor:
        return rows @ weight[expert] if "flipped" in self.kind else nn.functional.linear(rows, weight[expert])

    def forward(self, x):
        rows = x.reshape(-1, WIDTH)
        chosen = (rows[:, 0].abs() * 10).long() % self.used
        if "batched" in self.kind:
            up = self.up if "flipped" in self.kind else self.up.mT
            down = self.down if "flipped" in self.kind else self.down.mT
            each = rows * nn.functional.one_hot(chosen, EXPERTS).T.unsqueeze(-1)
            return x + (torch.relu(each @ up) @ down).sum(0).view_as(x)
        if "grouped" in self.kind:
            order = chosen.argsort(stable=True)
            ends = nn.functional.one_hot(chosen, EXPERTS).sum(0).cumsum(0).to(torch.int32)
            up, down = (self.up, self.down) if "flipped" in self.kind else (self.up.mT, self.down.mT)
            made = torch._grouped_mm(torch.relu(torch._grouped_mm(rows[order], up, offs=ends)), down, offs=ends)
            return x + torch.empty_like(rows).index_copy(0, order, made).view_as(x)
        out = torch.zeros_like(rows)
        for expert in chosen.unique().tolist():
            mine = chosen == expert
            if self.kind == "layers":
                out[mine] = self.downs[expert](torch.relu(self.ups[expert](rows[mine])))
            else:
                hidden = torch.relu(self.product(self.up, expert, rows[mine]))
                out[mine] = self.product(self.down, expert, hidden)
        return x + out.view_as(x)


def batches() -> list[torch.Tensor]:
    return [torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(i)) * torch.arange(1, 9) for i in range(3)]


STACKED = ("loop", "loop, flipped", "batched", "batched, flipped", "grouped", "grouped, flipped")


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("kind", STACKED)
def test_stacked_experts_lose_what_single_layers_lose(kind, criterion):
    stacked, single = (nn.Sequential(Mixture(k), Mixture(k)) for k in (kind, "layers"))
    amount = {"n_m": (2, 4)} if criterion == "magnitude" else {"keep_fraction": 0.5}
    reports = prune_layerwise(stacked, batches(), criterion=criterion, **amount)
    prune_layerwise(single, batches(), criterion=criterion, **amount)
    assert [(r.name, 2 * r.kept) for r in reports] == [
        (f"{i}.{n}", r.total) for i in (0, 1) for n, r in zip(("up", "down"), reports, strict=False)
    ]
    for mine, theirs in zip(stacked, single, strict=True):
        for one, other in zip(mine.matrices(), theirs.matrices(), strict=True):
            assert torch.allclose(one, other, atol=1e-4)
            assert torch.equal(one == 0, other == 0)


@pytest.mark.parametrize("kind", ["loop", "batched", "grouped"])
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_an_expert_that_no_row_reached_stays_whole_and_the_report_counts_it(kind, criterion):
    model = nn.Sequential(Mixture(kind, used=3), Mixture(kind, used=3))
    before = copy.deepcopy(model)
    reports = prune_layerwise(model, batches(), criterion=criterion, keep_fraction=0.5)
    assert torch.equal(model[0].up[3], before[0].up[3])
    assert all(report.kept == report.total * 5 // 8 for report in reports)


class Loose(nn.Module):
    """A matrix in no layer, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.mix = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.eye(WIDTH))

    def forward(self, x):
        return self.inner(x @ self.mix)


def test_a_matrix_that_no_layer_holds_is_named_as_whole_unless_it_was_excluded():
    model = nn.Sequential(Loose(), Loose())
    reports = prune_layerwise(copy.deepcopy(model), batches(), criterion="wanda", keep_fraction=0.5)
    assert {report.name for report in reports if report.kept == report.total} == {"0.mix", "1.mix"}
    mine = prune_layerwise(copy.deepcopy(model), batches(), criterion="wanda", keep_fraction=0.5, exclude=["*.mix"])
    assert [report.name for report in mine] == ["0.inner", "1.inner"]


def test_experts_are_excluded_by_their_parameter_s_or_their_module_s_name_and_checked_like_layers():
    model = nn.Sequential(Mixture("loop"), nn.Linear(WIDTH, WIDTH), Mixture("loop"))
    reports = prune_layerwise(model, batches(), criterion="wanda", keep_fraction=0.5, exclude=["0", "2.up"])
    assert [report.name for report in reports] == ["1", "2.down"]
    with pytest.raises(RecipeError, match=r"2:5 needs .*0\.up has 8"):
        prune_layerwise(nn.Sequential(Mixture("loop"), Mixture("loop")), batches(), n_m=(2, 5))


def test_a_finished_block_of_experts_comes_back_from_its_folder(tmp_path):
    whole, again = (nn.Sequential(Mixture("grouped"), Mixture("grouped")) for _ in range(2))
    one = prune_layerwise(whole, batches(), keep_fraction=0.5, folder=tmp_path / "run")
    other = prune_layerwise(again, batches(), keep_fraction=0.5, folder=tmp_path / "run")
    assert one == other
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_that_is_computed_anew_stays_whole_and_is_named(norm):
    model = nn.Sequential(norm(nn.Linear(WIDTH, WIDTH)), nn.Linear(WIDTH, WIDTH))
    before = model[0](batches()[0])
    reports = prune_layerwise(model, batches(), criterion="wanda", keep_fraction=0.5)
    assert torch.equal(model[0](batches()[0]), before)
    assert [report.name for report in reports if report.kept < report.total] == ["1"]
    assert any(report.name.startswith("0.") for report in reports)
