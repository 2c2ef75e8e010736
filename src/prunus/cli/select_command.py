"""How are training examples selected from the command line?"""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Quiet, RecipePath, Resume
from prunus.cli.printing import display, results

__all__ = ["select"]


def select(
    recipe: RecipePath,
    override: Overrides = None,
    resume: Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the decisions in the table")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Select training examples and judge it: against as many by chance, and against all of them for as many steps."""
    config = load(recipe, override)
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
    said = [word for value in override or () for word in ("-o", value)]
    give_back = shlex.join(["prunus", "run", str(recipe), *said, "-o", f"examples.plan={found.table}"])
    typer.echo(f"table {found.table}: look at it, change it, then `{give_back}`")
