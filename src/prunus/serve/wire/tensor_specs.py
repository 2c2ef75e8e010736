"""Which tensors does a served model take and give, in the words of the Open Inference Protocol?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from prunus.apply.traced.limits import Span
from prunus.core.errors import BundleError
from prunus.serve.wire.datatypes import BY_DATATYPE, torch_datatype
from prunus.ship.inputs import InputEntry, Inputs
from prunus.ship.manifest import Manifest

__all__ = ["ModelSpec", "TensorSpec", "input_specs"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: for ``n`` examples it has the shape ``(n, *sizes)``.

    ``sizes`` may be free; those of one name are equal in all tensors. ``below``: whole numbers are from 0 to below it (None: any
    of the type).
    """

    name: str
    datatype: str
    sizes: tuple[Span, ...]
    below: int | None = None

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""
        return BY_DATATYPE[self.datatype]

    @cached_property
    def fixed(self) -> tuple[int, ...] | None:
        """The sizes where none is free."""
        return tuple(s.least for s in self.sizes) if all(s.least == s.most for s in self.sizes) else None

    @property
    def shape(self) -> list[int]:
        """The shape as the protocol says it: -1 is any."""
        return [-1, *(s.least if s.least == s.most else -1 for s in self.sizes)]

    def describe(self) -> dict[str, Any]:
        """Return what the metadata say."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


@dataclass(frozen=True)
class ModelSpec:
    """What clients may know of a model."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: str
    platform: str
    class_names: tuple[str, ...] = ()

    @cached_property
    def input_places(self) -> dict[str, int]:
        """The place of each input among the model's, by its name."""
        return {spec.name: place for place, spec in enumerate(self.inputs)}

    @cached_property
    def output_places(self) -> dict[str, int]:
        """The place of each output, by its name."""
        return {spec.name: place for place, spec in enumerate(self.outputs)}


def input_specs(manifest: Manifest, *, wide: bool = False) -> tuple[TensorSpec, ...]:
    """Return what a bundle's model takes, by the names that its exported file has.

    Args:
        wide: fractions come in double precision, which only the bundle's scaler can tell apart.

    Raises:
        BundleError: it takes something that no tensor of the protocol is.
    """
    takes: Inputs = manifest.takes
    return tuple(
        _spec(entry, entry.name or ("input" if len(takes) == 1 else f"input_{place}"), wide)
        for place, entry in enumerate(takes)
    )


def _spec(entry: InputEntry, name: str, wide: bool) -> TensorSpec:
    datatype = torch_datatype(entry.dtype)
    if entry.listed:
        raise BundleError(
            f"the model takes a list with a tensor for each example as {name!r}, which no request can hold: bundle a module of "
            "yours that makes the list of one tensor, and serve that"
        )
    if datatype is None:
        raise BundleError(
            f"the model takes {name!r} as {entry.dtype}, a type that requests don't have: bundle it as float32"
        )
    return TensorSpec(name, "FP64" if wide and datatype == "FP32" else datatype, entry.allowed[1:])
