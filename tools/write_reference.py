"""Write the pages of docs/reference and docs/tasks: criteria, metrics, readers, tasks, and what prunus itself exports.

Usage: python tools/write_reference.py
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import prunus
from prunus.data.sources.formats import readers_table
from prunus.score import NEEDS, criteria_table
from prunus.tasks import Task, metrics, metrics_table, tasks

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
Where a folder holds both files of rows and class folders of images, `data.target` (or another key of tables) says that the rows are
meant, `data.args` that the images are.
What another installed package offers as an entry point `prunus.readers` is read, too, once you name such a file.
"""


def readers_page() -> str:
    rows = [(f"`{r['ending']}`", r["holds"], _code(r["arguments"]), r["predicts"], r["needs"]) for r in readers_table()]
    head = ("ending", "what it holds", "`data.args`", "`prunus predict`", "extra to install")
    return "\n".join([READERS, *_table(head, rows)]) + "\n"


TASKS = f"""# Tasks

{WRITTEN}

A task says what is asked of a model: the loss to minimise, what to observe of each example, which metrics see that, and how a
person reads an answer. Each of them has intervals and paired comparisons, since a metric is a function of totals over examples
under weights, how often an example counts.

What none of these is, you bring yourself: [a loss and a metric, or a class](own.md).
"""


def tasks_page() -> str:
    rows = [(f"[{_title(name)}]({name}.md)", f"`{name}`", _about(kind).split("\n\n")[0]) for name, kind in _tasks()]
    return "\n".join([TASKS, *_table(("task", "name", "what it is"), rows)]) + "\n"


def task_page(name: str, kind: type[Task]) -> str:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    options = [(f"`{one.name}`", f"`{one.default!r}`") for one in fields if one.init]
    rows = [row for row in metrics_table() if name in row["task"].split(", ")]
    rows.sort(key=lambda row: (row["shown"] != "unasked", metrics[row["name"]].default, row["name"]))
    parts = [f"# {_title(name)}", "", WRITTEN, "", _about(kind), "", "## Targets and outputs", "", _text(kind), ""]
    parts += [
        f"In Python it is `prunus.tasks.{kind.__name__}`. Its options:",
        "",
        *_table(("option", "default"), options),
    ]
    parts += ["", "## What is minimised, observed and read", ""]
    parts += _table(
        ("what", "how"),
        [
            ("the loss of an example", _first(kind.losses)),
            ("what is observed of it", _first(kind.observe)),
            ("what a person reads", _first(kind.decode)),
        ],
    )
    parts += ["", "## What is measured", ""]
    parts += _table(
        ("name", "called", "better", "shown", "what it is"),
        [(f"`{row['name']}`", row["called"], row["better"], row["shown"], row["summary"]) for row in rows],
    )
    return "\n".join(parts) + "\n"


OWN = """A metric that returns NaN or an array is refused, and so is one of which it isn't known whether higher is better.

```python
import torch
from prunus.tasks import own_task


def within_one(outputs, targets):
    return ((outputs - targets).abs() <= 1).float().mean()


task = own_task(loss=torch.nn.L1Loss(), metric=within_one, higher_is_better=True)
```

In a recipe, `data.task: my_code:task` names such an object (or a class), `train.loss: my_code:loss` a loss, and
`evaluation.metrics: [my_code:within_one]` a metric, with `within_one.higher_is_better = True` said beside it; the data come
from a function (`data.source: my_code:data`). They are called because the recipe is yours: a plan or a bundle that came from
elsewhere may not name them unless you allow it. A bundle doesn't hold such a task: `prunus evaluate BUNDLE --recipe` with the
recipe measures it.

`own_task(Classification(), loss=torch.nn.CrossEntropyLoss(weight=weight))` is a task with another loss and all of its own metrics.
A class of your own derives from `prunus.tasks.Task`, and has five methods: `check`, `losses`, `observe`, `totals` and `decode`; the
laws that hold of every task stand in `tests/property/test_task_laws.py`.
"""


def own_page() -> str:
    names = "\n".join(f"\n::: prunus.tasks.{name}" for name in ("own_task", "as_task"))
    return f"# Your own\n\n{WRITTEN}\n\n{_text(sys.modules['prunus.tasks.own'])}\n\n{OWN}{names}\n"


def _tasks() -> list[tuple[str, type[Task]]]:
    return [(name, tasks[name]) for name in tasks]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _about(kind: type[Task]) -> str:
    return _text(sys.modules[kind.__module__])


def _text(documented: object) -> str:
    """Return a docstring as Markdown."""
    return (inspect.getdoc(documented) or "").replace("``", "`").replace(":class:", "")


def _first(method: Callable[..., object]) -> str:
    return _text(method).partition("\n")[0].removeprefix("Return ")


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
    "../tasks/index.md": tasks_page,
    "../tasks/own.md": own_page,
    **{f"../tasks/{name}.md": partial(task_page, name, kind) for name, kind in _tasks()},
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
