"""Criteria whose evidence lies along one side of a weight read the members that have it, and say where none has."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.score import Evidence, block_paths, gather, score_groups, score_weights
from score_stand_ins import Group, Member, one_each

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight"]


@pytest.fixture
def conv(examples_of):
    """conv(4) - norm - relu - flatten(3x3) - linear, the group of the conv's channels, and ten examples."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)).eval()
    members = tuple(Member(name, 0, one_each(4)) for name in NAMES[:4])
    members = (Member("4.weight", 1, torch.arange(36).view(4, 9)), *members)
    examples = examples_of(torch.randn(10, 2, 5, 5), torch.arange(10) % 5)
    return model, Group("0", 4, members), examples


def gathered(conv, *needs, **options):
    model, _, examples = conv
    loss = lambda o, b: nn.functional.cross_entropy(o, b.targets)  # noqa: E731
    return gather(model, NAMES, examples, loss, needs, **options)


def test_wanda_weighs_a_channel_s_outputs_with_the_weights_that_read_them(conv):
    model, group, examples = conv
    (stratum,) = score_groups([group], gathered(conv, "weight", "input_norm"), "wanda")
    with torch.no_grad():
        hidden = model[:4](examples.inputs)
        expected = (model[4].weight.abs() * hidden.norm(dim=0)).sum(0).view(4, 9).sum(1)
    np.testing.assert_allclose(stratum.saliency, expected.numpy(), rtol=1e-5)


def test_activation_criteria_read_what_makes_a_channel_behind_its_relu(conv):
    model, group, examples = conv
    evidence = gathered(conv, "active_fraction", "output_mean", "output_variance")
    with torch.no_grad():
        hidden = model[:3](examples.inputs).movedim(1, 0).flatten(1).double()
    for name, expected in {
        "apoz": 1 - (hidden == 0).double().mean(1),
        "activation_mean": hidden.mean(1),
        "activation_variance": hidden.var(1, correction=0),
    }.items():
        (stratum,) = score_groups([group], evidence, name)
        np.testing.assert_allclose(stratum.saliency, expected.numpy(), rtol=1e-4, atol=1e-9)


def test_a_group_without_a_layer_that_was_seen_is_judged_by_magnitude_and_that_is_said(conv):
    _, group, _ = conv
    evidence, notes = gathered(conv, "weight", "input_norm", "output_mean"), []
    norms_only = Group("norm", 4, tuple(m for m in group.members if m.tensor.startswith("1.")))
    (magnitude,) = score_groups([norms_only], evidence, "magnitude_l2")
    for name, lacks in (("wanda", "inputs"), ("activation_mean", "outputs")):
        (fallback,) = score_groups([norms_only], evidence, name, note=notes.append)
        np.testing.assert_array_equal(fallback.saliency, magnitude.saliency)
        assert notes.pop() == f"norm: has no layer whose {lacks} were seen for {name}, so it is judged by magnitude_l2"


def test_the_first_member_is_the_one_that_makes_the_axis(conv):
    model, group, _ = conv
    (stratum,) = score_groups([group], gathered(conv, "weight"), "magnitude_l1", reduce="first")
    np.testing.assert_allclose(stratum.saliency, model[0].weight.detach().abs().flatten(1).sum(1).numpy(), rtol=1e-6)


def test_single_weights_of_wanda_compete_in_their_rows(conv):
    model, _, examples = conv
    (stratum,) = score_weights(gathered(conv, "weight", "input_norm"), ["4.weight"], "wanda")
    with torch.no_grad():
        expected = model[4].weight.abs() * model[:4](examples.inputs).norm(dim=0)
    np.testing.assert_allclose(stratum.saliency, expected.flatten().numpy(), rtol=1e-5)
    assert stratum.row.tolist() == [row for row in range(5) for _ in range(36)]


