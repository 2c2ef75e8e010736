"""How is a search for the best settings started from the command line?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Overwrite, Quiet, RecipePath, Resume
from prunus.cli.printing import display, results

__all__ = ["search"]


def search(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="processes that run trials at once")] = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try the settings of a recipe's section search, and confirm the best of them on the test examples."""
    config = load(recipe, override, resume)
    from prunus.report import print_search
    from prunus.search import search as run_search

    with display(quiet or as_json) as shown:
        found = run_search(config, workers=workers, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps(dict(found.facts), indent=2))
        return
    print_search(found.facts, results())
    best = next((row for row in found.facts["confirmed"] if row["number"] == found.facts["recommended"]), None)
    where = f"  ·  bundle {best['bundle']}" if best else ""
    typer.echo(f"page {found.page}  ·  record {found.record}{where}")
