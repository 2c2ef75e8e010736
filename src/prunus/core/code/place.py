"""Which of the processes that torchrun started together is this one?

What is asked here is the environment alone, so that a command knows before torch is imported whether it leads or follows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from prunus.core.errors import RecipeError

__all__ = ["Place", "place"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """The place of a process among those that train together: ``rank`` of ``n_ranks``, and the same on its machine.

    ``restarts`` says how often all of them were started anew, after one of them ended.
    """

    rank: int = 0
    n_ranks: int = 1
    local_rank: int = 0
    n_local: int = 1
    restarts: int = 0
    host: str = ""

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.n_ranks == 1


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place that ``torchrun`` gave this process; alone where it wasn't started so.

    Raises:
        RecipeError: a part of what torchrun says is missing, or is no such number.

    >>> place({}).alone
    True
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Place()
    numbers: dict[str, int] = {}
    for name, missing in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}.items():
        text = environment.get(name, str(missing))
        if not text.isdecimal():
            raise RecipeError(f"{name} must be a whole number, as torchrun sets it: got {text!r}; start with torchrun")
        numbers[name] = int(text)
    rank, n_ranks = numbers["RANK"], numbers["WORLD_SIZE"]
    if not rank < n_ranks:
        raise RecipeError(f"RANK must be below WORLD_SIZE: got {rank} of {n_ranks}; start with torchrun")
    missing_names = [name for name in _NEEDED if not environment.get(name)]
    if n_ranks > 1 and missing_names:
        raise RecipeError(f"WORLD_SIZE is {n_ranks}, but {missing_names[0]} isn't set: start with torchrun")
    restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Place(
        rank,
        n_ranks,
        numbers["LOCAL_RANK"],
        numbers["LOCAL_WORLD_SIZE"],
        int(restarts) if restarts.isdecimal() else 0,
        socket.gethostname(),
    )
