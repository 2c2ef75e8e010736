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
from prunus.pipeline.shipping import bundle_folder
from prunus.scale import ShardsScored, score_shards
from prunus.scale.dispatch import Dispatch
from prunus.ship import load_bundle

__all__ = ["score_files"]


def score_files(
    model: str,
    files: Sequence[Path],
    output: Path,
    *,
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
        model: a bundle's folder, or ``module:function``, which returns a torch module or a function of a batch of columns.
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
        own = None if columns is None else tuple(columns)
        given = None if names is None else tuple(names)
        opens: OpenBundle | OpenFunction = OpenFunction(
            model, target=target, names=given, columns=own, leave_out=tuple(keep)
        )
        identity = model
    else:
        if columns is not None:
            raise RecipeError("a bundle knows its columns: leave them out")
        opens = OpenBundle(where, target=target, names=None if names is None else tuple(names), trust_code=trust_code)
        identity = load_bundle(bundle_folder(where), trust_code=trust_code).sha256
    opens()  # what is wrong with it is said before any file is read
    if target is not None and target in keep:
        raise DataError(f"the label's column {target!r} is read for the scores: keep other columns")
    told = asdict(opens) | {"path": identity} if isinstance(opens, OpenBundle) else asdict(opens)
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
        listener=listener,
    )
