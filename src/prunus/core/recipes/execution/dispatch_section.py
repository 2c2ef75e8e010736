"""Where is work done that falls into parts: shards of a data set, trials of a search?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.core.recipes.section import Count, Section

__all__ = ["Dispatch"]


class Dispatch(Section):
    """Which workers do the parts of a work that falls into parts; what comes out is the same to the bit for any of them."""

    backend: Literal["local"] = Field("local", description="local: processes on this machine")
    workers: Count = Field(1, description="so many parts at once")
