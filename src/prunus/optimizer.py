"""One object that takes data, a strategy and metrics, and gives new parameters.

:class:`ModelOptimizer` is a facade: it keeps what was learned (names that end in ``_``), and every method hands over to the
package that does the work.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunus.core.errors import RecipeError
from prunus.core.events import Listener, silent
from prunus.core.outputs import postprocess
from prunus.core.recipe import Average, Recipe, Strategy
from prunus.core.recipe_file import make_recipe
from prunus.core.types import Plan
from prunus.data import Prepared, prepare_arrays
from prunus.pipeline import stages

__all__ = ["ModelOptimizer"]


class ModelOptimizer:
    """Prune a model and its data, and know how good what is left is.

    Args:
        model: the network to make smaller; it is copied, never changed.
        data: ``(inputs, targets)`` as arrays or tensors, a map-style torch ``Dataset``, or a source name as in a recipe.
        strategy: a criterion's name, a mapping of ``strategy`` keys, or None to leave the model's structure alone.
        metrics: which metrics to report (default: all that fit the task).
        seeds: one dense/pruned pair each in ``run``; the first is used by all other methods.
        settings: any other section of a recipe: ``train``, ``recovery``, ``examples``, ``features``, ``evaluation``...

    >>> import torch
    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    >>> optimizer = ModelOptimizer(model, (x, (x[:, 0] > 0).long()), strategy="magnitude_l2", train={"epochs": 5})
    >>> optimizer.fit().prune(keep_fraction=0.5).model_[0].out_features
    8
    """
