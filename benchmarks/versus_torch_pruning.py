"""Which tool leaves the better model at equal MACs: prunus or torch-pruning, as each comes and with equal help?

Usage:
    python benchmarks/versus_torch_pruning.py run --out build/versus.jsonl [--sets digits glyphs] [--seeds 0 1 2 3 4]
    python benchmarks/versus_torch_pruning.py table build/versus.jsonl
    python benchmarks/versus_torch_pruning.py choose build/versus-other-seeds.jsonl

Every seed has its own split, its own dense model and its own training. Both tools get the same dense model and, for Taylor, the
same calibration examples; afterwards the same training in the same order, at a short and at a long budget. torch-pruning's ratio is
searched for it, prunus is asked for no more MACs than it left. Both are taken as they come, and both with the same adjustment on
the calibration examples (least squares and batch norm). With the same criterion, where torch-pruning documents two modes, the one
that is better on the validation examples counts; where each tool is at its best (``best``), what was chosen for it on validation
examples of other seeds. No decision reads a test example. A row of the table is a paired t test over seeds; its verdict is
corrected for the number of rows (Holm). Every arm is a line of its own, so a second start goes on. Needs torch-pruning, timm,
SciPy and Pillow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from versus_table import BEST, print_tables

CACHE = Path("build/versus")
DENSE_EPOCHS = {("glyphs", "resnet"): 10, ("glyphs", "vit"): 20, ("digits", "resnet"): 12, ("digits", "vit"): 30}
BUDGETS = {"glyphs": {"short": 2, "long": 8}, "digits": {"short": 4, "long": 20}}
BATCH_SIZE, TUNE_RATE = 32, 1e-3
SHARES, CRITERIA, MODELS = (0.5, 0.25), ("magnitude_l2", "taylor"), ("resnet", "vit")
ADJUST = ("least_squares", "batch_norm")
HELP = {"as it comes": (), "adjusted": ADJUST}
OURS = "reconstruction"
"""Prunus's criterion where each tool is at its best; like torch-pruning's it was chosen on validation examples (``choose``)."""
CHOSEN = {
    ("digits", "resnet", 0.5): {"short": "taylor global", "long": "taylor global"},
    ("digits", "resnet", 0.25): {"short": "taylor global", "long": "taylor global"},
    ("digits", "vit", 0.5): {"short": "magnitude_l2 bottleneck", "long": "taylor bottleneck"},
    ("digits", "vit", 0.25): {"short": "taylor bottleneck", "long": "magnitude_l2 uniform"},
}
"""Torch-pruning's criterion and mode by set, model, share and budget: the most right on validation examples, seeds 100 and 101."""
TIMED = 2


def main() -> None:
    """Parse and dispatch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--out", type=Path, default=Path("build/versus.jsonl"))
    run.add_argument("--sets", nargs="+", default=["digits", "glyphs"])
    run.add_argument("--models", nargs="+", default=list(MODELS))
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    run.add_argument("--criteria", nargs="+", default=[*CRITERIA, BEST])
    for name in ("table", "choose"):
        commands.add_parser(name).add_argument("path", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run_cells(arguments)
        return
    rows = [json.loads(line) for line in arguments.path.read_text().splitlines()]
    print_tables(rows) if arguments.command == "table" else choose(rows)


def run_cells(arguments: argparse.Namespace) -> None:
    """Run every arm that has no line yet."""
    import torch
    from versus_data import data_set

    torch.set_num_threads(1)
    path: Path = arguments.out
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {_key(row) for row in rows}
    for seed in arguments.seeds:
        for set_name in arguments.sets:
            data = data_set(set_name, Path("build/glyphs.npz"), seed)
            for model_name in arguments.models:
                for share in SHARES:
                    for criterion in arguments.criteria:
                        cell = {
                            "set": set_name,
                            "model": model_name,
                            "share": share,
                            "criterion": criterion,
                            "seed": seed,
                        }
                        for row in arms(data, cell, done):
                            with path.open("a") as out:
                                out.write(json.dumps(row) + "\n")
                            print(json.dumps(row), flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("set", "model", "share", "criterion", "seed", "tool", "mode", "help"))


def arms(data: Any, cell: dict[str, Any], done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield what each tool makes of the cell's model that isn't done: with and without help, or each at its best with help."""
    from versus_peer import adjusted, gathered, nearest_ratio, peer_cut

    set_name, model_name, share, criterion, seed = cell.values()
    wanted = list(_wanted(cell))
    left = [
        arm for arm in wanted if _key({**cell, **dict(zip(("tool", "mode", "help"), arm, strict=True))}) not in done
    ]
    if not left:
        return
    dense = dense_model(set_name, model_name, seed, data)
    modes = list(dict.fromkeys(mode for tool, mode, _ in wanted if tool == "torch-pruning"))
    gradients = gathered(dense, data.calibration) if "taylor" in " ".join([criterion, *modes]) else None

    def share_of(model: Any) -> float:
        return macs_share(model, dense, data)

    def theirs(mode: str, ratio: float) -> Any:
        by, where = mode.split(" ") if criterion == BEST else (criterion, mode)
        return peer_cut(dense, data.calibration, by, where, ratio, gradients)

    ratios = {mode: nearest_ratio(lambda ratio, mode=mode: theirs(mode, ratio)[0], share_of, share) for mode in modes}
    asked = min(share, *(share_of(theirs(mode, ratio)[0]) for mode, ratio in ratios.items()))
    for tool, mode, how in left:
        start = time.process_time()
        if tool == "prunus":
            by = OURS if criterion == BEST else criterion
            model = our_cut(dense, data, by, asked, seed=seed, adjust=HELP[how])
        else:
            model, kept = theirs(mode, ratios[mode])
            if HELP[how]:
                model = adjusted(model, dense, data.calibration, kept, HELP[how])
        row = {
            **cell,
            "tool": tool,
            "mode": mode,
            "help": how,
            "dense": accuracy(dense, data.test),
            "macs": share_of(model),
        }
        budgets = _budgets_of(cell, mode) if tool == "torch-pruning" else list(BUDGETS[set_name])
        row |= after_training(model, data, set_name, seed, budgets)
        if tool == "prunus" and not HELP[how] and seed == 0:
            row["step_seconds"] = times(
                {
                    "prunus": lambda: our_cut(dense, data, criterion, asked, seed=seed),
                    "torch-pruning": lambda: peer_cut(dense, data.calibration, criterion, modes[0], ratios[modes[0]]),
                }
            )
        yield {**row, "seconds": round(time.process_time() - start, 1)}


