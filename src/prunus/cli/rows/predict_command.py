"""How does a command predict with a bundle, and what does it say of rows that it can't?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.bundles.brought import brought_here
from prunus.cli.ending import SOME_ROWS
from prunus.cli.options import AsJson, BundlePath, Size, Trust, on_this_machine
from prunus.cli.printing import plain_value, results, say_note
from prunus.core.endings import in_words, own_endings
from prunus.core.files.urls.url_path import path_at
from prunus.core.text import plain

__all__ = ["predict"]


def predict(
    bundle: BundlePath,
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help=f"a file that ends in {in_words(own_endings())}, an image, or a folder of images"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="write a CSV file instead of printing", callback=on_this_machine)
    ] = None,
    size: Size = None,
    own_size: Annotated[
        bool, typer.Option("--own-size", help="images keep their size, instead of the training's")
    ] = False,
    trust_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Predict with a bundle: one label (or value) per example, with its probability.

    A bad row of a table doesn't stop the others: what is wrong with it stands in a column ``error``, and the exit code is 10.
    """
    from prunus.core.recipes.named_places import check_bundle, check_inputs_file

    bundle = brought_here(bundle, size)
    check_bundle(bundle)
    check_inputs_file(path_at(inputs))
    from prunus.pipeline import predict_file
    from prunus.report import predictions_csv, print_predictions, problem_line

    rows = predict_file(bundle, inputs, own_size=own_size, trust_code=trust_code, note=say_note)
    if output is not None:
        from prunus.core.files.plain_files import write_text

        write_text(output, predictions_csv(rows))
        typer.echo(f"{len(rows)} predictions written to {output}", err=True)
    elif as_json:
        typer.echo(json.dumps(rows, indent=2, default=plain_value))
    elif sys.stdout.isatty():
        print_predictions(rows, results())
    else:
        typer.echo(predictions_csv(rows), nl=False)
    wrong = [row["error"] for row in rows if "error" in row]
    if wrong:
        said = f"{len(wrong)} of {len(rows)} rows can't be predicted: {problem_line(wrong[0])}"
        typer.echo(
            plain(f"error: {inputs}: {said}{', ...' if len(wrong) > 1 else ''}; see the others' in `error`"), err=True
        )
        raise typer.Exit(SOME_ROWS)
