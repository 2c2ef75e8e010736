"""How does a command get a bundle that lies at a URL?

It is fetched once, into a folder of this process alone, and looked at there like any other: what was hashed is what is used. The
folder goes when the command ends; what is said of it names the URL.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from prunus.core.errors import BundleError, DataError
from prunus.core.files.urls.url_path import is_url, path_at

__all__ = ["as_asked", "brought_here", "let_go"]

_held = ExitStack()
_urls: dict[str, str] = {}


def brought_here(path: Path) -> Path:
    """Return the folder of a bundle, or of a run that has one, on this machine.

    Raises:
        BundleError: there is none at a URL, or it can't be read.
        OutputError: the disk has no room for it.
    """
    given = path_at(path)
    if not is_url(given):
        return path
    from prunus.core.files.urls.copies import fetch_folder
    from prunus.core.recipes.named_places import check_bundle

    try:
        check_bundle(given)
        folder = Path(_held.enter_context(TemporaryDirectory(prefix="prunus-"))) / given.name
        fetch_folder(str(given), folder)
    except DataError as error:
        raise BundleError(str(error)) from error
    _urls[str(folder)] = str(given)
    return folder


def as_asked(text: str) -> str:
    """Return a text in which what was brought here is called by its URL."""
    for folder, url in _urls.items():
        text = text.replace(folder, url)
    return text


def let_go() -> None:
    """Remove what was brought here."""
    _held.close()
    _urls.clear()
