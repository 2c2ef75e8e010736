"""What is tried again, and how often: the same for every kind of worker."""

import pytest

from prunus.core.errors import OutputError
from prunus.scale.dispatch.attempt import Failure, Tries


@pytest.mark.parametrize("kind", ["again", "died"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_trouble_that_may_pass_is_tried_again_so_often_after_all_others_were_begun(kind, retries):
    tries = Tries(3, retries)
    begun, settled = [], []
    while tries.waiting:
        begun.append(tries.begin())
        settled += tries.settle(begun[-1], kind if begun[-1] == 0 else "done", f"of {begun[-1]}")
    assert begun == [0, 1, 2, *[0] * retries]
    assert sorted(settled) == [(0, Failure("of 0", retries + 1)), (1, "of 1"), (2, "of 2")]


def test_what_would_come_again_is_tried_once_and_an_output_that_cannot_be_written_ends_all():
    tries = Tries(2, 5)
    assert list(tries.settle(tries.begin(), "failed", "wrong data")) == [(0, Failure("wrong data", 1))]
    with pytest.raises(OutputError, match="no space left"):
        list(tries.settle(tries.begin(), "output", "no space left"))
