"""Which reader does ``data.source`` mean?

A path with a known ending is a file, a folder holds class folders of images, ``sklearn:NAME`` is a bundled set, and any other
``module:function`` is the user's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prunus.core.endings import data_endings, in_words
from prunus.core.errors import DataError
from prunus.core.places import missing_data
from prunus.core.recipe import Data
from prunus.data import readers as _  # noqa: F401 - registers the readers
from prunus.data.bundled import open_bundled
from prunus.data.datasets import open_dataset
from prunus.data.formats import Reader, readers, refuse_arguments
from prunus.data.images import IMAGE_SUFFIXES, check_resized, find_images, open_image_folder, read_image
from prunus.data.source import Source, check_inputs

__all__ = ["open_inputs", "open_source"]


def _reader_of(path: Path) -> Reader | None:
    """Return what reads the file that the user named; where another package offers it, it is imported now."""
    ending = path.suffix.lower()
    return readers.load(ending[1:]) if ending in data_endings() else None


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
        reader = _reader_of(path)
        if reader is None:
            raise DataError(f"{path}: expected a file that ends in {in_words()}, got {path.suffix or 'no ending'!r}")
        refuse_arguments(reader, path, config)
        return reader.open(path, config)
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
    else:
        reader = _reader_of(where)
        if reader is None or reader.inputs is None:
            raise DataError(
                f"{where}: expected a file that ends in {in_words()}, an image or a folder of images, got "
                f"{where.suffix or 'no ending'!r}"
            )
        ids, values = reader.inputs(where, shape, tuple(feature_names))
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
