"""What becomes of every model of the zoo, at half of every group, without a line of configuration?

Usage:
    python benchmarks/zoo.py run --suite torchvision --out build/zoo.jsonl [--match resnet] [--seconds 120]
    python benchmarks/zoo.py one SUITE NAME
    python benchmarks/zoo_page.py zoo build/zoo.jsonl

Resumable: a model that has a line in --out isn't run again. Every model has a process of its own and a limit of processor
seconds, which other work on the machine doesn't use up. For each model:
analysis (seconds of one core), permutation certificate, keep 50 % of every group, forward, train mode with backward and one optimiser step, another
batch size, and the cut rebuilt from the original builder. Models above the size limit are analysed and cut on the meta device, where
nothing can be certified or run. Seconds are of one core, of all that a run does before it cuts: trace, certificate, trial of the class.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

HANGS = 10
"""So many times its processor seconds a process may take by the clock before it counts as one that hangs."""


def main() -> None:
    """Parse and dispatch."""
    arguments = arguments_of(seconds=180)
    if arguments.command == "one":
        print("RESULT " + json.dumps(one_model(_steps, arguments.suite, arguments.name, arguments.debug)), flush=True)
    else:
        run_suite(arguments, _steps)


def arguments_of(seconds: float) -> argparse.Namespace:
    """Parse the command line; ``seconds`` is how long a model may take where nobody says."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument(
        "--suite",
        choices=["torchvision", "timm", "transformers", "torch", "diffusers", "segmentation", "geometric"],
        required=True,
    )
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--match", default="")
    run.add_argument("--seconds", type=float, default=seconds)
    one = commands.add_parser("one")
    one.add_argument("suite")
    one.add_argument("name")
    one.add_argument("--debug", action="store_true")
    return parser.parse_args()


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of results, of every model the latest."""
    lines = path.read_text().splitlines() if path.exists() else []
    return list({(row["suite"], row["name"]): row for row in map(json.loads, lines)}.values())


def run_suite(arguments: argparse.Namespace, steps: Callable[[dict[str, Any]], None]) -> None:
    """Run every model that has no line yet, each in its own process."""
    from zoo_models import names

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["suite"], row["name"]) for row in rows_of(arguments.out)}
    warm_up(arguments.suite)
    for name in names(arguments.suite):
        if arguments.match not in name or (arguments.suite, name) in done:
            continue
        row = in_process(partial(one_model, steps), arguments.suite, name, arguments.seconds)
        with arguments.out.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(
            f"{name:45s} {row['status']:8s} {row.get('kind', ''):6s} {row.get('lost', 0):5.0%} {row.get('error', '')[:120]}",
            flush=True,
        )


def in_process(
    run: Callable[[str, str, bool], dict[str, Any]], suite: str, name: str, seconds: float
) -> dict[str, Any]:
    """Return one model's row, also when its process dies: a fork, so that nothing is imported anew for every model.

    ``seconds`` are the process's own, so that other work on the machine decides nothing; the wall clock only ends one that hangs.
    """
    before = _children_seconds()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, run, suite, name, seconds))
    process.start()
    theirs.close()
    row: dict[str, Any]
    try:
        hung = {"status": "timeout", "error": f"no answer within {HANGS * seconds:.0f} s by the clock"}
        row = ours.recv() if ours.poll(HANGS * seconds) else hung
    except EOFError:
        process.join()
        row = {"status": "died", "error": f"exit {process.exitcode}"}
        if process.exitcode == -signal.SIGXCPU:
            row = {"status": "timeout", "error": f"more than {seconds:.0f} s"}
    process.kill()
    process.join()
    return {"suite": suite, "name": name, **row, "process_seconds": round(_children_seconds() - before, 1)}


def _children_seconds() -> float:
    """Return the processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _send(pipe: Any, run: Callable[[str, str, bool], dict[str, Any]], suite: str, name: str, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
    pipe.send(run(suite, name, False))


def warm_up(suite: str) -> None:
    """Import what the models need and let torch make its first-call preparations, once for all."""
    import torch
    from zoo_models import load

    from prunus.apply import follow_class
    from prunus.graph import analyze, certify

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1)).eval()
    inputs = (torch.randn(2, 3, 8, 8),)
    follow_class(model, inputs, certify(model, inputs, analyze(model, inputs)))
    plain = {"torch": "lstm", "transformers": "bert", "timm": "resnet18", "torchvision": "resnet18"}
    plain |= {"diffusers": "dit", "segmentation": "unet", "geometric": "gcn"}
    load(suite, plain[suite])


