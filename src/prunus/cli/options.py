"""Which arguments and options do several commands share, and how does each read in their help?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.workers.crews import get_ready

if TYPE_CHECKING:
    from prunus.core.recipes.execution.dispatch_section import Dispatch
    from prunus.core.recipes.recipe import Recipe

__all__ = [
    "Address",
    "AsJson",
    "Backend",
    "BundlePath",
    "Cpus",
    "Gpus",
    "Overrides",
    "Overwrite",
    "OwnRecipe",
    "Quiet",
    "RecipePath",
    "Resume",
    "Size",
    "Trust",
    "Workers",
    "dispatch_of",
    "on_this_machine",
    "shared_out",
]

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
Backend = Annotated[
    str | None, typer.Option("--backend", metavar="local|ray", help="who works: processes here, or a Ray cluster")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="so many parts at once (1)")]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="of a Ray cluster that is there, or auto; else one is started"),
]
Cpus = Annotated[float | None, typer.Option("--cpus", metavar="N", help="cores that Ray gives each worker (1)")]
Gpus = Annotated[float | None, typer.Option("--gpus", metavar="N", help="GPUs that Ray gives each worker: 0.5 (0)")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle, or a run that has one")]
Size = Annotated[
    float | None,
    typer.Option("--size", metavar="KEEP_FRACTION", help="which one of several sizes BUNDLE has (prunus sizes)"),
]


def on_this_machine(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Return where a command writes to.

    Raises:
        RecipeError: it is a URL.
    """
    if value is not None:
        from prunus.core.files.urls.url_path import refuse_url

        name = param.opts[-1] if param.opts[-1].startswith("-") else str(param.metavar)
        refuse_url(value, name, "write it on this machine, then copy it")
    return value


def dispatch_of(
    given: Dispatch | None,
    *,
    backend: str | None,
    workers: int | None,
    address: str | None,
    cpus: float | None,
    gpus: float | None,
) -> Dispatch:
    """Return who works: what the recipe says, and what the command's options say instead.

    Raises:
        RecipeError: they don't go together.
    """
    from pydantic import ValidationError

    from prunus.core.errors import RecipeError
    from prunus.core.recipes.execution.dispatch_section import Dispatch
    from prunus.core.recipes.recipe_file import explained

    told = {"backend": backend, "workers": workers, "address": address, "cpus": cpus, "gpus": gpus}
    before = {} if given is None else given.model_dump(include={"workers"} if backend == "local" else None)
    try:
        return Dispatch.model_validate({**before, **{key: value for key, value in told.items() if value is not None}})
    except ValidationError as error:
        raise RecipeError(explained(error, Dispatch, "dispatch")) from None


def shared_out(
    recipe: Recipe,
    *,
    backend: str | None,
    workers: int | None,
    address: str | None,
    cpus: float | None,
    gpus: float | None,
) -> Recipe:
    """Return the recipe with who works on it, as :func:`dispatch_of` says; what they need is made ready."""
    who = dispatch_of(recipe.dispatch, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    get_ready(who, recipe.data.source)
    return recipe.model_copy(update={"dispatch": who})
