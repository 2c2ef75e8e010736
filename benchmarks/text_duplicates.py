"""What does it cost to find near-duplicates among texts without a trained encoder, and how many edited copies are found?

Usage: python benchmarks/text_duplicates.py [--only "a million"] [--scale 0.2] [--repetitions 3] [--model FOLDER]

The texts are all short descriptions of Debian's package index (``apt-get update`` first), and a million rows made of them: one, or
two in a row. In both a tenth is added: copies of rows, edited in six ways in turn. A copy is *found* where it and the row that it
was made of don't both stay; *others* are rows that go although nothing was planted (siblings among packages are alike, too).

Every cell is a process of its own, with one thread, and the tools take turns. The table has the median of processor seconds, their
spread, and the peak of memory above what stands before the call, in which the texts are. Peers (``pip install semhash
tokenlearn-static-model datasketch``), each at its own threshold's default: semhash compares embeddings of a static encoder. The one
that it would download is given by ``--model``; without the network it is the trained one in the package tokenlearn-static-model.
datasketch compares nothing after its tables have met; it is run on the index only. Memory is read from Linux's /proc.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("word replaced", "words swapped", "word deleted", "letter mistyped", "case, punctuation", "words appended")
BOILERPLATE = (
    "(transitional dummy package)",
    "- see the homepage for details",
    "and is maintained by its authors",
    "for use with other packages",
    "as described in its documentation",
)


def main() -> None:
    """Run the cells in turns and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="an input")
    parser.add_argument("--without", action="append", default=[], help="a tool to leave out")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--model", help="a folder with a static encoder for semhash")
    parser.add_argument("--scale", type=float, default=1.0, help="of the million: 0.2 makes 200,000 rows")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(_cell(*arguments.cell, arguments.model, arguments.scale)))
        return
    for name in INPUTS:
        if arguments.only and name != arguments.only:
            continue
        tools = [
            tool for tool in TOOLS if tool not in arguments.without and (tool, name) != ("datasketch", "a million")
        ]
        done: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
        for _ in range(arguments.repetitions):
            for tool in tools:
                done[tool].append(_in_a_process(tool, name, arguments.model, arguments.scale))
                print(tool, done[tool][-1], file=sys.stderr, flush=True)
        _print_table(name, done)


def _print_table(name: str, done: dict[str, list[dict[str, Any]]]) -> None:
    rows = next((row for runs in done.values() for row in runs if "rows" in row), {"rows": 0, "length": 0})
    print(f"\n{name}: {rows['rows']:,} rows of {rows['length']:.0f} characters\n")
    print(f"| tool | processor seconds, median (spread) | MB above | copies found | {' | '.join(KINDS)} | others |")
    print("| --- " * (len(KINDS) + 5) + "|")
    for tool, runs in done.items():
        here = [row for row in runs if "seconds" in row]
        if not here:
            print(f"| {tool} | not run: {runs[0]['missing']} |")
            continue
        seconds = sorted(row["seconds"] for row in here)
        kinds = " | ".join(f"{statistics.median(row['kinds'][kind] for row in here):.1%}" for kind in KINDS)
        print(
            f"| {tool} | {statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f}) "
            f"| {max(row['mb'] for row in here):.0f} | {statistics.median(row['found'] for row in here):.1%} | {kinds} "
            f"| {statistics.median(row['others'] for row in here):,.0f} |"
        )


