"""Which reader does ``data.source`` mean?

A path with a known ending is a file, a folder holds class folders of images, ``sklearn:NAME`` is a bundled set, and any other
``module:function`` is the user's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from prunus.core.endings import data_endings, in_words
from prunus.core.errors import DataError
from prunus.core.files.urls.url_path import path_at
from prunus.core.recipes.named_places import missing_data
from prunus.core.recipes.recipe import Data
from prunus.data import readers as _  # noqa: F401 - registers the readers
from prunus.data.columns.cells import BadCell
from prunus.data.columns.fitted import Columns
from prunus.data.disk.open_on_disk import MAPPED_ENDINGS, open_row_files, rows_in
from prunus.data.sources.arrays import read_npz_arrays
from prunus.data.sources.bundled import open_bundled
from prunus.data.sources.datasets import open_dataset
from prunus.data.sources.formats import Reader, readers, refuse_arguments
from prunus.data.sources.image_folder import IMAGE_SUFFIXES, check_resized, find_images, open_image_folder, read_image
from prunus.data.sources.source import Rows, Source

__all__ = ["is_table", "open_images", "open_inputs", "open_named_inputs", "open_rows", "open_source"]


def _reader_of(path: Path) -> Reader | None:
    """Return what reads the file that the user named; where another package offers it, it is imported now."""
    ending = path.suffix.lower()
    return readers.load(ending[1:]) if ending in data_endings() else None


def is_table(config: Data) -> bool:
    """Return whether the source is a file that is read as a table."""
    path = path_at(config.source)
    reader = _reader_of(path) if not config.is_bundled and path.is_file() else None
    return reader is not None and reader.rows is not None


def open_source(config: Data) -> Source:
    """Return the data set that a recipe names.

    Raises:
        DataError: it isn't there, can't be read, or can't be learnt from.
        MissingExtraError: its reader needs a package that isn't installed.
    """
    path = path_at(config.source)
    if config.is_bundled:
        _refuse_disk(config)
        return open_bundled(config.source.partition(":")[2], config)
    if rows_in(path, config) and (found := open_row_files(path, config)) is not None:
        return found
    if path.is_dir():
        return open_image_folder(path, config)
    if path.is_file():
        reader = _reader_of(path)
        if reader is None:
            raise DataError(f"{path}: expected a file that ends in {in_words()}, got {path.suffix or 'no ending'!r}")
        refuse_arguments(reader, path, config)
        _refuse_disk(config)
        return reader.open(path, config)
    if config.is_function:
        return open_dataset(config)
    raise missing_data(path)


def _refuse_disk(config: Data) -> None:
    """Refuse to read from disk what can only be read whole.

    Raises:
        DataError: that is asked for.
    """
    if config.in_memory is False:
        raise DataError(
            f"{config.source}: only files that end in {', '.join(MAPPED_ENDINGS)} and folders of them can be read from disk "
            "(data.in_memory: false): convert it to Parquet, or set data.in_memory: auto"
        )


def open_inputs(
    path: str,
    *,
    input_shape: Sequence[int],
    feature_names: Sequence[str],
    exact: bool = False,
    whole: bool = False,
    misfit: Callable[[Tensor], str] | None = None,
) -> tuple[tuple[str, ...], Tensor]:
    """Return the ids and the raw inputs, ``(n, *input_shape)``, of a file without labels, every row of which must be good.

    Args and the rest: see :func:`open_rows`.

    Raises:
        DataError: it isn't there, can't be read, doesn't fit the model, or has a bad row.
    """
    found = open_rows(
        path, input_shape=input_shape, feature_names=feature_names, exact=exact, whole=whole, misfit=misfit
    )
    if found.bad:
        more = f" ({len(found.bad)} such rows)" if len(found.bad) > 1 else ""
        raise DataError(f"{path}: {found.bad[0]}{more}; correct or remove such rows")
    return found.ids, found.values


def open_rows(
    path: str,
    *,
    input_shape: Sequence[int],
    feature_names: Sequence[str],
    columns: Columns | None = None,
    exact: bool = False,
    whole: bool = False,
    misfit: Callable[[Tensor], str] | None = None,
) -> Rows:
    """Return the raw inputs, ``(n, *input_shape)``, of a file without labels that a model can take, and what is wrong with others.

    A table's columns are matched by name and others are ignored; images are converted and resized as for training. They are
    float32, or as ``exact`` as the file has them; with ``whole``, int64.

    Args:
        columns: what the features of the model's table were made of; default: as ``feature_names`` say.
        misfit: says why values of such sizes don't fit the model; default: they have ``input_shape``.

    Raises:
        DataError: it isn't there, can't be read, or doesn't fit the model.
    """
    where, shape = path_at(path), tuple(input_shape)
    if where.is_dir() or (where.is_file() and where.suffix.lower() in IMAGE_SUFFIXES):
        found = _images(where, shape)
    elif not where.is_file():
        raise missing_data(where)
    else:
        reader = _reader_of(where)
        if reader is not None and reader.rows is not None:
            found = reader.rows(where, columns, tuple(feature_names), shape)
        elif reader is not None and reader.inputs is not None:
            ids, values = reader.inputs(where, shape, tuple(feature_names))
            found = _all_good(ids, values if shape or values.dim() != 2 else values.squeeze(1))
        else:
            raise DataError(
                f"{where}: expected a file that ends in {in_words()}, an image or a folder of images, got "
                f"{where.suffix or 'no ending'!r}"
            )
    if misfit is None and tuple(found.values.shape[1:]) != shape:
        raise DataError(f"{where}: the model needs inputs of shape {shape}, got {tuple(found.values.shape[1:])}")
    if misfit is not None and (problem := misfit(found.values)):
        raise DataError(f"{where}: {problem}")
    if not found.ids:
        raise DataError(f"{where}: expected at least one input, got an empty set")
    found = _finite(found, feature_names)
    if whole:
        return replace(found, values=_whole(found.values, str(where)))
    return found if exact else replace(found, values=found.values.float())


def _all_good(ids: tuple[str, ...], values: Tensor) -> Rows:
    return Rows(ids, values, tuple(range(len(ids))))


def _finite(found: Rows, feature_names: Sequence[str]) -> Rows:
    """Return the rows without those that hold NaN or infinity, which are said to be bad."""
    values = found.values
    if not values.is_floating_point() or not len(values):
        return found
    odd = ~values.isfinite().reshape(len(values), -1)
    spoilt = odd.any(dim=1)
    if not spoilt.any():
        return found
    bad = list(found.bad)
    for place in spoilt.nonzero().flatten().tolist():
        position = int(odd[place].int().argmax())
        got = values[place].flatten()[position].item()
        n_more = int(odd[place].sum()) - 1
        name = feature_names[position] if feature_names else f"input position {position}"
        said = f"{got}{f' and {n_more} more such values' if n_more else ''}"
        bad.append(BadCell(found.good[place], name, "a finite number", said))
    good = tuple(row for row, lost in zip(found.good, spoilt.tolist(), strict=True) if not lost)
    return replace(found, values=values[~spoilt], good=good, bad=tuple(sorted(bad, key=lambda cell: cell.row)))


def open_named_inputs(path: str, whole: Mapping[str, bool]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the ids and several inputs of an ``.npz`` file, by the names of its arrays; those that are ``whole`` as int64.

    Raises:
        DataError: it can't be read, or an array isn't there, or they aren't of one length.
    """
    where = path_at(path)
    if where.suffix.lower() != ".npz":
        raise DataError(f"{where}: a model of several inputs takes an .npz with the arrays {', '.join(whole)}")
    ids, arrays = read_npz_arrays(where, list(whole))
    return ids, {name: _whole(value, f"{where}: {name}") if whole[name] else value for name, value in arrays.items()}


