"""Do masks hold where FSDP2 puts a model into parts, and what becomes of those of ``torch.nn.utils.prune`` there?"""

import json
import sys
from pathlib import Path

import pytest

from fsdp_masks_child import WAYS
from ranks_child import ended, start

CHILD = Path(__file__).parents[2] / "fsdp_masks_child.py"
OURS = [name for name in WAYS if name.startswith("prunus")]


HOLDS = {
    "names": ["2.bias", "2.weight"],
    "zeros": True,
    "the rest lives": True,
    "zeros here": True,
    "loads": True,
}


def found_by(folder, n_ranks):
    """Return what each rank found after a hundred steps."""
    said = ended(start([sys.executable, "-W", "ignore", str(CHILD), str(folder)], n_ranks))
    assert [code for code, _, _ in said] == [0] * n_ranks, said
    return [json.loads((folder / f"rank {rank}.json").read_text()) for rank in range(n_ranks)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_by(tmp_path_factory.mktemp("ranks"), 2)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", OURS)
def test_zeros_hold_on_every_rank_whichever_came_first_and_what_is_gathered_loads(found, name, rank):
    assert found[rank][name] == HOLDS


@pytest.mark.nightly
@pytest.mark.parametrize("n_ranks", [3, 4])
def test_zeros_hold_on_each_of_three_and_four_ranks(tmp_path, n_ranks):
    for rank in found_by(tmp_path, n_ranks):
        assert [rank[name] for name in OURS] == [HOLDS] * len(OURS)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", [name for name in WAYS if name not in OURS])
def test_the_field_s_masks_end_in_an_error_or_are_lost_or_stale(found, name, rank):
    one = found[rank][name]
    assert "raised" in one or not one.get("zeros", not one.get("stale"))
