"""How does whoever uses a bundle know that it is whole, and whose it is?"""

from prunus.ship.signing.keys import SignWith
from prunus.ship.signing.policy import Signed, Verified, VerifyPolicy
from prunus.ship.signing.sign import sign_bundle
from prunus.ship.signing.verify import verify_bundle

__all__ = ["SignWith", "Signed", "Verified", "VerifyPolicy", "sign_bundle", "verify_bundle"]
