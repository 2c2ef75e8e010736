"""Recipes that several tests run."""

from typing import Any

IRIS: dict[str, Any] = {
    "data": {"source": "sklearn:iris"},
    "model": {"builder": "mlp", "args": {"width": 4, "depth": 1}},
    "train": {"epochs": 1},
    "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5},
    "recovery": {"method": "none"},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
    "seeds": [0],
}
"""The smallest whole run there is: a bundled set, a few neurons, one epoch, one seed."""
