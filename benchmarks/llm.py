"""Prune a small Llama trained on real English to half of its weights, and compare with llm-compressor: perplexity and time.

Usage: python benchmarks/llm.py [--seeds 0 1 2] [--steps 1500] [--calibration 1 16 48] [--test 24] [--folder build/llm]
       python benchmarks/llm.py --size medium --device cuda --calibration 16

What must be installed beside prunus is said in ``llm_reference.py``.

For every seed a model is trained (and kept), then prunus and the reference prune copies of it by turns, on the same calibration
text; with several amounts of calibration, these take turns, too. Resumable: a row that is in ``results-*.jsonl`` isn't measured
again. The time is that of pruning, calibration included, without loading and without the perplexity; both prune once before,
untimed, so that nobody pays for imports. Intervals are 95 % by Student's t over seeds, of the paired ratios where two are compared.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from llm_model import SIZES, batches, perplexity, trained

from prunus.evaluate.timing.latency import finish

AMOUNTS: dict[str, dict[str, Any]] = {"50 %": {"keep_fraction": 0.5}, "2:4": {"n_m": (2, 4)}}
METHODS = ("magnitude", "wanda", "sparsegpt")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--steps", type=int, default=1500, help="of training, with a batch of windows of 128 tokens each"
    )
    parser.add_argument("--calibration", type=int, nargs="+", default=[16], help="batches; several give a curve")
    parser.add_argument("--test", type=int, default=24, help="batches")
    parser.add_argument("--folder", type=Path, default=Path("build/llm"))
    arguments = parser.parse_args()
    kind = "" if arguments.size == "small" else f"{arguments.size}-{arguments.device}-"
    results = arguments.folder / f"results-{kind}{arguments.steps}-{arguments.test}.jsonl"
    where: dict[str, Any] = {"size": arguments.size, "device": arguments.device}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["seed"], row["amount"], row["method"], row["calibration"], row["who"]) for row in rows}
    for seed in arguments.seeds:
        model = trained(seed, arguments.folder, steps=arguments.steps, **where)
        given = batches(arguments.folder, "calibration", max(arguments.calibration), seed=seed, **where)
        test = batches(arguments.folder, "test", arguments.test, seed=1000, **where)
        left = [step for step in steps_of(seed, arguments.calibration) if (seed, *step) not in done]
        for who in ("prunus", "reference") if left else ():
            for criterion in METHODS:
                prune(who, copy.deepcopy(model), given[:1], criterion, AMOUNTS["50 %"])
        for amount, method, count, who in left:
            pruned = copy.deepcopy(model)
            finish(arguments.device)
            started, worked = time.perf_counter(), time.process_time()
            if who != "none":
                prune(who, pruned, given[:count], method, AMOUNTS[amount])
            finish(arguments.device)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
            row = {"seed": seed, "amount": amount, "method": method, "calibration": count, "who": who}
            row |= {
                "seconds": seconds,
                "cpu": cpu_seconds,
                "perplexity": perplexity(pruned, test),
                "kept": kept(pruned),
            }
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(row, flush=True)
    rows = [row for row in rows if row["seed"] in arguments.seeds]
    for count in arguments.calibration:
        print(f"\n{count} batches of calibration")
        print_table([row for row in rows if row["calibration"] in (0, count)])
    if len(arguments.calibration) > 1:
        print_curve(rows, arguments.calibration)


def steps_of(seed: int, counts: list[int]) -> list[tuple[str, str, int, str]]:
    """Return what is measured for a seed, in order: amount, method, batches of calibration, and by whom."""
    plan = [("", "dense", 0, "none")]
    for amount in AMOUNTS:
        for method in METHODS:
            turns = ("prunus", "reference") if seed % 2 else ("reference", "prunus")
            plan += [(amount, method, count, who) for count in counts for who in turns]
        plan += [(amount, f"{method} + refit", count, "prunus") for count in counts for method in METHODS[1:]]
    return plan


def prune(
    who: str, model: Any, calibration: list[dict[str, torch.Tensor]], method: str, amount: dict[str, Any]
) -> None:
    """Prune ``model`` in place."""
    if who == "reference":
        from llm_reference import reference

        reference(model, calibration, method, amount)
        return
    from prunus.scale import prune_layerwise

    criterion, _, refit = method.partition(" + ")
    prune_layerwise(model, calibration, criterion=criterion, refit=bool(refit), **amount)


def kept(model: Any) -> float:
    """Return the share of the blocks' linear weights that isn't zero."""
    weights = [m.weight for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    return sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one Markdown row for each amount and method."""
    print(f"\ndense: perplexity {interval([r['perplexity'] for r in rows if r['method'] == 'dense'])}\n")
    print(
        "| amount | method | prunus | reference | ratio | prunus, s | reference, s | ratio | ratio of processor time |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for amount in AMOUNTS:
        for method in (*METHODS, "wanda + refit", "sparsegpt + refit"):
            mine, other = (
                {r["seed"]: r for r in rows if (r["amount"], r["method"], r["who"]) == (amount, method, who)}
                for who in ("prunus", "reference")
            )
            sweep = (amount, "sparsegpt", "reference")
            base = other or {r["seed"]: r for r in rows if (r["amount"], r["method"], r["who"]) == sweep}
            both = sorted(set(mine) & set(base))
            cells = [amount, method, interval([r["perplexity"] for r in mine.values()])]
            cells.append(interval([r["perplexity"] for r in other.values()]) if other else "(against sparsegpt)")
            cells.append(interval([mine[s]["perplexity"] / base[s]["perplexity"] for s in both]))
            cells += [interval([r["seconds"] for r in mine.values()]), interval([r["seconds"] for r in other.values()])]
            cells += [interval([mine[s][key] / base[s][key] for s in both]) for key in ("seconds", "cpu")]
            print("| " + " | ".join(cells) + " |")
    print("\n| amount | by whom | Wanda / magnitude | SparseGPT / Wanda |")
    print("| --- | --- | --- | --- |")
    for amount in AMOUNTS:
        for who in ("prunus", "reference"):
            found = {
                (r["method"], r["seed"]): r["perplexity"] for r in rows if (r["amount"], r["who"]) == (amount, who)
            }
            cells = [amount, who]
            for method, against in (("wanda", "magnitude"), ("sparsegpt", "wanda")):
                seeds = sorted({seed for name, seed in found if name == method and (against, seed) in found})
                cells.append(interval([found[method, seed] / found[against, seed] for seed in seeds]))
            print("| " + " | ".join(cells) + " |")


def print_curve(rows: list[dict[str, Any]], counts: list[int]) -> None:
    """Print how the ratio of processor time changes with the amount of calibration."""
    found = {(r["amount"], r["method"], r["calibration"], r["who"], r["seed"]): r for r in rows}
    print(
        "\n| amount | method | batches | prunus, s | reference, s | ratio of processor time | ratio of perplexities |"
    )
    print("| --- " * 7 + "|")
    for amount in AMOUNTS:
        for method in METHODS[1:]:
            for count in counts:
                seeds = sorted({key[4] for key in found if key[:4] == (amount, method, count, "reference")})
                mine, theirs = (
                    [found[amount, method, count, who, seed] for seed in seeds] for who in ("prunus", "reference")
                )
                pairs = list(zip(mine, theirs, strict=True))
                cells = [interval([row["cpu"] for row in side]) for side in (mine, theirs)]
                cells += [interval([a[key] / b[key] for a, b in pairs]) for key in ("cpu", "perplexity")]
                print("| " + " | ".join([amount, method, str(count), *cells]) + " |")


def interval(values: list[float]) -> str:
    """Return the mean and half the width of its 95 % interval."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) not in STUDENT:
        return f"{mean:.4g} (one seed)"
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.4g} ± {STUDENT[len(values)] * deviation / math.sqrt(len(values)):.2g}"


if __name__ == "__main__":
    main()
