"""Which tool leaves the better model at equal MACs: prunus, or torch-pruning as its examples use it?

Usage:
    python benchmarks/versus_torch_pruning.py run --out build/versus.jsonl [--sets digits glyphs] [--seeds 0 1 2]
    python benchmarks/versus_torch_pruning.py table build/versus.jsonl

Both get the same trained model, the same calibration examples for Taylor, and afterwards the same training in the same order.
The ratio at which torch-pruning comes nearest to the MACs is searched for it, and prunus is then asked for no more than that.
Dense models are kept under ``build/versus`` and every cell is a line of its own, so a second start goes on. Needs torch-pruning,
timm and Pillow.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path("build/versus")
DENSE_EPOCHS = {("glyphs", "resnet"): 10, ("glyphs", "vit"): 20, ("digits", "resnet"): 12, ("digits", "vit"): 30}
TUNE_EPOCHS = {"glyphs": 2, "digits": 4}
BATCH_SIZE, TUNE_RATE = 32, 1e-3
SHARES, CRITERIA, MODELS = (0.5, 0.25), ("magnitude_l2", "taylor"), ("resnet", "vit")
GLOBAL = {"resnet": True, "vit": False}
"""One ranking for the whole model, as in reproduce/main.py --global-pruning; its scripts for ViT prune uniformly."""
TIMED = 2


def main() -> None:
    """Parse and dispatch."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--out", type=Path, default=Path("build/versus.jsonl"))
    run.add_argument("--sets", nargs="+", default=["digits", "glyphs"])
    run.add_argument("--models", nargs="+", default=list(MODELS))
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    table = commands.add_parser("table")
    table.add_argument("path", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print_table([json.loads(line) for line in arguments.path.read_text().splitlines()])
    else:
        run_cells(arguments)


def run_cells(arguments: argparse.Namespace) -> None:
    """Run every cell that has no line yet."""
    import torch
    from versus_data import data_set

    torch.set_num_threads(1)
    path: Path = arguments.out
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {_key(row) for row in rows}
    for seed in arguments.seeds:
        for set_name in arguments.sets:
            data = data_set(set_name, Path("build/glyphs.npz"))
            for model_name in arguments.models:
                for share in SHARES:
                    for criterion in CRITERIA:
                        cell = {"set": set_name, "model": model_name, "share": share, "criterion": criterion}
                        if _key({**cell, "seed": seed}) in done:
                            continue
                        row = {**cell, "seed": seed, **one_cell(data, *cell.values(), seed)}
                        with path.open("a") as out:
                            out.write(json.dumps(row) + "\n")
                        print(_line(row), flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["set"], row["model"], row["share"], row["criterion"], row["seed"])


def _line(row: dict[str, Any]) -> str:
    ours, theirs = row["prunus"], row["torch-pruning"]
    values = (f"{a:.3f}/{b:.3f}" for a, b in ((ours[k], theirs[k]) for k in ("macs", "cut", "tuned")))
    return f"{_key(row)} dense {row['dense']:.3f} | macs, cut, tuned: {', '.join(values)} | {row['seconds']:.0f} s"


def one_cell(data: Any, set_name: str, model: str, share: float, criterion: str, seed: int) -> dict[str, Any]:
    """Return what both tools make of one model."""
    start = time.perf_counter()
    dense = dense_model(set_name, model, seed, data)
    theirs = peer_side(dense, data, set_name, model, share, criterion, seed)
    ratio, asked = theirs["ratio"], min(share, theirs["macs"])
    ours = our_cut(dense, data, criterion, asked, seed=seed, adjust=("least_squares", "batch_norm"))
    row: dict[str, Any] = {"dense": _right(predictions(dense, data), data), "ratio": ratio, "asked": asked}
    row["prunus"] = {**sizes(ours, dense, data), **after_training(ours, data, set_name, seed)}
    row["torch-pruning"] = theirs
    row["targets"] = "".join(map(str, data.test.targets.tolist()))
    if seed == 0:
        row["step_seconds"] = times(
            {
                "prunus": lambda: our_cut(dense, data, criterion, asked, seed=seed),
                "torch-pruning": lambda: peer_cut(dense, data, model, criterion, ratio),
            }
        )
    row["seconds"] = time.perf_counter() - start
    return row


def peer_side(
    dense: Any, data: Any, set_name: str, model: str, share: float, criterion: str, seed: int
) -> dict[str, Any]:
    """Return what torch-pruning makes of ``dense``, from the cache if it is there: it stays the same when prunus changes."""
    path = CACHE / f"peer-{set_name}-{model}-{share}-{criterion}-{seed}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    ratio = nearest_ratio(dense, data, model, criterion, share)
    pruned = peer_cut(dense, data, model, criterion, ratio)
    facts = {"ratio": ratio, **sizes(pruned, dense, data), **after_training(pruned, data, set_name, seed)}
    path.write_text(json.dumps(facts))
    return facts


def dense_model(set_name: str, model_name: str, seed: int, data: Any) -> Any:
    """Return the trained dense model, from the cache if it is there."""
    import torch
    from versus_data import make_model

    from prunus.core.recipe import Train
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
    """Return what prunus leaves of ``dense``: its default way to a cost, and the adjustment that needs no training."""
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


def nearest_ratio(dense: Any, data: Any, model_name: str, criterion: str, share: float) -> float:
    """Return the ratio at which torch-pruning leaves the MACs nearest to ``share``, by bisection."""
    low, high, best = 0.0, 1.0, (float("inf"), 0.0)
    gradients = gathered(dense, data) if criterion == "taylor" else None
    for _ in range(7):
        ratio = (low + high) / 2
        left = macs_share(peer_cut(dense, data, model_name, criterion, ratio, gradients), dense, data)
        best = min(best, (abs(left / share - 1), ratio))
        low, high = (ratio, high) if left > share else (low, ratio)
    return best[1]


def gathered(model: Any, data: Any) -> list[Any]:
    """Return the gradients of the loss on the calibration examples, as the examples of torch-pruning sum them up."""
    from torch.nn.functional import cross_entropy

    model = copy.deepcopy(model)
    for batch in data.calibration.batches(64):
        cross_entropy(model(batch.inputs), batch.targets).backward()
    return [parameter.grad for parameter in model.parameters()]


def peer_cut(
    dense: Any, data: Any, model_name: str, criterion: str, ratio: float, gradients: list[Any] | None = None
) -> Any:
    """Return what torch-pruning leaves of ``dense``, wired as its examples do it."""
    import torch
    import torch_pruning

    model = copy.deepcopy(dense).eval()
    taylor = criterion == "taylor"
    importance = (
        torch_pruning.importance.GroupTaylorImportance if taylor else torch_pruning.importance.GroupMagnitudeImportance
    )
    heads = [m for m in model.modules() if hasattr(m, "qkv")]
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        next(iter(data.calibration.batches(1))).inputs,
        importance=importance() if taylor else importance(p=2),
        global_pruning=GLOBAL[model_name],
        pruning_ratio=ratio,
        ignored_layers=[model.head if model_name == "vit" else model.fc],
        num_heads={m.qkv: m.num_heads for m in heads},
    )
    if taylor:
        for parameter, gradient in zip(model.parameters(), gradients or gathered(model, data), strict=True):
            parameter.grad = gradient.clone()
    for group in pruner.step(interactive=True):
        group.prune()
    for m in heads:
        m.num_heads = pruner.num_heads[m.qkv]
        m.head_dim = m.qkv.out_features // (3 * m.num_heads)
        m.attn_dim = m.qkv.out_features // 3
    model.zero_grad()
    with torch.no_grad():
        model(next(iter(data.calibration.batches(2))).inputs)
    return model


