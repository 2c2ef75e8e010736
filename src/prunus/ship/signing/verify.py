"""Is a bundle whole, what it says, and of whom it must be, before anything of it is loaded?

Every file is opened once, a link is never followed, and what was hashed is what was checked. What comes back holds the bundle's
hash: whoever loads it afterwards with ``load_bundle(..., sha256=...)`` gets these bytes or an error, whatever happened in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from prunus.core.errors import BundleError
from prunus.core.text import shown
from prunus.ship.assembly import parameter_names
from prunus.ship.bundle import meanings
from prunus.ship.manifest import (
    GRAPH,
    MANIFEST,
    RELEASE,
    SIGNATURE,
    WEIGHTS,
    Contents,
    Manifest,
    changed,
    most_bytes,
    open_listed,
    read_manifest_file,
)
from prunus.ship.signing.hashed_file import HashedFile
from prunus.ship.signing.library import check_signature
from prunus.ship.signing.policy import Verified, VerifyPolicy
from prunus.ship.signing.release import LARGEST_RELEASE, read_release, version_parts
from prunus.ship.signing.signature_file import LARGEST_SIGNATURE
from prunus.ship.signing.weights_scan import Scanned, scan_weights

__all__ = ["verify_bundle"]

_BESIDE = frozenset({MANIFEST, SIGNATURE, RELEASE})
"""What the manifest can't name."""


def verify_bundle(path: Path, *, policy: VerifyPolicy | None = None) -> Verified:
    """Check the bundle in the folder ``path``, and return what was found; no code of it runs, and no weight stays in memory.

    Checked are, in this order: the manifest (its format, its own hash, names, types); that the folder holds the files it names,
    plain ones, and no others; their sizes and SHA-256; the signature, where ``policy`` asks for one, and its version; the header of
    the weights (lengths, offsets, types, shapes, names), and that they are finite; types and shapes against the traced computation
    and the built-in model; and what scales inputs and outputs.

    Args:
        policy: who must have signed it; default: nobody.

    Raises:
        BundleError: one of these doesn't hold; the message says which, of which file.
        RecipeError: a key or a chain in ``policy`` can't be read.
        MissingExtraError: a signature is asked for, and ``model_signing`` isn't installed.
    """
    folder = Path(path)
    policy = VerifyPolicy() if policy is None else policy
    manifest, written = read_manifest_file(folder)
    there = _names_in(folder, manifest)
    if policy.needs_signature and SIGNATURE not in there:
        raise BundleError(
            f"{folder}: a signature is required, and there is no {SIGNATURE}; have it signed, or don't use it"
        )
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
                graph = hashed.read(size).tobytes() if name == GRAPH else graph
                hashes[name] = hashed.sha256()
                hashed.close()
        if hashes[name] != entry.sha256:
            raise changed(where, entry.sha256, hashes[name])
    release = None
    if RELEASE in there:
        with open_listed(folder / RELEASE, LARGEST_RELEASE) as (file, size):
            release = file.read(size)
        hashes[RELEASE] = hashlib.sha256(release).hexdigest()
    signed = None
    if policy.needs_signature:
        with open_listed(folder / SIGNATURE, LARGEST_SIGNATURE) as (file, size):
            signature = file.read(size)
        signed = check_signature(signature, hashes, policy, folder / SIGNATURE)
        signed = replace(signed, version=_version(folder, release, manifest, policy))
    assert scanned is not None, "a manifest without weights is none"
    if scanned.problem is not None:
        raise scanned.problem
    compared = _check_meaning(Contents(folder, manifest, {GRAPH: graph}), scanned)
    notes = []
    if signed is None and SIGNATURE in there:
        notes.append("it is signed, and the signature wasn't looked at: give the public key or the certificate chain")
    if not compared:
        notes.append(f"types and shapes weren't compared with the architecture: {_why_not(manifest)}")
    return Verified(
        folder,
        manifest.sha256,
        manifest.format,
        hashes,
        len(written) + sum(entry.size_bytes for entry in manifest.files.values()),
        len(manifest.tensors),
        compared,
        manifest.proof,
        signed,
        tuple(notes),
    )


def _version(folder: Path, release: bytes | None, manifest: Manifest, policy: VerifyPolicy) -> str | None:
    """Return the version in a ``release.json`` whose signature was verified."""
    version = None if release is None else read_release(release, manifest.sha256, folder / RELEASE).version
    if policy.min_version is None:
        return version
    if version is None:
        raise BundleError(
            f"{folder}: it was signed without a version, and {policy.min_version} or later is asked for: sign it with --version"
        )
    if version_parts(version) < version_parts(policy.min_version):
        raise BundleError(
            f"{folder}: it was signed as version {version}, and {policy.min_version} or later is asked for: get a newer one"
        )
    return version


def _names_in(folder: Path, manifest: Manifest) -> frozenset[str]:
    """Return what lies in a folder; it holds nothing that nobody named: another program might take it for a part of the bundle."""
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
    return frozenset(there)


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
