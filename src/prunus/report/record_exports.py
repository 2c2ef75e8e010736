"""Which files for other runtimes did a run leave, as a record says it?"""

from __future__ import annotations

from pydantic import Field

from prunus.report.record_parts import Part

__all__ = ["ExportFacts"]


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
