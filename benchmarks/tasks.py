"""What is left of a model of each task, a quarter and a half of its MACs gone: without training, after some, and under a contract?

    python benchmarks/tasks.py [--seeds 0 1 2] [--only WORDS ...] [--out FILE.jsonl]

Each row is trained here, on real or rendered data (``task_models.py``), with its own split and weights for each seed. ``auto``
and the single criteria (with one share for all groups) have the same adjustments; nothing is trained, but in the column that says
so: a quarter of the dense model's epochs. The contract asks for the metric within the given drop, a quarter gone, shown at 95 %
confidence on examples that chose nothing. Metrics are those of the test examples. What is in FILE already isn't run again. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from task_models import CASES, Case
from torch import nn

import prunus
from prunus.core.batch import Batch
from prunus.core.calls import call, n_examples, select_rows
from prunus.core.errors import PrunusError
from prunus.core.events import silent
from prunus.data import Batches
from prunus.evaluate import measure_quality, observe
from prunus.pipeline.auto.promise import taught
from prunus.tasks import Agreement, Task, metrics

SINGLE = ("magnitude_l2", "wanda", "activation_variance", "fisher_empirical", "taylor")
SHARES = (0.75, 0.5)
_STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}


def main() -> None:
    """Parse, run what isn't there yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = (
        [] if asked.out is None or not asked.out.exists() else list(map(json.loads, asked.out.read_text().splitlines()))
    )
    for seed in asked.seeds:
        for name, case in CASES.items():
            done = any(row["case"] == name and row["seed"] == seed for row in rows)
            if done or (asked.only and not any(word in name for word in asked.only)):
                continue
            rows.append({"case": name, "seed": seed, **one(case, seed)})
            if asked.out is not None:
                with asked.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    table(rows)


