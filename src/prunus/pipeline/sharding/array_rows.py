"""How do rows that are one array each (images, tensors, token ids) go through a model, a block that fits into memory at a time?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from prunus.core.errors import DataError, ModelError
from prunus.core.files.urls.url_path import path_at
from prunus.data.readers.rows_of_images import IMAGE
from prunus.data.rows.to_tensors import is_rows, tensor_of_arrays
from prunus.data.sources.image_folder import CHANNELS, read_image

__all__ = ["array_blocks", "array_column"]

_BLOCK_NUMBERS = 1 << 22
"""So many numbers go through a model at once."""
_IMAGES = 32
"""So many images, where it isn't known how large they become."""


def array_column(schema: pa.Schema, names: Sequence[str]) -> str | None:
    """Return which of some columns holds an array or an image per row; None: none does.

    Raises:
        DataError: several do.
    """
    found = [name for name in names if is_rows(schema.field(name).type) or _is_image(schema.field(name))]
    if len(found) > 1:
        raise DataError(
            f"the columns {', '.join(found)} hold an array per row: name the one that the model takes (columns)"
        )
    return found[0] if found else None


def array_blocks(batch: pa.RecordBatch, name: str, shape: tuple[int, ...] | None, most_rows: int) -> Iterator[Tensor]:
    """Yield ``(rows, *shape)`` of a column of arrays, or of images, which are decoded, and resized where a shape is asked for.

    Args:
        shape: what the model takes, for images; None: it isn't known.
        most_rows: so many rows at once at most.

    Raises:
        DataError: an image can't be decoded, or a row is missing; an image is named.
        ModelError: the model takes no images.
    """
    column = batch.column(name)
    if _is_image(batch.schema.field(name)):
        yield from _images(column, shape)
        return
    held = column.type.shape if isinstance(column.type, pa.FixedShapeTensorType) else [column.type.list_size]
    n_rows = min(max(_BLOCK_NUMBERS // max(prod(held), 1), 1), most_rows)
    for start in range(0, len(column), n_rows):
        rows = tensor_of_arrays(column.slice(start, n_rows), name)
        if not bool(rows.isfinite().all()):
            odd = int((~rows.isfinite()).reshape(len(rows), -1).any(dim=1).int().argmax())
            raise DataError(f"column {name!r}: expected finite numbers, got others in row {start + odd} of these")
        yield rows


def _images(column: pa.Array, shape: tuple[int, ...] | None) -> Iterator[Tensor]:
    modes = {n: mode for mode, n in CHANNELS.items()}
    if shape is not None and (len(shape) != 3 or shape[0] not in modes):
        raise ModelError(f"the model takes inputs of shape {shape}, which images don't have")
    mode, size = ("RGB", None) if shape is None else (modes[shape[0]], (shape[1], shape[2]))
    n_rows = _IMAGES if shape is None else max(_BLOCK_NUMBERS // prod(shape), 1)
    paths = column.to_pylist()
    for start in range(0, len(paths), n_rows):
        block = [read_image(path_at(path), size, mode) for path in paths[start : start + n_rows]]
        sizes = {tuple(image.shape) for image in block}
        if len(sizes) > 1:
            odd = next(place for place, image in enumerate(block) if image.shape != block[0].shape)
            raise DataError(
                f"{paths[start + odd]}: expected {tuple(block[0].shape)} as in {Path(paths[start]).name}, got "
                f"{tuple(block[odd].shape)}; resize the images, or score with a bundle, which knows its size"
            )
        yield torch.stack(block).float()


def _is_image(field: pa.Field) -> bool:
    return bool(field.equals(IMAGE, check_metadata=True))
