"""What each kind of operation says about its axes. Importing this package registers all rules."""

from prunus.graph.rules import contract, index, norm, pointwise, recurrent, reduce, shape, spatial

__all__ = ["contract", "index", "norm", "pointwise", "recurrent", "reduce", "shape", "spatial"]