def one(case: Case, seed: int) -> dict[str, Any]:
    """Return what happens to one model."""
    began = time.process_time()
    torch.manual_seed(seed)
    inputs, targets = case.data()
    n = n_examples(inputs)
    order = torch.randperm(n)
    test, fit = order[: n // 4], order[n // 4 :]
    known = _rows(inputs, targets, fit)
    task, held = case.task, Batches([_rows(inputs, targets, test)])
    supervised = task if not isinstance(task, Agreement) else CASES["classes of digits, ViT"].task
    dense = trained(case, case.model(), known, case.epochs, supervised, case.rate)
    if isinstance(task, Agreement):
        held = taught(dense, held, batch_size=256)
    example = select_rows(inputs, fit[:2])
    data = known if case.labelled else known[0]

    def score(model: nn.Module) -> float:
        found = measure_quality(
            observe(model.eval(), held, task, batch_size=256), task, metrics=[case.metric], bootstrap=100
        )
        return float(found.value(case.metric))

    def cut(share: float, **named: Any) -> nn.Module:
        asked = {"task": task} if case.labelled and not named.get("contract") else {}
        made = prunus.prune(
            dense, example, data=data, target={"macs": share}, seed=seed, listener=silent, **asked, **named
        )
        return made.model

    facts: dict[str, Any] = {"metric": case.metric, "dense": score(dense)}
    for share in SHARES:
        small = cut(share)
        facts[f"auto {share:g}"] = score(small)
        epochs = max(1, case.epochs // 4)
        facts[f"recovered {share:g}"] = score(trained(case, small, known, epochs, supervised, case.rate / 4))
    for criterion in SINGLE if case.labelled else SINGLE[:-1]:
        facts[criterion] = score(cut(0.75, criterion=criterion, allocation="uniform"))
    facts["contract"] = promised(case, dense, example, known, seed)
    facts["seconds"] = time.process_time() - began
    return facts


def promised(case: Case, dense: nn.Module, example: Any, known: tuple[Any, Any], seed: int) -> str:
    """Say whether a quarter may go under a contract: what the task's metric is, or for answers alone how often they agree."""
    contract = {"metric": case.metric if case.labelled else "agreement", "max_drop": case.max_drop}
    options = {"task": case.task, "data": known} if case.labelled else {"data": known[0]}
    try:
        found = prunus.prune(
            dense, example, target={"macs": 0.75}, contract=contract, seed=seed, listener=silent, **options
        )
    except PrunusError as error:
        return f"refused: {error}"
    assert found.test is not None
    return "kept" if found.test.kept else "not shown"


def trained(case: Case, model: nn.Module, known: tuple[Any, Any], epochs: int, task: Task, rate: float) -> nn.Module:
    """Train, with a rate that falls to nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    total = epochs * -(-n_examples(known[0]) // case.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total)
    model.train()
    for _ in range(epochs):
        for batch in batches(known, case.batch_size):
            optimizer.zero_grad()
            loss = (case.loss or task.loss)(call(model, batch.inputs), batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def batches(known: tuple[Any, Any], size: int) -> Iterator[Batch]:
    """Yield every example once, shuffled."""
    for rows in torch.randperm(n_examples(known[0])).split(size):
        yield Batch(rows, *_rows(*known, rows))


def _rows(inputs: Any, targets: Any, rows: torch.Tensor) -> tuple[Any, Any]:
    chosen = [targets[row] for row in rows.tolist()] if isinstance(targets, list) else select_rows(targets, rows)
    return select_rows(inputs, rows), chosen


def table(rows: list[dict[str, Any]]) -> None:
    """Print a row per case, means over the seeds with Student's 95 % intervals, and what the bars say; changes are paired."""
    print(
        "| model | seeds | metric | dense | -25 % | change | after training | -50 % | after training "
        "| best single criterion, -25 % | contract |"
    )
    print("| --- " * 11 + "|")
    kept = near = 0
    names = [name for name in CASES if any(row["case"] == name for row in rows)]
    for name in names:
        mine = [row for row in rows if row["case"] == name]
        case = CASES[name]
        scale = 100 if metrics[case.metric].is_share or case.metric == "r2" else 1

        def cell(key: str, less: str = "", mine: list[dict[str, Any]] = mine, scale: int = scale) -> str:
            values = [scale * (row[key] - (row[less] if less else 0)) for row in mine]
            middle = f"{mean(values):+.1f}" if less else f"{mean(values):.1f}"
            if len(values) < 3:  # an interval of two says nothing
                return middle
            half = _STUDENT.get(len(values), 1.96) * stdev(values) / len(values) ** 0.5
            return f"{middle} ± {half:.1f}"

        singles = {one: mean(row[one] for row in mine) for one in SINGLE if one in mine[0]}
        best = max(singles, key=lambda one: singles[one])
        auto, dense = (mean(row[key] for row in mine) for key in ("auto 0.75", "dense"))
        kept += auto >= 0.95 * dense
        near += auto >= singles[best] - 0.02
        contracts = [row["contract"].partition(":")[0] for row in mine]
        said = ", ".join(f"{contracts.count(one)} {one}" for one in dict.fromkeys(contracts))
        cells = [cell(key) for key in ("dense", "auto 0.75", "recovered 0.75", "auto 0.5", "recovered 0.5")]
        marks = "" if auto >= 0.95 * dense else " *"
        print(
            f"| {name} | {len(mine)} | {metrics[case.metric].label} | {cells[0]} | {cells[1]}{marks} "
            f"| {cell('auto 0.75', 'dense')} | "
            f"{' | '.join(cells[2:])} | "
            f"{scale * singles[best]:.1f} ({best}){'' if auto >= singles[best] - 0.02 else ' †'} | {said} |",
            flush=True,
        )
    print(
        f"\nWithout any training, a quarter gone keeps 95 % of the metric in {kept} of {len(names)} rows (* marks the others);"
    )
    print(f"auto is within 2 points of the best single criterion in {near} of {len(names)} († marks the others).")


if __name__ == "__main__":
    main()
