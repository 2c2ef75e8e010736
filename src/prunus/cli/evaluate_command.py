"""What does ``prunus evaluate`` ask for, and how does its answer read?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.cli.bundles.brought import as_asked, brought_here, dense_of_size
from prunus.cli.loading import load
from prunus.cli.options import (
    Address,
    AsJson,
    Backend,
    BundlePath,
    Cpus,
    Gpus,
    OwnRecipe,
    Quiet,
    Size,
    Trust,
    Workers,
    dispatch_of,
    on_this_machine,
)
from prunus.cli.printing import display, plain_value, results, say_note
from prunus.cli.workers.crews import get_ready

__all__ = ["evaluate", "with_usual_suites"]

_USUAL = {"--robustness": "corruptions", "--privacy": "loss"}
"""The suites that an option without a value means: those that don't take long."""


def with_usual_suites(arguments: list[str]) -> list[str]:
    """Return a command line in which options that may go without a value have one.

    >>> with_usual_suites(["evaluate", "b", "--robustness", "--privacy=lira"])
    ['evaluate', 'b', '--robustness=corruptions', '--privacy=lira']
    """
    if "evaluate" not in arguments:
        return arguments
    return [f"{word}={_USUAL[word]}" if word in _USUAL else word for word in arguments]


def evaluate(
    bundle: BundlePath,
    size: Size = None,
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
    robustness: Annotated[
        str,
        typer.Option("--robustness", metavar="SUITES", help="corruptions (also if bare), attacks, or both: a,b"),
    ] = "",
    norm: Annotated[str, typer.Option("--norm", help="of attacks: linf, l2, or both: a,b")] = "linf",
    reach: Annotated[
        float | None, typer.Option("--reach", help="of attacks: share of an image's range, or deviations of a feature")
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option("--trigger", metavar="FILE", help="how often does this .npy patch (or module:function) work?"),
    ] = None,
    trigger_class: Annotated[
        str | None, typer.Option("--trigger-class", help="the class that the trigger is for")
    ] = None,
    privacy: Annotated[
        str,
        typer.Option("--privacy", metavar="ATTACKS", help="loss (also if bare), lira, or both: a,b"),
    ] = "",
    shadows: Annotated[int, typer.Option("--shadows", min=2, help="models that lira trains")] = 8,
    budget: Annotated[
        int | None, typer.Option("--budget", min=10, help="the most examples that robustness looks at")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="keep safety.json and a page here; default: in the run",
            callback=on_this_machine,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of all that is drawn")] = 0,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    trust_code: Trust = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle: quality with intervals, size and cost; and how safe it is."""
    from prunus.core.recipes.named_places import check_bundle, check_source

    bundle = brought_here(bundle, size)
    check_bundle(bundle)
    dense = dense_of_size(bundle) if dense is None else brought_here(dense)
    if dense is not None:
        check_bundle(dense)
    if source is not None:
        check_source(source)
    from prunus.pipeline import Asked, evaluate_bundle, evaluate_safety
    from prunus.report import print_qualities, print_safety
    from prunus.scale.dispatch import reach_workers

    asked = Asked(
        harm=harm,
        robustness=_words(robustness),
        privacy=_words(privacy),
        trigger=trigger,
        trigger_class=trigger_class,
        norms=_words(norm),
        reach=reach,
        budget=budget,
        n_shadows=shadows,
        seed=seed,
    )
    own = None if recipe is None else load(recipe, None)
    who = None if own is None else own.dispatch
    if any(told is not None for told in (workers, backend, address, cpus, gpus)):
        who = dispatch_of(who, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    if asked.anything:
        get_ready(who, source or "", bundle)
    where: dict[str, Any] = {"source": source, "target": target, "trust_code": trust_code}
    with reach_workers(who if asked.anything else None):
        result = evaluate_bundle(bundle, dense=dense, **where, data=None if own is None else own.data, note=say_note)
        result["bundle"] = as_asked(result["bundle"])
        safety = None
        if asked.anything:
            with display(quiet or as_json) as shown:
                safety = evaluate_safety(
                    bundle,
                    asked,
                    dense=dense,
                    groups=groups,
                    recipe=own,
                    out=out,
                    dispatch=who,
                    **where,
                    note=say_note,
                    listener=shown,
                )
    if as_json:
        more = {} if safety is None else {"safety": safety.model_dump(mode="json")}
        typer.echo(json.dumps({**result, **more}, indent=2, default=plain_value))
        return
    print_qualities(result, results())
    if safety is not None:
        print_safety(safety, results())


def _words(text: str) -> tuple[str, ...]:
    """Return the words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
