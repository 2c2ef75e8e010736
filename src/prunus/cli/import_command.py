"""How is a checkpoint from elsewhere brought in from the command line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.options import AsJson, on_this_machine
from prunus.cli.printing import say_note

__all__ = ["import_"]


def import_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="a .pt, .pth, .bin, .ckpt or .safetensors file")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="the .safetensors file to write", callback=on_this_machine)
    ],
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="where the tensors lie; default: state_dict, model ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint from elsewhere into safetensors, without running its code, and record where it came from.

    It is read in a process of its own, with limits on memory and time.
    """
    from prunus.models.foreign_checkpoint import import_checkpoint

    made = import_checkpoint(checkpoint, out, key=key)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
        return
    typer.echo(str(made))
    for note in made.notes:
        say_note(note)
