"""Does every kept row have one place in an epoch, whatever the groups, ranks and lanes?"""

from math import ceil

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunus.core.errors import RecipeError
from prunus.data.rows.lanes import batch_sizes, plan_epoch

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda counts: sum(counts) >= 12)


def rows_read(plan):
    """The kept rows that a plan reads, as (group, place among the group's kept rows), lane after lane."""
    found = []
    for lane in range(plan.n_lanes):
        for window in plan.windows(lane):
            for (start, stop), n in zip(plan.places(lane), window.takes, strict=True):
                each = max(plan.window_rows // plan.n_places, 1)
                begin = min(start + window.number * each, stop)
                for piece in plan.pieces(begin, begin + n):
                    found += [(piece.group, piece.n_skipped + k) for k in range(piece.n_taken)]
    return found


@given(
    COUNTS,
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 50),
    st.integers(0, 3),
)
def test_all_ranks_and_lanes_together_read_every_kept_row_once(counts, batch_size, n_ranks, n_lanes, window_rows, seed):
    counts = np.array(counts)
    assume(batch_size > 1 or n_ranks == 1)
    found = []
    for rank in range(n_ranks):
        plan = plan_epoch(
            counts,
            batch_size=batch_size,
            seed=seed,
            epoch=1,
            rank=rank,
            n_ranks=n_ranks,
            n_lanes=n_lanes,
            window_rows=window_rows,
        )
        own = rows_read(plan)
        assert len(own) == plan.sizes.sum()
        found += own
    assert sorted(found) == [(group, k) for group, n in enumerate(counts.tolist()) for k in range(n)]


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 4))
def test_every_rank_has_as_many_batches_none_of_them_empty_or_too_large(n_rows, batch_size, n_ranks):
    if n_rows < n_ranks:
        with pytest.raises(RecipeError, match="as many steps"):
            batch_sizes(n_rows, batch_size, n_ranks, 0)
        return
    try:
        sizes = [batch_sizes(n_rows, batch_size, n_ranks, rank) for rank in range(n_ranks)]
    except RecipeError:
        # A rank's one row can't be two batches.
        assert n_rows // n_ranks < ceil(ceil(n_rows / n_ranks) / batch_size)
        return
    assert len({len(own) for own in sizes}) == 1
    assert sum(own.sum() for own in sizes) == n_rows
    assert all(1 <= size <= batch_size for own in sizes for size in own)


def test_another_epoch_has_another_order_and_the_same_epoch_the_same():
    counts = np.full(30, 5)
    orders = [plan_epoch(counts, batch_size=4, seed=0, epoch=epoch).order.tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_groups_without_a_kept_row_are_not_read():
    plan = plan_epoch(np.array([0, 3, 0, 9]), batch_size=2, seed=0, epoch=0)
    assert sorted(plan.order.tolist()) == [1, 3]


def test_full_batches_alone_are_all_of_one_size():
    assert batch_sizes(23, 4, 2, 1, drop_last=True).tolist() == [4, 4]
    with pytest.raises(RecipeError, match="no full batch of 12"):
        batch_sizes(23, 12, 2, 1, drop_last=True)