def _wanted(cell: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield tool, mode and help of each arm of a cell; at its best a peer's mode is its criterion and its mode."""
    from versus_peer import MODES

    if cell["criterion"] == BEST:
        chosen = CHOSEN[cell["set"], cell["model"], cell["share"]]
        for mode in dict.fromkeys(chosen.values()):
            yield "torch-pruning", mode, "adjusted"
        yield "prunus", OURS, "adjusted"
        return
    for mode in MODES[cell["model"]]:
        for how in HELP:
            yield "torch-pruning", mode, how
    for how in HELP:
        yield "prunus", "", how


def _budgets_of(cell: dict[str, Any], mode: str) -> list[str]:
    """Return the budgets that torch-pruning's arm is trained for: those that it was chosen for."""
    if cell["criterion"] != BEST:
        return list(BUDGETS[cell["set"]])
    chosen = CHOSEN[cell["set"], cell["model"], cell["share"]]
    return [budget for budget, name in chosen.items() if name == mode]


def dense_model(set_name: str, model_name: str, seed: int, data: Any) -> Any:
    """Return the trained dense model, from the cache if it is there."""
    import torch
    from versus_data import make_model

    from prunus.core.recipes.recipe import Train
    from prunus.recover import train

    model = make_model(model_name, set_name, seed)
    path = CACHE / f"{set_name}-{model_name}-{seed}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        epochs = DENSE_EPOCHS[set_name, model_name]
        train(model, data.train, Train(epochs=epochs, batch_size=BATCH_SIZE), seed=seed, stage=f"dense {model_name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model.eval()


def our_cut(dense: Any, data: Any, criterion: str, share: float, *, seed: int, adjust: tuple[str, ...] = ()) -> Any:
    """Return what prunus leaves of ``dense`` at a share of its MACs, without training."""
    from prunus import ModelOptimizer

    optimizer = ModelOptimizer(
        dense,
        data,
        strategy=criterion,
        target={"macs": share},
        recovery={"method": "none", "adjust": list(adjust)},
        trained=True,
        seeds=[seed],
    )
    return optimizer.prune().model_


def macs_share(model: Any, dense: Any, data: Any) -> float:
    """Return the MACs of ``model`` as a share of the dense model's, counted by one and the same counter."""
    from prunus.evaluate import measure_cost

    inputs = (next(iter(data.calibration.batches(2))).inputs,)
    return measure_cost(model, inputs).macs / measure_cost(dense, inputs).macs


def after_training(model: Any, data: Any, set_name: str, seed: int, budgets: Sequence[str]) -> dict[str, Any]:
    """Return accuracy and log loss before and after the training that both tools get."""
    import copy

    from prunus.core.recipes.recipe import Train
    from prunus.recover import train

    found = {"cut": accuracy(model, data.test), "cut loss": log_loss(model, data.test)}
    for budget in budgets:
        tuned = copy.deepcopy(model)
        config = Train(epochs=BUDGETS[set_name][budget], batch_size=BATCH_SIZE, learning_rate=TUNE_RATE)
        train(tuned, data.train, config, seed=seed, stage=f"{budget} training")
        for part, examples in ((" validation", data.validation), ("", data.test)):
            found[f"{budget}{part}"] = accuracy(tuned, examples)
            found[f"{budget}{part} loss"] = log_loss(tuned, examples)
    return found


def accuracy(model: Any, examples: Any) -> float:
    """Return the share of right answers."""
    from prunus.evaluate import predict_outputs

    return float((predict_outputs(model, examples).argmax(dim=1) == examples.targets).double().mean())


def log_loss(model: Any, examples: Any) -> float:
    """Return the mean negative logarithm of the probability that the right answer gets, in nats."""
    from torch.nn.functional import cross_entropy

    from prunus.evaluate import predict_outputs

    return float(cross_entropy(predict_outputs(model, examples), examples.targets))


def times(steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the process's own seconds of each step, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMED):
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name].append(round(time.process_time() - start, 4))
    return found


def choose(rows: list[dict[str, Any]]) -> None:
    """Print, by set, model, share and budget, every adjusted arm's mean accuracy on validation examples, the best first."""
    for set_name, model, share in dict.fromkeys((row["set"], row["model"], row["share"]) for row in rows):
        for budget in BUDGETS[set_name]:
            means: dict[str, list[float]] = {}
            for row in rows:
                if (row["set"], row["model"], row["share"], row["help"]) == (set_name, model, share, "adjusted"):
                    name = f"{row['tool']} {row['criterion']} {row['mode']}".strip()
                    means.setdefault(name, []).append(row[f"{budget} validation"])
            ranked = sorted(means, key=lambda name: -statistics.mean(means[name]))
            listed = ", ".join(f"{name} {statistics.mean(means[name]):.1%}" for name in ranked)
            print(f"{set_name} {model} {share:.0%} {budget}: {listed}")


if __name__ == "__main__":
    main()
