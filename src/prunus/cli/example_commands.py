"""Which commands are about the training examples? Each writes its columns into the table of the output folder."""

from __future__ import annotations

import json
import shlex
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
    RecipePath,
    Resume,
    Workers,
    shared_out,
)
from prunus.cli.printing import display, results

__all__ = ["clean", "select"]

Replace = Annotated[bool, typer.Option("--overwrite", help="replace the decisions in the table")]


def clean(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resume: Resume = False,
    overwrite: Replace = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find wrong labels, duplicates and leaked test examples; write them into a table to edit and give back."""
    config = load(recipe, override)
    config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.pipeline import clean_examples
    from prunus.report import print_cleaned

    with display(quiet or as_json) as shown:
        found = clean_examples(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps({"table": str(found.table), "page": str(found.page), **found.summary}, indent=2))
    else:
        print_cleaned(found.summary, results())
        typer.echo(f"page {found.page}  ·  {_given_back(found.table, recipe, override)}")


def select(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resume: Resume = False,
    overwrite: Replace = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Select training examples and judge it: against as many by chance, and against all of them for as many steps."""
    config = load(recipe, override)
    config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.pipeline import select_examples
    from prunus.report import GateFacts, print_gate

    with display(quiet or as_json) as shown:
        found = select_examples(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps({"table": str(found.table), **found.summary}, indent=2))
        return
    n = found.summary["n"]
    typer.echo(f"{n['kept']} of {n['train']} training examples stay")
    print_gate(GateFacts.model_validate(found.summary["gate"]), results())
    typer.echo(_given_back(found.table, recipe, override))


def _given_back(table: Path, recipe: Path, override: list[str] | None) -> str:
    """Return where the table is, and the command that does what it says."""
    said = [word for value in override or () for word in ("-o", value)]
    command = shlex.join(["prunus", "run", str(recipe), *said, "-o", f"examples.plan={table}"])
    return f"table {table}: look at it, change it, then `{command}`"
