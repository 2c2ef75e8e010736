"""How is a signature made and believed? By ``model_signing``, on hashes of bytes that were read here.

The library would read the files itself, by their paths: what it hashed needn't be what is loaded later, and all would be read
twice. It takes a configuration that hashes, so it gets one that knows the hashes already. Its formats and its cryptography stay
its own, and its command line verifies what is signed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, RecipeError, raise_if_out_of_memory
from prunus.ship.manifest import SIGNATURE
from prunus.ship.signing.keys import SignWith, certificates_in, check_key_fits, check_valid, subject_of
from prunus.ship.signing.policy import Signed, VerifyPolicy
from prunus.ship.signing.signature_file import Claim, read_signature

__all__ = ["check_signature", "write_signature"]


def write_signature(digests: Mapping[str, str], name: str, with_: SignWith, path: Path) -> None:
    """Sign the SHA-256 of files, and write the signature to ``path``.

    Args:
        name: what the model is called in the signed statement.

    Raises:
        RecipeError: the key or a certificate can't be used.
        MissingExtraError: ``model_signing`` isn't installed.
    """
    signing = require("model_signing.signing", extra="sign")
    config = signing.Config().set_hashing_config(_known(digests, name))
    try:
        if with_.certificate is None:
            password = None if with_.password is None else with_.password.encode()
            config.use_elliptic_key_signer(private_key=with_.private_key, password=password)
        else:
            config.use_certificate_signer(
                private_key=with_.private_key,
                signing_certificate=with_.certificate,
                certificate_chain=list(with_.certificate_chain) or [with_.certificate],
            )
        config.sign(Path(name), path)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"{with_.private_key}: it can't be signed with this: {one_line(error)[:200]}") from error


def check_signature(content: bytes, digests: Mapping[str, str], policy: VerifyPolicy, path: Path) -> Signed:
    """Return who signed, if the bytes of a signature file are one of exactly these files by whom ``policy`` says.

    Raises:
        BundleError: they aren't; the message says what differs.
        RecipeError: the key or a chain in ``policy`` can't be read.
        MissingExtraError: ``model_signing`` isn't installed.
    """
    verifying = require("model_signing.verifying", extra="sign")
    claim = read_signature(content, path)
    _check_same_files(claim.digests, digests, path)
    config = verifying.Config().set_hashing_config(_known(digests, ""))
    signed = _with_key(config, claim, policy, path) if policy.public_key else _with_chain(config, claim, policy, path)
    handle = os.memfd_create(SIGNATURE)  # the library wants a path: of the very bytes that were looked at
    try:
        os.write(handle, content)
        config.verify(path.parent, Path(f"/proc/self/fd/{handle}"))
    except Exception as error:
        raise_if_out_of_memory(error)
        raise BundleError(f"{path}: {_why(error, policy)}") from error
    finally:
        os.close(handle)
    return signed


def _check_same_files(claimed: Mapping[str, str], found: Mapping[str, str], path: Path) -> None:
    for name in sorted(claimed.keys() | found.keys()):
        if name not in claimed:
            raise BundleError(f"{path.parent / name} isn't among what was signed: take it out, or sign anew")
        if name not in found:
            raise BundleError(f"{path.parent / name} is missing, and was signed: fetch the bundle anew")
        if claimed[name] != found[name]:
            raise BundleError(
                f"{path.parent / name} was changed after it was signed: expected SHA-256 {claimed[name][:12]}…, got "
                f"{found[name][:12]}…; fetch the bundle anew"
            )


def _with_key(config: Any, claim: Claim, policy: VerifyPolicy, path: Path) -> Signed:
    assert policy.public_key is not None
    if claim.key_sha256 is None:
        raise BundleError(
            f"{path}: signed with a certificate, and a public key was given: give the certificate chain of its root"
        )
    signer = check_key_fits(policy.public_key, claim.key_sha256)
    config.use_elliptic_key_verifier(public_key=policy.public_key)
    return Signed("key", signer)


def _with_chain(config: Any, claim: Claim, policy: VerifyPolicy, path: Path) -> Signed:
    if not claim.certificates:
        raise BundleError(f"{path}: signed with a key, and a certificate chain was given: give the public key")
    roots = [one for file in policy.certificate_chain for one in certificates_in(file)]
    x509 = require("cryptography.x509", extra="sign")
    try:
        own = [x509.load_der_x509_certificate(one) for one in claim.certificates]
        issuers = {one.issuer for one in own}
        used = [one for one in roots if one.subject in issuers]
        check_valid([*own, *used], BundleError)
        signer, last = subject_of(own[0]), own[0].not_valid_after_utc
    except ValueError as error:
        raise BundleError(f"{path}: a certificate in it can't be read: {one_line(error)[:200]}") from error
    config.use_certificate_verifier(certificate_chain=list(policy.certificate_chain))
    return Signed("certificate", signer, expires=last.isoformat())


def _why(error: Exception, policy: VerifyPolicy) -> str:
    """Return in words why the library doesn't believe a signature."""
    kind, said = type(error).__name__, one_line(error)[:200]
    if kind == "InvalidSignature":
        whom = f"the key {policy.public_key}" if policy.public_key else "the key of its certificate"
        return f"this signature wasn't made with {whom}, or was changed: fetch the bundle anew, or don't use it"
    if kind == "X509StoreContextError":
        chain = ", ".join(map(str, policy.certificate_chain))
        return f"the signer's certificate doesn't come from {chain} ({said}): don't use the bundle, or give the right chain"
    return f"this signature isn't believed ({said}): fetch the bundle anew, or don't use it"


def _known(digests: Mapping[str, str], name: str) -> Any:
    """Return a configuration of ``model_signing`` that gives hashes which are known, whatever path it is asked for."""
    hashing = require("model_signing.hashing", extra="sign")
    manifest = require("model_signing.manifest", extra="sign")
    digest = require("model_signing._hashing.hashing", extra="sign").Digest

    class Known(hashing.Config):  # type: ignore[misc, name-defined]
        def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
            form = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
            way = manifest.SerializationType.from_args(form)
            items = [way.new_item(file, digest("sha256", bytes.fromhex(own))) for file, own in digests.items()]
            return manifest.Manifest(name, items, way)

        def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
            """Ignore nothing: what the signature passes over is for the caller to say."""

    return Known()
