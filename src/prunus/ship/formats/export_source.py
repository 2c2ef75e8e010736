"""What is handed to a format: a bundle's model from raw inputs to raw outputs, what it takes, and inputs to compare it on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.apply.traced.limits import BATCH, Span
from prunus.core.calls import arguments
from prunus.core.errors import raise_if_out_of_memory
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import Inputs, keywords_of, other_sizes, sizes_misfit
from prunus.ship.raw_model import RawModel, raw_answers, raw_inputs

__all__ = ["BATCHES", "ExportSource", "by_name"]

BATCHES = (1, 3, 8)
"""How many examples the inputs hold that a file is compared on."""
_ANY = Span(1, None, BATCH)


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
        return [(_ANY, *entry.allowed[1:]) for entry in self.takes]

    @property
    def sizes(self) -> tuple[str, ...]:
        """What it takes, in words."""
        return tuple(
            f"{e.name + ' ' if e.name else ''}({', '.join(('n', *map(str, e.allowed[1:])))})" for e in self.takes
        )

    def fixed(self) -> ExportSource:
        """Return it with all sizes but the batch as they are in the example."""
        return replace(self, takes=tuple(entry.model_copy(update={"spans": ()}) for entry in self.takes))

    def inputs(self, size: int) -> Any:
        """Return ``size`` random examples that are normal to the model, as the user would give them."""
        return raw_inputs(self.bundle, self.takes, size)

    def answers(self, inputs: Any) -> list[Tensor]:
        """Return all output tensors."""
        return raw_answers(self.model, inputs)

    def batches(self) -> list[Any]:
        """Return random inputs in batches of ``BATCHES``."""
        return [self.inputs(size) for size in BATCHES]

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

    >>> import torch
    >>> [*by_name((torch.zeros(1), torch.zeros(1)))], [*by_name(torch.zeros(1))], [*by_name({"ids": torch.zeros(1)})]
    (['input_0', 'input_1'], ['input'], ['ids'])
    """
    positional, named = arguments(inputs)
    if len(positional) == 1:
        return {"input": positional[0]}
    return named or {f"input_{number}": value for number, value in enumerate(positional)}
