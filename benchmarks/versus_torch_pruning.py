"""Which tool leaves the better model at equal MACs: prunus or torch-pruning, as each comes and with equal help?

Usage:
    python benchmarks/versus_torch_pruning.py run --out build/versus.jsonl [--sets digits glyphs] [--seeds 0 1 2 3 4]
    python benchmarks/versus_torch_pruning.py table build/versus.jsonl

Every seed has its own split, its own dense model and its own training. Both tools get the same dense model and, for Taylor, the
same calibration examples; afterwards the same training in the same order, at a short and at a long budget. torch-pruning's ratio is
searched for it, prunus is asked for no more MACs than it left. Both are taken as they come, and both with the same adjustment on
the calibration examples (least squares and batch norm). Where torch-pruning documents two modes, the one that is better on the
validation examples counts. No decision reads a test example. A row of the table is a paired t test over seeds; its verdict is
corrected for the number of rows (Holm). Every arm is a line of its own, so a second start goes on. Needs torch-pruning, timm,
SciPy and Pillow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CACHE = Path("build/versus")
DENSE_EPOCHS = {("glyphs", "resnet"): 10, ("glyphs", "vit"): 20, ("digits", "resnet"): 12, ("digits", "vit"): 30}
BUDGETS = {"glyphs": {"short": 2, "long": 8}, "digits": {"short": 4, "long": 20}}
BATCH_SIZE, TUNE_RATE = 32, 1e-3
SHARES, CRITERIA, MODELS = (0.5, 0.25), ("magnitude_l2", "taylor"), ("resnet", "vit")
ADJUST = ("least_squares", "batch_norm")
HELP = {"as it comes": (), "adjusted": ADJUST}
COMPARED = {
    "both as they come": ("as it comes", "as it comes"),
    "prunus adjusted": ("adjusted", "as it comes"),
    "both adjusted": ("adjusted", "adjusted"),
}
CONFIDENCE, TIMED = 0.95, 2


def main() -> None:
    """Parse and dispatch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--out", type=Path, default=Path("build/versus.jsonl"))
    run.add_argument("--sets", nargs="+", default=["digits", "glyphs"])
    run.add_argument("--models", nargs="+", default=list(MODELS))
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    table = commands.add_parser("table")
    table.add_argument("path", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print_tables([json.loads(line) for line in arguments.path.read_text().splitlines()])
    else:
        run_cells(arguments)


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
                    for criterion in CRITERIA:
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
    """Yield what each tool makes of the cell's model, with and without help, that isn't done."""
    from versus_peer import MODES, adjusted, gathered, nearest_ratio, peer_cut

    set_name, model_name, share, criterion, seed = cell.values()
    wanted = [("torch-pruning", mode, how) for mode in MODES[model_name] for how in HELP]
    wanted += [("prunus", "", how) for how in HELP]
    left = [
        arm for arm in wanted if _key({**cell, **dict(zip(("tool", "mode", "help"), arm, strict=True))}) not in done
    ]
    if not left:
        return
    dense = dense_model(set_name, model_name, seed, data)
    gradients = gathered(dense, data.calibration) if criterion == "taylor" else None

    def share_of(model: Any) -> float:
        return macs_share(model, dense, data)

    def theirs(mode: str, ratio: float) -> Any:
        return peer_cut(dense, data.calibration, criterion, mode, ratio, gradients)

    ratios = {
        mode: nearest_ratio(lambda ratio, mode=mode: theirs(mode, ratio)[0], share_of, share)
        for mode in MODES[model_name]
    }
    asked = min(share, *(share_of(theirs(mode, ratio)[0]) for mode, ratio in ratios.items()))
    for tool, mode, how in left:
        start = time.process_time()
        if tool == "prunus":
            model = our_cut(dense, data, criterion, asked, seed=seed, adjust=HELP[how])
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
        row |= after_training(model, data, set_name, seed)
        if tool == "prunus" and not HELP[how] and seed == 0:
            row["step_seconds"] = times(
                {
                    "prunus": lambda: our_cut(dense, data, criterion, asked, seed=seed),
                    "torch-pruning": lambda: peer_cut(
                        dense, data.calibration, criterion, MODES[model_name][0], ratios[MODES[model_name][0]]
                    ),
                }
            )
        yield {**row, "seconds": round(time.process_time() - start, 1)}


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


def after_training(model: Any, data: Any, set_name: str, seed: int) -> dict[str, Any]:
    """Return the accuracies before and after the training that both tools get, at both budgets."""
    import copy

    from prunus.core.recipes.recipe import Train
    from prunus.recover import train

    found = {"cut": accuracy(model, data.test)}
    for budget, epochs in BUDGETS[set_name].items():
        tuned = copy.deepcopy(model)
        config = Train(epochs=epochs, batch_size=BATCH_SIZE, learning_rate=TUNE_RATE)
        train(tuned, data.train, config, seed=seed, stage=f"{budget} training")
        found[f"{budget} validation"] = accuracy(tuned, data.validation)
        found[budget] = accuracy(tuned, data.test)
    return found


def accuracy(model: Any, examples: Any) -> float:
    """Return the share of right answers."""
    from prunus.evaluate import predict_outputs

    return float((predict_outputs(model, examples).argmax(dim=1) == examples.targets).double().mean())


def times(steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the process's own seconds of each step, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMED):
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name].append(round(time.process_time() - start, 4))
    return found


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Print one table per comparison and budget, the losing rows first, with the count of verdicts."""
    for title, (ours, theirs) in COMPARED.items():
        for budget in ("short", "long"):
            print(f"\n### {title[0].upper()}{title[1:]}, {budget} training\n")
            _print_table(rows, ours, theirs, budget)


def _print_table(rows: list[dict[str, Any]], ours: str, theirs: str, budget: str) -> None:
    lines = []
    cells = dict.fromkeys((row["set"], row["model"], row["share"], row["criterion"]) for row in rows)
    for cell in cells:
        mine = [row for row in rows if (row["set"], row["model"], row["share"], row["criterion"]) == cell]
        pairs = list(_pairs(mine, ours, theirs, budget))
        if len(pairs) > 1:
            lines.append((cell, pairs, *_paired(pairs, budget)))
    verdicts = _verdicts([(p, value) for _, _, value, _, p in lines])
    titles = ["set", "model", "asked", "criterion", "seeds", "dense", "MACs left", "after the cut", "after training"]
    print("| " + " | ".join([*titles, "difference (95 %, this row alone)", "prunus is", "seconds of the step"]) + " |")
    print("| --- " * (len(titles) + 3) + "|")
    for (cell, pairs, value, half, _), verdict in sorted(
        zip(lines, verdicts, strict=True), key=lambda both: both[0][2]
    ):
        print("| " + " | ".join(_cells(cell, pairs, budget, value, half, verdict)) + " |")
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("better", "no measurable difference", "worse"))
    print(f"\n{len(verdicts)} rows: {counts}; {sum(line[2] > 0 for line in lines)} ahead in the mean.")


def _pairs(
    rows: list[dict[str, Any]], ours: str, theirs: str, budget: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield prunus's row and torch-pruning's for every seed that has both; of its modes the better one on validation."""
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        own = [row for row in mine if row["tool"] == "prunus" and row["help"] == ours]
        peers = [row for row in mine if row["tool"] == "torch-pruning" and row["help"] == theirs]
        if own and peers:
            yield own[0], max(peers, key=lambda row: row[f"{budget} validation"])


def _paired(pairs: list[tuple[dict[str, Any], dict[str, Any]]], budget: str) -> tuple[float, float, float]:
    """Return the mean difference, half the width of its interval, and the p value of the paired t test."""
    from scipy.stats import t

    differences = [own[budget] - peer[budget] for own, peer in pairs]
    value, n = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / n**0.5
    p = 2 * float(t.sf(abs(value) / error, n - 1)) if error else float(value == 0)
    return value, float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error, p


def _verdicts(found: list[tuple[float, float]]) -> list[str]:
    """Return the verdict of each row, so that the chance of any wrong one is held (Holm, 1979)."""
    order = sorted(range(len(found)), key=lambda row: found[row][0])
    verdicts = ["no measurable difference"] * len(found)
    for place, row in enumerate(order):
        if found[row][0] > (1 - CONFIDENCE) / (len(found) - place):
            break
        verdicts[row] = "better" if found[row][1] > 0 else "worse"
    return verdicts


def _cells(
    cell: tuple[Any, ...],
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    budget: str,
    value: float,
    half: float,
    verdict: str,
) -> list[str]:
    set_name, model, share, criterion = cell
    means = [
        f"{statistics.mean(own[key] for own, _ in pairs):.1%} / {statistics.mean(peer[key] for _, peer in pairs):.1%}"
        for key in ("macs", "cut", budget)
    ]
    modes = sorted({peer["mode"] for _, peer in pairs})
    timed = next((own["step_seconds"] for own, _ in pairs if "step_seconds" in own), None)
    seconds = ""
    if timed:
        mine, theirs = (statistics.median(timed[tool]) for tool in ("prunus", "torch-pruning"))
        seconds = f"{mine:.2f} / {theirs:.2f} ({mine / theirs:.1f}x)"
    gain = f"{100 * value:+.1f} ({100 * (value - half):+.1f} to {100 * (value + half):+.1f})"
    dense = f"{statistics.mean(own['dense'] for own, _ in pairs):.1%}"
    named = f"{model} ({', '.join(modes)})"
    return [set_name, named, f"{share:.0%}", criterion, str(len(pairs)), dense, *means, gain, verdict, seconds]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
