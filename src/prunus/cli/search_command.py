"""How is a search for the best settings started from the command line?"""

from __future__ import annotations

import json
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
from prunus.cli.printing import display, results

__all__ = ["search"]


def search(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="then make several sizes of one plan, of the recommended settings")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try the settings of a recipe's section search, and confirm the best of them on the test examples."""
    config = load(recipe, override, resume)
    config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.report import print_search, print_sizes
    from prunus.search import search as run_search
    from prunus.search import sizes_of_search

    with display(quiet or as_json) as shown:
        found = run_search(config, resume=resume, overwrite=overwrite, listener=shown)
        made = None if not sizes else sizes_of_search(config, listener=shown)
    facts = dict(found.facts) if made is None else {**found.facts, "sizes": dict(made.facts)}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    print_search(found.facts, results())
    if made is not None:
        print_sizes(made.facts, results())
    best = next((row for row in found.facts["confirmed"] if row["number"] == found.facts["recommended"]), None)
    where = f"  ·  bundle {best['bundle']}" if best else ""
    where += f"  ·  sizes {made.folder}" if made is not None else ""
    typer.echo(f"page {found.page}  ·  record {found.record}{where}")
