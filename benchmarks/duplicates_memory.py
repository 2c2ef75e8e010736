"""How much memory does the process that drives ``prunus duplicates-shards`` take, for each row and for each near pair?

Rows lie on heaps of equal size, so that larger heaps make more pairs of as many rows. Units of the work are done by two other
processes; of the driver, the peak of what Python and NumPy allocate is told (tracemalloc). What a pair costs is the slope between
heaps of two sizes, and what a row costs that between two numbers of rows without pairs.

    python benchmarks/duplicates_memory.py
"""

from __future__ import annotations

import argparse
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

from prunus.scale import near_duplicates_shards
from prunus.scale.duplicates.shard_rounds import Rounds

WIDTH, COSINE = 16, 0.99


def measured(n: int, heap: int) -> tuple[int, int]:
    """Return how many pairs were found among ``n`` rows on heaps of ``heap``, and the driver's peak in bytes."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((n // heap, WIDTH), np.float32)
    rows = np.repeat(centres, heap, axis=0) + 0.005 * draw.standard_normal((n // heap * heap, WIDTH), np.float32)
    found: list[int] = []
    whole = Rounds.near_pairs

    def counted(self: Rounds, alive: np.ndarray, number: int):
        answer = whole(self, alive, number)
        found.append(len(answer[0]))
        return answer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        for number, part in enumerate(np.array_split(rows, 2)):
            np.save(Path(folder) / "in" / f"{number}.npy", part)
        Rounds.near_pairs = counted
        tracemalloc.start()
        try:
            near_duplicates_shards([Path(folder) / "in"], Path(folder) / "out", cosine=COSINE, workers=2)
            return sum(found), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            Rounds.near_pairs = whole


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--heap", type=int, default=120, help="rows of a heap; half of them, too")
    parser.add_argument("--many", type=int, default=600_000, help="rows without pairs; half of them, too")
    asked = parser.parse_args()
    print("| rows | on heaps of | pairs | peak of the driver, MB |\n| --- | --- | --- | --- |")
    cases = [(asked.rows, asked.heap // 2), (asked.rows, asked.heap), (asked.many // 2, 1), (asked.many, 1)]
    told = []
    for n, heap in cases:
        pairs, peak = measured(n, heap)
        told.append((n, pairs, peak))
        print(f"| {n:,} | {heap} | {pairs:,} | {peak / 1e6:.1f} |", flush=True)
    (_, few, low), (_, many, high), (half, _, less), (whole, _, more) = told
    print(f"\n{(high - low) / (many - few):.0f} bytes a pair, {(more - less) / (whole - half):.0f} bytes a row")


if __name__ == "__main__":
    main()
