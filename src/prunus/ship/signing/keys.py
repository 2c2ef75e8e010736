"""Which files of keys and certificates may be used, and what do they say?

A private key that others can read is no longer private, as ssh says, too. ``model_signing`` looks at no permissions, and takes a
certificate for good if it was when it began: what expired is found out here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, PrunusError, RecipeError, raise_if_out_of_memory
from prunus.core.text import shown
from prunus.ship.signing.policy import Signed

__all__ = [
    "SignWith",
    "certificates_in",
    "check_key_fits",
    "check_private_key",
    "check_valid",
    "read_pem",
    "subject_of",
]

_LARGEST_PEM = 2**20


@dataclass(frozen=True)
class SignWith:
    """What a bundle is signed with.

    Args:
        private_key: a PEM file of an elliptic curve key (P-256, P-384 or P-521) that only its owner can read.
        certificate: a PEM file with the certificate of that key; None signs with the key alone.
        certificate_chain: PEM files with what lies between the certificate and its root.
        password: of an encrypted key; with a certificate there must be none.
    """

    private_key: Path
    certificate: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    password: str | None = None

    def __post_init__(self) -> None:
        if self.certificate is None and self.certificate_chain:
            raise RecipeError("a certificate chain goes with a signing certificate: got the chain alone")
        if self.certificate is not None and self.password is not None:
            raise RecipeError(
                "model_signing takes no encrypted key together with a certificate: got a password; decrypt the key first"
            )


def read_pem(path: Path, what: str) -> bytes:
    """Return the content of a small file.

    Raises:
        RecipeError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_PEM + 1)
    except OSError as error:
        raise RecipeError(f"{path}: the {what} can't be read ({error.strerror}); give a PEM file") from error
    if len(content) > _LARGEST_PEM or b"-----BEGIN " not in content:
        raise RecipeError(f"{path}: expected a {what} as a PEM file (-----BEGIN ...), got something else")
    return content


def check_private_key(with_: SignWith) -> Signed:
    """Return who signs; a key that isn't private or isn't one, and a certificate of another key or an expired one, are refused.

    Raises:
        RecipeError: the message names the file, and what to do.
    """
    path = with_.private_key
    content = read_pem(path, "private key")
    mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - follows a link, as reading does
    if mode & 0o077:
        raise RecipeError(
            f"{path}: others can use this private key (its mode is {mode:04o}): take that away with chmod 600, and think of making "
            "a new key"
        )
    load = require("cryptography.hazmat.primitives.serialization", extra="sign").load_pem_private_key
    password = None if with_.password is None else with_.password.encode()
    try:
        key = load(content, password)
    except TypeError as error:
        says = "encrypted, and no password was given" if password is None else "not encrypted, and a password was given"
        raise RecipeError(f"{path}: this private key is {says}") from error
    except Exception as error:
        raise_if_out_of_memory(error)
        hint = "" if password is None else ", or the password is wrong"
        raise RecipeError(f"{path}: this private key can't be read{hint}: {one_line(error)[:200]}") from error
    _check_curve(key, path)
    if with_.certificate is None:
        return Signed("key", _sha256_of(key.public_key()))
    own, *_ = certificates_in(with_.certificate)
    if own.public_key() != key.public_key():
        raise RecipeError(f"{with_.certificate}: it is the certificate of another key than {path}")
    between = [one for file in with_.certificate_chain for one in certificates_in(file)]
    check_valid([own, *between], RecipeError)
    return Signed("certificate", subject_of(own), expires=own.not_valid_after_utc.isoformat())


def check_key_fits(path: Path, claimed_sha256: str | None) -> str:
    """Return the hash of a public key, which must be the one that a signature claims.

    Raises:
        RecipeError: the file holds no such key.
        BundleError: the signature claims another one.
    """
    serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
    try:
        key = serialization.load_pem_public_key(read_pem(path, "public key"))
    except PrunusError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error)
        raise RecipeError(f"{path}: this public key can't be read: {one_line(error)[:200]}") from error
    _check_curve(key, path)
    own = _sha256_of(key)
    if claimed_sha256 is not None and claimed_sha256 != own:
        raise BundleError(
            f"the bundle was signed with another key than {path}: expected {own[:12]}…, got {claimed_sha256[:12]}… (SHA-256 of the "
            "public key)"
        )
    return own


def certificates_in(path: Path) -> list[Any]:
    """Return the certificates in a PEM file, at least one.

    Raises:
        RecipeError: there is none, or one can't be read.
    """
    x509 = require("cryptography.x509", extra="sign")
    try:
        return list(x509.load_pem_x509_certificates(read_pem(path, "certificate")))
    except PrunusError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error)
        raise RecipeError(f"{path}: no certificate can be read here: {one_line(error)[:200]}") from error


def check_valid(certificates: Sequence[Any], kind: type[PrunusError]) -> None:
    """Refuse a certificate that has expired, or isn't valid yet.

    Raises:
        PrunusError: one has; of the class ``kind``.
    """
    now = datetime.now(UTC)
    for one in certificates:
        first, last = one.not_valid_before_utc, one.not_valid_after_utc
        if now > last:
            raise kind(
                f"the certificate of {subject_of(one)} expired on {last:%Y-%m-%d %H:%M} UTC: have a new one made, and sign anew"
            )
        if now < first:
            raise kind(
                f"the certificate of {subject_of(one)} is valid only from {first:%Y-%m-%d %H:%M} UTC on: look at the clock"
            )


def subject_of(certificate: Any) -> str:
    """Return whose certificate it is, on one line."""
    return shown(certificate.subject.rfc4514_string() or "nobody", 200)


def _sha256_of(public_key: Any) -> str:
    serialization = require("cryptography.hazmat.primitives.serialization", extra="sign")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def _check_curve(key: Any, path: Path) -> None:
    name = getattr(getattr(key, "curve", None), "name", type(key).__name__.lstrip("_"))
    if name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise RecipeError(
            f"{path}: expected an elliptic curve key (P-256, P-384 or P-521), got {name}; make one with "
            "`openssl ecparam -genkey -name prime256v1 -noout`"
        )
