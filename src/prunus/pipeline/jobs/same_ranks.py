"""Is a run that goes on trained by as many processes as it was begun with?

Gradients are sums over the processes: with another number of them they are rounded otherwise, and dropout draws other masks. What
came of both together would be the result of neither.
"""

from __future__ import annotations

from pathlib import Path

from prunus.core.errors import OutputError

__all__ = ["RANKS", "check_ranks"]

RANKS = "ranks"
"""What it is kept under."""


def check_ranks(folder: Path, begun: int, here: int) -> None:
    """Refuse to go on with another number of processes; nothing in the folder is touched.

    Raises:
        OutputError: it says how the run was begun.
    """
    if begun != here:
        how = f"torchrun on {begun} processes" if begun > 1 else "one process, without torchrun"
        raise OutputError(
            f"{folder} holds a run that was begun on {begun} {'rank' if begun == 1 else 'ranks'}, got {here}: its sums would be "
            f"rounded otherwise; go on with {how}, choose another output folder, or add --overwrite"
        )