def one_model(steps: Callable[[dict[str, Any]], None], suite: str, name: str, debug: bool) -> dict[str, Any]:
    """Return what became of one model; the stage that failed is named."""
    row: dict[str, Any] = {"suite": suite, "name": name, "status": "ok", "stage": "build"}
    try:
        steps(row)
        row.pop("stage")
    except Exception as error:
        if debug:
            traceback.print_exc()
        row["status"] = "failed"
        row["error"] = f"{row['stage']}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def _steps(row: dict[str, Any]) -> None:
    import torch
    from torch import nn
    from zoo_models import load

    from prunus.apply import follow_class, shrink
    from prunus.graph import analyze, certify

    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = load(row["suite"], row["name"])
    model: nn.Module = case.model.eval()
    meta = any(p.device.type == "meta" for p in model.parameters())
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row["meta"] = meta
    inputs, kwargs = case.inputs(2)

    row["stage"] = "analyze"
    analyze(model, inputs, kwargs) if row[
        "parameters"
    ] < 1e6 else None  # small ones: leave torch's own first-call costs out
    start = time.process_time()
    graph = analyze(model, inputs, kwargs)
    row["analyze_seconds"] = round(time.process_time() - start, 2)
    row["notes"] = list(graph.notes)
    row["groups"], row["frozen"] = len(graph.groups), len(graph.frozen)
    row["without_reason"] = sum(not f.reason for f in graph.frozen)

    row["stage"] = "certify"
    if not meta:
        start = time.process_time()
        certified = certify(model, inputs, graph, kwargs=kwargs)
        row["certify_seconds"] = round(time.process_time() - start, 2)
        row["failed_certificate"] = len(graph.groups) - len(certified.groups)
        row["certificate_reasons"] = [f"{f.name}: {f.reason}" for f in certified.frozen[len(graph.frozen) :]][:5]
        graph = certified

    row["stage"] = "follow"
    start = time.process_time()
    followed = follow_class(model, inputs, graph, kwargs)
    row["follow_seconds"] = round(time.process_time() - start, 2)
    row["left_whole"] = len(followed.frozen) - len(graph.frozen)
    row["left_whole_why"] = sorted({f.reason for f in followed.frozen[len(graph.frozen) :]})[:1]
    graph = followed

    row["stage"] = "shrink"
    keep = _masks(graph, [4])
    start = time.process_time()
    shrunk = shrink(model, inputs, graph, keep, kwargs=kwargs)
    row["shrink_seconds"] = round(time.process_time() - start, 2)
    small = shrunk.model
    row["kind"], row["why"] = shrunk.kind, list(shrunk.notes)
    row["lost"] = round(1 - sum(p.numel() for p in small.parameters()) / row["parameters"], 4)
    if meta:
        return

    row["stage"] = "uneven"
    row["uneven"] = shrink(model, inputs, graph, _masks(graph, [4, 5, 6, 7]), kwargs=kwargs).kind

    row["stage"] = "forward"
    first = case.loss(small, 2)
    row["stage"] = "train step"
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-4)
    loss = case.loss(small, 2)
    loss.backward()
    optimizer.step()
    small.eval()
    row["stage"] = "another batch size"
    case.loss(small, 3)
    row["stage"] = "rebuild"
    _rebuild(case, small, shrunk.kind, inputs, kwargs, keep)
    row["stage"] = "config"
    if hasattr(type(model), "from_pretrained"):
        row["config"] = _configs(case, model, inputs, kwargs, graph)
    row["stage"] = "blocks and experts"
    row["blocks"], row["experts"] = _whole_modules(case, model, inputs, kwargs, graph)
    del first


