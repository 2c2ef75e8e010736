"""How does a bundle's model become a file of LiteRT (once TensorFlow Lite)?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.ship.formats.converter import convert, run_in_process
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written

__all__ = ["LiteRt"]


class LiteRt(Format):
    """Of one example at a time, at the example's sizes: its converter has no free sizes through a flattening layer."""

    name = "litert"
    ending = "tflite"
    extra = "litert"
    packages = ("litert_torch", "ai_edge_litert")
    runs_in = "LiteRT (TensorFlow Lite) on Android, in browsers and on microcontrollers"
    free = "none"

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file."""
        convert(source, "litert", "LiteRT", path, ending=self.ending)
        return Written(version=f"LiteRT, by litert-torch {version('litert-torch')}")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what LiteRT's interpreter answers on the CPU."""
        return run_in_process("litert", "LiteRT", path, batches)
