"""Which options of ``prunus export`` are about int8, and how is such a file written and told of?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.bundles.brought import as_asked
from prunus.cli.loading import load
from prunus.cli.printing import display, say_note

__all__ = ["Calibration", "DenseBundle", "Int8", "MaxDrop", "PromisedMetric", "export_int8"]

Int8 = Annotated[
    bool,
    typer.Option("--int8", help="in 8-bit whole numbers, if the file itself keeps the run's contract on test examples"),
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", help="--int8: how much the metric may drop; default: the run's contract")
]
PromisedMetric = Annotated[str | None, typer.Option("--metric", help="--int8: which metric; default: the contract's")]
Calibration = Annotated[
    int | None, typer.Option("--calibration", min=1, help="--int8: how many calibration examples are read")
]
DenseBundle = Annotated[
    Path | None,
    typer.Option("--dense", metavar="BUNDLE", help="--int8: the dense model to hold it against; default: the run's"),
]


def export_int8(
    bundle: Path,
    to: str,
    *,
    out: Path | None,
    recipe: Path | None,
    dense: Path | None,
    metric: str | None,
    max_drop: float | None,
    calibration: int | None,
    trust_code: bool,
    as_json: bool,
) -> None:
    """Write the file, and print what it is and what was shown of it."""
    from prunus.core.events import Event
    from prunus.core.recipes.named_places import check_bundle

    if dense is not None:
        check_bundle(dense)
    own = None if recipe is None else load(recipe, None)
    from prunus.pipeline.commands.quantise_bundle import quantise_bundle
    from prunus.report import int8_line

    asked = {"metric": metric, "max_drop": max_drop, "calibration": calibration}
    with display(as_json) as shown:
        facts = quantise_bundle(
            bundle,
            to,
            out=out,
            asked={key: value for key, value in asked.items() if value is not None},
            recipe=own,
            dense=dense,
            trust_code=trust_code,
            note=say_note,
            tick=lambda done, total: shown(Event("progress", "layers one by one", done=done, total=total)),
        )
    typer.echo(as_asked(json.dumps(facts, indent=2) if as_json else int8_line(facts)))
