"""What is handed to a format: a bundle's model from raw inputs to raw outputs, what it takes, and inputs to compare it on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.apply.traced.limits import BATCH, Span
from prunus.core.calls import arguments, select_rows
from prunus.core.errors import raise_if_out_of_memory
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import Inputs, keywords_of, other_sizes, sizes_misfit
from prunus.ship.raw_model import RawModel, raw_answers, raw_inputs

__all__ = ["BATCHES", "ExportSource", "by_name", "n_rows"]

BATCHES = (1, 3, 8)
"""How many examples the inputs hold that a file is compared on."""
_MOST_EXAMPLES, _MOST_TIMES = 8, 2
"""Where every size needs a bound: examples in a batch, and how many times the example's size another may be."""


@dataclass(frozen=True)
class ExportSource:
    """A bundle, its model between the scalers in evaluation mode, and what a file of it is to take.

    ``beside`` is a folder with files of a tokenizer or a processor, which go along where a format has room for them.
    """

    bundle: Bundle
    model: RawModel
    takes: Inputs
    samples: tuple[Any, ...] = ()
    beside: Path | None = None
    most_examples: int | None = None

    @classmethod
    def of(cls, bundle: Bundle, samples: Sequence[Any] = ()) -> ExportSource:
        """Return that of a bundle, at all sizes that it takes, with batches of real inputs to compare a file on."""
        return cls(bundle, RawModel(bundle).eval(), bundle.manifest.takes, tuple(samples))

    @property
    def n_outputs(self) -> int:
        """How many tensors it gives."""
        return self.bundle.manifest.n_output_tensors

    @property
    def keywords(self) -> tuple[str, ...]:
        """The names that the inputs have; none where they are positional."""
        return keywords_of(self.takes)

    @property
    def names(self) -> tuple[str, ...]:
        """What its inputs are called in a file: as the keywords, or ``input``, ``input_0`` and so on."""
        n = len(self.takes)
        return self.keywords or (("input",) if n == 1 else tuple(f"input_{number}" for number in range(n)))

    @property
    def is_free(self) -> bool:
        """Whether sizes other than the batch may vary."""
        return any(entry.spans for entry in self.takes)

    @property
    def spans(self) -> list[tuple[Span, ...]]:
        """The sizes that the dimensions of each input may have, the batch's first."""
        batch = Span(1, self.most_examples, BATCH) if self.most_examples != 1 else Span(1, 1)
        return [(batch, *entry.allowed[1:]) for entry in self.takes]

    @property
    def sizes(self) -> tuple[str, ...]:
        """What it takes, in words."""
        n = {None: "n", 1: "1"}.get(self.most_examples, f"1 to {self.most_examples}")
        return tuple(
            f"{e.name + ' ' if e.name else ''}({', '.join((n, *map(str, e.allowed[1:])))})" for e in self.takes
        )

    def fixed(self) -> ExportSource:
        """Return it with all sizes but the batch as they are in the example."""
        return replace(self, takes=tuple(entry.model_copy(update={"spans": ()}) for entry in self.takes))

    def one_by_one(self) -> ExportSource:
        """Return it for one example at a time, of the example's sizes."""
        rows = (select_rows(batch, torch.tensor([row])) for batch in self.samples for row in range(n_rows(batch)))
        return replace(self.fixed(), samples=tuple(rows), most_examples=1)

    def bounded(self) -> ExportSource:
        """Return it with a bound for every size that has none."""
        takes = []
        for entry in self.takes:
            free = [
                span if span is None or span.most is not None else span.model_copy(update={"most": _MOST_TIMES * size})
                for size, span in zip(entry.shape, entry.spans, strict=False)
            ]
            takes.append(entry.model_copy(update={"spans": tuple(free)}))
        parts = [part for batch in self.samples for part in _parts(batch)]
        return replace(self, takes=tuple(takes), samples=tuple(parts), most_examples=_MOST_EXAMPLES)

    def inputs(self, size: int) -> Any:
        """Return ``size`` random examples that are normal to the model, as the user would give them; one where it takes one."""
        return raw_inputs(self.bundle, self.takes, size)

    def answers(self, inputs: Any) -> list[Tensor]:
        """Return all output tensors."""
        return raw_answers(self.model, inputs)

    @property
    def traced_on(self) -> int:
        """How many examples it is followed on: two, as one is a size of its own to torch, where it may take two."""
        return 1 if self.most_examples == 1 else 2

    def batches(self) -> list[Any]:
        """Return random inputs in batches of ``BATCHES``, or as many examples of one batch alone."""
        if self.most_examples != 1:
            return [self.inputs(size) for size in BATCHES]
        many = self.inputs(BATCHES[-1])
        return [select_rows(many, torch.tensor([row])) for row in range(BATCHES[-1])]

    def fitting_samples(self) -> list[Any]:
        """Return the real inputs that have sizes which a file is to take."""
        return [batch for batch in self.samples if not sizes_misfit(self.takes, list(by_name(batch).values()))]

    def of_other_sizes(self) -> Iterator[tuple[Any, list[Tensor]]]:
        """Yield inputs of other sizes that the model takes, and its answers."""
        for entries in other_sizes(self.takes):
            inputs = raw_inputs(self.bundle, entries, BATCHES[1])
            try:
                expected = self.answers(inputs)
            except Exception as error:  # sizes that the model itself doesn't take
                raise_if_out_of_memory(error)
                continue
            yield inputs, expected


def by_name(inputs: Any) -> dict[str, Tensor]:
    """Return inputs by what they are called in a file.

    >>> [*by_name((torch.zeros(1), torch.zeros(1)))], [*by_name(torch.zeros(1))], [*by_name({"ids": torch.zeros(1)})]
    (['input_0', 'input_1'], ['input'], ['ids'])
    """
    positional, named = arguments(inputs)
    if len(positional) == 1:
        return {"input": positional[0]}
    return named or {f"input_{number}": value for number, value in enumerate(positional)}


def n_rows(inputs: Any) -> int:
    """Return how many examples there are."""
    return len(next(iter(by_name(inputs).values())))


def _parts(inputs: Any) -> list[Any]:
    """Return inputs in batches of at most as many as a bounded file takes."""
    rows = torch.arange(n_rows(inputs))
    return [select_rows(inputs, rows[first : first + _MOST_EXAMPLES]) for first in range(0, len(rows), _MOST_EXAMPLES)]
