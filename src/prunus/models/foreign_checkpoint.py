"""How does a checkpoint from elsewhere become a file that is safe to keep, without letting it harm this process?

It is read in a process of its own, with limits on memory, processor time and what it may write:
:mod:`prunus.models.checkpoint_child`. There a ``.pt`` is followed as data and never unpickled, and the format before PyTorch 1.6
is read by ``torch.load(weights_only=True)``. What comes back are safetensors, and a record of where they came from: the name and
SHA-256 of the source, what each tensor is, and what was left out. The same stands in the metadata of the file, as far as it fits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError, WeightsError, out_of_memory
from prunus.core.files.plain_files import NotPlainError, atomic_path, explain_os_error, open_plain, write_json
from prunus.core.text import plain, shown

__all__ = ["ENDINGS", "Imported", "import_checkpoint"]

ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_MORE_BYTES = 512 * 2**20
"""What the child may take beside what it starts with and a few times the file."""
_TIMES = 4
_SECONDS = 20
_BYTES_A_SECOND = 20 * 2**20
_WAITS = 30
"""So many times the processor time may pass on the wall: other work, and slow disks."""
_SHOWN = 8


@dataclass(frozen=True)
class Imported:
    """What an import wrote, and what it left: ``tensors`` holds the type and shape of each."""

    source: str
    source_sha256: str
    path: Path
    sha256: str
    size_bytes: int
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "source": self.source,
            "source_sha256": self.source_sha256,
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "tensors": {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.tensors.items()},
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        numbers = sum(_product(shape) for _, shape in self.tensors.values())
        kinds = ", ".join(sorted({dtype for dtype, _ in self.tensors.values()}))
        left = ", ".join(self.left_out[:_SHOWN]) + (", ..." if len(self.left_out) > _SHOWN else "")
        said = f"; left out: {left}" if left else "; nothing was left out"
        return plain(
            f"{self.path}: {len(self.tensors)} tensors ({kinds}), {numbers} numbers, {self.size_bytes} bytes{said}; "
            f"from {self.source}, SHA-256 {self.source_sha256[:16]}…"
        )


def import_checkpoint(path: Path, out: Path, *, key: str | None = None) -> Imported:
    """Convert the checkpoint at ``path`` into safetensors at ``out``, and write ``OUT.import.json`` beside it.

    Args:
        key: under which of the checkpoint's keys the tensors lie; default: where they are usually (``state_dict``, ``model`` ...).

    Raises:
        WeightsError: it isn't a checkpoint, is damaged, would run code, claims more than it holds, or takes too much.
        OutputError: ``out`` can't be written.
    """
    path, out = Path(path), Path(out)
    if path.suffix not in ENDINGS:
        raise WeightsError(
            f"{path}: expected a checkpoint that ends in {', '.join(ENDINGS)}, got {path.suffix or 'no ending'!r}"
        )
    if out.suffix != ".safetensors":
        raise OutputError(f"{out}: what is imported is a .safetensors file: got {out.suffix or 'no ending'!r}")
    try:
        with open_plain(Path(os.path.realpath(path))) as file:
            size = os.fstat(file.fileno()).st_size
    except NotPlainError as error:
        raise WeightsError(f"{path}: expected a file, got a folder, a pipe or a device") from error
    except OSError as error:
        raise WeightsError(f"{path}: it can't be read ({error.strerror}); give the checkpoint's file") from error
    with atomic_path(out) as temporary:
        told = _in_child(path, temporary, size, key)
        imported = Imported(
            path.name,
            told["source_sha256"],
            out,
            told["sha256"],
            told["size_bytes"],
            {name: (dtype, tuple(shape)) for name, (dtype, shape) in told["tensors"].items()},
            tuple(told["left_out"]),
            tuple(told["notes"]),
        )
        write_json(out.with_name(out.name + ".import.json"), imported.to_dict())
    return imported


def _in_child(path: Path, out: Path, size: int, key: str | None) -> dict[str, Any]:
    """Return what the child says of its work.

    Raises:
        WeightsError: it refuses the file, or ends at a limit.
    """
    limits = {
        "more_bytes": _MORE_BYTES + _TIMES * size,
        "cpu_seconds": _SECONDS + size // _BYTES_A_SECOND,
        "file_bytes": 2 * size + _MORE_BYTES,
    }
    wall_seconds = _WAITS * limits["cpu_seconds"]
    asked = {"path": str(path), "out": str(out), "key": key, **limits}
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "prunus.models.checkpoint_child"],
                input=json.dumps(asked).encode(),
                stdout=subprocess.PIPE,
                stderr=said,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                timeout=wall_seconds,
            )
        except subprocess.TimeoutExpired:
            raise WeightsError(
                f"{path}: refused, reading it takes more than {wall_seconds} seconds; is the disk that it lies on there?"
            ) from None
        said.seek(0)
        noise = said.read(4000).decode("utf-8", "replace").strip().splitlines()
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise WeightsError(f"{path}: refused, {_ended(done.returncode, limits, noise)}") from None
    if "no_space" in told:
        raise explain_os_error(OSError(told["no_space"], os.strerror(told["no_space"])), out)
    if "error" in told:
        raise WeightsError(str(told["error"]))
    return dict(told)


def _ended(code: int, limits: dict[str, int], noise: list[str]) -> str:
    """Return in words why a child ended that told nothing."""
    name = signal.Signals(-code).name if code < 0 else ""
    words = {
        "SIGXCPU": f"reading it takes more than {limits['cpu_seconds']} seconds of processor time",
        "SIGKILL": f"reading it takes more than {limits['cpu_seconds']} seconds of processor time, or more memory than there is",
        "SIGXFSZ": f"what it holds is more than {limits['file_bytes']} bytes",
    }
    if any(out_of_memory(RuntimeError(line)) is not None or line.startswith("MemoryError") for line in noise[-3:]):
        return f"reading it takes more than {limits['more_bytes'] >> 20} MB of memory; the file is damaged or hostile"
    last = f": {shown(noise[-1], 200)}" if noise else ""
    return f"{words.get(name, f'the process that reads it ended with {name or code}{last}')}; the file is damaged or hostile"


def _product(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n
