"""Is a bundle whole, what it says, and of whom it must be, before anything of it is loaded?

Every file is opened once, a link is never followed, and what was hashed is what was checked. What comes back holds the bundle's
hash: whoever loads it afterwards with ``load_bundle(..., sha256=...)`` gets these bytes or an error, whatever happened in between.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from prunus.core.errors import BundleError
from prunus.core.text import shown
from prunus.ship.assembly import parameter_names
from prunus.ship.bundle import meanings
from prunus.ship.manifest import (
    GRAPH,
    MANIFEST,
    SIGNATURE,
    WEIGHTS,
    Contents,
    Manifest,
    changed,
    most_bytes,
    open_listed,
    read_manifest_file,
)
from prunus.ship.signing.policy import Verified, VerifyPolicy
from prunus.ship.signing.weights_scan import HashedFile, Scanned, scan_weights

__all__ = ["verify_bundle"]

_BESIDE = frozenset({MANIFEST, SIGNATURE})
"""What the manifest can't name."""


def verify_bundle(path: Path, *, policy: VerifyPolicy | None = None) -> Verified:
    """Check the bundle in the folder ``path``, and return what was found; no code of it runs, and no weight stays in memory.

    Checked are, in this order: the manifest (its format, its own hash, names, types); that the folder holds the files it names,
    plain ones, and no others; their sizes and SHA-256; the header of the weights (lengths, offsets, types, shapes, names), and that
    they are finite; types and shapes against the traced computation and the built-in model; and what scales inputs and outputs.

    Args:
        policy: who must have signed it; default: nobody.

    Raises:
        BundleError: one of these doesn't hold; the message says which, of which file.
    """
    folder = Path(path)
    manifest, written = read_manifest_file(folder)
    _check_names(folder, manifest)
    if policy is not None and policy.needs_signature:
        raise BundleError(f"{folder}: a signature is required, and there is no {SIGNATURE}")
    hashes = {MANIFEST: hashlib.sha256(written).hexdigest()}
    scanned, graph = None, b""
    for name, entry in sorted(manifest.files.items()):
        where = folder / name
        with open_listed(where, most_bytes(name), entry.size_bytes) as (file, size):
            if name == WEIGHTS:
                scanned = scan_weights(file, size, manifest.tensors, where)
                hashes[name] = scanned.sha256
            else:
                hashed = HashedFile(file, size, where)
                graph = hashed.read(size) if name == GRAPH else graph
                hashes[name] = hashed.sha256()
                hashed.close()
        if hashes[name] != entry.sha256:
            raise changed(where, entry.sha256, hashes[name])
    assert scanned is not None, "a manifest without weights is none"
    if scanned.problem is not None:
        raise scanned.problem
    compared = _check_meaning(Contents(folder, manifest, {GRAPH: graph}), scanned)
    size_bytes = len(written) + sum(entry.size_bytes for entry in manifest.files.values())
    notes = () if compared else (f"types and shapes weren't compared with the architecture: {_why_not(manifest)}",)
    return Verified(
        folder, manifest.sha256, manifest.format, hashes, size_bytes, len(manifest.tensors), compared, notes
    )


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that holds what nobody named: another program might take it for a part of the bundle."""
    try:
        there = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BundleError(
            f"{folder}: its files can't be listed ({error.strerror}); give the bundle's folder"
        ) from error
    if odd := [name for name in there if name not in manifest.files and name not in _BESIDE]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise BundleError(
            f"{folder}: it holds {shown(odd[0])}{more}, which the manifest doesn't name; take that out, or fetch the bundle anew"
        )


def _check_meaning(contents: Contents, scanned: Scanned) -> tuple[str, ...]:
    """Return what types and shapes were compared with."""
    folder, manifest = contents.folder, contents.manifest
    parameters, compared = parameter_names(contents)
    meanings(contents)
    if odd := sorted(scanned.infinite & parameters):
        raise BundleError(
            f"{folder / WEIGHTS}: the parameter {shown(odd[0])} holds infinite values: it is broken; fetch or make the bundle anew"
        )
    if not compared and scanned.infinite:
        raise BundleError(
            f"{folder / WEIGHTS}: {shown(min(scanned.infinite))} holds infinite values, and nothing says that it is no parameter: "
            f"{_why_not(manifest)}"
        )
    return compared


def _why_not(manifest: Manifest) -> str:
    return f"no graph goes along ({manifest.no_graph or 'it was left out'}), and the model's class is code outside of prunus"
