"""Which of scikit-learn's bundled data sets can be named, and in which form do they come?

``digits`` are 8x8 images with values 0 to 16; the others are tables with the raw, unscaled values.
"""

from __future__ import annotations

import numpy as np
import torch

from prunus.core.code.extras import require
from prunus.core.errors import DataError, near
from prunus.core.recipes.recipe import Data
from prunus.data.sources.arrays import array_source, array_to_tensor
from prunus.data.sources.source import ArraySource

__all__ = ["BUNDLED", "open_bundled"]

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")


def open_bundled(name: str, config: Data) -> ArraySource:
    """Return scikit-learn's data set ``name``.

    Raises:
        DataError: there is none of that name, or ``data.args`` is given.
    """
    if name not in BUNDLED:
        raise DataError(f"{config.source}: scikit-learn has no such data set here; {near(name, BUNDLED)}")
    if config.args:
        raise DataError(f"{config.source}: takes no data.args, got {', '.join(config.args)}")
    datasets = require("sklearn.datasets", extra="sklearn")
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    values = (
        torch.from_numpy(bunch.images.astype(np.float32))[:, None]
        if name == "digits"
        else array_to_tensor(bunch.data, config.source)
    )
    class_names = () if name == "diabetes" or config.task == "regression" else tuple(map(str, bunch.target_names))
    feature_names = () if name == "digits" else tuple(map(str, bunch.feature_names))
    return array_source(values, bunch.target, config, class_names=class_names, feature_names=feature_names)
