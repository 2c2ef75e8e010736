"""A smaller model in one call: what is asked for is read from the model and the data, and a few ways are tried."""

from prunus.pipeline.auto.prune import prune
from prunus.pipeline.auto.result import Pruned

__all__ = ["Pruned", "prune"]
