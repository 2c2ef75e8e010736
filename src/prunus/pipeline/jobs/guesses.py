"""How is what may come next done before it is known whether it does?

A search tries one candidate after the other, and what it tries next hangs on what came before. While workers are idle, they do the
candidates that would follow if each before failed, and keep them apart; where that is how it goes, the search takes them over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.parts import Done, raise_first

__all__ = ["Guesses"]


@dataclass
class Guesses:
    """What was done ahead in the search of one ``stage``: by a candidate's number, what was asked for, and what came of it."""

    job: Job
    stage: str
    _held: dict[int, tuple[Any, str, Done]] = field(default_factory=dict, init=False)

    def ahead(self, number: int, asked: Sequence[Any], make: Callable[[int, Job], object]) -> None:
        """Have workers make the candidate of a number, and those that are asked for next if it and each after it fail.

        Args:
            asked: what tells a candidate from others, for this one and those after it, as many as there may be.
            make: makes one by its place in ``asked``, and keeps it in the job that it is given.

        Raises:
            PrunusError: what was wrong with the first; what is wrong with another matters once it is needed.
        """
        work, parts = self.job.workspace, self.job.parts
        held = self._held.pop(number, None)
        if held is not None and held[0] == asked[0]:
            _, name, done = held
            if done.wrong is None:
                work.adopt(name)
                start = work.named(f"{name} / ")
                work.hear(replace(event, stage=work.named(event.stage.removeprefix(start))) for event in done.events)
                return
        self._held.clear()

        def do(place: int) -> None:
            within = self.job if place == 0 else replace(self.job, workspace=work.within(_name(number, place)))
            make(place, within)

        n = len(asked) if parts.crew is None else min(parts.crew.dispatch.workers, len(asked))
        names = [f"{self.stage} / candidate {number + place}" for place in range(n)]
        done_ahead = parts.ahead(work, f"{self.stage} / candidates from {number}", names, do, guessed=True)
        raise_first(work, self.stage, done_ahead[:1])
        for place, done in enumerate(done_ahead[1:], start=1):
            self._held[number + place] = (asked[place], _name(number, place), done)


def _name(number: int, place: int) -> str:
    """Return within what is kept what is wanted if a candidate fails, and those after it."""
    return f"if {number} fails" if place == 1 else f"if {number} to {number + place - 1} fail"
