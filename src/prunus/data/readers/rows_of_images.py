"""How is a folder of images read as rows?

One row per image, in the order of their names: ``id`` is the path from the folder above (``cats/7.png``), ``label`` the folder's
name, and ``image`` where it lies. It is decoded where it is needed, by :func:`prunus.data.sources.image_folder.read_image`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from prunus.core.errors import DataError
from prunus.data.sources.formats import IMAGES, add_row_reader
from prunus.data.sources.image_folder import IMAGE_SUFFIXES, find_images
from prunus.data.sources.row_files import cut

__all__ = ["IMAGE", "ImageRows", "image_shards"]

IMAGE = pa.field("image", pa.string(), metadata={"prunus": "image"})
"""The column of images: paths, which this metadata tells from other texts."""


class ImageRows:
    """The images of a folder, of which none is decoded."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        found = find_images(path)
        if not found:
            raise DataError(f"{path}: expected images ({', '.join(IMAGE_SUFFIXES)}), got none")
        texts = pa.string()
        self.schema = pa.schema([("id", texts), IMAGE, ("label", texts)])
        ids = [f"{path.name}/{image.relative_to(path).as_posix()}" for image in found]
        columns = [pa.array(ids), pa.array(map(str, found)), pa.array([path.name] * len(found))]
        self._whole = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        self.groups = (len(found),)

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        return cut(iter([self._whole]), columns, n_rows)


def image_shards(folder: Path) -> list[Path]:
    """Return the folders of images that are one shard each: those of the classes, or the folder itself; none without an image."""
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = [child for child in classes if find_images(child)]
    return found or ([folder] if find_images(folder) else [])


add_row_reader(f".{IMAGES}", ImageRows)
