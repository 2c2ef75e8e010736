"""What hangs together in a model? Computed from the tensors' shapes alone; no model is edited here."""

from prunus.graph.certify import certify
from prunus.graph.grouping.groups import AxisGraph, Frozen, Group, Solution, analyze, parameters_per_unit
from prunus.graph.grouping.joints import Joint, Setting
from prunus.graph.grouping.members import Member
from prunus.graph.grouping.shared_head_dims import tie_head_dims

__all__ = [
    "AxisGraph",
    "Frozen",
    "Group",
    "Joint",
    "Member",
    "Setting",
    "Solution",
    "analyze",
    "certify",
    "parameters_per_unit",
    "tie_head_dims",
]
