"""How does a command get a bundle that lies at a URL, or is one of several sizes?

It is fetched once, or put together, into a folder of this process alone, and looked at there like any other: what was hashed is
what is used. The folder goes when the command ends; what is said of it names the URL, or the size's folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from prunus.core.errors import BundleError
from prunus.core.files.plain_files import atomic_path
from prunus.core.files.urls.url_path import is_url, path_at

__all__ = ["as_asked", "beside_size", "brought_here", "dense_of_size", "each_size", "give_back", "let_go"]

_held = ExitStack()
_called: dict[str, str] = {}


def brought_here(path: Path, size: float | None = None) -> Path:
    """Return the folder of a bundle, or of a run that has one, on this machine.

    Args:
        size: which one of several sizes, by its keep fraction; the folder of one size needs none.

    Raises:
        BundleError: there is none at a URL, or it can't be read; or there is no such size.
        OutputError: the disk has no room for it.
    """
    given = path_at(path)
    if not is_url(given):
        return _one_size(path, size)
    from prunus.core.files.urls.copies import fetch_folder
    from prunus.core.files.urls.store import refused_as
    from prunus.core.recipes.named_places import check_bundle

    with refused_as(BundleError):
        one = _one_size(given, size)
        if not is_url(one):
            return one
        check_bundle(given)
        folder = Path(_held.enter_context(TemporaryDirectory(prefix="prunus-"))) / given.name
        fetch_folder(str(given), folder)
    _called[str(folder)] = str(given)
    return folder


def _one_size(path: Path, size: float | None) -> Path:
    """Return the bundle of one size, put together; what isn't one of several sizes is left as it is."""
    if size is None and not path.name.startswith("keep-"):
        return path
    from prunus.ship.sizes import find_sizes, folder_of_size, size_of_folder, write_size

    sizes = path.parent if size is None else find_sizes(path)
    size = size_of_folder(path) if size is None else size
    if size is None:
        return path
    own = folder_of_size(sizes, size)
    folder = Path(_held.enter_context(TemporaryDirectory(prefix="prunus-"))) / own.name
    write_size(sizes, size, folder)
    _called[str(folder)] = str(own)
    return folder


def each_size(path: Path) -> list[Path]:
    """Return the folders of all sizes of one model; of what has no several sizes, itself."""
    from prunus.core.files.urls.store import refused_as
    from prunus.ship.sizes import find_sizes, folder_of_size, list_sizes

    given = path_at(path)
    with refused_as(BundleError):
        if not any((place / "sizes.json").is_file() for place in (given, given / "sizes")):
            return [path]
        sizes = find_sizes(given)
        return [folder_of_size(sizes, size) for size in list_sizes(sizes)]


def give_back(bundle: Path, names: Sequence[str]) -> None:
    """Copy files of one size that was put together to the size's own folder, where it is put together from the next time.

    Raises:
        OutputError: they can't be written.
    """
    place = _called.get(str(bundle))
    for name in names if place is not None else ():
        if (bundle / name).is_file():
            with atomic_path(Path(str(place)) / name) as temporary:
                shutil.copyfile(bundle / name, temporary)


def dense_of_size(bundle: Path) -> Path | None:
    """Return the dense model beside the sizes that one was taken out of; None for other bundles, or where there is none."""
    place = _called.get(str(bundle))
    dense = None if place is None else path_at(place).parent.parent / "dense"
    return brought_here(dense) if dense is not None and (dense / "manifest.json").is_file() else None


def beside_size(bundle: Path, to: str, *, int8: bool) -> Path | None:
    """Return where a file of one of several sizes is written unless somebody says: beside it; None for other bundles.

    Raises:
        UnknownNameError: there is no such format.
    """
    place = _called.get(str(bundle))
    if place is None or is_url(path_at(place)):
        return None
    from prunus.ship import format_of

    own = Path(place)
    return own.with_name(f"{own.name}.{f'int8.{to}' if int8 else format_of(to).ending or to}")


def as_asked(text: str) -> str:
    """Return a text in which what was brought here is called by its URL, or as the size that it is."""
    for folder, name in _called.items():
        text = text.replace(folder, name)
    return text


def let_go() -> None:
    """Remove what was brought here."""
    _held.close()
    _called.clear()
