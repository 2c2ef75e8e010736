import pytest
import torch

from prunus.data import ArraySource
from prunus.data.sources.source import chunks


@pytest.mark.parametrize(("n", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (3000, 128)])
def test_all_rows_come_in_pieces_that_hold_no_list_of_all(n, size):
    source = ArraySource("some", tuple(map(str, range(n))), torch.arange(n)[:, None], torch.zeros(n), "regression")
    given, every = list(chunks(source, size=size)), list(chunks(source, torch.arange(n), size))
    assert len(given) == len(every)
    for (rows, values), (wanted, expected) in zip(given, every, strict=True):
        assert torch.equal(rows, wanted)
        assert torch.equal(values, expected)
        assert rows.untyped_storage().nbytes() <= 8 * size
