import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.columns.order_statistics import order_statistics


@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, float("inf"), -float("inf")]), min_size=1, max_size=40),
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 7),
)
def test_what_is_counted_is_what_sorting_finds(numbers, dtype, size):
    values = np.array(numbers, dtype)[:, None]
    ordered = np.sort(values[~np.isnan(values)])
    chunks = [values[start : start + size] for start in range(0, len(values), size)]
    assert order_statistics(lambda: chunks, [list(range(len(ordered)))]) == [(ordered + 0.0).tolist()]


def test_each_of_many_columns_is_counted_by_itself():
    values = np.random.default_rng(0).standard_normal((999, 300))
    found = order_statistics(lambda: np.array_split(values, 4), [[499, 499, 700]] * 300)
    assert np.array_equal(found, np.sort(values, axis=0)[[499, 499, 700]].T)
