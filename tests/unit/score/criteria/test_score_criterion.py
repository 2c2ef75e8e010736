"""A criterion says what it judges and what it reads, contradictions are refused, and it gets nothing else."""

import pytest
import torch

from prunus.core.errors import RecipeError
from prunus.score import EVERY_UNIT, WIDTHS, Evidence, criteria, criterion, score_groups
from prunus.score.criteria.criterion import Criterion
from score_stand_ins import Group, Member, one_each


@pytest.fixture
def registry(monkeypatch):
    """What a test adds to the registry is gone after it."""
    monkeypatch.setattr(criteria, "_items", dict(criteria._items))


def of_reads(reads, needs=("weight",), granularities=WIDTHS):
    return Criterion("mine", needs, lambda *tensors: tensors[0], "", reads=reads, granularities=granularities)


@pytest.mark.parametrize(
    ("reads", "needs", "granularities", "said"),
    [
        ("makers", ("weight",), WIDTHS, "reads 'makers' needs one of active_fraction, output_mean"),
        ("makers", ("weight", "input_norm"), WIDTHS, "got weight, input_norm"),
        ("readers", ("output_mean",), WIDTHS, "reads 'readers' needs one of input_norm, inverse_gram, got output_mean"),
        ("layers", ("gradient",), EVERY_UNIT, "reads 'layers' needs one of"),
        ("makers", ("output_mean",), EVERY_UNIT, "says nothing of single weights"),
        ("norm_scales", ("weight",), EVERY_UNIT, "says nothing of single weights"),
        ("blocks", ("block_cosine",), ("channel",), "belong together"),
        ("parameters", ("block_cosine",), ("block",), "belong together"),
        ("parameters", ("weight",), ("chanel",), r"granularities must be among weight.*got \['chanel'\]"),
        ("parameters", ("weight",), (), "got none"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_in_one_line(reads, needs, granularities, said):
    with pytest.raises(RecipeError, match=said) as refused:
        of_reads(reads, needs, granularities)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("criterion 'mine': ")


@pytest.mark.parametrize(
    ("name", "expected"), [("obs", "afterwards"), ("sparsegpt", "column_by_column"), ("wanda", None)]
)
def test_what_is_made_good_is_a_field(name, expected):
    assert criteria[name].compensation == expected


CHAIN = {
    "weight": {"made": torch.ones(4, 3), "read": torch.full((5, 4), 10.0)},
    "input_norm": {"made": torch.full((1, 3), 7.0), "read": torch.arange(1.0, 5.0)[None]},
    "output_mean": {"made": torch.arange(1.0, 5.0)[:, None], "read": torch.full((5, 1), 7.0)},
}


def chain(*tensors):
    members = [Member("made", 0, one_each(4)), Member("read", 1, one_each(4))]
    return Group("0", 4, tuple(member for member in members if member.tensor in tensors))


def evidence_of():
    return Evidence(CHAIN["weight"], more={need: CHAIN[need] for need in ("input_norm", "output_mean")})


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(("reads", "need"), [("makers", "output_mean"), ("readers", "input_norm")])
def test_a_criterion_sees_the_members_that_it_says_and_no_others(reads, need):
    """It needs the weight, too, which every member has: that makes no member a maker or a reader."""
    seen = []

    @criterion("looks", needs=("weight", need), reads=reads, granularities=WIDTHS)
    def looks(weight, measured):
        seen.append(float(weight[0, 0]))
        return measured.mean(dim=1)

    (stratum,) = score_groups([chain("made", "read")], evidence_of(), "looks")
    assert stratum.saliency.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert seen == [1.0 if reads == "makers" else 10.0]


def test_a_group_that_nothing_reads_is_not_judged_by_what_makes_it():
    notes = []
    (stratum,) = score_groups([chain("made")], evidence_of(), "wanda", note=notes.append)
    assert stratum.saliency.tolist() == [pytest.approx(3**0.5)] * 4
    assert notes == ["0: has no layer whose inputs were seen for wanda, so it is judged by magnitude_l2"]
