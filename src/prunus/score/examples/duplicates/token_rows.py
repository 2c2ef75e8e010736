"""Which token ids does each example hold, without what only fills it up, so that likeness can be measured without a model?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.calls import described, tensors
from prunus.core.errors import DataError

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["FILLED", "check_tokens", "token_rows"]

FILLED = -(2**31)
"""What stands where an example has no token."""
_WIDE = (torch.int16, torch.int32, torch.int64)
_OFTEN = 0.01
"""An integer that so many of the examples repeat at an end is what fills them up."""

_Ids = npt.NDArray[np.int32]


def token_rows(examples: Examples, *others: Examples, batch_size: int = 512) -> Tensor:
    """Return one row of token ids per example, those of ``others`` after them; ``FILLED`` where a row is shorter than the longest.

    What fills sequences up is left out: where the attention mask is 0 or, without one, the integer that repeats at an end of most.

    Shapes:
        ``(n, longest)``, int32 on the CPU.
    Raises:
        DataError: inputs that hold no sequences of integers.
    """
    for part in (examples, *others):
        check_tokens(part)
    found: list[_Ids] = []
    for part in (examples, *others):
        found += [ids for ids, _ in _batches(part, batch_size)]
    table = np.full((sum(map(len, found)), max((ids.shape[1] for ids in found), default=0)), FILLED, np.int32)
    start = 0
    for ids in found:
        table[start : start + len(ids), : ids.shape[1]] = ids
        start += len(ids)
    if not any(masked for _, masked in _batches(examples, 1, first=True)):
        _leave_out_padding(table)
    return torch.from_numpy(table)


def check_tokens(examples: Examples) -> None:
    """See that the examples hold token ids, by the first one.

    A data set that may draw its tokens anew in each epoch is compared as it is read outside of training: always the same.

    Raises:
        DataError: they don't.
    """
    next(_batches(examples, 1, first=True), None)


def _batches(examples: Examples, batch_size: int, *, first: bool = False) -> Iterator[tuple[_Ids, bool]]:
    """Yield the token ids of each batch, and whether a mask said what fills them up; or of the first batch only."""
    for batch in examples.batches(batch_size):
        ids, mask = _ids_of(batch.inputs)
        values = ids.detach().cpu().to(torch.int64)
        if values.numel() and not (int(values.min()) > FILLED and int(values.max()) < 2**31):
            raise DataError(
                f"examples.duplicates: token ids need 32 bits: got {int(values.min())} to {int(values.max())}"
            )
        if mask is not None:
            values = values.masked_fill(mask.detach().cpu() == 0, FILLED)
        yield values.to(torch.int32).numpy(), mask is not None
        if first:
            return


def _ids_of(inputs: Any) -> tuple[Tensor, Tensor | None]:
    named = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    held = [named] if isinstance(named, Tensor) else [value for _, value in tensors(inputs)]
    if len(held) != 1 or held[0].dtype not in _WIDE or held[0].dim() != 2:
        raise DataError(
            "examples.duplicates: space: tokens compares sequences of integers, one tensor (n, length) or one that is named "
            f"input_ids: got {described(inputs)}; use space: inputs or space: embedding"
        )
    return held[0], mask if isinstance(mask, Tensor) and mask.shape == held[0].shape else None


def _leave_out_padding(table: _Ids) -> None:
    """Fill the ends where one integer repeats in many rows, in place."""
    if table.shape[1] < 2:
        return
    for view in (table[:, ::-1], table):
        end, before = view[:, 0], view[:, 1]
        (most, count), *_ = Counter(end[end == before].tolist()).most_common(1) or [(FILLED, 0)]
        if most == FILLED or count < max(_OFTEN * len(table), 2):
            continue
        for start in range(0, len(view), 4096):
            part = view[start : start + 4096]
            part[np.logical_and.accumulate(part == most, axis=1)] = FILLED
