"""Which commands are there, and what does each hand to whom?

Every command is a parse, one call into the library and a print. Heavy imports happen inside the commands, so that
``prunus --help`` answers at once.
"""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from prunus.cli.bundles.bench_command import bench
from prunus.cli.bundles.brought import let_go
from prunus.cli.bundles.export_command import export
from prunus.cli.bundles.sizes_command import sizes
from prunus.cli.ending import STOPPED, explain, stopped
from prunus.cli.evaluate_command import evaluate, with_usual_suites
from prunus.cli.example_commands import clean, select
from prunus.cli.import_command import import_
from prunus.cli.loading import check_there, load
from prunus.cli.options import (
    Address,
    AsJson,
    Backend,
    Cpus,
    Gpus,
    Overrides,
    Overwrite,
    OwnRecipe,
    Quiet,
    RecipePath,
    Resume,
    Trust,
    Workers,
    on_this_machine,
    shared_out,
)
from prunus.cli.planner.estimate_command import estimate
from prunus.cli.printing import display, print_record, results
from prunus.cli.rows.predict_command import predict
from prunus.cli.rows.shard_duplicates import duplicates_shards
from prunus.cli.runs.run_command import run
from prunus.cli.score_command import score
from prunus.cli.search_command import search
from prunus.cli.serve_command import serve
from prunus.cli.shard_scores import score_shards
from prunus.cli.signing_commands import sign, verify
from prunus.cli.terminal import hush, speak_plainly
from prunus.cli.torchrun.several_ranks import check_shared, followed, held, leading

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Recipe
    from prunus.core.types import Plan

__all__ = ["app", "invoke"]

# Newer versions of typer carry their own click: take the root of usage errors from what typer itself raises.
_UsageError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="prunus",
    help="Prune a trained PyTorch model and the data it learns from, and prove that what is left still works.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 recipe, 4 data, 5 model, 6 plan or bundle, 7 output, 8 run failed, "
    "9 missing package, 10 some rows or shards failed, 130 stopped.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from prunus import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="print the version and leave"),
    ] = False,
) -> None: ...


app.command()(run)
app.command()(clean)
app.command()(score)
app.command()(select)
app.command()(bench)
app.command()(search)
app.command()(estimate)
app.command()(sizes)


@app.command()
def graph(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a YAML recipe, a built-in, or module:function")],
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SHAPE", help="2x3x32x32, or ids:2x16 for token numbers; one for each input"),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="write a drawing of the groups to this file", callback=on_this_machine)
    ] = None,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what hangs together in a model: which units can go, what each carries, what is frozen and why."""
    config = load(Path(model), override) if model.endswith((".yaml", ".yml")) else None
    if config is None and not given:
        raise typer.BadParameter(f"{model} is no recipe: say what it takes, like --input 2x3x32x32")
    from prunus.pipeline.graph_view import graph_of_model, graph_of_recipe

    view = graph_of_model(model, given or []) if config is None else graph_of_recipe(config)
    if svg is not None:
        from prunus.core.files.plain_files import write_text
        from prunus.report import GraphFacts, graph_svg

        write_text(svg, graph_svg(GraphFacts.of(view)))
    if as_json:
        typer.echo(json.dumps(view))
        return
    from prunus.report.summary_text import print_graph

    print_graph(view, Console())


@app.command()
def plan(
    recipe: RecipePath,
    override: Overrides = None,
    workers: Workers = None,
    backend: Backend = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Decide what would go, write the plan for review, and change nothing."""
    if followed(lambda: load(recipe, override, resume)):
        return
    resume, overwrite = held(resume, overwrite)
    config = load(recipe, override, resume)
    config = shared_out(config, backend=backend, workers=workers, address=address, cpus=cpus, gpus=gpus)
    from prunus.core.files.plan_file import plan_summary
    from prunus.pipeline import make_plan, needs_permission
    from prunus.report import print_plan

    with display(quiet or as_json) as shown, leading(config):
        made = make_plan(config, resume=resume, overwrite=overwrite, listener=shown)
    if as_json:
        typer.echo(json.dumps({"plan": str(Path(config.output) / "plan"), "steps": plan_summary(made)}, indent=2))
    else:
        print_plan(plan_summary(made), results())
        where = Path(config.output) / "plan"
        words = ["prunus", "apply", str(where)]
        if needs_permission(config):
            # The plan's own output folder is taken: what is applied goes beside it.
            said = [value for value in override or () if not value.startswith("output=")]
            words += ["--recipe", str(recipe), *(word for value in said for word in ("-o", value))]
        typer.echo(f"plan written to {where}: review it, then `{shlex.join(words)}`")


