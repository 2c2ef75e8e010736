"""How is a bundle signed, so that nobody can change it, mix it with another or pass an old one off as new?

Signed are the hashes of every file in the folder: the manifest is one of them, and with it which run made the bundle and what its
contract showed. ``release.json`` brings the version. The bundle is verified first: what is broken isn't signed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from prunus.core.files.plain_files import atomic_path, write_text
from prunus.ship.manifest import RELEASE, SIGNATURE, open_listed, read_manifest
from prunus.ship.signing.keys import SignWith, check_private_key
from prunus.ship.signing.library import write_signature
from prunus.ship.signing.policy import Verified
from prunus.ship.signing.release import LARGEST_RELEASE, Release, read_release, version_parts
from prunus.ship.signing.verify import verify_bundle

__all__ = ["sign_bundle"]


def sign_bundle(path: Path, with_: SignWith, *, version: str | None = None) -> Verified:
    """Write ``model.sig`` into the bundle in the folder ``path``, and return what was signed. An earlier signature is replaced.

    Args:
        with_: the key, and its certificate where there is one.
        version: as which it is signed, one to four whole numbers with dots between; default: the one that it was signed as before,
            if it was.

    Raises:
        RecipeError: the key or a certificate can't be used, or the version is none.
        BundleError: the bundle isn't whole.
        MissingExtraError: ``model_signing`` isn't installed.
        OutputError: the signature can't be written.
    """
    folder = Path(path)
    if version is not None:
        version_parts(version)
    signer = check_private_key(with_)  # before a large file is read
    found = verify_bundle(folder)
    files, where = dict(found.files), folder / RELEASE
    if version is not None:
        text = json.dumps(Release(version=version, bundle=found.sha256).model_dump(), indent=2) + "\n"
        write_text(where, text)
        files[RELEASE] = hashlib.sha256(text.encode()).hexdigest()
    elif RELEASE in files:
        with open_listed(where, LARGEST_RELEASE) as (file, size):
            version = read_release(file.read(size), found.sha256, where).version
    with atomic_path(folder / SIGNATURE) as temporary:
        write_signature(files, _name(folder), with_, temporary)
    return replace(found, files=files, signed=replace(signer, version=version), notes=())


def _name(folder: Path) -> str:
    """Return what the model is called in what is signed: as its recipe says, or its folder is called."""
    name = read_manifest(folder).facts.get("name")
    return name[:200] if isinstance(name, str) and name else folder.resolve().name
