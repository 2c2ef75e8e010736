"""What do the gradients of single examples say: how large they are, and whom an example helps?"""

from prunus.score.influence.by_gradient import GRADIENT_NEEDS, gradient_evidence
from prunus.score.influence.by_target import INFLUENCE_NEEDS, influence_evidence
from prunus.score.influence.checkpoint_mean import CheckpointScores
from prunus.score.influence.extrapolate import Extrapolated, extrapolate
from prunus.score.influence.gradient_norms import gradient_norms
from prunus.score.influence.influence import Influence, influence

__all__ = [
    "GRADIENT_NEEDS",
    "INFLUENCE_NEEDS",
    "CheckpointScores",
    "Extrapolated",
    "Influence",
    "extrapolate",
    "gradient_evidence",
    "gradient_norms",
    "influence",
    "influence_evidence",
]
