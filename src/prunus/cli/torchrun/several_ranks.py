"""How does a command run on several processes that torchrun started?

Rank 0 does what the command says and speaks for all; the others only train along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from prunus.core.code.place import place
from prunus.core.errors import RecipeError, RunError

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Recipe

__all__ = ["SHARED", "check_shared", "followed", "held", "leading"]

SHARED = ("run", "plan", "apply")
"""Commands that train on all processes of ``torchrun``."""


def check_shared(arguments: Sequence[str]) -> None:
    """Refuse a command that torchrun would only run several times.

    Raises:
        RecipeError: it is no command that trains; on other ranks SystemExit, since rank 0 says so.
    """
    here = place()
    if here.alone or any(argument in SHARED for argument in arguments[:2]):
        return
    if not here.leads:
        raise SystemExit(RecipeError.exit_code)
    raise RecipeError(
        f"torchrun started {here.n_ranks} processes, and only `prunus {'`, `prunus '.join(SHARED)}` train on several: run this "
        "command without torchrun"
    )


def followed(prepare: Callable[[], Recipe]) -> bool:
    """Train along with rank 0, and return True, unless this process is rank 0 or alone; ``prepare`` gives the recipe.

    Raises:
        Exit: something is wrong that rank 0 says.
    """
    here = place()
    if here.leads:
        return False
    # torch writes lines of its own where it waits and where a connection closes; what came of it, rank 0 says.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from prunus.pipeline import follow

    if not follow(prepare, here):
        raise typer.Exit(RunError.exit_code)
    return True


@contextmanager
def leading(recipe: Recipe) -> Iterator[None]:
    """Let the other processes, where there are any, train along inside the block."""
    if place().alone:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from prunus.pipeline import led

    with led(recipe):
        yield


def held(resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """Return what is asked of a run that the folder holds: where torchrun started all processes anew, it goes on."""
    return (True, False) if place().restarts > 0 else (resume, overwrite)
