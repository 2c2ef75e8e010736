"""Units are cut out of parameters as the groups say."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError, RecipeError, UnknownNameError
from prunus.score import Evidence, criteria, norm_scales, prunable_weights, score_groups, score_weights
from prunus.score.unit_saliency import unit_rows
from score_stand_ins import Group, Member, one_each


@dataclass(frozen=True)
class Graph:
    groups: tuple


@pytest.fixture
def conv():
    """conv(4) - norm - relu - flatten(3x3) - linear, and the group of the conv's channels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    nn.init.normal_(model[1].weight)
    members = (
        Member("0.weight", 0, one_each(4)),
        Member("0.bias", 0, one_each(4)),
        Member("1.weight", 0, one_each(4)),
        Member("1.bias", 0, one_each(4)),
        Member("1.running_mean", 0, one_each(4), is_parameter=False),
        Member("4.weight", 1, torch.arange(36).view(4, 9)),
    )
    return model, Graph((Group("0", 4, members),))


def evidence_of(model):
    torch.manual_seed(3)
    weight = {name: p.detach() for name, p in model.named_parameters()}
    return Evidence(weight, {name: torch.randn_like(p) for name, p in weight.items()})


def slices(model, evidence, kind, unit):
    """The numbers of one channel in every member, by plain indexing."""
    held = evidence.weight if kind == "weight" else evidence.gradient
    return [
        held["0.weight"][unit],
        held["0.bias"][unit],
        held["1.weight"][unit],
        held["1.bias"][unit],
        held["4.weight"][:, 9 * unit : 9 * unit + 9],
    ]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    ("criterion", "formula"),
    [
        ("magnitude_l1", lambda w, g: w.abs().sum()),
        ("magnitude_l2", lambda w, g: w.square().sum().sqrt()),
        ("magnitude_linf", lambda w, g: w.abs().max()),
        ("l1", lambda w, g: w.square().sum().sqrt()),
        ("gradient", lambda w, g: g.abs().sum()),
        ("taylor", lambda w, g: (w * g).abs().sum()),
        ("taylor_sum", lambda w, g: (w * g).sum().abs()),
    ],
)
def test_a_channel_s_saliency_is_the_formula_over_its_slices(conv, criterion, formula, reduce):
    model, graph = conv
    evidence = evidence_of(model)
    (stratum,) = score_groups(graph.groups, evidence, criterion, reduce=reduce)
    combine = {"sum": sum, "mean": lambda s: sum(s) / len(s), "max": max}[reduce]
    expected = [
        combine(
            [
                float(formula(w, g))
                for w, g in zip(
                    slices(model, evidence, "weight", u), slices(model, evidence, "gradient", u), strict=True
                )
            ]
        )
        for u in range(4)
    ]
    np.testing.assert_allclose(stratum.saliency, expected, rtol=1e-5)
    assert stratum.name == "0"
    assert stratum.cost == 2 * 9 + 1 + 1 + 1 + 5 * 9


def test_bn_scale_reads_only_the_scales(conv):
    model, graph = conv
    evidence = evidence_of(model)
    (stratum,) = score_groups(graph.groups, evidence, "bn_scale", norm_scales=norm_scales(model))
    np.testing.assert_allclose(stratum.saliency, model[1].weight.detach().abs().numpy())


def test_a_group_without_a_norm_is_judged_by_magnitude_and_that_is_said(conv):
    model, graph = conv
    evidence, notes = evidence_of(model), []
    (fallback,) = score_groups(graph.groups, evidence, "bn_scale", norm_scales=(), note=notes.append)
    (magnitude,) = score_groups(graph.groups, evidence, "magnitude_l2")
    np.testing.assert_array_equal(fallback.saliency, magnitude.saliency)
    assert notes == ["0: has no normalisation scale for bn_scale, so it is judged by magnitude_l2"]


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_unit_rows_hold_exactly_the_numbers_of_each_unit(dim):
    tensor = torch.arange(4 * 6 * 8.0).view(4, 6, 8)
    index = torch.randperm(tensor.shape[dim], generator=torch.Generator().manual_seed(0)).view(2, -1)
    rows = unit_rows(tensor, dim, index)
    for row, positions in zip(rows, index, strict=True):
        expected = tensor.index_select(dim, positions).flatten()
        assert sorted(row.tolist()) == sorted(expected.tolist())


def test_evidence_of_weight_and_gradient_lines_up_in_unit_rows():
    index = torch.tensor([[3, 0], [1, 2]])
    tensor = torch.randn(5, 4)
    assert torch.equal(unit_rows(tensor, 1, index) * unit_rows(tensor, 1, index), unit_rows(tensor**2, 1, index))


