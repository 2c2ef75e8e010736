"""How are bundles timed from the command line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.bundles.brought import as_asked, brought_here, dense_of_size, each_size
from prunus.cli.options import AsJson, Quiet, Trust, on_this_machine
from prunus.cli.printing import display, results

__all__ = ["bench"]


def bench(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...", help="bundles, or runs that have one; folders of sizes; and exported .onnx files"
        ),
    ],
    dense: Annotated[
        Path | None, typer.Option("--dense", metavar="BUNDLE", help="the dense model, if no run has it beside")
    ] = None,
    batch: Annotated[str, typer.Option("--batch", metavar="LIST", help="batch sizes")] = "1,32",
    threads: Annotated[
        str | None,
        typer.Option("--threads", metavar="LIST", help="numbers of threads; default: one, and all processors"),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="torch, torch_compiled, onnxruntime, openvino, mnn, litert; may be repeated; default: all that are installed",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=5, help="rounds in which every model takes a turn in every runtime")] = 30,
    warm_up: Annotated[int, typer.Option("--warm-up", min=1, help="rounds before they count")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="of the order within rounds, and of the intervals")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="also write the result to this file, as JSON", callback=on_this_machine)
    ] = None,
    trust_code: Trust = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time bundles and their dense model in every installed runtime, and say whether pruning made them faster."""
    from prunus.core.recipes.named_places import check_bundle

    sizes, counts = _numbers("--batch", batch), None if threads is None else _numbers("--threads", threads)
    bundles = [brought_here(one) for path in bundles for one in each_size(path)]
    dense = dense_of_size(bundles[0]) if dense is None else brought_here(dense)
    for path in (*bundles, *(() if dense is None else (dense,))):
        if path.suffix != ".onnx" or not path.is_file():
            check_bundle(path)
    from prunus.pipeline.commands.bench_bundles import bench_bundles
    from prunus.report import print_bench

    with display(quiet or as_json) as shown:
        found = bench_bundles(
            bundles,
            dense=dense,
            batch_sizes=sizes,
            threads=counts,
            runtimes=runtime,
            repeats=repeats,
            warm_up=warm_up,
            seed=seed,
            trust_code=trust_code,
            listener=shown,
        )
    found = json.loads(as_asked(json.dumps(found)))
    if out is not None:
        from prunus.core.files.plain_files import write_text

        write_text(out, json.dumps(found, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_bench(found, results())


def _numbers(option: str, text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 0 < int(part) < 10**6 for part in parts) or len(set(parts)) < len(parts):
        raise typer.BadParameter(f"{option} must be different whole numbers with commas between, like 1,32: got {text}")
    return [int(part) for part in parts]
