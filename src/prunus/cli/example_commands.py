"""Which commands are about the training examples? Each writes its columns into the table of the output folder."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Quiet, RecipePath, Resume
from prunus.cli.printing import display, results

__all__ = ["clean"]


def clean(
    recipe: RecipePath,
    override: Overrides = None,
    resume: Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the decisions in the table")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find wrong labels, duplicates and leaked test examples; write them into a table to edit and give back."""
    config = load(recipe, override)
    from prunus.pipeline import clean_examples
    from prunus.report import print_cleaned

    with display(quiet or as_json) as shown:
        found = clean_examples(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps({"table": str(found.table), "page": str(found.page), **found.summary}, indent=2))
    else:
        print_cleaned(found.summary, results())
        said = [word for value in override or () for word in ("-o", value)]
        give_back = shlex.join(["prunus", "run", str(recipe), *said, "-o", f"examples.plan={found.table}"])
        typer.echo(f"page {found.page}  ·  table {found.table}: look at it, change it, then `{give_back}`")
