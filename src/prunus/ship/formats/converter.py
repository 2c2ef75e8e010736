"""How is a converter called that talks much, patches torch or may end its process: in a process of its own.

The model goes there as a program of torch, which this process has just written, so no pickle of anyone else is read.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from prunus.core.errors import ModelError
from prunus.core.text import plain
from prunus.evaluate.timing.onnx_session import quiet_exporter
from prunus.ship.executable_files import write_program
from prunus.ship.formats.export_source import ExportSource, by_name
from prunus.ship.formats.exported_program import exported_program
from prunus.ship.formats.named_layers import layer_of_node

__all__ = ["EDGE_WORKER", "convert", "convert_program", "run_in_process", "work"]

EDGE_WORKER = Path(__file__).with_name("edge_worker.py")
_OPERATION = re.compile(r"(?:aten|torch\.ops\.aten|function for|op type:?)[.:' ]+'?([a-z_0-9]{3,})")


def convert(source: ExportSource, to: str, called: str, path: Path, *, ending: str, told: str = "") -> None:
    """Write ``source`` in the format ``to`` at ``path``.

    Args:
        called: what the format is called, for messages.
        ending: what the converter wants a file of it to end in.
        told: what the worker is told, a JSON text.

    Raises:
        ModelError: the converter fails; the message names the operation, and its layer, where it says which.
    """
    convert_program(exported_program(source, called), to, called, path, ending=ending, told=told)


def convert_program(program: ExportedProgram, to: str, called: str, path: Path, *, ending: str, told: str = "") -> None:
    """Write what torch wrote down of a model, in the format ``to`` at ``path``; as ``convert``."""
    with TemporaryDirectory() as name:
        given, facts, target = Path(name) / "model.pt2", Path(name) / "told.json", Path(name) / f"made.{ending}"
        with quiet_exporter():
            digest = write_program(program, given)
        facts.write_text(told)
        said = work(f"to_{to}", str(given), str(target), str(facts), digest)
        if not target.exists():
            reason = _reason(said)
            found = _OPERATION.search(reason)
            nodes = [node for node in program.graph.nodes if found and found[1] in str(node.target)]
            layer = next((where for node in nodes if (where := layer_of_node(node))), "")
            where = f", of the layer {layer!r}" if layer else ""
            raise ModelError(f"the model can't be exported to {called}: {reason}{where}; export it to ONNX")
        if target.is_dir():
            shutil.copytree(target, path, dirs_exist_ok=True)
        else:
            path.write_bytes(target.read_bytes())


def run_in_process(which: str, called: str, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
    """Return the outputs of a file for each of some batches, from its runtime in a process of its own.

    Raises:
        ModelError: it fails.
    """
    with TemporaryDirectory() as name:
        given, wanted = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        arrays = {
            f"{number}.{place}": np.ascontiguousarray(value.numpy())
            for number, batch in enumerate(batches)
            for place, value in enumerate(by_name(batch).values())
        }
        np.savez(given, allow_pickle=False, **arrays)
        said = work(f"run_{which}", str(path), str(given), str(wanted))
        if not wanted.exists():
            raise ModelError(f"{called} converts the model but doesn't run it: {_reason(said)}; export it to ONNX")
        with np.load(wanted) as held:
            found: Mapping[str, Any] = {key: held[key] for key in held.files}
    counts = [sum(key.startswith(f"{number}.") for key in found) for number in range(len(batches))]
    return [[torch.from_numpy(found[f"{n}.{k}"]) for k in range(count)] for n, count in enumerate(counts)]


def work(*arguments: str) -> list[str]:
    """Return the lines that the worker wrote; whether it did its work, its files tell."""
    done = subprocess.run(
        [sys.executable, "-P", str(EDGE_WORKER), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return [*lines, f"it ended with signal {-done.returncode}"] if done.returncode < 0 else lines


def _reason(said: Sequence[str]) -> str:
    """Return the line that says what went wrong: that of the last error in a traceback, else the last one."""
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception|Unsupported\w*)\b.*:", line)]
    return plain((errors or list(said) or ["it says nothing"])[-1])[:200]
