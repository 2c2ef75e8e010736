"""What must hold of a bundle before it is used, and what was found?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prunus.core.errors import RecipeError
from prunus.ship.manifest import Proof
from prunus.ship.signing.release import version_parts

__all__ = ["Signed", "Verified", "VerifyPolicy"]


@dataclass(frozen=True)
class VerifyPolicy:
    """Who must have signed a bundle. Without a key and a chain, only what the bundle says of itself is checked.

    Args:
        public_key: a PEM file with the key whose private half signed.
        certificate_chain: PEM files with the root (and what lies between) that the signer's certificate must come from.
        min_version: the oldest version that is let in; a bundle that was signed without a version isn't.

    Raises:
        RecipeError: a key and a chain, or a version without either: what isn't signed proves no version.
    """

    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    min_version: str | None = None

    def __post_init__(self) -> None:
        if self.public_key is not None and self.certificate_chain:
            raise RecipeError("a signature is verified with a public key or a certificate chain: got both")
        if self.min_version is not None:
            version_parts(self.min_version)
            if not self.needs_signature:
                raise RecipeError(
                    "a version is proven by a signature only: give the public key or the certificate chain along with it"
                )

    @property
    def needs_signature(self) -> bool:
        """Whether a bundle without a signature is refused."""
        return self.public_key is not None or bool(self.certificate_chain)


@dataclass(frozen=True)
class Signed:
    """Who signed a bundle, as the signature proves it.

    ``signer`` is the SHA-256 of the public key (of its PEM, as ``model_signing`` writes it), or the subject of the certificate,
    which is good until ``expires`` (ISO 8601). ``version`` is what it was signed as, and None where no version was given.
    """

    method: Literal["key", "certificate"]
    signer: str
    version: str | None = None
    expires: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"method": self.method, "signer": self.signer, "version": self.version, "expires": self.expires}

    def __str__(self) -> str:
        whose = f"the key {self.signer[:16]}…" if self.method == "key" else f"the certificate of {self.signer}"
        return f"; signed with {whose}" + ("" if self.version is None else f" as version {self.version}")


@dataclass(frozen=True)
class Verified:
    """What was found in a bundle that passed.

    ``sha256`` is the bundle's hash: give it to :func:`prunus.ship.load_bundle`, and nothing else is loaded. ``files`` holds the
    SHA-256 of every file. ``compared_with`` says what types and shapes were compared with (``graph``, ``builder``); where it is
    empty, the model's class is code that wasn't run and no graph goes along. ``proof`` is what the manifest says of the run and its
    contract, as far as ``signed`` vouches for it, which is None where no signature was asked for.
    ``notes`` say what wasn't checked.
    """

    folder: Path
    sha256: str
    format: int
    files: Mapping[str, str]
    size_bytes: int
    n_tensors: int
    compared_with: tuple[str, ...]
    proof: Proof | None = None
    signed: Signed | None = None
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """What it was signed as; None where no signature was verified."""
        return None if self.signed is None else self.signed.version

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "bundle": str(self.folder),
            "sha256": self.sha256,
            "format": self.format,
            "files": dict(self.files),
            "size_bytes": self.size_bytes,
            "n_tensors": self.n_tensors,
            "compared_with": list(self.compared_with),
            "proof": None if self.proof is None else self.proof.model_dump(mode="json"),
            "signed": None if self.signed is None else self.signed.to_dict(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        compared = f", shapes compared with its {' and its '.join(self.compared_with)}" if self.compared_with else ""
        what = f"{len(self.files)} files, {self.size_bytes} bytes, {self.n_tensors} tensors, all finite{compared}"
        return f"{self.folder} is whole: {what}; sha256 {self.sha256}{self.signed or ''}"
