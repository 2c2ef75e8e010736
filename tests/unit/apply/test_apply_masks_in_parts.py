"""Do masks hold where FSDP2 puts a model into parts, and what becomes of those of ``torch.nn.utils.prune`` there?"""

import json
import sys
from pathlib import Path

import pytest

from fsdp_masks_child import WAYS
from ranks_child import ended, start

CHILD = Path(__file__).parents[2] / "fsdp_masks_child.py"
OURS = [name for name in WAYS if name.startswith("prunus")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two ranks found after a hundred steps."""
    folder = tmp_path_factory.mktemp("ranks")
    said = ended(start([sys.executable, "-W", "ignore", str(CHILD), str(folder)]))
    assert [code for code, _, _ in said] == [0, 0], said
    return [json.loads((folder / f"rank {rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", OURS)
def test_zeros_hold_on_every_rank_whichever_came_first_and_what_is_gathered_loads(found, name, rank):
    assert found[rank][name] == {
        "names": ["2.bias", "2.weight"],
        "zeros": True,
        "the rest lives": True,
        "zeros here": True,
        "loads": True,
    }


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", [name for name in WAYS if name not in OURS])
def test_the_field_s_masks_end_in_an_error_or_are_lost_or_stale(found, name, rank):
    one = found[rank][name]
    assert "raised" in one or not one.get("zeros", not one.get("stale"))
