"""Small things that several tests build."""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.recipes.recipe import Model
from prunus.data.columns.fit import TableFacts, columns_of
from prunus.data.columns.fitted import Columns
from prunus.data.columns.summary import summarise
from prunus.data.sources.source import Source
from prunus.models import build


def digits_state() -> dict[str, Tensor]:
    """Return the weights of the small recipe's model."""
    model = build(Model(builder="cnn", args={"width": 8}), input_shape=(1, 8, 8), n_outputs=10, seed=0)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def public_dataclasses(package: str) -> Iterator[type]:
    """Yield the dataclasses that the modules of a package show."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == found.name:
                yield value


def onnxruntime_installed() -> bool:
    """Tell whether models can be exported and run in ONNX Runtime."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))


def fit_columns(values: np.ndarray[Any, Any], facts: TableFacts) -> Columns:
    """Return the columns as the training rows, ``values`` ``(rows, columns)``, say that they are to be encoded."""
    return columns_of(summarise({"train": lambda: [values]}, facts.kinds, facts.words, facts.spread)["train"], facts)


def fitted(source: Source) -> Columns:
    """Return the columns of a table as all of its rows say."""
    return fit_columns(source.inputs(torch.arange(len(source.ids))).numpy(), source.table)
