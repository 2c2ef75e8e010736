"""How may a traced computation be called: by which names, and in which order?

Whatever way its tensors come, by place or by name, they are put into the order in which they were traced.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunus.core.errors import ModelError
from prunus.core.structures.forms import FLAT, Form, form_of, tensors_of

__all__ = ["NO_CALL", "Signature", "signature_of"]


@dataclass(frozen=True)
class Signature:
    """What a computation takes.

    ``places`` are the names of what may come by position, in order; ``forms`` what held tensors when it was traced, in the order of
    the trace; ``by_name`` says that these were given by name.
    """

    places: tuple[str, ...]
    forms: Mapping[str, Form]
    by_name: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What its tensors are called: nothing where they come by position, or aren't one each."""
        return tuple(self.forms) if self.by_name and all(form == FLAT for form in self.forms.values()) else ()

    def tensors(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Tensor]:
        """Return the tensors among the arguments, in the order of the trace; other arguments are those that were traced.

        Raises:
            ModelError: others came than were traced; the message names them.
        """
        if len(inputs) > len(self.places):
            raise ModelError(f"the model takes {self._shown()}: got {len(inputs)} by position")
        given = dict(zip(self.places, inputs, strict=False))
        if twice := sorted(given.keys() & named.keys()):
            raise ModelError(f"the model takes {self._shown()}: got {twice[0]} twice, by position and by name")
        given |= named
        held = {name: found for name, value in given.items() if (found := tensors_of(value))}
        if held.keys() != self.forms.keys():
            raise ModelError(f"the model takes {self._shown()}: got {', '.join(held) or 'none'}")
        for name, form in self.forms.items():
            if len(held[name]) != form.n_tensors or form_of(given[name]) != form:
                wanted = f"{form.n_tensors} tensors" if form.n_tensors > 1 else "one tensor"
                raise ModelError(
                    f"the model takes {name} as a {form.kind} with {wanted}, as it was traced: got "
                    f"a {form_of(given[name]).kind} with {len(held[name])}"
                )
        return [tensor for name in self.forms for tensor in held[name]]

    def _shown(self) -> str:
        return f"{', '.join(self.forms)}{' by name' if self.by_name else ''}"


NO_CALL = Signature((), {})
"""Of what takes nothing."""


def signature_of(model: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> Signature:
    """Return how ``model`` was called on these arguments, which is how its trace may be."""
    places = _places(model, len(inputs))
    given = dict(zip(places, inputs, strict=False)) | dict(named)
    forms = {name: form_of(value) for name, value in given.items() if tensors_of(value)}
    return Signature(places, forms, by_name=not inputs and bool(named))


def _places(model: nn.Module, n_given: int) -> tuple[str, ...]:
    """Return the names of forward's positional arguments; where it takes any number of them, those that were given are numbered."""
    own = getattr(model, "signature", None)
    if isinstance(own, Signature):
        return own.places
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled forward
        parameters = {}.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return (*names, *(f"input_{number}" for number in range(len(names), n_given)))
