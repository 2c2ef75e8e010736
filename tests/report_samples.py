"""Records of runs that never happened, small enough to know every number."""

from __future__ import annotations

from typing import Any

from prunus.report import RunRecord, png_data_uri


def number(
    value: float | None, low: float | None = None, high: float | None = None, name: str = "x", **more: Any
) -> Any:
    return {
        "name": name,
        "value": value,
        "low": value if low is None else low,
        "high": value if high is None else high,
    } | more


def quality_rows(metrics: dict[str, tuple[float, float]], classes: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Return rows whose values are those of ``metrics`` (dense, pruned), a little better on train."""
    rows = []
    for seed in seeds:
        for at, model in enumerate(("dense", "pruned")):
            for split, more in (("train", 0.01), ("test", 0.0)):
                found = [number(v[at] + more, v[at] - 0.02, v[at] + 0.015, name) for name, v in metrics.items()]
                score = {part: number(0.9, 0.8, 0.95, part) for part in ("precision", "recall", "f1")}
                per_class = [{"name": name, "support": 20, **score} for name in classes]
                rows.append(
                    {"seed": seed, "model": model, "split": split, "metrics": found, "per_class": per_class}
                    | {"confusion": None}
                )
    return rows


def sample(**replaced: Any) -> RunRecord:
    """Return a classification run over three seeds in which everything happened; ``replaced`` fields differ."""
    classes, seeds = ["cat", "dog"], replaced.get("seeds", [0, 1, 2])
    metrics = {"accuracy": (0.95, 0.94), "f1_macro": (0.93, 0.92)}
    comparison = [
        {"metric": name, "dense": dense, "pruned": pruned, "difference": number(-0.01, -0.022, 0.003, name)}
        | {"dense_deviation": 0.002, "pruned_deviation": 0.003, "n_seeds": len(seeds)}
        | {"verdict": "no measurable difference", "method": "paired bootstrap over examples, Student's t over seeds"}
        for name, (dense, pruned) in metrics.items()
    ]
    facts: dict[str, Any] = {
        "name": "sample",
        "recipe": {"name": "sample", "evaluation": {"confidence": 0.95}},
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "seeds": seeds,
        "fingerprints": {"data": "d" * 64, "bundle": "b" * 64},
        "data": {
            "source": "sklearn:digits",
            "task": "classification",
            "class_names": classes,
            "input_shape": [1, 8, 8],
            "n": {"train": 100, "validation": 20, "calibration": 20, "test": 40},
            "n_duplicates": 1,
            "duplicates": ["7 in test is 3 in train"],
            "noise": {"n_flipped": 10, "n_found": 9, "n_repaired": 8, "n_clean": 3},
        },
        "quality": quality_rows(metrics, classes, seeds),
        "gaps": [
            {"seed": seed, "model": model, "metric": name, "value": 0.01, "low": -0.01, "high": 0.03}
            for seed in seeds
            for model in ("dense", "pruned")
            for name in metrics
        ],
        "comparison": comparison,
        "group_changes": {
            "column": "region",
            "metric": "accuracy",
            "confidence": 0.95,
            "changes": [
                {
                    "name": name,
                    "n": 40,
                    "dense": 0.9,
                    "pruned": 0.9 + change,
                    "difference": number(change, change - 0.03, change + 0.03, "accuracy"),
                    "verdict": verdict,
                }
                for name, change, verdict in (("north", 0.0, "no measurable difference"), ("south", -0.1, "worse"))
            ],
        },
        "class_changes": [number(-0.05, -0.09, -0.01, "cat"), number(0.01, -0.02, 0.04, "dog")],
        "cost": {
            "dense": {"parameters": 1000, "nonzero_parameters": 1000, "macs": 50_000, "size_bytes": 4200},
            "pruned": {"parameters": 250, "nonzero_parameters": 250, "macs": 10_000, "size_bytes": 1050},
        },
        "layers": [
            {"name": "conv1", "granularity": "channel", "before": 8, "after": 4},
            {"name": "conv2", "granularity": "channel", "before": 16, "after": 8},
        ],
        "classes": [
            {"name": "cat", "before": 50, "removed": 5, "relabelled": 2},
            {"name": "dog", "before": 50, "removed": 3, "relabelled": 0},
        ],
        "features": [],
        "suspects": [
            {"id": "17", "given": "cat", "suggested": "dog", "score": -0.9, "action": "relabelled"}
            | {"image": png_data_uri([[0.0, 1.0], [1.0, 0.0]])},
            {"id": "23", "given": "dog", "suggested": None, "score": -0.5, "action": "removed", "image": None},
        ],
        "frozen": [{"name": "head", "size": 2, "reason": "it is the output's dimension 1"}],
        "kind": "eager",
        "notes": ["a note"],
        "curves": {"train": {"loss": [1.0, 0.5], "accuracy": [0.5, 0.8]}},
        "timing": {
            "latency": {
                "runtime": "torch eager",
                "batch_size": 64,
                "repeats": 30,
                "warm_up": 5,
                "threads": 1,
                "milliseconds": {"dense": number(4.0, 3.9, 4.2), "pruned": number(2.0, 1.9, 2.2)},
                "speedup": number(2.0, 1.9, 2.1, "speedup"),
            },
            "seconds": {"load data": 1.5, "seed 0 / train": 2.5},
        },
    }
    return RunRecord.model_validate(facts | replaced)


def facts_of(record: RunRecord) -> dict[str, Any]:
    """Return a record's plain values, to change some."""
    plain: dict[str, Any] = record.model_dump(mode="json")
    return plain


def regression() -> RunRecord:
    """Return a run on rows with a number to predict: no classes, no pictures, input features cut out."""
    record = facts_of(sample())
    metrics = {"r2": (0.91, 0.9), "mae": (3.0, 3.4)}
    row = record["comparison"][0]
    comparison = [
        row | {"metric": "r2", "dense": 0.91, "pruned": 0.9, "difference": number(-0.01, -0.03, 0.01, "r2")},
        row
        | {"metric": "mae", "dense": 3.0, "pruned": 3.4, "verdict": "worse"}
        | {"difference": number(0.4, 0.2, 0.6, "mae", higher_is_better=False)},
    ]
    data = record["data"] | {"task": "regression", "class_names": [], "input_shape": [3], "noise": None}
    features = [{"name": f"feature {i}", "importance": i / 10 - 0.1, "kept": i > 0} for i in range(3)]
    return sample(
        quality=quality_rows(metrics, [], [0, 1, 2]),
        gaps=[],
        comparison=comparison,
        class_changes=[],
        classes=[],
        suspects=[],
        data=data,
        features=features,
    )


def plainest() -> RunRecord:
    """Return a run of one seed that changed nothing and timed nothing."""
    record = facts_of(sample())
    row = record["comparison"][0] | {"n_seeds": 1, "dense_deviation": None, "pruned_deviation": None}
    return sample(
        seeds=[0],
        comparison=[row],
        gaps=[],
        class_changes=[],
        cost=dict.fromkeys(("dense", "pruned"), record["cost"]["dense"]),
        layers=[],
        classes=[],
        suspects=[],
        frozen=[],
        notes=[],
        curves={},
        timing={},
        data=record["data"] | {"noise": None, "duplicates": [], "n_duplicates": 0},
    )
