"""How is a run told to Weights & Biases? Offline, into the output folder, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require

__all__ = ["WandbSink"]


class WandbSink:
    """One run of the project ``prunus``. Send it later: ``wandb sync OUTPUT/tracking/wandb/wandb/offline-run-*``."""

    def __init__(self, folder: Path, name: str) -> None:
        wandb = require("wandb", extra="wandb")
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "prunus"),
            name=name,
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def settings(self, values: Mapping[str, str | float | int | bool | None]) -> None:
        """Log the recipe as the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log them; each stage counts its own steps, so the step is a number, too."""
        self._run.log({**values, "step": step})

    def close(self) -> None:
        """End the run."""
        self._run.finish()
