"""What left a run for other runtimes, as a record says it: in float and in 8-bit whole numbers, how large, how good, how fast?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.report.record_parts import Number, Part
from prunus.report.record_searches import ContractTest

__all__ = ["ExportFacts", "Int8Facts", "Int8Row", "Int8Time"]

Form = Literal["dense", "pruned", "dense int8", "pruned int8"]


class Int8Row(Part):
    """One of the four: its exported file, and the quality of that file on the test examples, with its interval."""

    name: Form
    size_bytes: int
    quality: Number
    n_layers: int | None = Field(None, description="that could be int8")
    in_float: list[str] = Field(default=[], description="layers that stayed in float, costliest first")


class Int8Facts(Part):
    """Of the first seed: the exported files, what was promised of the pruned int8 one, and whether test examples showed it."""

    metric: str
    file: str = Field("bundle.int8.onnx", description="what the file is called that is left in the run's folder")
    method: str | None
    rows: list[Int8Row]
    test: ContractTest | None
    problem: str = Field("", description="why there is no int8 file; empty where one was left")


class Int8Time(Part):
    """How long a batch takes in the runtime that is fastest for that file; ``speedup`` against the best dense one."""

    name: Form
    runtime: str
    milliseconds: Number
    speedup: Number | None


class ExportFacts(Part):
    """One file beside the bundle, or why there is none."""

    format: str
    file: str = Field("", description="its name in the run's folder")
    size_bytes: int = 0
    difference: float | None = Field(
        None, description="of its outputs from the bundle's, as a share of the largest; none where it can't run here"
    )
    n_samples: int = Field(0, description="real examples that were compared, beside random ones")
    note: str = ""
    problem: str = Field("", description="why there is no file; empty where one was left")
