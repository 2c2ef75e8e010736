"""Which checkpoints does somebody craft for `prunus import`, in the format before PyTorch 1.6, too?

What the command's own process does is done in the guarded one, which costs milliseconds and has its limits;
``benchmarks/import_bounds.py`` measures the whole command.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import hostile_weights  # noqa: F401 - its cases are taken over
from hostile_bytes import NOT_FILES
from hostile_loaders import CASES, LOADERS, Call, Prepare, instead, write
from prunus.core.errors import WeightsError, out_of_memory
from prunus.models import foreign_checkpoint
from prunus.models.checkpoint_child import told

FILE = "w.pt"
HARMLESS = ("weights that aren't numbers", "complex weights", "a sparse tensor")
"""They run nothing and claim nothing: an import says what they hold, or leaves it out."""


def imported(folder: Path) -> None:
    """Convert a folder's checkpoint.

    Raises:
        WeightsError: it is refused, or takes more memory than there may be.
    """
    foreign_checkpoint._in_child = _here  # this process is one case's own
    foreign_checkpoint.import_checkpoint(folder / FILE, folder / "out.safetensors")


def _here(path: Path, out: Path, size: int, key: str | None) -> dict[str, Any]:
    warnings.simplefilter("ignore")  # what the command's process warns of, nobody sees
    try:
        found = told(path, out, key)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error) is None:
            raise
        # Of a process that ends so, the command says the same.
        raise WeightsError("reading it takes more memory than it may") from error
    if "error" in found:
        raise WeightsError(found["error"])
    return found


def _legacy(*programs: bytes) -> Prepare:
    """Write a file of the old format: a magic number, a version, facts of the system, and then these pickles."""
    head = b"".join(
        pickle.dumps(one, protocol=2)
        for one in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    )
    return write(FILE, head + b"".join(programs))


def _old(content: Any) -> Prepare:
    return lambda folder: torch.save(content(), folder / FILE, _use_new_zipfile_serialization=False)


def _storage(n: int) -> bytes:
    """Return the pickle of a tensor of ``n`` numbers, whose storage comes later in the file."""
    saved = io.BytesIO()
    torch.save({"w": torch.zeros(7)}, saved, _use_new_zipfile_serialization=False)
    file = io.BytesIO(saved.getvalue())
    for _ in range(3):
        pickle.load(file)
    program = file.read().split(b"\x80\x02]")[0]
    seven = b"K\x07"
    assert program.count(seven) >= 2, "the size of the storage and that of the tensor"
    return program.replace(seven, b"\x8a\x08" + n.to_bytes(8, "little"))


LOADERS["import"] = imported
CASES["import"] = {name: prepare for name, prepare in CASES[".pt"].items() if name not in HARMLESS}
CASES["import"] |= {f"path: {name}": instead(FILE, make) for name, make in NOT_FILES.items()}
CASES["import"] |= {
    "old: a call of exec": _old(lambda: {"w": Call(exec, "open('ran', 'w')")}),
    "old: a module that nobody named": _old(lambda: {"w": Call(sys.modules["os"].system, "touch ran")}),
    "old: a bytearray of 64 GB": _old(lambda: {"w": Call(bytearray, 64 << 30)}),
    "old: a whole model": _old(lambda: torch.nn.Linear(4, 4)),
    "old: a storage of an exabyte": _legacy(_storage(2**58), b"\x80\x02]X\x01\x00\x00\x000a."),
    "old: a storage of 8 GB": _legacy(_storage(2**31), b"\x80\x02]X\x01\x00\x00\x000a."),
    "old: a magic number alone": write(FILE, pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)),
    "old: another magic number": write(FILE, pickle.dumps(7, protocol=2) * 3),
    "old: two million lists": _legacy(b"\x80\x02" + b"]" * 2_000_000 + b"."),
    "old: a place in the memo of two billion": _legacy(b"\x80\x02}r\xff\xff\xff\x7f."),
    "old: bytes that aren't there": _legacy(b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"."),
    "old: a text of 4 GB that isn't there": _legacy(b"\x80\x02X\xff\xff\xff\xff."),
    "old: a class by instruction": _legacy(b"(S'touch ran'\niposix\nsystem\n."),
    "old: a global by two texts": _legacy(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch ran\x85R."),
    "old: nothing on the stack": _legacy(b"\x80\x02."),
    "a tar": write(FILE, b"storages\0" + bytes(503) + bytes(1024)),
}
