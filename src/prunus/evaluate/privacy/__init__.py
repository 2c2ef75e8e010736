"""What does a model tell of the examples that it was trained on?"""

from prunus.evaluate.privacy.lira import likelihood_ratio, sureness
from prunus.evaluate.privacy.membership import MembershipRow, losses_of, membership

__all__ = ["MembershipRow", "likelihood_ratio", "losses_of", "membership", "sureness"]
