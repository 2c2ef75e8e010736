"""How are several sizes of one model made, and one of them taken out, from the command line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Overwrite, Quiet, Resume, on_this_machine
from prunus.cli.printing import display, results

__all__ = ["sizes"]


def sizes(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|SIZES", help="a recipe with a section sizes; or, with --size, a folder of sizes"
        ),
    ],
    override: Overrides = None,
    size: Annotated[
        float | None, typer.Option("--size", help="take this size, by its keep fraction, out of a folder of sizes")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="with --size: the folder of the bundle to write", callback=on_this_machine),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make several sizes of one model from one plan, each inside the one before; or take one of them out as a bundle."""
    if size is not None:
        if out is None:
            raise typer.BadParameter("--size needs --out: the folder of the bundle to write")
        from prunus.ship.sizes import write_size

        folder = source / "sizes" if (source / "sizes").is_dir() else source
        sha256 = write_size(folder, size, out)
        typer.echo(json.dumps({"bundle": str(out), "sha256": sha256}) if as_json else f"bundle {out}")
        return
    if out is not None:
        raise typer.BadParameter("--out goes with --size; where all sizes go is the recipe's output (-o output=FOLDER)")
    config = load(source, override, resume)
    from prunus.pipeline.sizes import make_sizes
    from prunus.report import print_sizes

    with display(quiet or as_json) as shown:
        made = make_sizes(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps(dict(made.facts), indent=2))
        return
    print_sizes(made.facts, results())
    typer.echo(f"sizes {made.folder}  ·  record {made.record}")
