"""How is a bundle verified from the command line?"""

from __future__ import annotations

import json

import typer

from prunus.cli.options import AsJson, BundlePath
from prunus.cli.printing import say_note

__all__ = ["verify"]


def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Check that a bundle is whole and what it says, before anything of it is loaded: exit code 0, or 6 and why it is refused."""
    from prunus.core.recipes.named_places import check_bundle

    check_bundle(bundle)
    from prunus.pipeline import verify_path

    found = verify_path(bundle)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    typer.echo(str(found))
    for note in found.notes:
        say_note(note)
