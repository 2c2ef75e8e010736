"""How are several sizes of one model made, and one of them taken out, from the command line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, Overrides, Overwrite, Quiet, Resume, Trust, on_this_machine
from prunus.cli.printing import display, results

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Recipe

__all__ = ["sizes"]


def sizes(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|SEARCH|SIZES",
            help="a recipe with a section sizes; the folder of a finished search; or, with --size, a folder of sizes",
        ),
    ],
    override: Overrides = None,
    size: Annotated[
        float | None, typer.Option("--size", help="take this size, by its keep fraction, out of a folder of sizes")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="with --size: the folder of the bundle to write", callback=on_this_machine),
    ] = None,
    setting: Annotated[
        int | None,
        typer.Option("--setting", min=0, help="of a search: whose settings; default: the recommended one's"),
    ] = None,
    trust_code: Trust = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make several sizes of one model from one plan, each inside the one before; or take one of them out as a bundle."""
    if size is not None:
        if out is None:
            raise typer.BadParameter("--size needs --out: the folder of the bundle to write")
        from prunus.core.errors import BundleError
        from prunus.core.files.urls.store import refused_as
        from prunus.core.files.urls.url_path import path_at
        from prunus.ship.sizes import find_sizes, write_size

        with refused_as(BundleError):
            sha256 = write_size(find_sizes(path_at(source)), size, out, overwrite=overwrite)
        typer.echo(json.dumps({"bundle": str(out), "sha256": sha256}) if as_json else f"bundle {out}")
        return
    if out is not None:
        raise typer.BadParameter("--out goes with --size; where all sizes go is the recipe's output (-o output=FOLDER)")
    found = (source / "search.json").is_file()
    if (setting is not None or trust_code) and not found:
        raise typer.BadParameter(f"--setting and --trust-code are for the folder of a finished search: got {source}")
    if source.is_dir() and not found:
        raise typer.BadParameter(
            f"{source} is a folder and no finished search: --size KEEP_FRACTION --out FOLDER takes a size out of one of sizes; to "
            "make sizes, give a recipe"
        )
    config = _of_search(source) if found else load(source, override, resume)
    from prunus.pipeline.sizes import make_sizes
    from prunus.report import print_sizes

    with display(quiet or as_json) as shown:
        if found:
            from prunus.search import sizes_of_search

            made = sizes_of_search(
                config,
                setting=setting,
                overrides=override or (),
                trust_code=trust_code,
                overwrite=overwrite,
                listener=shown,
            )
        else:
            made = make_sizes(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps(dict(made.facts), indent=2))
        return
    print_sizes(made.facts, results())
    typer.echo(f"sizes {made.folder}  ·  record {made.record}")


def _of_search(folder: Path) -> Recipe:
    """Return the recipe of a finished search, wherever its folder lies now."""
    from prunus.core.recipes.recipe_file import load_recipe

    return load_recipe(folder / "recipe.yaml").model_copy(update={"output": str(folder)})
