"""Which of the processes that torchrun started is this one?"""

import pytest

from prunus.core.code.place import Place, place
from prunus.core.errors import RecipeError

STARTED = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "first", "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip


def test_what_torchrun_says_is_taken_as_it_is():
    found = place(STARTED)
    assert (found.rank, found.n_ranks, found.local_rank, found.n_local, found.restarts) == (3, 8, 1, 2, 2)
    assert not found.leads
    assert not found.alone


@pytest.mark.parametrize("environment", [{}, {"RANK": "0"}, {"WORLD_SIZE": "4"}])
def test_a_process_that_torchrun_did_not_start_is_alone(environment):
    assert place(environment) == Place()
    assert Place().alone
    assert Place().leads


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": "x"}, "RANK must be a whole number"),
        ({"RANK": "8"}, "RANK must be below WORLD_SIZE: got 8 of 8"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE must be a whole number"),
        ({"MASTER_PORT": ""}, "MASTER_PORT isn't set"),
    ],
)
def test_what_torchrun_would_not_say_is_refused_in_one_line(changed, said):
    with pytest.raises(RecipeError, match=said) as caught:
        place({**STARTED, **changed})
    assert "\n" not in str(caught.value)
