"""Which reader does ``data.source`` mean?

A path with a known ending is a file, a folder holds class folders of images, ``sklearn:NAME`` is a bundled set, and any other
``module:function`` is the user's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.places import missing_data
from prunus.core.recipe import Data
from prunus.data.arrays import open_npz, read_npz_inputs
from prunus.data.bundled import open_bundled
from prunus.data.datasets import open_dataset
from prunus.data.images import IMAGE_SUFFIXES, check_resized, find_images, open_image_folder, read_image
from prunus.data.source import Source, check_ids, check_inputs
from prunus.data.tables import encode_like, open_table, read_table, row_ids

__all__ = ["open_inputs", "open_source"]

TABLES = (".csv", ".parquet")


def open_source(config: Data) -> Source:
    """Return the data set that a recipe names.

    Raises:
        DataError: it isn't there, can't be read, or can't be learnt from.
        MissingExtraError: its reader needs a package that isn't installed.
    """
    path = Path(config.source)
    if config.is_bundled:
        return open_bundled(config.source.partition(":")[2], config)
    if path.is_dir():
        return open_image_folder(path, config)
    if path.is_file():
        if path.suffix.lower() in TABLES:
            return open_table(path, config)
        if path.suffix.lower() == ".npz":
            if config.args:
                raise DataError(f"{path}: an .npz file takes no data.args, got {', '.join(config.args)}")
            return open_npz(path, config)
        raise DataError(
            f"{path}: expected a file that ends in .npz, .csv or .parquet, got {path.suffix or 'no ending'!r}"
        )
    if config.is_function:
        return open_dataset(config)
    raise missing_data(path)


def open_inputs(
    path: str, *, input_shape: Sequence[int], feature_names: Sequence[str], exact: bool = False
) -> tuple[tuple[str, ...], Tensor]:
    """Return the ids and the raw inputs, ``(n, *input_shape)``, of a file without labels.

    A table's columns are matched by ``feature_names`` and others are ignored; images are converted and resized as for training.
    They are float32, or as ``exact`` as the file has them.

    Raises:
        DataError: it isn't there, can't be read, or doesn't fit the model.
    """
    where, shape = Path(path), tuple(input_shape)
    if where.is_dir() or (where.is_file() and where.suffix.lower() in IMAGE_SUFFIXES):
        ids, values = _images(where, shape)
    elif not where.is_file():
        raise missing_data(where)
    elif where.suffix.lower() in TABLES:
        table = read_table(where)
        names = feature_names or _plain_columns(table.schema.names, shape, where)
        ids, values = check_ids(row_ids(table, where), path), encode_like(table, names, where)
    elif where.suffix.lower() == ".npz":
        ids, values = read_npz_inputs(where)
    else:
        raise DataError(
            f"{where}: expected .npz, .csv, .parquet, an image or a folder of images, got {where.suffix or 'no ending'!r}"
        )
    if tuple(values.shape[1:]) != shape:
        raise DataError(f"{where}: the model needs inputs of shape {shape}, got {tuple(values.shape[1:])}")
    if len(values) == 0:
        raise DataError(f"{where}: expected at least one input, got an empty set")
    check_inputs(values, ids, path, feature_names)
    return ids, values if exact else values.float()


def _images(where: Path, shape: tuple[int, ...]) -> tuple[tuple[str, ...], Tensor]:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"{where}: the model needs inputs of shape {shape}, which images don't have; give a table or .npz"
        )
    folder, paths = (where, find_images(where)) if where.is_dir() else (where.parent, [where])
    if not paths:
        raise DataError(f"{where}: expected images ({', '.join(IMAGE_SUFFIXES)}), got an empty set")
    mode = "L" if shape[0] == 1 else "RGB"
    check_resized(paths, shape, n_bytes=4)
    values = torch.stack([read_image(path, (shape[1], shape[2]), mode) for path in paths]).float()
    return tuple(path.relative_to(folder).as_posix() for path in paths), values


def _plain_columns(names: Sequence[str], shape: tuple[int, ...], where: Path) -> list[str]:
    """Return the columns for a model whose features have no names: all but ``id``, in order."""
    columns = [name for name in names if name != "id"]
    if (len(columns),) != shape:
        raise DataError(
            f"{where}: the model needs inputs of shape {shape} and knows no column names, got {len(columns)} columns"
        )
    return columns