def test_rows_of_a_weight_that_stands_the_other_way_are_its_columns():
    weight, norm = torch.ones(2, 3), torch.ones(2, 1)
    evidence = Evidence({"w": weight}, more={"input_norm": {"w": norm}})
    (stratum,) = score_weights(evidence, ["w"], "wanda")
    assert stratum.row.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_weight_whose_inputs_were_not_seen_is_judged_by_magnitude_and_that_is_said():
    weight = torch.tensor([[1.0, -2.0]])
    evidence, notes = Evidence({"w": weight}, more={"input_norm": {}}), []
    (stratum,) = score_weights(evidence, ["w"], "wanda", note=notes.append)
    assert stratum.saliency.tolist() == [1.0, 2.0]
    assert notes == ["w: has no layer whose inputs were seen for wanda, so it is judged by magnitude_l2"]
    with pytest.raises(ModelError, match=r"no input_norm was gathered for 'w'"):
        score_weights(Evidence({"w": weight}), ["w"], "wanda")


def test_blocks_are_judged_by_what_passes_through_them():
    group = Group("stack", 2, (), ("layers",), (0, 2))
    assert block_paths([group]) == ["layers.0", "layers.2"]
    weight = {"layers.0.w": torch.ones(2, 2), "layers.2.w": torch.ones(2, 2)}
    cosine = {"layers.0": torch.tensor(0.75), "layers.2": torch.tensor(-0.5)}
    (stratum,) = score_groups([group], Evidence(weight, more={"block_cosine": cosine}), "block_influence")
    assert stratum.saliency.tolist() == [0.25, 1.5]
    with pytest.raises(ModelError, match=r"no block_cosine was gathered for 'layers.2'"):
        score_groups(
            [group], Evidence(weight, more={"block_cosine": {"layers.0": cosine["layers.0"]}}), "block_influence"
        )


def test_several_criteria_share_one_pass(conv):
    """All kinds at once are what each kind is alone."""
    kinds = ("gradient", "input_norm", "output_mean", "curvature", "inverse_gram")
    calls, model = [], conv[0]
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    together = gathered(conv, "gradient", "input_norm", "output_mean", "inverse_gram", batch_size=5)
    handle.remove()
    assert len(calls) == 2
    assert together.n_examples == 10
    together = gathered(conv, *kinds)
    for kind in kinds:
        alone = gathered(conv, kind).of(kind)
        assert set(alone) == set(together.of(kind))
        for name, value in alone.items():
            torch.testing.assert_close(together.of(kind)[name], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("container", ["experts", ""])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "first"])
def test_a_module_that_is_a_unit_is_judged_by_all_that_lies_inside_and_by_its_slices_outside(container, reduce):
    """Twelve modules, of which three are units: number 1 isn't number 10 and 11."""
    torch.manual_seed(0)
    entries = (1, 10, 3)
    inside = nn.Sequential(*(nn.Linear(4, 2) for _ in range(12)))
    model = nn.ModuleDict({container: inside, "router": nn.Linear(5, 3)}) if container else inside
    weight = {name: value.detach() for name, value in model.named_parameters()}
    router = (Member("router.weight", 0, one_each(3)),) if container else ()
    group = Group("stack", 3, router, (container,), entries)
    (stratum,) = score_groups([group], Evidence(weight), "magnitude_l2", reduce=reduce)
    scores = []
    for row, entry in enumerate(entries):
        outside = [weight["router.weight"][row]] if container else []
        parts = [weight[f"{container}.{entry}.{name}".removeprefix(".")] for name in ("weight", "bias")]
        scores.append([float(part.norm()) for part in [*outside, *parts]])
    reduced = {"sum": np.sum, "mean": np.mean, "max": np.max, "first": lambda rows, axis: np.array(rows)[:, 0]}
    np.testing.assert_allclose(stratum.saliency, reduced[reduce](scores, axis=1), rtol=1e-6)
    assert stratum.cost == 4 * 2 + 2 + (5 if container else 0)
