"""How far from an input must one go to change a classifier's mind, looked for by whoever wants to?"""

from prunus.evaluate.robustness.attacks.apgd import apgd
from prunus.evaluate.robustness.attacks.ensemble import Attacked, AttackRow, attacked
from prunus.evaluate.robustness.attacks.pgd import pgd
from prunus.evaluate.robustness.attacks.square import square
from prunus.evaluate.robustness.attacks.threat import Scores, Threat

__all__ = ["AttackRow", "Attacked", "Scores", "Threat", "apgd", "attacked", "pgd", "square"]
