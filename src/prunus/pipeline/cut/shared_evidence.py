"""Who adds up the pieces of a large calibration set: this process, or workers, too, and what of it stays for a resume?

What a piece gave is kept under a name of its own, and once all are joined, what came of it. It is the same, to the bit, whoever did
what: so workers are asked where it saves time, which is known once a piece was added up here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

from prunus.core.files.plain_files import remove
from prunus.pipeline.jobs.job import Job
from prunus.score import Sums

__all__ = ["SharedEvidence"]

WORTH_S = 20.0
"""Workers are asked where that saves more than so many seconds, by how long a piece took here: they must open the run first."""


@dataclass(frozen=True)
class SharedEvidence:
    """Joins the pieces of what ``job`` gathers in ``stage``."""

    job: Job
    stage: str

    def __call__(
        self, what: str, n: int, sums_of: Callable[[int], Sums], join: Callable[[Iterable[Sums]], Sums]
    ) -> Sums:
        """Return what ``join`` makes of the sums of all pieces, which it gets in their order."""
        work = self.job.workspace
        if work.folder is None:
            return join(map(sums_of, range(n)))
        whole = f"{self.stage} / {what}"
        names = [f"{whole} {number} of {n}" for number in range(1, n + 1)]
        found = work.kept(whole, lambda: join(self._pieces(whole, names, sums_of)))
        for name in names:
            path = work.path(f"{name}.safetensors")
            assert path is not None
            remove(path)
        return found

    def _pieces(self, stage: str, names: list[str], sums_of: Callable[[int], Sums]) -> Iterator[Sums]:
        work, parts = self.job.workspace, self.job.parts
        n_workers = 1 if parts.crew is None else parts.crew.dispatch.workers

        def do(place: int) -> None:
            if not work.is_kept(names[place]):
                work.kept(names[place], lambda: sums_of(place))

        if parts.mine is not None and parts.mine.stage == work.named(stage):
            parts.each(work, stage, names, do, together=True)
        for place, name in enumerate(names):
            computed, start = n_workers > 1 and not work.is_kept(name), perf_counter()
            yield work.kept(name, lambda place=place: sums_of(place))  # type: ignore[misc]
            left_s = (perf_counter() - start) * (len(names) - place - 1)
            if computed and left_s * (1 - 1 / n_workers) > WORTH_S:
                parts.each(work, stage, names, do, together=True)
                n_workers = 1
