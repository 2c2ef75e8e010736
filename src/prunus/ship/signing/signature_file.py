"""What does a signature file claim, before any of it is believed?

``model.sig`` is a Sigstore bundle with an in-toto statement in a DSSE envelope, as ``model_signing`` writes it. It comes from
whoever made the bundle, so its size, depth, keys, media types and names are checked here before the library reads it; what isn't
of this form is refused, although Sigstore knows more. Whether the claim is true is for :mod:`prunus.ship.signing.library` to find
out.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from prunus.core.errors import BundleError
from prunus.core.files.json_text import JsonError, parse_json
from prunus.core.text import shown
from prunus.ship.manifest import FileName, Sha256, explain

__all__ = ["LARGEST_SIGNATURE", "Claim", "read_signature"]

LARGEST_SIGNATURE = 2**20
_MOST_FILES = 2000
_MOST_CERTIFICATES = 16
_MOST_VALUES = 20_000

Text = Annotated[str, Field(max_length=LARGEST_SIGNATURE)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class _Key(_Part):
    hint: Sha256


class _Certificate(_Part):
    rawBytes: Text  # noqa: N815 - Sigstore's own word


class _Chain(_Part):
    certificates: list[_Certificate] = Field(min_length=1, max_length=_MOST_CERTIFICATES)


class _Material(_Part):
    publicKey: _Key | None = None  # noqa: N815
    x509CertificateChain: _Chain | None = None  # noqa: N815
    tlogEntries: list[Any] = Field(default=[], max_length=0)  # noqa: N815

    @model_validator(mode="after")
    def _one_of_both(self) -> _Material:
        if (self.publicKey is None) == (self.x509CertificateChain is None):
            raise ValueError("a signature is made with a key or with a certificate: expected one of both")
        return self


class _OneSignature(_Part):
    sig: Text
    keyid: Literal[""] = ""


class _Envelope(_Part):
    payload: Text
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: list[_OneSignature] = Field(min_length=1, max_length=1)


class _SignatureFile(_Part):
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]  # noqa: N815
    verificationMaterial: _Material  # noqa: N815
    dsseEnvelope: _Envelope  # noqa: N815


class _Resource(_Part):
    name: FileName
    algorithm: Literal["sha256"]
    digest: Sha256


class _Serialization(_Part):
    method: Literal["files"]
    hash_type: Literal["sha256"]
    allow_symlinks: Literal[False]
    ignore_paths: list[Annotated[str, Field(max_length=200)]] = Field(default=[], max_length=64)


class _Predicate(_Part):
    model_config = ConfigDict(extra="ignore")  # of version 1.0: verifiers are to pass over what they don't know

    serialization: _Serialization
    resources: list[_Resource] = Field(min_length=1, max_length=_MOST_FILES)


class _Digest(_Part):
    sha256: Sha256


class _Subject(_Part):
    name: Annotated[str, Field(max_length=300)]
    digest: _Digest


class _Statement(_Part):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicateType: Literal["https://model_signing/signature/v1.0"]  # noqa: N815
    predicate: _Predicate


@dataclass(frozen=True)
class Claim:
    """What a signature claims: the SHA-256 of every file, and which key or which certificates (DER, the signer's first) signed."""

    digests: dict[str, str]
    key_sha256: str | None
    certificates: tuple[bytes, ...]


def read_signature(content: bytes, path: Path) -> Claim:
    """Return what the bytes of a signature file claim.

    Raises:
        BundleError: it isn't of the one form that is known here, or names a file twice.
    """
    outer = _parsed(content, path, "", TypeAdapter(_SignatureFile))
    inner = _decoded(outer.dsseEnvelope.payload, path, "dsseEnvelope.payload")
    _decoded(outer.dsseEnvelope.signatures[0].sig, path, "sig")
    statement = _parsed(inner, path, "the signed statement, ", TypeAdapter(_Statement))
    digests = {one.name: one.digest for one in statement.predicate.resources}
    if len(digests) != len(statement.predicate.resources):
        names = [one.name for one in statement.predicate.resources]
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{path}: the signed statement names {shown(twice)} twice; get the signature anew")
    material = outer.verificationMaterial
    chain = material.x509CertificateChain
    certificates = (
        () if chain is None else tuple(_decoded(one.rawBytes, path, "rawBytes") for one in chain.certificates)
    )
    return Claim(digests, None if material.publicKey is None else material.publicKey.hint, certificates)


def _parsed(content: bytes, path: Path, what: str, form: TypeAdapter[Any]) -> Any:
    try:
        tree = parse_json(content, max_bytes=LARGEST_SIGNATURE, max_values=_MOST_VALUES)
        if not isinstance(tree, dict):
            raise JsonError(f"expected a mapping, got {shown(tree)}")
        return form.validate_python(tree)
    except JsonError as error:
        raise BundleError(f"{path}: this is no signature: {what}{error}; get it anew") from error
    except ValidationError as error:
        raise BundleError(f"{path}: this is no signature: {what}{explain(error, 'signature')}; get it anew") from error


def _decoded(text: str, path: Path, what: str) -> bytes:
    """Return the bytes that a text in base64 stands for; it must be the one text that does."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"{path}: this is no signature: {what} is no base64 ({error}); get it anew") from error
    if base64.b64encode(content).decode() != text:
        raise BundleError(f"{path}: this is no signature: {what} isn't written as base64 is; get it anew")
    return content
