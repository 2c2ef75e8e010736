"""Is a run that goes on trained by as many processes as it was begun with, on the same data and from the same weights?

Gradients are sums over the processes: with another number of them they are rounded otherwise, and dropout draws other masks. What
came of both together would be the result of neither; so it is with other data or weights, also those of a worker.
"""

from __future__ import annotations

from pathlib import Path

from prunus.core.errors import DataError, OutputError

__all__ = ["DATA", "RANKS", "check_data", "check_ranks", "check_weights"]

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


def check_weights(folder: Path, name: str | None, begun: str | None, here: str | None) -> None:
    """Refuse to go on from other weights, by the SHA-256 of their file; nothing in the folder is touched.

    Args:
        begun: None where nobody kept it.

    Raises:
        OutputError: the file was changed, or is another in this process.
    """
    if begun is not None and here is not None and begun != here:
        raise OutputError(
            f"{folder} holds a run that was begun with other weights in {name} (SHA-256 {begun[:12]}, got {here[:12]}): put the "
            "file back, which all workers must have, choose another output folder, or add --overwrite"
        )
