"""How are training examples scored from the command line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import (
    Address,
    AsJson,
    Backend,
    Cpus,
    Gpus,
    Overrides,
    Quiet,
    Resume,
    Workers,
    shared_out,
)
from prunus.cli.printing import display, results

__all__ = ["score"]


def score(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="a YAML recipe; may be left out with --recording")
    ] = None,
    override: Overrides = None,
    recording: Annotated[
        list[Path] | None,
        typer.Option("--recording", metavar="FOLDER", help="score what your own training recorded; once per training"),
    ] = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resume: Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the scores in the table")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score every training example by what trainings say of it, with standard errors, into a table to look at."""
    if recipe is None and not recording:
        raise typer.BadParameter("give a RECIPE, or --recording FOLDER of your own training")
    if recipe is None and (override or resume):
        raise typer.BadParameter("--override and --resume are for a RECIPE: got none")
    config = None if recipe is None else load(recipe, override)
    if config is not None:
        config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.pipeline import score_examples, score_recordings
    from prunus.report import print_scores

    folders = recording or []
    with display(quiet or as_json) as shown:
        if config is None:
            found = score_recordings(folders, overwrite=overwrite, listener=shown)
        else:
            found = score_examples(config, recordings=folders, resume=resume, overwrite=overwrite, listener=shown)
    where = [str(one) for one in found.recordings]
    if as_json:
        typer.echo(json.dumps({"table": str(found.table), "recordings": where, **found.summary}, indent=2))
    else:
        print_scores(found.summary, results())
        typer.echo(f"table {found.table}  ·  recorded in {', '.join(where)}")
