"""What does it cost to look for near-duplicates file by file, beside all in memory, and beside faiss?

Usage: python benchmarks/duplicates_shards.py [--rows 1000000] [--rounds 3] [--only NAME] [--kinds normal,clusters] [--keep FILE]

Rows of 64 numbers in eight ``.npy`` files, of which a tenth are copies of others with a cosine drawn evenly from 0.99 to 1: once
around nothing (``normal``), once around a thousand centres, where rows are alike anyway (``clusters``). ``prunus
duplicates-shards`` with one and two workers must leave the very table that the search in memory finds. faiss (``pip install
faiss-cpu``) lists all pairs above the threshold by inverted lists (IVF, flat): as one index of all rows, and as an index for each
file, to which all rows are put as queries. It is given, for nothing, the fewest probes with which it finds 99 % of the planted
pairs (found in the first round, and kept for the others). One thread for each process; all times and the memory hold the start of
Python and torch, too. Found is the share of planted pairs that came out: as one pair (faiss), or with one row that stays for both
(prunus).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dispatch_load import watched

COSINE, WIDTH, N_FILES = 0.99, 64, 8
PROBES = (1, 2, 4, 8, 16, 32)
Row = dict[str, Any]
Array = np.ndarray[Any, Any]


def write_rows(folder: Path, n: int, kind: str) -> None:
    """Write the files, and which rows are copies of which."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((n, WIDTH), dtype=np.float32)
    if kind == "clusters":
        rows += 2 * random.standard_normal((1000, WIDTH), dtype=np.float32)[random.integers(0, 1000, n)]
    order = random.permutation(n)
    first, copies = order[: n // 10], order[n // 10 : 2 * (n // 10)]
    unit = rows[first] / np.linalg.norm(rows[first], axis=1, keepdims=True)
    aside = random.standard_normal((n // 10, WIDTH), dtype=np.float32)
    aside -= (aside * unit).sum(axis=1, keepdims=True) * unit
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosine = random.uniform(COSINE + 1e-6, 1, (n // 10, 1)).astype(np.float32)
    rows[copies] = cosine * unit + np.sqrt(1 - cosine**2) * aside
    folder.mkdir(parents=True)
    for number, part in enumerate(np.array_split(rows, N_FILES)):
        np.save(folder / f"part-{number}.npy", part)
    np.save(folder.parent / f"{folder.name}-planted.npy", np.stack([first, copies], axis=1))


def files_of(folder: Path) -> list[Path]:
    """Return the files in their order."""
    return sorted(folder.glob("part-*.npy"))


def in_memory(folder: Path, out: Path, _: int) -> None:
    """All rows in one array, by prunus."""
    import torch

    from prunus.score import near_duplicates

    torch.set_num_threads(1)
    found = near_duplicates(np.concatenate([np.load(path) for path in files_of(folder)]), cosine=COSINE)
    np.savez(out, keeper=found.keeper, similarity=found.similarity)


def shards(n_workers: int) -> Callable[[Path, Path, int], None]:
    """File by file, by prunus."""

    def cell(folder: Path, out: Path, _: int) -> None:
        import pyarrow.parquet as pq
        import torch

        from prunus.scale import near_duplicates_shards

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(dir=out.parent) as output:
            near_duplicates_shards(files_of(folder), Path(output) / "found", cosine=COSINE, workers=n_workers)
            tables = [pq.read_table(Path(output) / "found" / f"{path.stem}.parquet") for path in files_of(folder)]
        firsts = np.concatenate([[0], np.cumsum([len(table) for table in tables])])
        home = {path.stem: int(first) for path, first in zip(files_of(folder), firsts, strict=False)}
        keeper = [
            table["representative"].to_numpy()
            + np.array([home[name] for name in table["representative_shard"].to_pylist()])
            for table in tables
        ]
        similarity = [table["similarity"].to_numpy() for table in tables]
        np.savez(out, keeper=np.concatenate(keeper), similarity=np.concatenate(similarity))

    return cell


def _unit_rows(path: Path) -> Array:
    import faiss

    rows = np.load(path)
    faiss.normalize_L2(rows)
    return rows


def _pairs_of(index: Any, queries: Array, first_query: int, first_row: int) -> Array:
    """Return the pairs of a query with a row behind it, as numbers through all files."""
    found = []
    for start in range(0, len(queries), 65_536):
        ends, _, rows = index.range_search(queries[start : start + 65_536], COSINE)
        query = np.repeat(np.arange(len(ends) - 1), np.diff(ends.astype(np.int64))) + start + first_query
        good = query < rows + first_row
        found.append(np.stack([query[good], rows[good] + first_row], axis=1))
    return np.concatenate(found)


def _inverted(rows: Array, probes: int) -> Any:
    import faiss

    n_lists = int(4 * len(rows) ** 0.5)
    quantizer = faiss.IndexFlatIP(WIDTH)
    index = faiss.IndexIVFFlat(quantizer, WIDTH, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.train(rows)
    index.add(rows)
    index.nprobe = probes
    return index


def faiss_whole(folder: Path, out: Path, probes: int) -> None:
    """One index of all rows, by faiss."""
    import faiss

    faiss.omp_set_num_threads(1)
    rows = np.concatenate([_unit_rows(path) for path in files_of(folder)])
    np.savez(out, pairs=_pairs_of(_inverted(rows, probes), rows, 0, 0))


def faiss_files(folder: Path, out: Path, probes: int) -> None:
    """An index for each file, by faiss; two files are in memory at a time."""
    import faiss

    faiss.omp_set_num_threads(1)
    paths = files_of(folder)
    firsts = np.concatenate([[0], np.cumsum([len(np.load(path, mmap_mode="r")) for path in paths])])
    found = list[Array]()
    for place, path in enumerate(paths):
        index = _inverted(_unit_rows(path), probes)
        found += [
            _pairs_of(index, _unit_rows(paths[other]), int(firsts[other]), int(firsts[place]))
            for other in range(place + 1)
        ]
    np.savez(out, pairs=np.concatenate(found))


CELLS: dict[str, Callable[[Path, Path, int], None]] = {
    "prunus, in memory": in_memory,
    "prunus, files, 1 worker": shards(1),
    "prunus, files, 2 workers": shards(2),
    "faiss IVF, one index": faiss_whole,
    "faiss IVF, an index per file": faiss_files,
}


def measured(name: str, folder: Path, probes: int) -> Row:
    """Return what a cell took, in a process of its own, and what it found."""
    out = folder.parent / "found.npz"
    command = [sys.executable, "-W", "ignore", __file__, "--cell", name, str(folder), str(out), str(probes)]
    took: Row = dict(watched(command))
    first, copies = np.load(folder.parent / f"{folder.name}-planted.npy").T
    n = sum(len(np.load(path, mmap_mode="r")) for path in files_of(folder))
    with np.load(out) as held:
        if "keeper" in held:
            keeper = held["keeper"]
            took["found"] = float((keeper[first] == keeper[copies]).mean())
            took["others"] = int((keeper != np.arange(n)).sum()) - int((keeper[first] == keeper[copies]).sum())
            took["hash"] = hashlib.sha256(keeper.tobytes() + held["similarity"].tobytes()).hexdigest()[:16]
        else:
            pairs = np.sort(held["pairs"], axis=1)
            known, planted = pairs @ np.array([n, 1]), np.sort(np.stack([first, copies], axis=1), axis=1)
            met = np.isin(planted @ np.array([n, 1]), known)
            took["found"], took["others"] = float(met.mean()), len(np.unique(known)) - int(met.sum())
    return took | {"probes": probes}


def with_fewest_probes(name: str, folder: Path) -> Row:
    """Return what a cell took with the fewest probes by which it finds 99 % of what was planted, or the most that are tried."""
    took: Row = {}
    for probes in PROBES:
        took = measured(name, folder, probes)
        if took["found"] >= 0.99:
            break
    return took


def shown(values: list[float], form: str = ".1f") -> str:
    """Return the median and the spread."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def report(rows: list[Row]) -> None:
    """Print a table; ratios are of the two cells of one round."""
    titles = [
        "rows",
        "how",
        "rounds",
        "seconds, median (spread)",
        "processor seconds",
        "of prunus in memory",
        "most MB",
    ]
    titles += ["planted found", "others", "table"]
    print(f"\n| {' | '.join(titles)} |\n| {' | '.join('---' for _ in titles)} |")
    base = {(r["kind"], r["rows"], r["round"]): r["processor"] for r in rows if r["name"] == next(iter(CELLS))}
    for kind, n, name in dict.fromkeys((row["kind"], row["rows"], row["name"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["rows"], row["name"]) == (kind, n, name)]
        ratios = [r["processor"] / base[kind, n, r["round"]] for r in mine if (kind, n, r["round"]) in base]
        called = name + (f", {mine[0]['probes']} probes" if "IVF" in name else "")
        cells = [f"{n:,} {kind}", called, len(mine), shown([r["seconds"] for r in mine])]
        cells += [shown([r["processor"] for r in mine]), shown(ratios, ".2f") if ratios else ""]
        cells += [f"{max(r['mb'] for r in mine):.0f}", f"{statistics.mean(r['found'] for r in mine):.2%}"]
        cells += [f"{mine[0]['others']:,}", " ".join(sorted({f"`{r['hash']}`" for r in mine if "hash" in r}))]
        print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    """Run what isn't kept yet, in turns, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="normal,clusters")
    parser.add_argument("--only", default="", help="part of a cell's name")
    parser.add_argument("--keep", type=Path, help="a file for what was measured, which is added to it")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if options.cell:
        name, folder, out, probes = options.cell
        CELLS[name](Path(folder), Path(out), int(probes))
        return
    held = options.keep.read_text().splitlines() if options.keep and options.keep.exists() else []
    rows = [json.loads(line) for line in held]
    known = {(row["kind"], row["rows"], row["name"], row["round"]): row for row in rows}
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(options.rounds):
            for kind in options.kinds.split(","):
                folder = Path(temporary) / kind
                for name in CELLS:
                    if options.only not in name or (kind, options.rows, name, turn) in known:
                        continue
                    if not folder.exists():
                        write_rows(folder, options.rows, kind)
                    before = known.get((kind, options.rows, name, 0))
                    row = {"kind": kind, "rows": options.rows, "name": name, "round": turn}
                    if "IVF" in name and before is None:
                        row |= with_fewest_probes(name, folder)
                    else:
                        row |= measured(name, folder, before["probes"] if before else 0)
                    rows.append(row)
                    known[kind, options.rows, name, turn] = row
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    if options.keep:
                        with options.keep.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
