"""Is a run that goes on trained by as many processes as it was begun with, and on the same data?

Gradients are sums over the processes: with another number of them they are rounded otherwise, and dropout draws other masks. What
came of both together would be the result of neither; so it is with other data, also those of a worker.
"""

from __future__ import annotations

from pathlib import Path

from prunus.core.errors import DataError, OutputError

__all__ = ["DATA", "RANKS", "check_data", "check_ranks"]

RANKS, DATA = "ranks", "fingerprint"
"""What they are kept under."""


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


def check_data(folder: Path, begun: str, here: str) -> None:
    """Refuse to go on with other data, by their fingerprints; nothing in the folder is touched.

    Raises:
        DataError: the data were changed, or are others in this process.
    """
    if begun != here:
        raise DataError(
            f"{folder} holds a run that was begun on other data (fingerprint {begun[:12]}, got {here[:12]}): put the files back, "
            "which all workers must have, choose another output folder, or add --overwrite"
        )
