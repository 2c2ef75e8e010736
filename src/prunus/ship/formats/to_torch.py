"""How does a bundle's model become a program of ``torch.export``, a ``.pt2`` file?

It needs torch and none of the model's code. Its loader reads pickles, so the file is one that can run code: load one that came from
elsewhere only after it was verified. prunus itself loads none but the one that it has just written, to compare it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.calls import call
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.structures.forms import tensors_of
from prunus.evaluate.timing.onnx_session import quiet_exporter
from prunus.ship.executable_files import load_program, write_program
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.exported_program import exported_program
from prunus.ship.formats.file_format import Format, Written

__all__ = ["Torch"]


class Torch(Format):
    """Of any model that torch can follow; the sizes that vary in the bundle vary in the program, which refuses others."""

    name = "torch"
    ending = "pt2"
    runs_in = "torch (`torch.export.load`), AOTInductor"
    free = "sizes"
    is_executable = True

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file."""
        program = exported_program(source, "torch")
        with quiet_exporter():
            write_program(program, path)
        return Written(version=f"torch {torch.__version__.partition('+')[0]}")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what the program answers; ``path`` was written by this process."""
        with quiet_exporter(), torch.no_grad():
            try:
                program = load_program(path).module()
                return [tensors_of(call(program, batch)) for batch in batches]
            except Exception as error:
                raise_if_out_of_memory(error)
                raise ModelError(f"torch writes the program but doesn't run it: {one_line(error)[:200]}") from error
