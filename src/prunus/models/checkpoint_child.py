"""What happens in the process that reads a stranger's checkpoint: limits, then the file, then what came of it as one JSON text.

Only :mod:`prunus.models.foreign_checkpoint` starts it. What it is asked comes on standard input, so no name can be an option.
"""

from __future__ import annotations

import errno
import json
import pickle
import resource
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from prunus.core.code.imports import one_line
from prunus.core.errors import WeightsError, raise_if_out_of_memory
from prunus.core.files.expansion import check_expansion
from prunus.core.files.file_hash import sha256_file
from prunus.models.pickle_file import picked, read_parts
from prunus.models.safetensors_file import read_safetensors

__all__ = ["converted", "told"]

_TIMES = 4
"""Views of one storage may overlap, but not by the thousand."""


def _main() -> None:
    asked = json.load(sys.stdin)
    path, out = Path(asked["path"]), Path(asked["out"])
    _limit(asked)
    sys.stdout.write(json.dumps(told(path, out, asked["key"])))


def told(path: Path, out: Path, key: str | None) -> dict[str, Any]:
    """Return what :func:`converted` does, or why it couldn't, in plain values."""
    try:
        return converted(path, out, key)
    except WeightsError as error:
        return {"error": str(error)}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"no_space": error.errno}
        return {"error": f"{path}: it can't be imported: {one_line(error)[:200]}"}


def _limit(asked: Mapping[str, Any]) -> None:
    """Bound what this process may take from here on."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    memory = pages * resource.getpagesize() + asked["more_bytes"]
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + asked["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, asked["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def converted(path: Path, out: Path, key: str | None) -> dict[str, Any]:
    """Write the tensors of the checkpoint at ``path`` to ``out``, and return in plain values what came of it.

    Raises:
        WeightsError: it isn't a checkpoint that can be read without running its code.
        OSError: it can't be read, or ``out`` can't be written.
    """
    before = sha256_file(path)
    tensors, left = _read(path, key)
    if not tensors:
        raise WeightsError(f"{path}: it holds no tensors; left out: {', '.join(left[:8]) or 'nothing'}")
    declared = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    check_expansion(path, declared, path.stat().st_size, WeightsError, times=_TIMES)
    kept, notes = {}, []
    for name, tensor in tensors.items():
        if tensor.dtype == torch.complex128:
            left.append(f"{name} (complex128)")
            continue
        kept[name] = tensor.detach().contiguous().clone()
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            notes.append(f"{name} holds values that are NaN or infinite")
    about = {"source": path.name, "source_sha256": before, "format": "pt"}
    save_file(kept, out, metadata=about)
    if sha256_file(path) != before:
        raise WeightsError(f"{path}: it was changed while it was read; import it again")
    return {
        "source_sha256": before,
        "sha256": sha256_file(out),
        "size_bytes": out.stat().st_size,
        "tensors": {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in kept.items()},
        "left_out": left,
        "notes": notes,
    }


def _read(path: Path, key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    if path.suffix == ".safetensors":
        if key is not None:
            raise WeightsError(f"{path}: a .safetensors file holds tensors alone, and no key {key!r}")
        return read_safetensors(path), []
    if zipfile.is_zipfile(path):
        return read_parts(path, key=key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise_if_out_of_memory(error)
        raise WeightsError(
            f"{path}: this is no checkpoint that can be read without running its code ({one_line(error)[:160]}); load it where you "
            "trust it, and save it with torch.save(model.state_dict(), ...)"
        ) from error
    return picked(content, path, Tensor, key=key)


if __name__ == "__main__":
    _main()
