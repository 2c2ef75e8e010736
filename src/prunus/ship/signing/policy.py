"""What must hold of a bundle before it is used, and what was found?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.core.errors import RecipeError

__all__ = ["Verified", "VerifyPolicy"]


@dataclass(frozen=True)
class VerifyPolicy:
    """Who must have signed a bundle. Without a key and a chain, only what the bundle says of itself is checked.

    Args:
        public_key: a PEM file with the key whose private half signed.
        certificate_chain: PEM files with the roots (and what lies between) that the signer's certificate must come from.
    """

    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.public_key is not None and self.certificate_chain:
            raise RecipeError("a signature is verified with a public key or a certificate chain: got both")

    @property
    def needs_signature(self) -> bool:
        """Whether a bundle without a signature is refused."""
        return self.public_key is not None or bool(self.certificate_chain)


@dataclass(frozen=True)
class Verified:
    """What was found in a bundle that passed.

    ``sha256`` is the bundle's hash: give it to :func:`prunus.ship.load_bundle`, and nothing else is loaded. ``files`` holds the
    SHA-256 of every file. ``compared_with`` says what types and shapes were compared with (``graph``, ``builder``); where it is
    empty, the model's class is code that wasn't run and no graph goes along. ``notes`` say what wasn't checked.
    """

    folder: Path
    sha256: str
    format: int
    files: Mapping[str, str]
    size_bytes: int
    n_tensors: int
    compared_with: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        compared = f", shapes compared with its {' and its '.join(self.compared_with)}" if self.compared_with else ""
        what = f"{len(self.files)} files, {self.size_bytes} bytes, {self.n_tensors} tensors, all finite{compared}"
        return f"{self.folder} is whole: {what}; sha256 {self.sha256}"
