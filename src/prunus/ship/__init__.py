"""How does a pruned model leave: as a folder that anyone can check and load without running unknown code."""

from prunus.ship.bundle import Bundle, load_bundle
from prunus.ship.calling import arranged
from prunus.ship.card import CardFacts
from prunus.ship.deploy import export_file
from prunus.ship.formats import FORMATS, format_of
from prunus.ship.graph_limits import GraphLimits
from prunus.ship.inputs import is_scaled, sizes_misfit
from prunus.ship.manifest import Manifest, bundle_sha256, bundle_size_bytes, read_manifest
from prunus.ship.pack import stored_size_bytes
from prunus.ship.save import save_bundle, write_card
from prunus.ship.signing import Signed, SignWith, Verified, VerifyPolicy, sign_bundle, verify_bundle

__all__ = [
    "FORMATS",
    "Bundle",
    "CardFacts",
    "GraphLimits",
    "Manifest",
    "SignWith",
    "Signed",
    "Verified",
    "VerifyPolicy",
    "arranged",
    "bundle_sha256",
    "bundle_size_bytes",
    "export_file",
    "format_of",
    "is_scaled",
    "load_bundle",
    "read_manifest",
    "save_bundle",
    "sign_bundle",
    "sizes_misfit",
    "stored_size_bytes",
    "verify_bundle",
    "write_card",
]
