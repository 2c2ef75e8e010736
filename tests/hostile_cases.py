"""Every crafted file, by the loader that it is made for: a name and a function that puts it into a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hostile_bundles
import hostile_data
import hostile_imports
import hostile_loaders
import hostile_requests
import hostile_signatures
import hostile_texts
import hostile_weights
from hostile_loaders import CASES, LOADERS, copy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CASES", "KINDS", "LOADERS", "copy", "honest"]

KINDS = (
    hostile_bundles,
    hostile_data,
    hostile_texts,
    hostile_weights,
    hostile_signatures,
    hostile_imports,
    hostile_requests,
)
"""Each adds its cases."""

CASES["verify"] |= {**CASES["bundle"], **{f"graph: {name}": prepare for name, prepare in CASES["graph"].items()}}


def honest(folder: Path) -> None:
    """Fill ``folder`` with one good file for every loader, and a good request."""
    hostile_loaders.honest(folder)
    hostile_requests.honest_request(folder)
