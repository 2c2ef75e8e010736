"""Write the pages of docs/reference that list what is registered: criteria, metrics, readers, and what prunus itself exports.

Usage: python tools/write_reference.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import prunus
from prunus.data.sources.formats import readers_table
from prunus.score import NEEDS, criteria_table
from prunus.tasks import metrics_table

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
WRITTEN = "<!-- Written by tools/write_reference.py from the registry; don't edit. -->"

CRITERIA = f"""# Criteria

{WRITTEN}

A criterion turns evidence into one saliency per unit, and a higher saliency means *keep*. `strategy.criterion` names one.
Evidence is gathered in one pass over the calibration set (`data.split.calibration`), for everything that is asked.
"""

CRITERIA_FOOT = """## How units of several parameters are judged

A unit of a width (a channel, a head ...) is a slice of several parameters: what makes it, what normalises it, what reads it.
Each is judged by itself, and `strategy.reduce` makes one number of them: their `sum` (default), `mean` or `max`, or that of the
`first`, the layer that makes it.
`strategy.normalize` then makes layers comparable (`mean`, `max`, `none`).

Some criteria look at some of the slices only: `bn_scale` at the scales of normalisation layers, `wanda` at the weights that
read the unit, activation criteria at the layers that make it, `obs` at weights whose inputs were seen. A group without any is
judged by `magnitude_l2`, and the run notes it. Inputs and outputs are seen for every matrix product and convolution with a
weight, whichever layer it lies in, except products with stacked weights (experts) and, for `obs`, transposed convolutions.

## At initialisation

`snip`, `grasp` and `synflow` are made for untrained networks: set `train: {epochs: 0}`, and let `recovery` train what is left.
They take a trained network as well.
"""


def criteria_page() -> str:
    rows = criteria_table()
    parts = [CRITERIA]
    parts += _table(
        ("name", "judges", "needs", "training before", "what is kept", "source"),
        [
            (f"`{r['name']}`", r["judges"], _code(r["needs"]), r["training"], r["summary"], r["reference"])
            for r in rows
            if r["section"] == "strategy"
        ],
    )
    parts += ["", "## What the evidence is", ""]
    parts += _table(("evidence", "what is measured"), [(f"`{need}`", words) for need, words in NEEDS.items()])
    parts += ["", CRITERIA_FOOT, "## For training examples", "", "`examples.remove.criterion` names one.", ""]
    parts += _table(
        ("name", "what is kept", "source"),
        [(f"`{r['name']}`", r["summary"], r["reference"]) for r in rows if r["section"] != "strategy"],
    )
    return "\n".join(parts) + "\n"


METRICS = f"""# Metrics

{WRITTEN}

`evaluation.metrics` names those that are measured, the first one leads the report; `contract.metric` names the one that must be
kept. Every value and every difference has an interval: a bootstrap over the examples, for `accuracy` Wilson's.
"""


def metrics_page() -> str:
    rows = [
        (f"`{r['name']}`", r["task"], r["called"], r["unit"], r["better"], r["shown"], r["summary"])
        for r in metrics_table()
    ]
    head = ("name", "task", "called", "unit", "better", "shown", "what it is")
    return "\n".join([METRICS, *_table(head, rows)]) + "\n"


def _code(needs: str) -> str:
    return ", ".join(f"`{need}`" for need in needs.split(", ")) if needs else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


READERS = f"""# Files of data

{WRITTEN}

`data.source` names a file with one of these endings, a folder of class folders of images, `sklearn:NAME`, or `module:function`.
What another installed package offers as an entry point `prunus.readers` is read, too, once you name such a file.
"""


def readers_page() -> str:
    rows = [(f"`{r['ending']}`", r["holds"], _code(r["arguments"]), r["predicts"], r["needs"]) for r in readers_table()]
    head = ("ending", "what it holds", "`data.args`", "`prunus predict`", "extra to install")
    return "\n".join([READERS, *_table(head, rows)]) + "\n"


API = f"""# Python

{WRITTEN}

Everything that `import prunus` offers; nothing is imported before it is used. What isn't here may change without notice, except
what the packages of prunus export themselves (`prunus.score.criterion`, `prunus.evaluate.metric`, `prunus.data.add_reader`).
"""


def api_page() -> str:
    return API + "".join(f"\n::: prunus.{name}\n" for name in prunus.__all__)


PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api_page,
    "criteria.md": criteria_page,
    "metrics.md": metrics_page,
    "readers.md": readers_page,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
