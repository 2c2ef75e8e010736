"""Is a bundle what it says, before anything of it is loaded to be served?

The one place where the server asks: at its start and at every reload.
"""

from __future__ import annotations

from pathlib import Path

from prunus.core.recipes.named_places import check_bundle
from prunus.ship.manifest import Manifest, read_contents

__all__ = ["verified_manifest"]


def verified_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle every file of which is what the manifest says.

    Raises:
        BundleError: there is none, or a file was changed.
    """
    check_bundle(folder)
    return read_contents(folder).manifest
