"""What does ``prunus export`` ask for, and what does it say of the file that it wrote?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prunus.cli.bundles.brought import as_asked, beside_size, brought_here
from prunus.cli.bundles.int8_export import Calibration, DenseBundle, Int8, MaxDrop, PromisedMetric, export_int8
from prunus.cli.options import AsJson, BundlePath, OwnRecipe, Size, Trust, on_this_machine
from prunus.cli.printing import say_note
from prunus.core.files.urls.url_path import refuse_url

__all__ = ["export"]


def export(
    bundle: BundlePath,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="onnx, openvino, torch, mnn (for many zeros), hf (transformers), executorch, litert or coreml",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="the file to write; default: beside the bundle", callback=on_this_machine),
    ] = None,
    size: Size = None,
    int8: Int8 = False,
    recipe: OwnRecipe = None,
    dense: DenseBundle = None,
    metric: PromisedMetric = None,
    max_drop: MaxDrop = None,
    calibration: Calibration = None,
    processor: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="hf: whose tokenizer goes along", callback=on_this_machine)
    ] = None,
    trust_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Write a bundle's model for another runtime, and check that the file answers as the bundle does."""
    from prunus.core.recipes.named_places import check_bundle

    if out is None:
        refuse_url(bundle, "BUNDLE without --out", "say where the file goes: --out FILE")
    bundle = brought_here(bundle, size)
    check_bundle(bundle)
    out = beside_size(bundle, to, int8=int8) if out is None else out
    told = {"recipe": recipe, "dense": dense, "metric": metric, "max_drop": max_drop, "calibration": calibration}
    if int8 and processor is not None:
        raise typer.BadParameter("--processor is for --to hf, which has no int8")
    if int8:
        export_int8(bundle, to, out=out, **told, trust_code=trust_code, as_json=as_json)  # type: ignore[arg-type]
        return
    if any(value is not None for value in told.values()):
        raise typer.BadParameter("--recipe, --dense, --metric, --max-drop and --calibration are for --int8")
    from prunus.pipeline import export_bundle
    from prunus.report import exported_line

    with Console(stderr=True).status("torch's exporter is at work, for seconds to a minute"):  # on a terminal only
        facts = export_bundle(bundle, to, out=out, beside=processor, trust_code=trust_code, note=say_note)
    typer.echo(as_asked(json.dumps(facts, indent=2) if as_json else exported_line(facts)))
