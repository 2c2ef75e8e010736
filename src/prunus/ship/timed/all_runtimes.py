"""In which runtimes can a model be timed? One list for ``prunus bench``, ``run`` and what aims at a latency."""

from __future__ import annotations

from prunus.evaluate.timing.bench_runtimes import RUNTIMES, BenchRuntime
from prunus.ship.timed.litert_timing import TimedLiteRt
from prunus.ship.timed.mnn_timing import Mnn

__all__ = ["ALL_RUNTIMES"]

ALL_RUNTIMES: tuple[BenchRuntime, ...] = (*RUNTIMES, Mnn(), TimedLiteRt())
