"""What does ``prunus duplicates-shards`` take, and what does it say of shards that can't be read?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.ending import SOME_ROWS
from prunus.cli.options import Address, AsJson, Backend, Cpus, Gpus, Quiet, Workers, dispatch_of
from prunus.cli.printing import display
from prunus.cli.workers.crews import get_ready

__all__ = ["duplicates_shards"]


def duplicates_shards(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Parquet, Arrow, CSV or .npy files of rows of numbers, folders of them, or URLs"
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="OUT", help="an empty folder, or one that isn't there, or a URL")
    ],
    cosine: Annotated[float, typer.Option("--cosine", help="from this cosine on rows are near-duplicates")] = 0.99,
    recall: Annotated[float, typer.Option("--recall", help="the share of pairs at that cosine to find")] = 0.99,
    seed: Annotated[int, typer.Option("--seed", help="of the random cuts that rows meet by")] = 0,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="LIST", help="one column of arrays, or several of numbers")
    ] = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Annotated[int, typer.Option(min=0, help="how often a part is tried again whose process died")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what was stopped, or failed, in OUT")] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", metavar="FOLDER", help="that all workers see, for what is kept on the way; default: in OUT"
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find near-duplicates among rows of any number: which rows stay, and which stay for which others.

    A shard that is damaged doesn't stop the others: it is named, and the exit code is 10; mend it, and --resume does the rest.
    """
    from prunus.core.files.urls.url_path import path_at
    from prunus.scale import near_duplicates_shards

    output = path_at(output)
    who = dispatch_of(None, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    get_ready(who)
    with display(quiet or as_json) as shown:
        found = near_duplicates_shards(
            files,
            output,
            cosine=cosine,
            recall=recall,
            seed=seed,
            columns=None if columns is None else [name.strip() for name in columns.split(",") if name.strip()],
            backend=who,
            retries=retries,
            resume=resume,
            work=work,
            listener=shown,
        )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    elif not found.failed:
        typer.echo(f"{found}; written to {output}")
    if found.failed:
        # each was said when it failed
        total = found.shards + len(found.failed)
        typer.echo(
            f"error: {len(found.failed)} of {total} shards can't be read, so nothing was looked for; mend them, and add --resume",
            err=True,
        )
        raise typer.Exit(SOME_ROWS)
