"""Which models of transformers get smaller and come back by ``from_pretrained``, when only what their config can say is cut?

Usage:
    python benchmarks/zoo_hf.py run --suite transformers --out build/zoo_hf.jsonl [--match bert] [--seconds 300]
    python benchmarks/zoo_hf.py one transformers NAME
    python benchmarks/zoo_hf.py page build/zoo_hf.jsonl

Resumable, as zoo.py is. Every model has random weights and is cut to at most 70 % of its parameters by the norms of its weights. The
folder that ``save_pretrained`` writes is loaded by ``from_pretrained``, and what that answers is compared with the original's own
traced computation without the same units, as a share of the largest output. Where widths can't say as much, half of the blocks go.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHARE = 0.7
GONE = 0.25
"""The bar: at least this share of the parameters is gone."""


def main() -> None:
    """Parse and dispatch."""
    if sys.argv[1:2] == ["page"]:
        print(page(Path(sys.argv[2])))
        return
    from zoo import arguments_of, one_model, run_suite

    arguments = arguments_of(seconds=300)
    if arguments.command == "one":
        print("RESULT " + json.dumps(one_model(steps, arguments.suite, arguments.name, arguments.debug)), flush=True)
    else:
        run_suite(arguments, steps)


def steps(row: dict[str, Any]) -> None:
    """Cut, save, load, compare; the row gets what became of it."""
    import torch
    from zoo_models import load

    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = load(row["suite"], row["name"])
    model = case.model.eval()
    inputs, kwargs = case.inputs(2)
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row["class"] = type(model).__name__
    row["stage"] = "cut"
    start = time.process_time()
    small, oracle = _narrower(row, model, inputs, kwargs)
    if small is None:
        small, oracle = _shallower(row, model, inputs, kwargs)
    row["seconds"] = round(time.process_time() - start, 1)
    row["lost"] = round(1 - sum(p.numel() for p in small.parameters()) / row["parameters"], 4)
    row["stage"] = "save and load"
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        again = type(model).from_pretrained(folder).eval()
    row["settings"] = _changed(vars(model.config), vars(again.config))
    row["stage"] = "compare"
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in small.parameters()), "another size"
    row["difference"] = _apart(_answers(oracle, inputs, kwargs), _answers(again, inputs, kwargs))
    assert row["difference"] < 1e-4, f"outputs differ by {row['difference']:.2g} of the largest"


def _narrower(row: dict[str, Any], model: Any, inputs: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the model with widths cut, and the traced computation without the same units; None where no widths say enough."""
    import torch

    import prunus
    from prunus.apply import shrink
    from prunus.core.errors import PrunusError
    from prunus.graph import analyze

    try:
        found = prunus.prune(
            model, kwargs or inputs, target={"params": SHARE}, expressible=True, listener=lambda _: None
        )
    except PrunusError as error:
        row["no_widths"] = str(error)
        return None, None
    row["way"] = "widths"
    keep = {d.stratum: torch.from_numpy(d.keep) for d in found.plan.steps[0].decisions}
    graph = analyze(model, inputs, kwargs)
    return found.model, shrink(model, inputs, graph, keep, kwargs=kwargs, prefer="graph").model


def _shallower(row: dict[str, Any], model: Any, inputs: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the model without half of its blocks, twice: what is compared is only whether it comes back."""
    import torch

    from prunus.apply import expressible, shrink
    from prunus.graph import analyze

    graph = expressible(model, inputs, analyze(model, inputs, kwargs), kwargs, kinds={"block"})
    keep = {s.name: torch.arange(s.size) < max(s.min_units, s.size // 2) for s in graph.stacks}
    shrunk = shrink(model, inputs, graph, keep, kwargs=kwargs)
    assert shrunk.comes_back, "; ".join(shrunk.notes)
    row["way"] = "blocks"
    return shrunk.model, shrunk.model


def _answers(model: Any, inputs: Any, kwargs: Any) -> list[Any]:
    import torch

    from prunus.core.structures.forms import tensors_of

    torch.manual_seed(0)
    with torch.no_grad():
        return [value for value in tensors_of(model.eval()(*inputs, **kwargs)) if value.is_floating_point()]


def _apart(expected: list[Any], got: list[Any]) -> float:
    """Return the largest difference of finite outputs over the largest output."""
    assert [one.shape for one in expected] == [one.shape for one in got], "outputs have other shapes"
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        finite = one.isfinite() & other.isfinite()
        if one.numel() and bool(finite.any()):
            worst = max(worst, float((one - other)[finite].abs().max() / one[finite].abs().max().clamp(min=1e-12)))
    return worst


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say which settings were changed, and how."""
    return [
        f"{name} {before[name]} to {value}"
        for name, value in after.items()
        if name in before and _is_number(value) and _listed(before[name]) != _listed(value)
    ]


def _is_number(value: Any) -> bool:
    return all(type(one) in (int, float) for one in (value if isinstance(value, list | tuple) else [value]))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def page(path: Path) -> str:
    """Return the table, in Markdown: what was cut of every model, and why not enough where it wasn't."""
    from zoo import rows_of

    rows = sorted(rows_of(path), key=lambda row: str(row["name"]))
    good = [row for row in rows if row["status"] == "ok" and row["lost"] >= GONE]
    lines = [
        f"{len(good)} of {len(rows)} come back with {GONE:.0%} or more of their parameters gone and the same outputs.",
        "",
        "| model | gone | settings | largest difference | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["status"] != "ok":
            why = row.get("no_widths") or row.get("error", "")
            lines.append(f"| {row['name']} | **no** | {why} | | |")
            continue
        share = f"{row['lost']:.0%}" if row["lost"] >= GONE else f"**{row['lost']:.0%}**"
        said = "; ".join(row["settings"])
        lines.append(f"| {row['name']} | {share} | {said} | {row['difference']:.0e} | {row['seconds']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
