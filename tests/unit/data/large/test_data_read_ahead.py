import pytest
import torch

from prunus.data.large import read_ahead as module
from prunus.data.large.read_ahead import read_ahead

VALUES = torch.arange(1000.0)[:, None] * 3


@pytest.mark.parametrize("n_ahead", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 10, 11, 500])
def test_rows_come_in_the_order_asked_for_whoever_reads_them(n, n_ahead, monkeypatch):
    monkeypatch.setattr(module, "_WINDOW_BYTES", 200)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(n))[:n]
    asked = []

    def read(rows):
        asked.append(len(rows))
        assert torch.equal(rows, rows.sort().values)
        return VALUES[rows]

    found = list(read_ahead(order, read, batch_size=10, row_bytes=4, n_ahead=n_ahead))
    assert [len(index) for index, _ in found] == [min(10, n - start) for start in range(0, n, 10)]
    assert torch.equal(torch.cat([index for index, _ in found] or [order]), order)
    for index, values in found:
        assert torch.equal(values, VALUES[index])
    assert max(asked, default=0) <= 50
    assert min(n, 10) in (asked or [0]), "the first window is one batch; threads may take a later one first"


def test_what_fails_while_it_is_read_is_said_where_the_batch_is_asked_for():
    def read(rows):
        if len(rows) > 10:
            raise OSError("the disk is gone")
        return VALUES[rows]

    batches = read_ahead(torch.arange(100), read, batch_size=10, row_bytes=4)
    assert len(next(batches)[0]) == 10
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches)