def macs_share(model: Any, dense: Any, data: Any) -> float:
    """Return the MACs of ``model`` as a share of the dense model's, counted by one and the same counter."""
    from prunus.evaluate import measure_cost

    inputs = (next(iter(data.calibration.batches(2))).inputs,)
    return measure_cost(model, inputs).macs / measure_cost(dense, inputs).macs


def after_training(model: Any, data: Any, set_name: str, seed: int) -> dict[str, Any]:
    """Return the accuracy before and after the training that both tools get, and the answers after it."""
    from prunus.core.recipe import Train
    from prunus.recover import train

    cut = _right(predictions(model, data), data)
    config = Train(epochs=TUNE_EPOCHS[set_name], batch_size=BATCH_SIZE, learning_rate=TUNE_RATE)
    train(model, data.train, config, seed=seed, stage="fine-tune")
    answers = predictions(model, data)
    return {"cut": cut, "tuned": _right(answers, data), "answers": "".join(map(str, answers.tolist()))}


def sizes(model: Any, dense: Any, data: Any) -> dict[str, float]:
    """Return the shares of MACs and parameters that are left."""
    return {"macs": macs_share(model, dense, data), "parameters": _parameters(model) / _parameters(dense)}


def predictions(model: Any, data: Any) -> Any:
    from prunus.evaluate import predict_outputs

    return predict_outputs(model, data.test).argmax(dim=1)


