"""How does a bundle, or a function of the user's, score a data set that is many files?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from prunus.core.code.imports import is_reference
from prunus.core.errors import DataError, RecipeError
from prunus.core.events import Listener, silent
from prunus.core.files.urls.url_path import is_url, path_at
from prunus.pipeline.sharding.shard_scorers import OpenBundle, OpenFunction
from prunus.scale import ShardsScored, score_shards
from prunus.scale.dispatch import Dispatch

__all__ = ["score_files"]


def score_files(
    model: str,
    files: Sequence[Path],
    output: Path,
    *,
    size: float | None = None,
    target: str | None = None,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    batch_rows: int = 65536,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    resume: bool = False,
    trust_code: bool = False,
    listener: Listener = silent,
) -> ShardsScored:
    """Write scores of every row of ``files`` to ``output``, a file for each.

    Args:
        model: a bundle's folder, or one of several sizes', or ``module:function``, which returns a torch module or a function of a
            batch of columns.
        size: which one of several sizes the bundle has, by its keep fraction.
        target: the column of the labels; None: scores that need none.
        names: which scores; None: all that there are.
        columns: what a model of a function reads, in this order; None: all columns but the label's and ``keep``.
        keep: columns that are copied, such as an id.
        backend: who scores (``scale.dispatch``); the scores are the same to the bit.
        workers: so many files at once; None: as ``backend`` says, or one. Processes of this machine share its cores equally.

    Raises:
        PrunusError: the model can't be had, there are no such files, or the output can't be written. A shard that can't be scored
            raises nothing: it stands in ``failed``.
    """
    where = path_at(model)
    if is_reference(model) and not is_url(where) and not where.exists():
        if size is not None:
            raise RecipeError(
                f"a size is one of a bundle's: got {model}, a function, and the size {size:g}; leave it out"
            )
        own = None if columns is None else tuple(columns)
        given = None if names is None else tuple(names)
        opens: OpenBundle | OpenFunction = OpenFunction(
            model, target=target, names=given, columns=own, leave_out=tuple(keep)
        )
        identity = model
    else:
        if columns is not None:
            raise RecipeError("a bundle knows its columns: leave them out")
        own = None if names is None else tuple(names)
        opens = OpenBundle(where, target=target, names=own, trust_code=trust_code, size=size)
        identity = opens.bundle().sha256
    reads = (where,) if isinstance(opens, OpenBundle) else ()
    opens()  # what is wrong with it is said before any file is read
    if target is not None and target in keep:
        raise DataError(f"the label's column {target!r} is read for the scores: keep other columns")
    told = asdict(opens)
    if isinstance(opens, OpenBundle):
        told["path"] = identity
        del told["size"]  # it is in the hash
    return score_shards(
        files,
        output,
        opens,
        settings=told | {"torch": torch.__version__},
        keep=tuple(keep),
        batch_rows=batch_rows,
        backend=backend,
        workers=workers,
        retries=retries,
        resume=resume,
        reads=reads,
        listener=listener,
    )
