"""Every crafted file, by the loader that it is made for: a name and a function that puts it into a folder."""

from __future__ import annotations

import hostile_bundles
import hostile_data
import hostile_signatures
import hostile_texts
import hostile_weights
from hostile_loaders import CASES, LOADERS, copy, honest

__all__ = ["CASES", "KINDS", "LOADERS", "copy", "honest"]

KINDS = (hostile_bundles, hostile_data, hostile_texts, hostile_weights, hostile_signatures)
"""Each adds its cases."""

CASES["verify"] |= {**CASES["bundle"], **{f"graph: {name}": prepare for name, prepare in CASES["graph"].items()}}
