"""Where else is a run told: in TensorBoard, MLflow or Weights & Biases? ``log.jsonl`` is there in any case."""

from prunus.report.tracking.sink import Sink
from prunus.report.tracking.tracker import SINKS, Tracker, tracked

__all__ = ["SINKS", "Sink", "Tracker", "tracked"]