def _right(answers: Any, data: Any) -> float:
    return float((answers == data.test.targets).double().mean())


def _parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def times(steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the process's own seconds of each step, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMED):
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name].append(round(time.process_time() - start, 4))
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one row per set, model, share and criterion, the losing ones first, and the count of verdicts."""
    import torch

    from prunus.evaluate import compare

    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(_key(row)[:-1], []).append(row)
    lines = []
    for (set_name, model, share, criterion), mine in cells.items():
        outputs = {tool: [_one_hot(row[tool]["answers"]) for row in mine] for tool in ("torch-pruning", "prunus")}
        targets = torch.tensor([int(c) for c in mine[0]["targets"]])
        (found,) = compare(
            outputs["torch-pruning"],
            outputs["prunus"],
            targets,
            task="classification",
            metrics=["accuracy"],
            bootstrap=2000,
        )
        difference = found.difference
        mean = {
            (tool, key): statistics.mean(row[tool][key] for row in mine)
            for tool in outputs
            for key in ("macs", "cut", "tuned")
        }
        pairs = [f"{mean['prunus', k]:.1%} / {mean['torch-pruning', k]:.1%}" for k in ("macs", "cut", "tuned")]
        timed = next((row["step_seconds"] for row in mine if "step_seconds" in row), None)
        middle = {tool: statistics.median(timed[tool]) for tool in outputs} if timed else {}
        time_cell = (
            f"{middle['prunus']:.2f} / {middle['torch-pruning']:.2f} ({middle['prunus'] / middle['torch-pruning']:.1f}x)"
            if middle
            else ""
        )
        gain = f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
        cell = [
            set_name,
            model,
            f"{share:.0%}",
            criterion,
            str(len(mine)),
            f"{statistics.mean(r['dense'] for r in mine):.1%}",
        ]
        lines.append((difference.value, found.verdict, [*cell, *pairs, gain, found.verdict, time_cell]))
    titles = ["set", "model", "asked", "criterion", "seeds", "dense", "MACs left", "after the cut", "after training"]
    print("| " + " | ".join([*titles, "difference (95 %)", "prunus is", "seconds of the step"]) + " |")
    print("| --- " * (len(titles) + 3) + "|")
    for _, _, line in sorted(lines, key=lambda found: found[0]):
        print("| " + " | ".join(line) + " |")
    verdicts = [verdict for _, verdict, _ in lines]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("better", "no measurable difference", "worse"))
    print(f"\n{len(verdicts)} rows: {counts}.")


def _one_hot(answers: str) -> Any:
    import torch

    return torch.nn.functional.one_hot(torch.tensor([int(c) for c in answers]), 10).double()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
