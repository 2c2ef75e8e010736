"""How does a folder with one sub-folder of images per class become a data set?

Ids are paths below the folder (``cats/7.png``); classes are the sub-folders' names, sorted. Values are bytes, 0 to 255, as stored.
Images are decoded when they are asked for, and kept as bytes while all of them fit into the memory budget.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, near, raise_if_out_of_memory
from prunus.core.files.expansion import check_expansion
from prunus.core.files.urls.url_path import is_url
from prunus.core.recipes.recipe import Data
from prunus.data.sources.source import MEMORY_BUDGET_BYTES, Task
from prunus.data.sources.targets import read_targets

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "check_resized",
    "find_images",
    "holds_class_folders",
    "open_image_folder",
    "read_image",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What the endings stand for: whatever a file is called, no other decoder looks at it (that of EPS starts Ghostscript)."""
CHANNELS = {"L": 1, "RGB": 3}
_BLOCK_BYTES = 4096
"""What a file takes on a disk, however little it holds: a thumbnail may become a picture."""


class ImageFolder:
    """Images on disk, behind the protocol of :class:`prunus.data.sources.source.Source`."""

    feature_names: tuple[str, ...] = ()
    label_kind = "U"

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        *,
        name: str,
        targets: Tensor,
        task: Task,
        class_names: tuple[str, ...],
        size: tuple[int, int],
        mode: str,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> None:
        self.name, self.targets, self.task, self.class_names = name, targets, task, class_names
        self.ids = tuple(path.relative_to(folder).as_posix() for path in paths)
        self.input_shape = (CHANNELS[mode], *size)
        self._paths, self._mode, self._size = tuple(paths), mode, size
        fits = len(paths) * CHANNELS[mode] * size[0] * size[1] <= budget_bytes
        self._cache = torch.empty(len(paths), *self.input_shape, dtype=torch.uint8) if fits else None
        self._cached = torch.zeros(len(paths), dtype=torch.bool)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the decoded images of some rows, float32, 0 to 255.

        Raises:
            DataError: an image can't be decoded; the message names the file.
        """
        if self._cache is None:
            decoded = [read_image(self._paths[row], self._size, self._mode) for row in rows.tolist()]
            return torch.stack(decoded).float() if decoded else torch.empty(0, *self.input_shape)
        for row in rows[~self._cached[rows]].tolist():
            self._cache[row] = read_image(self._paths[row], self._size, self._mode)
            self._cached[row] = True
        return self._cache[rows].float()


def read_image(path: Path, size: tuple[int, int] | None, mode: str) -> Tensor:
    """Return one image as ``(channels, height, width)`` bytes, converted, and resized where it differs (None: not at all).

    Raises:
        DataError: it can't be decoded, or would become far larger than its file.
    """
    image_module = require("PIL.Image", extra="images")
    try:
        if size is not None:
            check_resized([path], (CHANNELS[mode], *size), n_bytes=1)
        with _opened(image_module, path) as image:
            _refuse_deep(path, image.mode)
            _check_pixels(path, image)
            converted = image if image.mode == mode else image.convert(mode)
            if size is not None and converted.size != (size[1], size[0]):
                converted = converted.resize((size[1], size[0]), image_module.Resampling.BILINEAR)
            pixels = np.array(converted, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise_if_out_of_memory(error)
        raise DataError(f"{path}: this image can't be read: {one_line(error)}; replace or remove the file") from error
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], CHANNELS[mode]).permute(2, 0, 1)


def check_resized(paths: Sequence[Path], shape: Sequence[int], *, n_bytes: int) -> None:
    """Compare what images become with their files: whoever writes a model's input shape may ask for any size.

    Args:
        n_bytes: how many each value takes.

    Raises:
        DataError: it is too much.
    """
    where = f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}, as images of {shape[1]} x {shape[2]} pixels"
    held = sum(max(path.stat().st_size, _BLOCK_BYTES) for path in paths)
    check_expansion(where, len(paths) * n_bytes * math.prod(shape), held, DataError)


def find_images(folder: Path) -> list[Path]:
    """Return the image files anywhere below ``folder``, sorted, hidden ones left out."""
    return sorted(_images(folder), key=lambda path: path.relative_to(folder).as_posix())


def holds_class_folders(folder: Path) -> bool:
    """Return whether two sub-folders hold images: no classes can be fewer. The first image in each says so."""
    children = (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    held = (child for child in children if next(_images(child), None) is not None)
    return len(list(islice(held, 2))) == 2


def _images(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def open_image_folder(folder: Path, config: Data) -> ImageFolder:
    """Return the data set in a folder of class folders.

    Raises:
        DataError: no class folders, a class without images, a damaged image, or images of several sizes or modes.
    """
    size, mode = _arguments(config.args, folder)
    classes = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    paths = find_images(folder)
    if not classes:
        raise DataError(
            f"{folder}: expected one sub-folder of images per class, got {len(paths)} images and no sub-folder"
        )
    labels = [path.relative_to(folder).parts[0] for path in paths]
    for path, label in zip(paths, labels, strict=True):
        if label not in classes:
            raise DataError(f"{path}: this image lies outside of every class folder; move it into one")
    if not paths:
        raise DataError(f"{folder}: expected images in the class folders, got an empty set")
    for empty in set(classes) - set(labels):
        raise DataError(
            f"{folder / empty}: expected images of the class {empty!r}, got none; add some or remove the folder"
        )
    if config.task == "regression":
        raise DataError(f"{folder}: class folders are a classification, got data.task regression")
    targets = read_targets(np.asarray(labels), task="classification", name=config.source, column="class folder")
    size, mode = _common_form(paths, size, mode)
    return ImageFolder(
        folder,
        paths,
        name=config.source,
        targets=targets.values,
        task=targets.task,
        class_names=targets.class_names,
        size=size,
        mode=mode,
    )


def _arguments(arguments: Mapping[str, Any], folder: Path) -> tuple[tuple[int, int] | None, str | None]:
    known = ("size", "mode")
    for key in arguments:
        if key not in known:
            raise DataError(f"{folder}: unknown argument {key!r} for images (data.args): {near(str(key), known)}")
    size, mode = arguments.get("size"), arguments.get("mode")
    if size is not None:
        whole = isinstance(size, list | tuple) and len(size) == 2
        if not whole or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
            raise DataError(f"{folder}: data.args.size must be [height, width] in whole pixels, got {size!r}")
        size = (int(size[0]), int(size[1]))
    if mode is not None and mode not in CHANNELS:
        raise DataError(f"{folder}: data.args.mode must be L (grey) or RGB, got {mode!r}")
    return size, mode


def _common_form(paths: Sequence[Path], size: tuple[int, int] | None, mode: str | None) -> tuple[tuple[int, int], str]:
    """Return the size and the mode that all images have, or that the recipe asks for; only headers are read."""
    image_module = require("PIL.Image", extra="images")
    first: tuple[tuple[int, int], str] | None = None
    for path in paths:
        try:
            with _opened(image_module, path) as image:
                _check_pixels(path, image)
                found = (image.size[1], image.size[0]), image.mode
        except DataError:
            raise
        except Exception as error:  # decoders raise many kinds
            raise_if_out_of_memory(error)
            raise DataError(
                f"{path}: this image can't be read: {one_line(error)}; replace or remove the file"
            ) from error
        _refuse_deep(path, found[1])
        first = first or found
        if size is None and found[0] != first[0]:
            raise DataError(
                f"{path}: expected {first[0]} (height, width) as in {paths[0].name}, got {found[0]}; "
                "set data.args: {size: [height, width]} to resize"
            )
        if mode is None and (found[1] != first[1] or found[1] not in CHANNELS):
            expected = first[1] if first[1] in CHANNELS else "L or RGB"
            raise DataError(
                f"{path}: expected mode {expected}, got {found[1]}; set data.args: {{mode: RGB}} to convert"
            )
    assert first is not None
    return size or first[0], mode or first[1]


def _opened(image_module: Any, path: Path) -> Any:
    """Open an image, of which only the header is read; how many pixels are too many is decided by what its file holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", image_module.DecompressionBombWarning)
        return image_module.open(BytesIO(path.read_bytes()) if is_url(path) else path, formats=FORMATS)


def _check_pixels(path: Path, image: Any) -> None:
    """Compare what a header declares with the file, at four bytes for each pixel, as they lie in memory."""
    check_expansion(path, 4 * image.size[0] * image.size[1], path.stat().st_size, DataError)


def _refuse_deep(path: Path, mode: str) -> None:
    """Sixteen and more bits would be cut to eight in silence."""
    if mode[0] in "IF":
        raise DataError(f"{path}: expected an image with 8 bits per channel, got mode {mode}; convert it first")
