"""Is a bundle what it says, before anything of it is loaded to be served?

The one place where the server asks: at its start and at every reload.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.core.errors import BundleError
from prunus.core.recipes.named_places import check_bundle
from prunus.ship.manifest import Manifest, read_manifest
from prunus.ship.signing import Verified, VerifyPolicy, verify_bundle

__all__ = ["VerifiedBundle", "verified"]


@dataclass(frozen=True)
class VerifiedBundle:
    """The manifest of a bundle that passed, and what was found."""

    manifest: Manifest
    found: Verified


def verified(folder: Path, policy: VerifyPolicy | None) -> VerifiedBundle:
    """Return the manifest of a bundle that is whole, what it says, and of whom ``policy`` says.

    Raises:
        BundleError: it isn't.
    """
    check_bundle(folder)
    found = verify_bundle(folder, policy=policy)
    manifest = read_manifest(folder)
    if manifest.sha256 != found.sha256:
        raise BundleError(f"{folder} was changed while it was loaded: start again when it is whole")
    return VerifiedBundle(manifest, found)
