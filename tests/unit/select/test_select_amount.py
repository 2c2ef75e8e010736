"""A stratum climbs through the counts that its multiple and its floor allow, and a budget ends at the nearest of them."""

import numpy as np
import pytest

from prunus.core.types import Stratum
from prunus.select import allocations
from prunus.select.amount import Ladder

SIZES = range(1, 14)


def allowed(size, multiple, floor):
    block = multiple if multiple <= size else 1
    return [n for n in range(size + 1) if n % block == 0 or n == size if n >= min(floor, size)]


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("floor", [0, 1, 3])
def test_a_climb_passes_every_allowed_count_from_the_floor_up(multiple, floor):
    for size in SIZES:
        ladder = Ladder.of([Stratum("s", np.zeros(size), min_units=floor, multiple=multiple)])
        assert ladder.climb(0).tolist() == allowed(size, multiple, floor)


@pytest.mark.parametrize("name", ["uniform", "global", "owl"])
@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5])
def test_one_stratum_ends_at_the_nearest_count_and_half_way_goes_up(name, multiple):
    for size in SIZES:
        for floor in (0, 1, 3):
            stratum = Stratum("s", np.arange(float(size)), min_units=floor, multiple=multiple)
            counts = allowed(size, multiple, floor)
            for wanted in range(1, size + 1):
                found = int(allocations[name]([stratum], wanted / size)[0])
                away = min(abs(n - wanted) for n in counts)
                assert found == max(n for n in counts if abs(n - wanted) == away), (size, floor, wanted)
