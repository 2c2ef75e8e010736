"""How is a bundle signed, and verified, from the command line?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.bundles.brought import as_asked, brought_here, give_back
from prunus.cli.options import AsJson, BundlePath, Size
from prunus.cli.printing import say_note
from prunus.core.files.urls.url_path import refuse_url

if TYPE_CHECKING:
    from prunus.ship import Verified

__all__ = ["sign", "verify"]

UNLOCKED_BY = "PRUNUS_KEY_PASSWORD"
"""The environment variable with the password of an encrypted key: on a command line every user of the machine could read it."""

Chain = Annotated[
    list[Path] | None,
    typer.Option("--certificate-chain", metavar="PEM", help="certificates up to the root; repeatable"),
]


def verify(
    bundle: BundlePath,
    size: Size = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="PEM", help="it must be signed with the private half of this key"),
    ] = None,
    certificate_chain: Chain = None,
    min_version: Annotated[
        str | None, typer.Option("--min-version", metavar="VERSION", help="the oldest signed version that is let in")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a bundle is whole, what it says and whose it must be, before anything of it is loaded.

    Exit code 0, or 6 and why it is refused. With a key or a certificate chain, a bundle without a signature is refused.
    """
    from prunus.core.recipes.named_places import check_bundle

    bundle = brought_here(bundle, size)
    check_bundle(bundle)
    from prunus.pipeline import verify_path
    from prunus.ship import VerifyPolicy

    policy = VerifyPolicy(public_key, tuple(certificate_chain or ()), min_version)
    _say(verify_path(bundle, policy=policy), as_json)


def sign(
    bundle: BundlePath,
    size: Size = None,
    *,
    private_key: Annotated[
        Path, typer.Option("--private-key", metavar="PEM", help="an elliptic curve key that only you can read")
    ],
    signing_certificate: Annotated[
        Path | None, typer.Option("--signing-certificate", metavar="PEM", help="the certificate of that key")
    ] = None,
    certificate_chain: Chain = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="as which it is signed, like 1.4.2; default: as before"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle, so that whoever verifies it knows whose it is, that nothing was changed, and as which version it was signed.

    The bundle is verified first. The password of an encrypted key is read from PRUNUS_KEY_PASSWORD.
    """
    from prunus.core.recipes.named_places import check_bundle

    refuse_url(bundle, "what is signed", "sign it on this machine, then copy it")
    bundle = brought_here(bundle, size)
    check_bundle(bundle)
    from prunus.pipeline import sign_path
    from prunus.ship import SignWith
    from prunus.ship.manifest import RELEASE, SIGNATURE

    chain = tuple(certificate_chain or ())
    with_ = SignWith(private_key, signing_certificate, chain, os.environ.get(UNLOCKED_BY))
    signed = sign_path(bundle, with_, version=version)
    give_back(bundle, (RELEASE, SIGNATURE))
    _say(signed, as_json)


def _say(found: Verified, as_json: bool) -> None:
    if as_json:
        typer.echo(as_asked(json.dumps(found.to_dict(), indent=2)))
        return
    typer.echo(as_asked(str(found)))
    for note in found.notes:
        say_note(note)
