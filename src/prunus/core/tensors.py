"""How are tensors written so that a full disk is an OSError like any other?"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["save_state", "save_tensors"]


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write contiguous tensors that share no memory to ``path`` as safetensors, with the mode that the umask gives.

    Raises:
        OSError: the file can't be written. (safetensors itself raises an error of its own, and makes private files.)
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode & 0o7777)


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a nested state of tensors and plain values to ``path`` in torch's format.

    Raises:
        OSError: the file can't be written. (torch itself raises a RuntimeError that doesn't say why.)
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    path.write_bytes(buffer.getvalue())