def _in_a_process(tool: str, name: str, model: str | None, scale: float) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--cell",
        tool,
        name,
        "--scale",
        str(scale),
        *(["--model", model] if model else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _cell(tool: str, name: str, model: str | None, scale: float) -> dict[str, Any]:
    texts, sources, kinds = planted(INPUTS[name](scale))
    work = TOOLS[tool](texts, model)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, start = _megabytes("VmRSS"), time.process_time()
    kept = work()
    seconds, mb = time.process_time() - start, _megabytes("VmHWM") - before
    n = len(texts) - len(sources)
    found = ~(kept[n:] & kept[sources])
    return {
        "rows": len(texts),
        "length": float(np.mean(list(map(len, texts)))),
        "seconds": seconds,
        "mb": mb,
        "found": float(found.mean()),
        "kinds": {kind: float(found[kinds == kind].mean()) for kind in KINDS},
        "others": int((~kept[:n]).sum() - (~kept[sources] & kept[n:]).sum()),
    }


def _megabytes(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def index(scale: float = 1) -> list[str]:
    """Return every description of the package index once, whatever the scale."""
    said = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    found = sorted({line[13:] for line in said.splitlines() if line.startswith("Description: ")})
    if not found:
        raise SystemExit("the package index is empty: run apt-get update")
    return found


def million(scale: float) -> list[str]:
    """Return every description once, and two in a row until there are 900,000 rows (times the scale)."""
    texts, draw = index(), random.Random(0)
    rows = dict.fromkeys(texts)
    while len(rows) < scale * 900_000:
        rows[f"{draw.choice(texts)}, {draw.choice(texts)}"] = None
    return list(rows)


def planted(texts: list[str]) -> tuple[list[str], Any, Any]:
    """Return the texts and edited copies of a ninth of them (so that copies are a tenth), of which each is one, and its edit."""
    draw = random.Random(1)
    words = sorted({word for text in texts for word in text.split()})
    sources = draw.sample([row for row, text in enumerate(texts) if len(text.split()) >= 4], len(texts) // 9)
    kinds = [KINDS[number % len(KINDS)] for number in range(len(sources))]
    copies = [_edited(texts[row], kind, draw, words) for row, kind in zip(sources, kinds, strict=True)]
    return [*texts, *copies], np.array(sources), np.array(kinds)


def _edited(text: str, kind: str, draw: random.Random, vocabulary: list[str]) -> str:
    words = text.split()
    at = draw.randrange(len(words) - 1)
    if kind == "word replaced":
        words[at] = draw.choice(vocabulary)
    elif kind == "words swapped":
        words[at], words[at + 1] = words[at + 1], words[at]
    elif kind == "word deleted":
        del words[at]
    elif kind == "letter mistyped":
        place = draw.randrange(len(text))
        return text[:place] + draw.choice("abcdefghijklmnopqrstuvwxyz") + text[place + 1 :]
    elif kind == "case, punctuation":
        return text.upper().replace(" ", ", ", 1) + "!"
    else:
        words.append(draw.choice(BOILERPLATE))
    return " ".join(words)


def prunus(texts: list[str], model: str | None, jaccard: float = 0.8) -> Callable[[], Any]:
    """Prunus: pieces of words, tables of least hashes, and every pair compared."""
    from prunus import near_duplicate_texts

    return lambda: near_duplicate_texts(texts, jaccard=jaccard).kept


def semhash(texts: list[str], model: str | None) -> Callable[[], Any]:
    """Semhash: embeddings of a static encoder and an approximate index of neighbours; the encoder is loaded before."""
    from model2vec import StaticModel
    from semhash import SemHash

    if model is None:
        place = importlib.util.find_spec("static_model")
        assert place is not None, "pip install tokenlearn-static-model, or give --model"
        model = str(Path(place.origin or "").parent / "model")
    encoder = StaticModel.from_pretrained(model)

    def work() -> Any:
        selected = SemHash.from_records(records=texts, model=encoder).self_deduplicate().selected
        return _first_of_each(texts, selected)

    return work


def datasketch(texts: list[str], model: str | None) -> Callable[[], Any]:
    """Datasketch: MinHashLSH over the same pieces at the same threshold; a row that meets an earlier one goes."""
    from datasketch import MinHash, MinHashLSH

    def work() -> Any:
        tables, kept = MinHashLSH(threshold=0.8, num_perm=128), np.ones(len(texts), np.bool_)
        for row, text in enumerate(texts):
            plain = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
            pieces = {f" {w} "[i : i + 3].encode() for w in plain for i in range(len(w))}
            one = MinHash(num_perm=128)
            one.update_batch(pieces)
            kept[row] = not tables.query(one)
            if kept[row]:
                tables.insert(row, one)
        return kept

    return work


def _first_of_each(texts: list[str], selected: list[str]) -> Any:
    chosen, kept = set(selected), np.zeros(len(texts), np.bool_)
    for row, text in enumerate(texts):
        if text in chosen:
            kept[row] = True
            chosen.discard(text)
    return kept


INPUTS: dict[str, Callable[[float], list[str]]] = {"the index": index, "a million": million}
TOOLS: dict[str, Callable[[list[str], str | None], Callable[[], Any]]] = {
    "prunus": prunus,
    "prunus, jaccard 0.75": lambda texts, model: prunus(texts, model, 0.75),
    "semhash": semhash,
    "datasketch": datasketch,
}

if __name__ == "__main__":
    main()
