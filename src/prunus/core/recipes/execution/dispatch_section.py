"""Where is work done that falls into parts: shards of a data set, trials of a search?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.core.recipes.section import Count, NonNegative, Positive, Section

__all__ = ["BACKENDS", "Dispatch"]

BACKENDS = ("local", "ray")


class Dispatch(Section):
    """Which workers do the parts of a work that falls into parts; what comes out is the same to the bit for any of them."""

    backend: Literal["local", "ray"] = Field(
        "local", description="local: processes on this machine; ray: workers of a Ray cluster (extra ray)"
    )
    workers: Count = Field(1, description="so many parts at once")
    address: str | None = Field(
        None,
        min_length=1,
        description="of a Ray cluster that is there: host:port, ray://host:port, or auto; null: one is started on this machine, on "
        "its loopback, and ends with the work",
    )
    cpus: Positive | None = Field(
        None,
        description="cores that Ray sets aside for each worker, which computes with so many threads; null: one",
    )
    gpus: NonNegative = Field(0.0, description="graphics processors for each worker; 0.5: two workers share one")

    @property
    def shares(self) -> bool:
        """Whether others than this process work."""
        return self.backend != "local" or self.workers > 1

    @property
    def cores(self) -> float:
        """How many cores a worker of a cluster has to itself."""
        return 1.0 if self.cpus is None else self.cpus

    @model_validator(mode="after")
    def _what_only_a_cluster_has(self) -> Dispatch:
        if self.backend == "local":
            for key in ("address", "cpus", "gpus"):
                if getattr(self, key):
                    raise ValueError(
                        f"{key} is for workers of a cluster: got {getattr(self, key)!r} with the backend local; take ray"
                    )
        return self
