"""What may somebody have meant by a path at which there is nothing?"""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from prunus.core.errors import near
from prunus.core.files.urls.url_path import is_url

__all__ = ["near_path"]

_MOST = 200
"""So many neighbours are looked at."""
_ALIKE = 0.6


def near_path(path: Path) -> str:
    """Return ``did you mean 'two'?``, where the first part of a path that isn't there is nearly what lies beside it; else "".

    The name alone where that is the last part, else the whole path. That two names end alike doesn't make them alike.

    >>> near_path(Path(__file__).parent.parent / "filse" / "near_paths.py").endswith("files/near_paths.py'?")
    True
    """
    if is_url(path):
        return ""
    missing = next((part for part in [*reversed(path.parents), path] if not part.exists()), None)
    if missing is None or not missing.parent.is_dir():
        return ""
    beside = islice(missing.parent.iterdir(), _MOST)
    names = [child.name for child in beside if _alike(missing.stem, child.stem)]
    hint = near(missing.name, names) if names else ""
    if not hint.startswith("did you mean '"):
        return ""
    if missing == path:
        return hint
    meant = missing.parent / hint.removeprefix("did you mean '").removesuffix("'?") / path.relative_to(missing)
    return f"did you mean {str(meant)!r}?"


def _alike(one: str, other: str) -> bool:
    return SequenceMatcher(None, one, other).ratio() >= _ALIKE