CONFIG_KINDS = (("mlp",), ("head",), ("mlp", "head", "width"))


def _masks(graph: Any, eighths: Sequence[int]) -> dict[str, Any]:
    """Return masks that leave so many eighths of the groups, taken in turns."""
    import torch

    keep = {}
    for group, share in zip(graph.groups, itertools.cycle(eighths), strict=False):
        count = -(-max(1, group.size * share // 8) // group.multiple) * group.multiple
        keep[group.name] = torch.randperm(group.size) < count
    return keep


def _configs(case: Any, model: Any, inputs: Any, kwargs: Any, graph: Any) -> dict[str, str]:
    """Return, for each set of kinds, whether half of them can be saved and loaded by the class's own means.

    What no setting of the config can say is told when the model is cut; what is neither told nor comes back is an error.
    """
    import torch

    from prunus.apply import shrink

    found = {}
    for kinds in CONFIG_KINDS:
        keep = {g.name: torch.arange(g.size) < max(1, g.size // 2) for g in graph.groups if g.kind in kinds}
        if keep:
            shrunk = shrink(model, inputs, graph, keep, kwargs=kwargs)
            told = shrunk.kind == "graph" or any("bundle" in note for note in shrunk.notes)
            found["+".join(kinds)] = "told" if told else _config_round_trip(case, shrunk.model)
            assert found["+".join(kinds)] in ("ok", "told"), f"{kinds}: {found}"
    return found


def _config_round_trip(case: Any, small: Any) -> str:
    """Return ``ok`` where the pruned model comes back from its own config, why it doesn't, or nothing where there is none."""
    import tempfile

    import torch

    if not hasattr(type(small), "from_pretrained") or not hasattr(small, "save_pretrained"):
        return ""
    torch.manual_seed(0)
    one = case.loss(small, 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            small.save_pretrained(folder)
            again = type(small).from_pretrained(folder).eval()
            torch.manual_seed(0)
            other = case.loss(again, 2)
        except Exception as error:
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    return "ok" if torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True) else "outputs differ"


def _whole_modules(case: Any, model: Any, inputs: Any, kwargs: Any, graph: Any) -> tuple[int, int]:
    """Drop half of every stack of blocks and of every mixture of experts; return how many of each can leave."""
    import torch

    from prunus.apply import shrink

    for stack in graph.stacks:
        mask = torch.ones(stack.size, dtype=torch.bool)
        mask[: (stack.size - stack.min_units + 1) // 2] = False
        small = shrink(model, inputs, graph, {stack.name: mask}, kwargs=kwargs).model
        case.loss(small.train(), 3).backward()
    count = {kind: sum(s.size - s.min_units for s in graph.stacks if s.kind == kind) for kind in ("block", "expert")}
    return count["block"], count["expert"]


def _rebuild(case: Any, small: Any, kind: str, inputs: Any, kwargs: Any, keep: dict[str, Any]) -> None:
    """Build the model anew, cut it the same way, fill in the weights: the outputs must be the same."""
    import torch

    from prunus.apply import shrink
    from prunus.apply.edits import diff, materialize, rebuild
    from prunus.graph import analyze

    original = case.build().eval()
    if kind == "eager":
        again = rebuild(case.build(), diff(original, small))
        materialize(again)
    else:
        again = shrink(original, inputs, analyze(original, inputs, kwargs), keep, kwargs=kwargs, prefer="graph").model
    again.load_state_dict(small.state_dict(), strict=True)
    torch.manual_seed(0)
    one = case.loss(small.eval(), 2)
    torch.manual_seed(0)
    other = case.loss(again.eval(), 2)
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True), (
        f"outputs differ after a rebuild: {one} and {other}"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
