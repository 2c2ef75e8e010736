"""Which arguments and options do several commands share, and how does each read in their help?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "BundlePath", "Overrides", "Overwrite", "OwnRecipe", "Quiet", "RecipePath", "Resume", "Trust"]

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", help="set any key, e.g. strategy.keep_fraction=0.3"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON for machines")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in the output folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="throw away the run in the output folder")]
Trust = Annotated[
    bool, typer.Option("--trust-code", help="let it name functions, which are called, and files, which are read")
]
OwnRecipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="RECIPE", help="use this recipe of yours instead of the one in it")
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle, or a run that has one")]
