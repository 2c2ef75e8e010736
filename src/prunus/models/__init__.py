"""How is a network built, given weights, and checked against its labels?"""

from prunus.models.build import build, check_builder
from prunus.models.builtin import builders
from prunus.models.model_kinds import check_kind, kept_evaluating
from prunus.models.output_checks import check_outputs
from prunus.models.weights import load_weights

__all__ = ["build", "builders", "check_builder", "check_kind", "check_outputs", "kept_evaluating", "load_weights"]
