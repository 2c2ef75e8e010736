"""What does ``prunus score-shards`` take, and what does it say of shards that can't be scored?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.ending import SOME_ROWS
from prunus.cli.options import Address, AsJson, Backend, Cpus, Gpus, Quiet, Size, Trust, Workers, dispatch_of
from prunus.cli.printing import display
from prunus.cli.workers.crews import get_ready

__all__ = ["score_shards"]


def score_shards(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a bundle, a run that has one, or module:function")],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Parquet, Arrow, CSV or .npy files, folders of them, of images, or a saved set of Hugging Face's; URLs, too",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="OUT", help="an empty folder, or one that isn't there, or a URL")
    ],
    size: Size = None,
    target: Annotated[str | None, typer.Option("--target", metavar="COLUMN", help="the label's column")] = None,
    scores: Annotated[str | None, typer.Option("--scores", metavar="LIST", help="only these: loss,entropy")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="LIST", help="what a model of a function reads, in this order")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="COLUMN", help="copy it: an id")] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="rows that are read at once")] = 65536,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Annotated[int, typer.Option(min=0, help="how often a shard is tried again whose process died")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what was stopped, or failed, in OUT")] = False,
    trust_code: Trust = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a data set of any size, shard by shard: what a model says of each row, with or without its label.

    A shard that is damaged doesn't stop the others: it is named, and the exit code is 10; mend it, and --resume does the rest.
    """
    from prunus.core.files.urls.url_path import path_at
    from prunus.pipeline.sharding.score_files import score_files

    output = path_at(output)
    who = dispatch_of(None, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    get_ready(who)
    with display(quiet or as_json) as shown:
        found = score_files(
            model,
            files,
            output,
            size=size,
            target=target,
            names=None if scores is None else _listed(scores),
            columns=None if columns is None else _listed(columns),
            keep=keep or (),
            batch_rows=batch_rows,
            backend=who,
            retries=retries,
            resume=resume,
            trust_code=trust_code,
            listener=shown,
        )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    elif found.shards:
        typer.echo(f"{found}; written to {output}")
    if found.failed:  # each was said when it failed
        total = found.shards + len(found.failed)
        typer.echo(
            f"error: {len(found.failed)} of {total} shards have no scores; mend them, and add --resume to score them",
            err=True,
        )
        raise typer.Exit(SOME_ROWS)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))
