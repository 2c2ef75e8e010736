"""How is a run told to MLflow? In a database in the output folder, or at the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.code.extras import require

__all__ = ["MlflowSink"]

_LONGEST = 500
_MOST = 100


class MlflowSink:
    """One MLflow run in the experiment ``prunus``. Look at it: ``mlflow ui --backend-store-uri sqlite:///OUTPUT/tracking/mlflow/mlflow.db``."""

    def __init__(self, folder: Path, name: str) -> None:
        tracking = require("mlflow.tracking", extra="mlflow")
        folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        self._client: Any = tracking.MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", own))
        experiment = self._client.get_experiment_by_name("prunus")
        number = experiment.experiment_id if experiment else self._client.create_experiment("prunus")
        self._run = self._client.create_run(number, run_name=name).info.run_id

    def settings(self, values: Mapping[str, str | float | int | bool | None]) -> None:
        """Log the recipe as parameters, as long as MLflow takes them."""
        entities = require("mlflow.entities", extra="mlflow")
        found = [entities.Param(key, str(value)[:_LONGEST]) for key, value in values.items()]
        for first in range(0, len(found), _MOST):
            self._client.log_batch(self._run, params=found[first : first + _MOST])

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics; what MLflow doesn't take in a name becomes an underscore."""
        for name, value in values.items():
            self._client.log_metric(self._run, re.sub(r"[^\w\-./ ]", "_", name), value, step=step)

    def close(self) -> None:
        """Say that the run ended."""
        self._client.set_terminated(self._run)
