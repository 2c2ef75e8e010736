"""A checkpoint in shards, as transformers writes it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def checkpoint(tmp_path):
    """Three layers in two shards, with an embedding, a norm and a config."""

    def write(dtype=torch.bfloat16, rows=64):
        draw = torch.Generator().manual_seed(0)
        tensors = {"model.embed.weight": torch.randn(50, 16, generator=draw)}
        for i in range(3):
            tensors[f"model.layers.{i}.up.weight"] = torch.randn(rows, 16, generator=draw)
            tensors[f"model.layers.{i}.norm.weight"] = torch.ones(16)
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        names = list(tensors)
        parts = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for file, mine in parts.items():
            save_file({name: tensors[name] for name in mine}, folder / file, metadata={"format": "pt"})
        where = {name: file for file, mine in parts.items() for name in mine}
        index = {"metadata": {"total_size": 1, "made_by": "a test"}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "layer_types": ["a", "b", "c"]}))
        return folder, tensors

    return write
