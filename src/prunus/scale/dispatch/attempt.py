"""What came of one call: an answer, an error that would come again, or one that may pass?

The same judgement holds wherever the call is made, in this process, in a spawned one or on another machine; and so does the rule
of what is tried again.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prunus.core.code.imports import one_line
from prunus.core.errors import NotFiniteError, OutputError, PrunusError, RecipeError, RunError, raise_if_out_of_memory

__all__ = ["Failure", "Kind", "Tries", "loaded", "packed", "tried", "unpacked"]

T = TypeVar("T")
R = TypeVar("R")

Kind = Literal["done", "failed", "again", "output", "died", "refused"]
"""``again``: it may be worth another try; ``output``: the output can't be written; ``died``: so did who had it; ``refused``: who
had it is no part of this work."""


@dataclass(frozen=True)
class Failure:
    """Why a shard couldn't be done, and after how many tries."""

    message: str
    n_tries: int


class Tries:
    """Which of ``n`` shards wait to be begun: each once, and up to ``retries`` times more where its trouble may pass."""

    def __init__(self, n: int, retries: int) -> None:
        self.waiting: deque[int] = deque(range(n))
        self._n_tries, self._retries = [0] * n, retries

    def begin(self) -> int:
        """Return the number of the shard that is begun now."""
        number = self.waiting.popleft()
        self._n_tries[number] += 1
        return number

    def settle(self, number: int, kind: Kind, answer: Any) -> Iterator[tuple[int, Any]]:
        """Yield what a shard comes to, with its number; nothing where it waits to be tried again.

        Raises:
            OutputError: the output can't be written, so that no other try makes sense.
            RunError: who was to do it has another code or other files.
        """
        if kind == "output":
            raise OutputError(answer)
        if kind == "refused":
            raise RunError(answer)
        if kind in ("again", "died") and self._n_tries[number] <= self._retries:
            self.waiting.append(number)
        else:
            yield number, answer if kind == "done" else Failure(answer, self._n_tries[number])


def tried(function: Callable[[T], R], shard: T) -> tuple[Kind, Any]:
    """Return what came of a shard, and the answer or the message that goes with it."""
    try:
        return "done", function(shard)
    except OutputError as error:
        return "output", str(error)
    except PrunusError as error:
        passing = isinstance(error, RunError) and not isinstance(error, NotFiniteError)
        return "again" if passing else "failed", str(error)
    except Exception as error:
        raise_if_out_of_memory(error)
        return "again", one_line(error)


def packed(function: Callable[..., Any]) -> bytes:
    """Return a function as it goes to workers.

    Raises:
        RecipeError: it can't be pickled.
    """
    try:
        return pickle.dumps(function)
    except Exception as error:
        raise_if_out_of_memory(error)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise RecipeError(
            f"workers need a function that can be pickled: got {name}, {one_line(error)}; give one of a module, or an object of "
            "a module's class, or take one local worker"
        ) from error


def loaded(function: bytes) -> Callable[[Any], tuple[Kind, Any]]:
    """Return what tries a function that was packed, or says of each shard why it can't be had here."""
    try:
        found = unpacked(function)
    except Exception as error:
        raise_if_out_of_memory(error)
        why = f"the function can't be loaded by a worker: {one_line(error)}; it must stand in a module that workers can import"
        return lambda _: ("failed", why)

    def safely(shard: Any) -> tuple[Kind, Any]:
        kind, answer = tried(found, shard)
        if kind != "done":
            return kind, answer
        try:
            return kind, pickle.dumps(answer)
        except Exception as error:
            raise_if_out_of_memory(error)
            return "failed", f"the answer can't be pickled: {one_line(error)}"

    return safely


def unpacked(sent: bytes) -> Any:
    """Return what one process of a run has sent to another: a pickle, which can run code. Never call it with what a file holds."""
    return pickle.loads(sent)  # noqa: S301 - from a process that was started here, or a node of the cluster that was asked for
