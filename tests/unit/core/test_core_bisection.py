"""A bisection ends on both sides of the edge, as near as was asked."""

import math

import pytest

from prunus.core.bisection import edge


@pytest.mark.parametrize("at", [-3.0, 1e-9, 0.1, 0.5, 7.3])
@pytest.mark.parametrize("within", [0.0, 2.0**-16, 0.3])
def test_the_edge_lies_between_what_comes_back(at, within):
    asked = []
    low, high = edge(lambda x: asked.append(x) or x < at, -8.0, 8.0, within=within)
    assert low < at <= high
    assert high - low <= within or high == math.nextafter(low, math.inf)
    assert all(-8 < x < 8 for x in asked), "the ends are known"
    if within:
        assert len(asked) == math.ceil(math.log2(16 / within))


def test_what_holds_everywhere_or_nowhere_ends_at_an_end():
    assert edge(lambda _: True, 0.0, 1.0) == (math.nextafter(1.0, 0.0), 1.0)
    assert edge(lambda _: False, 0.0, 1.0, within=0.1) == (0.0, 0.0625)
    assert edge(lambda _: True, 1.0, 1.0) == (1.0, 1.0)
