"""What does ``prunus evaluate`` ask for, and how does its answer read?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.cli.loading import load
from prunus.cli.options import AsJson, BundlePath, OwnRecipe, Trust
from prunus.cli.printing import plain_value, results, say_note

__all__ = ["evaluate"]


def evaluate(
    bundle: BundlePath,
    source: Annotated[
        str | None, typer.Option("--source", help="evaluate on all examples of this data instead")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="the label's column in --source")] = None,
    recipe: OwnRecipe = None,
    dense: Annotated[
        Path | None,
        typer.Option("--dense", metavar="BUNDLE", help="the dense model to compare with; default: the one of the run"),
    ] = None,
    harm: Annotated[
        bool, typer.Option("--harm", help="which classes, groups and examples lose by pruning, and calibration")
    ] = False,
    groups: Annotated[
        str | None, typer.Option("--groups", metavar="COLUMN", help="a column whose values are looked at one by one")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of all that is drawn")] = 0,
    trust_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle: quality with intervals, size and cost; and how safe it is."""
    from prunus.core.recipes.named_places import check_bundle, check_source

    check_bundle(bundle)
    if dense is not None:
        check_bundle(dense)
    if source is not None:
        check_source(source)
    from prunus.pipeline import Asked, evaluate_bundle, evaluate_safety
    from prunus.report import print_qualities, print_safety

    own = None if recipe is None else load(recipe, None).data
    where: dict[str, Any] = {"source": source, "target": target, "data": own, "trust_code": trust_code}
    asked = Asked(harm=harm, seed=seed)
    result = evaluate_bundle(bundle, **where, note=say_note)
    safety = None
    if asked.anything:
        safety = evaluate_safety(bundle, asked, dense=dense, groups=groups, **where, note=say_note)
    if as_json:
        more = {} if safety is None else {"safety": safety.model_dump(mode="json")}
        typer.echo(json.dumps({**result, **more}, indent=2, default=plain_value))
        return
    print_qualities(result, results())
    if safety is not None:
        print_safety(safety, results())