@app.command()
def apply(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="a plan folder, or a run that has one")],
    override: Overrides = None,
    recipe: OwnRecipe = None,
    trust_code: Trust = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a plan: cut exactly what it says, recover, evaluate, report, ship."""
    from prunus.core.files.plan_file import load_plan, run_of_plan

    def settled() -> tuple[Plan, Recipe]:
        own = None if recipe is None else load(recipe, override)
        loaded = load_plan(plan)
        from prunus.pipeline import recipe_of_plan

        config = recipe_of_plan(loaded, plan, overrides=override or (), trust_code=trust_code, own=own)
        check_there(config, resume)
        return loaded, config

    if followed(lambda: settled()[1]):
        return
    resume, overwrite = held(resume, overwrite)
    loaded, config = settled()
    from prunus.pipeline import apply_plan

    with display(quiet or as_json) as shown, leading(config):
        record = apply_plan(
            loaded, config, made_in=run_of_plan(plan), resume=resume, overwrite=overwrite, listener=shown
        )
    print_record(record, Path(config.output), as_json)


app.command()(evaluate)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    as_json: AsJson = False,
) -> None:
    """Print a finished run's result and write its report.html anew."""
    from prunus.report import load_record

    load_record(run / "record.json")
    from prunus.pipeline import write_report

    record = write_report(run)
    print_record(record, run, as_json)


app.command()(predict)


app.command()(export)


@app.command()
def criteria(as_json: AsJson = False) -> None:
    """List the criteria that a recipe may name."""
    from prunus.report import print_criteria
    from prunus.score import criteria_table

    rows = criteria_table()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_criteria(rows, results())


@app.command()
def shards(
    source: Annotated[Path, typer.Argument(metavar="IN", help="a folder of .safetensors shards")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="an empty folder, or one that isn't there", callback=on_this_machine)
    ],
    keep_fraction: Annotated[float | None, typer.Option(help="share of each matrix that stays")] = None,
    n_m: Annotated[str | None, typer.Option("--n-m", metavar="N:M", help="N kept of every M neighbours: 2:4")] = None,
    drop_layers: Annotated[str, typer.Option(metavar="LIST", help="numbers of layers that leave: 3,5-7")] = "",
    layers: Annotated[str | None, typer.Option(metavar="NAME", help="what the layers are called: model.layers")] = None,
    include: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="prune only these tensors")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="leave these tensors whole")] = None,
    memory: Annotated[int, typer.Option(min=1, help="most megabytes of tensors in memory at once")] = 256,
    workers: Annotated[int, typer.Option(min=1, help="tensors that are worked on at once")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what was stopped in OUT")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Prune a checkpoint that may be larger than memory, shard by shard: by magnitude, N:M, or whole layers."""
    from prunus.core.recipes.named_places import check_shards

    check_shards(source)
    from prunus.scale import EXCLUDED, parse_layers, parse_pattern, prune_shards

    with display(quiet or as_json) as shown:
        report = prune_shards(
            source,
            output,
            keep_fraction=keep_fraction,
            n_m=None if n_m is None else parse_pattern(n_m),
            drop_layers=parse_layers(drop_layers) if drop_layers else (),
            layers=layers,
            include=include or ("*",),
            exclude=EXCLUDED if exclude is None else exclude,
            memory_bytes=memory << 20,
            workers=workers,
            resume=resume,
            listener=shown,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        typer.echo(f"{report}; written to {output}")


app.command("score-shards")(score_shards)
app.command("duplicates-shards")(duplicates_shards)
app.command()(serve)

app.command("import")(import_)
app.command()(sign)
app.command()(verify)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors and checks."""
    from prunus.core.recipes.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every expected error is one line on standard error."""
    debug = "--debug" in arguments
    # --debug may stand anywhere: people add it at the end of the line that failed.
    arguments = (["--debug"] if debug else []) + [argument for argument in arguments if argument != "--debug"]
    arguments = with_usual_suites(arguments)
    speak_plainly()
    try:
        check_shared(arguments)
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        # typer makes an exit of an interrupt.
        return stopped(arguments) if code == STOPPED else code if isinstance(code, int) else 0
    except _UsageError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return stopped(arguments)
    except BrokenPipeError:
        hush()
        return 0
    except SystemExit as leaving:
        # typer and rich make an exit of a pipe that nobody reads any more.
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        hush()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return explain(error, arguments)
    finally:
        let_go()