def open_images(path: str, *, channels: int) -> tuple[tuple[str, ...], dict[int, Tensor], tuple[BadCell, ...]]:
    """Return the ids of an image or a folder, each image (bytes, in its own size) by its number, and what is wrong with others.

    Raises:
        DataError: there is none, or they can't be what the model takes.
    """
    where = path_at(path)
    folder, paths = (where, find_images(where)) if where.is_dir() else (where.parent, [where])
    if not paths or (where.is_file() and where.suffix.lower() not in IMAGE_SUFFIXES):
        raise DataError(f"{where}: expected images ({', '.join(IMAGE_SUFFIXES)}), got none")
    if channels not in (1, 3):
        raise DataError(f"{where}: the model needs inputs of {channels} channels, which images don't have")
    mode = "L" if channels == 1 else "RGB"
    return (tuple(path.relative_to(folder).as_posix() for path in paths), *_decoded(paths, None, mode))


def _decoded(
    paths: Sequence[Path], size: tuple[int, int] | None, mode: str
) -> tuple[dict[int, Tensor], tuple[BadCell, ...]]:
    """Return each image by its number, and what is wrong with those that can't be decoded."""
    images: dict[int, Tensor] = {}
    bad: list[BadCell] = []
    for number, path in enumerate(paths):
        try:
            images[number] = read_image(path, size, mode)
        except DataError as error:
            bad.append(BadCell(number, None, "an image that can be read", str(error)))
    return images, tuple(bad)


def _whole(values: Tensor, where: str) -> Tensor:
    """Return whole numbers as such."""
    if values.is_floating_point() and not torch.equal(values, values.round()):
        row = int((values != values.round()).reshape(len(values), -1).any(dim=1).int().argmax())
        raise DataError(f"{where}: the model takes whole numbers (ids, bytes): got others in row {row}")
    return values.long()


def _images(where: Path, shape: tuple[int, ...]) -> Rows:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"{where}: the model needs inputs of shape {shape}, which images don't have; give a table or .npz"
        )
    folder, paths = (where, find_images(where)) if where.is_dir() else (where.parent, [where])
    if not paths:
        raise DataError(f"{where}: expected images ({', '.join(IMAGE_SUFFIXES)}), got an empty set")
    mode = "L" if shape[0] == 1 else "RGB"
    check_resized(paths, shape, n_bytes=4)
    images, bad = _decoded(paths, (shape[1], shape[2]), mode)
    values = torch.stack(list(images.values())).float() if images else torch.empty(0, *shape)
    return Rows(tuple(path.relative_to(folder).as_posix() for path in paths), values, tuple(images), bad)
