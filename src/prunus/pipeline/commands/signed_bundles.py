"""What is done so that others can trust a bundle, and before one is trusted?"""

from __future__ import annotations

from pathlib import Path

from prunus.pipeline.shipping import bundle_folder, check_made_there
from prunus.ship import SignWith, Verified, VerifyPolicy, read_manifest, sign_bundle, verify_bundle

__all__ = ["sign_path", "verify_path"]


def verify_path(path: Path, *, policy: VerifyPolicy | None = None) -> Verified:
    """Return what was found in a bundle, or in that of a run, which must be the one that the run made.

    Raises:
        BundleError: it isn't whole, isn't what it says, or isn't of whom ``policy`` says.
    """
    found = verify_bundle(bundle_folder(path), policy=policy)
    check_made_there(found.folder, found.sha256)
    return found


def sign_path(path: Path, with_: SignWith, *, version: str | None = None) -> Verified:
    """Sign a bundle, or that of a run, which must be the one that the run made; return what was signed.

    Raises:
        RecipeError: the key or a certificate can't be used, or the version is none.
        BundleError: the bundle isn't whole, or isn't the run's.
    """
    folder = bundle_folder(path)
    check_made_there(folder, read_manifest(folder).sha256)
    return sign_bundle(folder, with_, version=version)
