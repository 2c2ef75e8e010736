"""How is it asked from the command line what a run would take on more rows?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Quiet, RecipePath
from prunus.cli.printing import display, results

__all__ = ["estimate"]

Rows = Annotated[float, typer.Option("--rows", metavar="N", help="on so many rows: 1e9", min=1, max=1e15)]
Sample = Annotated[int, typer.Option("--sample", min=1000, help="measure on so many rows, and on half as many")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="how often each")]
Share = Annotated[int, typer.Option("--workers", min=1, help="processes that share out the rows of a training (1)")]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="machines with so many workers each (1)")]


def estimate(
    recipe: RecipePath,
    rows: Rows,
    override: Overrides = None,
    sample: Sample = 200_000,
    repeats: Repeats = 2,
    workers: Share = 1,
    nodes: Nodes = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a run would take on so many rows: time, memory and disk of each stage, from runs on a sample."""
    config = load(recipe, override)
    from prunus.pipeline.planner.estimate_run import estimate as measured
    from prunus.report import print_estimate

    with display(quiet or as_json) as shown:
        found = measured(
            config, round(rows), sample_rows=sample, repeats=repeats, workers=workers, nodes=nodes, listener=shown
        )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    print_estimate(found.to_dict(), results())
