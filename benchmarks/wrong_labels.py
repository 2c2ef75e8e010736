"""Are wrong labels found, is it known how many there are, and is a model better for it?

Training labels of scikit-learn's digits and of MNIST-1D (``pip install mnist1d``) are flipped at several rates. Models that didn't
see a label say what they believe (five folds); prunus and cleanlab (``pip install cleanlab``) judge the same probabilities. Then a
network is trained for as many epochs on each: the labels as given, what prunus leaves, what cleanlab leaves, and the labels as they
were before. Test labels are never flipped.

Usage: python benchmarks/wrong_labels.py [seeds] [digits] [MNIST-1D]
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.data import Examples
from prunus.evaluate import predict_outputs
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.unseen_answers import unseen_probabilities
from prunus.recover import default_loss, train
from prunus.score import judge_labels

RATES = (0.0, 0.1, 0.3)
EPOCHS, FOLDS = 25, 5
WAYS = ("as given", "prunus", "cleanlab", "never flipped")


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)


def mnist_1d() -> tuple[Tensor, Tensor]:
    """Return the 5,000 examples of MNIST-1D (Greydanus and Kobak, ICML 2024, arXiv:2011.14439), made anew."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    x = np.concatenate([made["x"], made["x_test"]])
    return torch.tensor(x, dtype=torch.float32), torch.tensor(np.concatenate([made["y"], made["y_test"]]))


SETS = {"digits": digits, "MNIST-1D": mnist_1d}


def network(name: str) -> nn.Module:
    """Return a small classifier of ten classes."""
    if name == "digits":
        return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10))
    layers: list[nn.Module] = [nn.Unflatten(1, (1, -1))]
    for width, before in ((32, 1), (48, 32), (64, 48)):
        layers += [nn.Conv1d(before, width, 5, 2, 2), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(320, 10))


def cell(name: str, data: tuple[Tensor, Tensor], rate: float, seed: int) -> dict[str, Any]:
    """Return what was found and what came of it, at one rate with one seed."""
    from cleanlab.filter import find_label_issues

    torch.manual_seed(seed)
    optimizer = ModelOptimizer(
        network(name),
        data,
        train={"epochs": EPOCHS, "learning_rate": 3e-3},
        data_options={"label_noise": rate, "split": {"seed": seed}},
        seeds=[seed],
        listener=silent,
    )
    job = optimizer._job
    examples = job.data.train
    probability = unseen_probabilities(job, seed, FOLDS, job.recipe.train, "benchmark").double().numpy()
    given = examples.targets.numpy()
    true = data[1][examples.rows].numpy()
    wrong = given != true
    found = judge_labels(probability, given, examples.class_names, seed=seed)
    listed, changed = found.decision != "keep", found.new_label >= 0
    theirs = find_label_issues(given, probability, n_jobs=1)
    cleaned = examples.with_targets(np.where(changed, found.new_label, given)).select(found.decision != "drop")
    sets = dict(zip(WAYS, (examples, cleaned, examples.select(~theirs), examples.with_targets(true)), strict=True))
    told = [precision for precision in (found.dropped, found.relabelled) if precision is not None]
    n = sum(precision.n for precision in told)
    return {
        "noise": found.noise.value,
        "true noise": wrong.mean(),
        "auc": roc_auc_score(wrong, found.probability) if wrong.any() else np.nan,
        "listed": listed.mean(),
        "precision told": sum(p.n * p.value for p in told) / n if n else np.nan,
        "precision": wrong[listed].mean() if n else np.nan,
        "recall": wrong[listed].sum() / wrong.sum() if wrong.any() else np.nan,
        "relabelled": changed.mean(),
        "right now": (found.new_label == true)[changed].mean() if changed.any() else np.nan,
        "their listed": theirs.mean(),
        "their precision": wrong[theirs].mean() if theirs.any() else np.nan,
        "their recall": wrong[theirs].sum() / wrong.sum() if wrong.any() else np.nan,
        **{way: accuracy(job, part, seed) for way, part in sets.items()},
    }


def accuracy(job: Job, examples: Examples, seed: int) -> float:
    """Return the test accuracy after training on some examples."""
    model = job.build(seed)
    train(model, examples, job.recipe.train, seed=seed, stage="benchmark", loss=default_loss(examples.task))
    said = predict_outputs(model, job.data.test).argmax(dim=1)
    return float((said == job.data.test.targets).double().mean())


def share(values: list[float], digits: int = 1) -> str:
    """Return a mean in percent, and the deviation over seeds."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "–"
    return f"{100 * np.mean(known):.{digits}f} ± {100 * np.std(known, ddof=1) if len(known) > 1 else 0:.{digits}f}"


def main(seeds: int, names: list[str]) -> None:
    """Print both tables."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    first, second = [], []
    for name in names:
        data = SETS[name]()
        for rate in RATES:
            cells = [cell(name, data, rate, seed) for seed in range(seeds)]
            row = {key: [one[key] for one in cells] for key in cells[0]}
            print(name, rate, {key: np.round(values, 3).tolist() for key, values in row.items()}, file=sys.stderr)
            lists = ("noise", "listed", "precision told", "precision", "recall", "right now", "auc")
            first.append([name, f"{100 * rate:g}", *(share(row[key]) for key in lists)])
            first[-1] += [share(row[key]) for key in ("their listed", "their precision", "their recall")]
            second.append([name, f"{100 * rate:g}", *(share(row[way]) for way in WAYS)])
    head = [
        "data",
        "flipped",
        "estimated",
        "listed",
        "precision as told",
        "true precision",
        "found",
        "new label right",
        "AUC",
    ]
    for columns, rows in (
        ([*head, "cleanlab lists", "its precision", "found"], first),
        (["data", "flipped", *WAYS], second),
    ):
        print("|", " | ".join(columns), "|\n|", " | ".join("---" for _ in columns), "|")
        for cells_of in rows:
            print("|", " | ".join(cells_of), "|")
        print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2:] or list(SETS))
