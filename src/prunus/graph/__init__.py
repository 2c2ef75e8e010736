"""What hangs together in a model? Computed from the tensors' shapes alone; no model is edited here."""

from prunus.graph.certify import certify
from prunus.graph.groups import AxisGraph, Frozen, Group, Solution, analyze, parameters_per_unit
from prunus.graph.members import Member
from prunus.graph.ties import tie_head_dims

__all__ = [
    "AxisGraph",
    "Frozen",
    "Group",
    "Member",
    "Solution",
    "analyze",
    "certify",
    "parameters_per_unit",
    "tie_head_dims",
]
