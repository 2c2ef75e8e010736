"""What does ``prunus run`` take, and where does a finished run go?"""

from __future__ import annotations

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
    Overwrite,
    Quiet,
    RecipePath,
    Resume,
    Workers,
    shared_out,
)
from prunus.cli.printing import display, print_record
from prunus.cli.torchrun.several_ranks import followed, held, leading

__all__ = ["run"]


def run(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    copy_to: Annotated[
        str | None, typer.Option("--copy-to", metavar="URL", help="copy the finished run to an object store")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Do the whole job: train or load, clean the data, prune, recover, evaluate, report, ship."""
    if followed(lambda: load(recipe, override, resume)):
        return
    resume, overwrite = held(resume, overwrite)
    config = load(recipe, override, resume)
    config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.pipeline import run as run_recipe
    from prunus.pipeline.commands.copy_run import open_copy

    copy = None if copy_to is None else open_copy(copy_to, overwrite=overwrite)
    with display(quiet or as_json) as shown, leading(config):
        record = run_recipe(config, resume=resume, overwrite=overwrite, listener=shown)
        if copy is not None:
            copy.send(Path(config.output), overwrite=overwrite, listener=shown)
    print_record(record, Path(config.output), as_json)
    if copy is not None:
        typer.echo(f"copied to {copy.url}", err=True)
