"""A state is written whole, and a disk that is full says nothing else."""

from __future__ import annotations

import errno
import gc
import sys
from pathlib import Path

import pytest
import torch

from prunus.core.tensors import save_state


class Full(type(Path())):
    """A place where nothing can be written."""

    def write_bytes(self, data):
        assert isinstance(data, bytes), (
            "a view of the buffer outlives it with the traceback, which Python 3.13 complains of"
        )
        raise OSError(errno.ENOSPC, "No space left on device", str(self))


def test_a_full_disk_is_an_error_of_the_system_and_nothing_is_said_beside_it(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises(OSError, match="No space left"):
        save_state({"a": torch.zeros(3)}, Full(tmp_path / "x"))
    gc.collect()
    assert not said
