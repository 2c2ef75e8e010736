"""What are the mean, the second moments and the Gram matrix of the rows of many files?

Each shard is added up by itself, in double precision and around its own mean, so that nothing cancels (Chan et al., 1979). What
shards gave is joined in their order, so neither the workers nor who was done first change a bit; it is joined as it comes, so
memory holds two matrices in each process, however many shards there are. A shard is done when its file stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import Tensor

from prunus.core.errors import DataError, RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import atomic_path, folder_lock, remove
from prunus.core.files.sealed import DamagedError, seal, unseal
from prunus.core.files.urls.url_path import path_at, refuse_url
from prunus.core.runtime import single_run_settings
from prunus.core.tensors import save_tensors
from prunus.data import print_of
from prunus.scale.dispatch import Dispatch, Failure, Files, open_workers
from prunus.scale.duplicates.shard_matrix import rows_of
from prunus.scale.own_folder import begun, note_end
from prunus.scale.scoring.scoring_run import shards_of

__all__ = ["ShardMoments", "moments_of_shards"]

Floats = npt.NDArray[np.float64]

_STAGE = "moments"
_STATE, _WHOLE, _JOINED = ".prunus-moments.json", "moments.npz", ".joined"
_BLOCK = 4096
_JOINED_AT_ONCE = 32
"""Files of so many shards wait at least, before what was joined is written in their stead."""


@dataclass(frozen=True, eq=False)
class ShardMoments:
    """The moments of ``n_rows`` rows, in double precision.

    Shapes:
        ``mean`` is ``(features,)``; ``covariance`` is ``(features, features)``, the mean outer product of the rows less their mean.
    """

    n_rows: int
    mean: Floats
    covariance: Floats

    @property
    def gram(self) -> Floats:
        """The mean outer product of the rows, ``(features, features)``."""
        found: Floats = self.covariance + np.outer(self.mean, self.mean)
        return found

    @property
    def second_moment(self) -> Floats:
        """The mean square of each feature."""
        found: Floats = self.covariance.diagonal() + self.mean**2
        return found


class Task(NamedTuple):
    """A shard, its columns, and the file for what it gives."""

    shard: Path
    columns: tuple[str, ...] | None
    output: Path


class Moments(NamedTuple):
    """How many rows there are, their mean, and the sum of the outer products of what they differ from it by."""

    n: int
    mean: Tensor
    scatter: Tensor


def moments_of_shards(
    shards: Sequence[Path],
    output: Path,
    *,
    columns: Sequence[str] | None = None,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    resume: bool = False,
    listener: Listener = silent,
) -> ShardMoments:
    """Return the moments of all rows of the shards, and write them to ``moments.npz`` in the folder ``output``.

    They are those of all rows one below the other, up to rounding in double precision; the same to the bit for any workers, each of
    which computes on one core.

    Args:
        shards: files, or folders whose files are meant; ``.npy`` matrices are mapped as they lie, others read a few rows at a time.
        output: a folder, empty or not there.
        columns: one that holds an array per row, or several that hold a number each; None: the only one that holds arrays.
        backend: who works (``scale.dispatch``).
        resume: go on with what was stopped in ``output``, or read what was finished there.

    Raises:
        DataError: no such file, or shards of different widths.
        OutputError: ``output`` holds something else, or such a run and ``resume`` isn't given, or it can't be written.
        RunError: shards can't be added up; the error of the first one is told, after the others were done.
    """
    output = path_at(output)
    refuse_url(
        output, "the output of moments over shards", "it is written again and again: write to a folder, and copy it"
    )
    files = shards_of([path_at(shard) for shard in shards], images=False)
    own = None if columns is None else tuple(columns)
    asked = {"columns": own, "torch": torch.__version__, "shards": [[str(file), print_of(file)] for file in files]}
    with folder_lock(output), ExitStack() as stack:
        if begun(output, _STATE, asked, resume=resume):
            return _read(output / _WHOLE)
        joining = _Joining(files, output)
        joining.go_on()
        left = [number for number in range(joining.n_joined, len(files)) if not joining.is_done(number)]
        opened = stack.enter_context(
            open_workers(
                shard_moments,
                backend=backend,
                workers=workers,
                retries=retries,
                files=Files(tuple(files), (output,)),
                listener=listener,
            )
        )
        listener(Event("start", _STAGE, total=len(files)))
        failed: dict[int, str] = {}
        tasks = [Task(files[number], own, joining.file_of(number)) for number in left]
        for n_done, (place, answer) in enumerate(opened.map(tasks), len(files) - len(left) + 1):
            if isinstance(answer, Failure):
                failed[left[place]] = answer.message.removeprefix(f"{files[left[place]]}: ")
            joining.go_on()
            listener(Event("progress", _STAGE, "", n_done, len(files)))
        if failed:
            first = min(failed)
            others = f" ({len(failed) - 1} other shards failed, too)" if len(failed) > 1 else ""
            raise RunError(f"{files[first]}: {failed[first]}{others}")
        whole = joining.total
        if whole is None or joining.n_joined < len(files):
            raise RunError(
                f"{files[joining.n_joined]}: what a worker gave isn't in {output}, or is damaged: all workers need this folder "
                "under the same path; go on with --resume"
            )
        found = ShardMoments(whole.n, whole.mean.numpy(), (whole.scatter / whole.n).numpy())
        with atomic_path(output / _WHOLE) as temporary, temporary.open("wb") as file:
            np.savez(file, n_rows=found.n_rows, mean=found.mean, covariance=found.covariance)
        note_end(output, _STATE, asked, {"n_rows": found.n_rows})
        joining.forget()
        listener(Event("end", _STAGE))
    return found


def shard_moments(task: Task) -> None:
    """Add up the rows of a shard, and keep that in a file.

    Raises:
        DataError: the shard is damaged, or holds no rows of finite numbers.
    """
    total, n = None, 0
    with single_run_settings(1):  # how many threads share a product may change its last digits
        for rows in rows_of(task.shard, task.columns, _BLOCK):
            values = torch.from_numpy(rows.astype(np.float64))
            if not bool(values.isfinite().all()):
                odd = int((~values.isfinite().all(dim=1)).int().argmax())
                raise DataError(
                    f"{task.shard}: moments need finite numbers: row {n + odd} has NaN or infinity; leave it out"
                )
            mean = values.mean(dim=0)
            values -= mean
            total = joined(total, Moments(len(values), mean, values.t() @ values))
            n += len(values)
    if total is None:
        raise DataError(f"{task.shard}: there is no row in it; leave it out")
    _save(task.output, total)


def joined(one: Moments | None, other: Moments) -> Moments:
    """Return the moments of the rows of both; the first one's tensors are taken over.

    >>> one, two = (Moments(1, torch.tensor([x]), torch.zeros(1, 1)) for x in (1.0, 3.0))
    >>> joined(one, two)
    Moments(n=2, mean=tensor([2.]), scatter=tensor([[2.]]))
    """
    if one is None:
        return other
    n = one.n + other.n
    shift = other.mean - one.mean
    one.scatter.add_(other.scatter).addr_(shift, shift, alpha=one.n / n * other.n)
    return Moments(n, one.mean.add_(shift, alpha=other.n / n), one.scatter)


class _Joining:
    """Joins what shards gave, in their order, as far as it is there; some at a time it is written in their stead."""

    def __init__(self, files: Sequence[Path], output: Path) -> None:
        self._files, self._output = files, output
        self.total: Moments | None = None
        self._n_written = self.n_joined = 0
        held = _load(output / _JOINED)
        if held is not None:
            self._n_written = self.n_joined = int(held.pop("n_joined"))
            self.total = _moments(held)
        self._forget(range(self.n_joined))

    def file_of(self, number: int) -> Path:
        """Return where what a shard gives is kept."""
        return self._output / f".shard-{number}"

    def is_done(self, number: int) -> bool:
        """Return whether what a shard gave is there, and whole."""
        return _load(self.file_of(number)) is not None

    def go_on(self) -> None:
        """Join what follows, as far as it is there.

        Raises:
            DataError: a shard has another width than the first one.
        """
        while self.n_joined < len(self._files) and (held := _load(self.file_of(self.n_joined))) is not None:
            found = _moments(held)
            if self.total is not None and len(found.mean) != len(self.total.mean):
                shard, first = self._files[self.n_joined], self._files[0]
                raise DataError(
                    f"{shard}: expected {len(self.total.mean)} numbers per row, as in {first}: got {len(found.mean)}"
                )
            self.total = joined(self.total, found)
            self.n_joined += 1
            if self.n_joined - self._n_written >= _JOINED_AT_ONCE:
                _save(self._output / _JOINED, self.total, n_joined=self.n_joined)
                self._forget(range(self._n_written, self.n_joined))
                self._n_written = self.n_joined

    def forget(self) -> None:
        """Remove what was only kept for a resume."""
        self._forget(range(len(self._files)))
        remove(self._output / _JOINED)

    def _forget(self, numbers: range) -> None:
        for number in numbers:
            remove(self.file_of(number))


def _save(path: Path, found: Moments, **counts: int) -> None:
    numbers = {name: torch.tensor(n) for name, n in {"n": found.n, **counts}.items()}
    with atomic_path(path) as temporary:
        save_tensors({"mean": found.mean, "scatter": found.scatter, **numbers}, temporary)
        seal(temporary)


def _load(path: Path) -> dict[str, Tensor] | None:
    """Return what was kept; None where there is nothing, or nothing that is whole."""
    try:
        content = unseal(path)
    except DamagedError:
        return None
    return None if content is None else load(content)


def _moments(held: dict[str, Tensor]) -> Moments:
    return Moments(int(held["n"]), held["mean"], held["scatter"])


def _read(path: Path) -> ShardMoments:
    with np.load(path, allow_pickle=False) as held:
        return ShardMoments(int(held["n_rows"]), held["mean"], held["covariance"])
