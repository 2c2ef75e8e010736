"""Which rows stay by what a scoring pass said of them, file by file, without reading the data or all scores at once?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, PlanError, PrunusError, raise_if_out_of_memory
from prunus.core.types import Bools
from prunus.data import Kept, RowSet, kept_of_mask, open_row_set
from prunus.data.rows.walk import walk
from prunus.scale.scoring.scoring_state import read_done

__all__ = ["Where", "kept_of_scores"]

Where = Callable[[Mapping[str, np.ndarray[Any, Any]]], Any]
"""From scores by their names, ``(n,)`` each, to a truth value for each row: whether it stays."""


def kept_of_scores(folder: Path, rows: RowSet, where: Where | None) -> Kept:
    """Return the rows whose scores a function says stay.

    Args:
        folder: what ``prunus score-shards`` wrote.
        rows: the data that were scored.
        where: called with the scores of some rows at a time.

    Raises:
        PlanError: the scores are of other files, or some files have none.
        DataError: the function is missing, fails, or doesn't give a truth value per row.
    """
    if where is None:
        raise DataError(
            f"{folder} holds scores: say which rows stay, where=lambda scores: scores['aum'] > 0 (or any function of them)"
        )
    _, done = read_done(folder)
    masks = []
    for path, seen, (start, end) in zip(rows.files, rows.prints, rows.file_rows(), strict=True):
        entry = done.get(f"{path.stem}.parquet")
        if entry is None:
            raise PlanError(f"{folder}: {path.name} has no scores: score it too (prunus score-shards ... --resume)")
        if entry.get("print") != seen:
            raise PlanError(
                f"{folder}: the scores of {path.stem} were made for another file (print {str(entry.get('print'))[:12]}, expected "
                f"{seen[:12]}): score it anew, or use the files that were scored"
            )
        scores = open_row_set([folder / f"{path.stem}.parquet"])
        found = [_mask(where, batch, path) for _, batch in walk(scores, None)]
        masks += found
        if sum(map(len, found)) != end - start:
            raise PlanError(
                f"{folder}: {path.stem} has {sum(map(len, found))} scores for {end - start} rows: score it anew"
            )
    return kept_of_mask(np.concatenate(masks), rows.n_rows)


def _mask(where: Where, batch: pa.RecordBatch, path: Path) -> Bools:
    scores = {
        name: column.to_numpy(zero_copy_only=False)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    try:
        found = np.asarray(where(scores))
    except PrunusError:
        raise
    except KeyError as error:
        raise DataError(f"{path.name}: there is no score {error}: got {', '.join(scores)}") from error
    except Exception as error:
        raise_if_out_of_memory(error)
        raise DataError(f"{path.name}: where failed: {one_line(error)[:200]}") from error
    if found.dtype != np.bool_ or found.shape != (batch.num_rows,):
        raise DataError(
            f"{path.name}: where must give a truth value per row, ({batch.num_rows},) of bool: got {found.dtype} of shape "
            f"{found.shape}"
        )
    return found
