"""How is a run told to TensorBoard? As event files in the output folder, by torch's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require

__all__ = ["TensorBoardSink"]


class TensorBoardSink:
    """Look at it: ``tensorboard --logdir OUTPUT/tracking/tensorboard``."""

    def __init__(self, folder: Path, name: str) -> None:
        require("tensorboard", extra="tensorboard")
        self._writer: Any = require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(str(folder))

    def settings(self, values: Mapping[str, str | float | int | bool | None]) -> None:
        """Show the recipe as a table of text."""
        rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
        self._writer.add_text("recipe", f"| key | value |\n| --- | --- |\n{rows}")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the file."""
        self._writer.close()
