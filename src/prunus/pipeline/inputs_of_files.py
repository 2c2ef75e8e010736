"""Which inputs does a file hold for a bundle's model, and which rows of it can't be taken?

Tables and images are one input; an ``.npz`` may hold several, under their names (``arr_0``, ``arr_1``, ... where they have none).
Whole numbers that the model takes as such (token ids, bytes) are neither rounded nor scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from prunus.core.errors import DataError
from prunus.data import BadCell, open_images, open_named_inputs, open_rows
from prunus.ship import Bundle, sizes_misfit

__all__ = ["FileInputs", "Part", "inputs_of_file"]

Part = tuple[list[int], Any]
"""The places of some examples, and their inputs as the model takes them."""


@dataclass(frozen=True)
class FileInputs:
    """The ids of all examples, the inputs of those that the model can take, and what is wrong with the others."""

    ids: tuple[str, ...]
    parts: tuple[Part, ...]
    bad: tuple[BadCell, ...] = ()
    notes: tuple[str, ...] = ()


def inputs_of_file(path: str, bundle: Bundle, *, own_size: bool = False) -> FileInputs:
    """Return what a file holds, the inputs of one size together.

    Args:
        own_size: images keep their height and width; otherwise they are resized to those of the training.

    Raises:
        DataError: the file can't be read, or doesn't hold what the model takes.
    """
    takes = bundle.manifest.takes
    whole = [not entry.kind.is_floating_point for entry in takes]
    if own_size:
        if len(takes) != 1 or len(takes[0].shape) != 3:
            raise DataError(f"{path}: only images have a size of their own: this model takes no image alone")
        ids, images, unread = open_images(path, channels=takes[0].shape[0])
        places: dict[Any, list[int]] = {}
        bad = list(unread)
        for place, image in images.items():
            if problem := sizes_misfit(takes, [image[None]]):
                bad.append(BadCell(place, None, "a size that the model takes", problem))
            else:
                places.setdefault(image.shape, []).append(place)
        parts = [(own, torch.stack([images[place] for place in own])) for own in places.values()]
        return FileInputs(
            ids, tuple((own, stacked if whole[0] else stacked.float()) for own, stacked in parts), tuple(bad)
        )
    if len(takes) == 1 and takes[0].name is None:
        found = open_rows(
            path,
            input_shape=takes[0].shape,
            feature_names=bundle.feature_names,
            columns=bundle.columns,
            exact=bundle.scaler is not None and bundle.scaler.wide,
            whole=whole[0],
            misfit=lambda values: sizes_misfit(takes, [values]),
        )
        return FileInputs(found.ids, ((list(found.good), found.values),), found.bad, found.notes)
    names = [f"arr_{number}" if entry.name is None else entry.name for number, entry in enumerate(takes)]
    ids, arrays = open_named_inputs(path, dict(zip(names, whole, strict=True)))
    if problem := sizes_misfit(takes, list(arrays.values())):
        raise DataError(f"{path}: {problem}")
    inputs = arrays if takes[0].name is not None else tuple(arrays.values())
    return FileInputs(ids, ((list(range(len(ids))), inputs),))
