"""How does a run that is to be replaced stay until the new one has begun?

It lies aside in its own folder until the new run's data are read and its recipe fits them. If that fails, or the process is killed
on the way, it comes back. The recipe moves last when a run goes aside and first when it comes back: so whether it lies
aside says if all that stands outside is of the new run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunus.core.errors import OutputError
from prunus.core.files.plain_files import discard, explain_os_error, remove

__all__ = ["ASIDE", "forget_aside", "put_back", "set_aside"]

ASIDE = ".replaced"
_RECIPE = "recipe.yaml"


def set_aside(folder: Path, names: Sequence[str]) -> None:
    """Move what a run left under ``names`` aside.

    Raises:
        OutputError: it can't be moved.
    """
    aside = folder / ASIDE
    try:
        aside.mkdir()
        for name in _recipe_first(names)[::-1]:
            if (folder / name).exists() or (folder / name).is_symlink():
                (folder / name).rename(aside / name)
    except OSError as error:
        raise explain_os_error(error, aside) from error


def put_back(folder: Path, names: Sequence[str]) -> None:
    """Put a run that lies aside back in its place; what the new one left under ``names`` goes. If none lies there, do nothing.

    Raises:
        OutputError: a link stands where it should lie, or it can't be moved.
    """
    aside = folder / ASIDE
    if aside.is_symlink():
        raise OutputError(f"{aside} is a link, expected a folder of prunus: remove it")
    if not aside.is_dir():
        return
    try:
        if (aside / _RECIPE).exists():
            for name in names:
                remove(folder / name)
        for name in _recipe_first(names):
            if (aside / name).exists() or (aside / name).is_symlink():
                (aside / name).rename(folder / name)
        remove(aside)
    except OSError as error:
        raise explain_os_error(error, aside) from error


def forget_aside(folder: Path) -> None:
    """Remove a run that lies aside, if one does: the new one has begun.

    Raises:
        OutputError: it can't be removed.
    """
    if (folder / ASIDE).is_dir():
        discard(folder / ASIDE)


def _recipe_first(names: Sequence[str]) -> list[str]:
    return [_RECIPE, *(name for name in names if name != _RECIPE)]
