"""How does whoever uses a bundle know that it is whole, and whose it is?"""

from prunus.ship.signing.policy import Verified, VerifyPolicy
from prunus.ship.signing.verify import verify_bundle

__all__ = ["Verified", "VerifyPolicy", "verify_bundle"]
