"""What begins beside a command when several processes of this machine will share its work?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.core.code.place import place

if TYPE_CHECKING:
    from prunus.core.recipes.execution.dispatch_section import Dispatch

__all__ = ["get_ready"]


def get_ready(who: Dispatch | None, source: str = "", bundle: Path | None = None) -> None:
    """Have what such processes need imported while this one imports it, if there will be any.

    Args:
        source: the data.
        bundle: one, or a run that has one, which names its data.
    """
    if who is None or who.backend != "local" or who.workers < 2 or not place().alone:
        return
    from prunus.core.code.new_process import import_ahead

    named = source.startswith("sklearn:") or (bundle is not None and _names_sklearn(bundle))
    import_ahead(["prunus.pipeline", *(["sklearn.datasets"] if named else [])])


def _names_sklearn(bundle: Path) -> bool:
    manifests = (bundle / "manifest.json", bundle / "bundle" / "manifest.json")
    with suppress(OSError):
        return any(b'"sklearn:' in manifest.read_bytes() for manifest in manifests if manifest.is_file())
    return False
