"""What does a model withstand: inputs that get worse by chance, inputs that somebody makes worse, and triggers?"""

from prunus.evaluate.robustness.attacks.ensemble import (
    ATTACKS,
    Attacked,
    AttackRow,
    Effort,
    attacked,
    attacked_part,
    joined,
    n_parts,
)
from prunus.evaluate.robustness.attacks.threat import Threat
from prunus.evaluate.robustness.corrupted import Changed, corrupted
from prunus.evaluate.robustness.corruptions import CORRUPTIONS, SEVERITIES, InputFacts
from prunus.evaluate.robustness.exact_share import clopper_pearson, counted_share
from prunus.evaluate.robustness.input_kind import Place, facts_of, placed, replaced, tensor_at
from prunus.evaluate.robustness.trigger import Trigger, read_trigger
from prunus.evaluate.robustness.withstand import CorruptionRow, withstood

__all__ = [
    "ATTACKS",
    "CORRUPTIONS",
    "SEVERITIES",
    "AttackRow",
    "Attacked",
    "Changed",
    "CorruptionRow",
    "Effort",
    "InputFacts",
    "Place",
    "Threat",
    "Trigger",
    "attacked",
    "attacked_part",
    "clopper_pearson",
    "corrupted",
    "counted_share",
    "facts_of",
    "joined",
    "n_parts",
    "placed",
    "read_trigger",
    "replaced",
    "tensor_at",
    "withstood",
]
