import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.evaluate import resample
from prunus.evaluate.resample import patterns

few, many = st.integers(-3, 4), st.integers(-(2**40), 2**40) | st.integers(-(2**62), 2**62)


@pytest.mark.parametrize("at_once", [3, 1 << 16])
@given(
    rows=st.lists(st.tuples(few, few), min_size=1, max_size=60)
    | st.lists(st.tuples(few, many), min_size=1, max_size=60)
)
@settings(deadline=None)
def test_patterns_are_the_different_rows_in_their_order_whatever_numbers_they_hold(at_once, rows):
    table = np.array(rows, np.int64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resample, "_AT_ONCE", at_once)
        first, counts = patterns([{"a": table[:, 0], "b": table[:, 1], "same": table[:, 0] == table[0, 0]}])
    told = np.column_stack([table, table[:, 0] == table[0, 0]])
    _, expected, how_many = np.unique(told, axis=0, return_index=True, return_counts=True)
    assert first.tolist() == expected.tolist()
    assert counts.tolist() == how_many.tolist()