def test_a_weight_s_saliency_stands_at_its_flat_index(conv):
    model, _ = conv
    evidence = evidence_of(model)
    names = ["0.weight", "4.weight"]
    for criterion, formula in {
        "magnitude_l1": lambda w, g: w.abs(),
        "magnitude_l2": lambda w, g: w.abs(),
        "magnitude_linf": lambda w, g: w.abs(),
        "l1": lambda w, g: w.abs(),
        "gradient": lambda w, g: g.abs(),
        "taylor": lambda w, g: (w * g).abs(),
        "taylor_sum": lambda w, g: (w * g).abs(),
    }.items():
        strata = score_weights(evidence, names, criterion)
        assert [s.name for s in strata] == names
        for stratum in strata:
            expected = formula(evidence.weight[stratum.name], evidence.gradient[stratum.name]).flatten()
            np.testing.assert_allclose(stratum.saliency, expected.numpy(), rtol=1e-6)
            assert stratum.saliency.dtype == np.float64


def test_tiny_and_huge_half_precision_weights_keep_their_order():
    weight = {"w": torch.tensor([[6e-5, 3e4], [6e4, 1e-4]], dtype=torch.float16)}
    (stratum,) = score_weights(Evidence(weight), ["w"], "magnitude_l2")
    assert np.argsort(stratum.saliency).tolist() == [0, 3, 1, 2]


def test_chance_is_the_same_for_the_same_seed_and_another_for_another_layer(conv):
    model, graph = conv
    evidence = evidence_of(model)

    def draw(seed):
        weights = score_weights(evidence, ["0.weight", "4.weight"], "random", seed=seed)
        return [*weights, *score_groups(graph.groups, evidence, "random", seed=seed)]

    first, again, other = draw(0), draw(0), draw(1)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.saliency, b.saliency)
        assert (a.saliency != c.saliency).any()
    assert first[0].saliency[:10].tolist() != first[1].saliency[:10].tolist()
    twins = Graph((graph.groups[0], Group("twin", 4, graph.groups[0].members)))
    one, two = score_groups(twins.groups, evidence, "random")
    assert (one.saliency != two.saliency).any()


def test_what_can_not_be_judged_is_refused(conv):
    model, graph = conv
    evidence = evidence_of(model)
    with pytest.raises(RecipeError, match="'bn_scale' doesn't judge weights: choose among"):
        score_weights(evidence, ["0.weight"], "bn_scale")
    with pytest.raises(UnknownNameError, match="did you mean 'taylor'"):
        score_weights(evidence, ["0.weight"], "tailor")
    with pytest.raises(RecipeError, match="reduce must be one of sum, mean, max, first: got 'median'"):
        score_groups(graph.groups, evidence, "taylor", reduce="median")
    with pytest.raises(ModelError, match=r"no gradient was gathered for '0.weight'"):
        score_weights(Evidence(evidence.weight), ["0.weight"], "taylor")
    with pytest.raises(ModelError, match="'g' has no parameter"):
        score_groups((Group("g", 2, ()),), evidence, "taylor")


def test_every_criterion_says_what_it_is():
    for name in criteria:
        assert criteria[name].summary, name
        assert not criteria[name].summary.startswith("Return"), name


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(3, 3))
        self.position = nn.Parameter(torch.zeros(1, 5, 3))
        self.scale = nn.Parameter(torch.ones(3))
        self.words = nn.Embedding(7, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm((2, 3))
        self.head = nn.Linear(3, 7, bias=False)
        self.tied = nn.Linear(3, 7, bias=False)
        self.tied.weight = self.words.weight


def test_prunable_are_matrices_that_map_and_no_tables_or_scales():
    model = Custom()
    found = prunable_weights(model)
    assert found == ["matrix", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight"]
    assert prunable_weights(model, ["attention*", "head"]) == ["matrix"]
    assert prunable_weights(model, ["*.weight"]) == ["matrix", "attention.in_proj_weight"]


def test_norm_scales_are_the_one_dimensional_weights_of_norm_layers():
    model = nn.ModuleDict(
        {"b": nn.BatchNorm1d(3), "g": nn.GroupNorm(1, 3), "l": nn.LayerNorm((2, 2)), "f": nn.Linear(1, 1)}
    )
    model["plain"] = nn.BatchNorm1d(3, affine=False)
    assert norm_scales(model) == {"b.weight", "g.weight"}
