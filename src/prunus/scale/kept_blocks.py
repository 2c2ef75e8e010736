"""Where does a run that prunes block by block keep what it finished, and does a folder belong to this run?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from prunus.core.errors import OutputError
from prunus.core.files.plain_files import atomic_path, write_json
from prunus.core.files.sealed import DamagedError, seal, unseal
from prunus.core.tensors import save_tensors
from prunus.scale.layers import LayerReport, Layers

__all__ = ["check_folder", "keep", "restore"]


def keep(path: Path, layers: Layers, reports: Sequence[LayerReport]) -> None:
    """Write a finished block."""
    tensors = {name: layer.get_parameter("weight").detach().contiguous() for name, layer in layers.items()}
    facts = torch.tensor([[report.kept, report.total, report.error] for report in reports], dtype=torch.float64)
    with atomic_path(path) as temporary:
        save_tensors({**tensors, "reports": facts}, temporary)
        seal(temporary)


def restore(path: Path, layers: Layers) -> list[LayerReport] | None:
    """Read a finished block back into the model; None where there is none, or a damaged one, which is pruned again."""
    try:
        content = unseal(path)
    except DamagedError:
        return None
    if content is None:
        return None
    tensors = load(content)
    facts = tensors.pop("reports").tolist()
    for name, layer in layers.items():
        layer.get_parameter("weight").copy_(tensors[name])
    return [LayerReport(name, int(row[0]), int(row[1]), row[2]) for name, row in zip(layers, facts, strict=True)]


def check_folder(folder: Path, layers: Sequence[Layers], batches: Sequence[Any], settings: Mapping[str, Any]) -> None:
    """Refuse a folder of another run; what ties them is the settings, the first batch and the layers' dense weights.

    Raises:
        OutputError: they differ.
    """
    digest = hashlib.sha256()
    first = batches[0]
    parts = first.values() if isinstance(first, Mapping) else first if isinstance(first, (tuple, list)) else (first,)
    for tensor in parts:
        if isinstance(tensor, Tensor):
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    shapes = {name: list(layer.get_parameter("weight").shape) for block in layers for name, layer in block.items()}
    state = json.loads(json.dumps({**settings, "batches": len(batches), "first": digest.hexdigest(), "layers": shapes}))
    path = folder / "settings.json"
    if path.exists():
        if json.loads(path.read_text()) != state:
            raise OutputError(
                f"{folder} holds the blocks of a run with other settings, batches or layers: choose another folder"
            )
    else:
        write_json(path, state)
