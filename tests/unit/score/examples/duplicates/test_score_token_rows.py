"""Are the token ids of examples those that were given, without what fills them up?"""

from __future__ import annotations

import pytest
import torch

from prunus.core.batch import Batch
from prunus.core.errors import DataError
from prunus.score import FILLED, check_tokens, token_rows

LONG = [[5, 8, 2, 9], [7, 7, 3], [6], [4, 1, 1, 1, 2]]
F = FILLED


class Handed:
    """Examples that come in the batches given."""

    def __init__(self, *batches, fixed=True):
        self.given, self.fixed = batches, fixed

    def __len__(self):
        return 4

    def batches(self, batch_size):
        yield from (Batch(torch.arange(4), inputs, None) for inputs in self.given)


def padded(rows, filler, *, left=False, length=5):
    fill = [[filler] * (length - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, fill, strict=True)])


def left_in(table):
    return [[value for value in row if value != FILLED] for row in table.tolist()]


@pytest.mark.parametrize("left", [False, True])
def test_what_repeats_at_the_end_of_most_rows_is_left_out_on_either_side_but_not_within(left):
    given = padded([[5, 0, 2], [7, 7, 3], [6], [4, 0, 0, 2]], 0, left=left)
    assert left_in(token_rows(Handed(given))) == [[5, 0, 2], [7, 7, 3], [6], [4, 0, 0, 2]]


def test_a_mask_says_what_is_left_out_and_then_nothing_else_is():
    ids = padded(LONG, 9)
    mask = (torch.arange(5) < torch.tensor([[len(row)] for row in LONG])).long()
    inputs = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask}
    assert left_in(token_rows(Handed(inputs))) == LONG


def test_batches_of_other_lengths_and_other_sets_make_one_table():
    table = token_rows(Handed(torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5]])), Handed(torch.tensor([[6]])))
    assert table.tolist() == [[1, 2, 3], [4, 5, F], [6, F, F]]
    assert table.dtype == torch.int32


@pytest.mark.parametrize(
    "inputs",
    [
        torch.rand(4, 3),
        torch.zeros(4, dtype=torch.int64),
        torch.zeros(4, 3, dtype=torch.uint8),
        (torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3, dtype=torch.int64)),
        {"input_ids": torch.rand(4, 3)},
    ],
)
def test_what_is_no_sequence_of_tokens_is_refused(inputs):
    with pytest.raises(DataError, match=r"space: tokens compares sequences of integers.*got "):
        check_tokens(Handed(inputs))


def test_a_data_set_that_may_draw_anew_is_compared_as_it_is_read():
    assert token_rows(Handed(torch.tensor([[1, 2, 3]]), fixed=False)).tolist() == [[1, 2, 3]]


def test_tokens_that_are_too_large_are_refused():
    with pytest.raises(DataError, match=r"token ids need 32 bits: got 0 to 4294967296"):
        check_tokens(Handed(torch.tensor([[0, 2**32]])))
