"""How is a ``.npz`` file read? As :mod:`prunus.data.sources.arrays` says, which never runs code from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from prunus.data.sources.arrays import open_npz, read_npz_inputs
from prunus.data.sources.formats import add_reader

__all__: list[str] = []


def _inputs(path: Path, shape: tuple[int, ...], feature_names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    return read_npz_inputs(path)


add_reader(
    ".npz",
    holds="arrays: inputs `x`, targets `label`, `target` or `y`; `id`, `class_names` and `feature_names` if you like",
    open=open_npz,
    inputs=_inputs,
)
