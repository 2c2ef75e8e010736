"""How does a bundle's model become a program of ExecuTorch, for phones and microcontrollers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.ship.formats.converter import convert, run_in_process
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written

__all__ = ["ExecuTorch"]


class ExecuTorch(Format):
    """Of any model that torch can follow, delegated to XNNPACK; its memory is planned, so every free size has a bound."""

    name = "executorch"
    ending = "pte"
    extra = "executorch"
    packages = ("executorch",)
    runs_in = "ExecuTorch, by XNNPACK on CPUs of phones and small devices"
    free = "bounded"

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file."""
        # Its memory planner (1.5.1) leaves less room than the bound asks for: a full batch is refused.
        roomy = source if source.most_examples is None else replace(source, most_examples=2 * source.most_examples)
        convert(roomy, "executorch", "ExecuTorch", path, ending=self.ending)
        return Written(version=f"ExecuTorch {version('executorch')}, XNNPACK")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what ExecuTorch's runtime for Python answers."""
        return run_in_process("executorch", "ExecuTorch", path, batches)
