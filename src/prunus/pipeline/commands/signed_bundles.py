"""What is done so that others can trust a bundle, and before one is trusted?"""

from __future__ import annotations

from pathlib import Path

from prunus.pipeline.shipping import bundle_folder, check_made_there
from prunus.ship import Verified, VerifyPolicy, verify_bundle

__all__ = ["verify_path"]


def verify_path(path: Path, *, policy: VerifyPolicy | None = None) -> Verified:
    """Return what was found in a bundle, or in that of a run, which must be the one that the run made.

    Raises:
        BundleError: it isn't whole, isn't what it says, or isn't of whom ``policy`` says.
    """
    found = verify_bundle(bundle_folder(path), policy=policy)
    check_made_there(found.folder, found.sha256)
    return found
