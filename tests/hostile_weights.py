"""Which files of weights and shards does somebody craft?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from hostile_bytes import archive, pt, safetensors
from hostile_loaders import CASES, Call, Prepare, write

KEY = b"(" * 400_000 + b"t" * 400_000
BASE = torch.zeros(2**18)


def _saved(content: Any, **options: Any) -> Prepare:
    return lambda folder: torch.save(content(), folder / "w.pt", **options)


def _pickled(program: bytes, compression: int = zipfile.ZIP_STORED) -> Prepare:
    return lambda folder: pt(folder / "w.pt", program, compression)


CASES[".pt"] |= {
    "a stride of nought": _saved(lambda: {"weight": torch.zeros(1).expand(2**34), "bias": torch.zeros(4)}),
    "overlapping rows": _saved(lambda: {"weight": BASE.as_strided((2**17, 2**17), (1, 1))}),
    "twenty thousand views of one storage": _saved(lambda: {f"w{i}": BASE[i:] for i in range(20_000)}),
    "a bytearray of 64 GB": _saved(lambda: {"weight": Call(bytearray, 64 << 30)}),
    "a call of a command": _saved(lambda: {"weight": Call(__import__("os").system, "touch ran")}),
    "a call of a command, old format": _saved(
        lambda: {"weight": Call(__import__("os").system, "touch ran")}, _use_new_zipfile_serialization=False
    ),
    "a call of exec": _saved(lambda: {"weight": Call(exec, "open('/tmp/ran', 'w')")}),
    "a whole model": _saved(lambda: nn.Linear(4, 4)),
    "a sparse tensor": _saved(lambda: {"weight": torch.eye(4).to_sparse()}),
    "a tensor without data": _saved(lambda: {"weight": torch.empty(2**40, device="meta")}),
    "a list": _saved(lambda: [torch.zeros(1)]),
    "weights that aren't numbers": _saved(lambda: {"weight": torch.full((4, 4), float("nan")), "bias": torch.zeros(4)}),
    "complex weights": _saved(lambda: {"weight": torch.zeros(4, 4, dtype=torch.complex64), "bias": torch.zeros(4)}),
    "a key nested 400,000 times": _pickled(b"\x80\x02}" + KEY + b"K\x01s."),
    "a key of 2 to the 60 parts": _pickled(b"\x80\x02})q\x00" + b"h\x00\x86q\x00" * 60 + b"K\x01s."),
    "two million instructions": _pickled(b"\x80\x02" + b"]" * 2_000_000 + b"."),
    "fifty million instructions, compressed": _pickled(b"\x80\x02" + b"]" * 50_000_000, zipfile.ZIP_DEFLATED),
    "a place in the memo of two billion": _pickled(b"\x80\x02}r\xff\xff\xff\x7f."),
    "bytes that aren't there": _pickled(b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"."),
    "a number of 200,000 digits": _pickled(b"\x80\x02}X\x01\x00\x00\x00aI" + b"9" * 200_000 + b"\ns."),
    "50,000 keys that collide": _pickled(
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + ((2**61 - 1) * n).to_bytes(11, "little") + b"N" for n in range(50_000))
        + b"u."
    ),
    "a class by instruction": _pickled(b"(S'touch ran'\niposix\nsystem\n."),
    "a global by two texts": _pickled(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch ran\x85R."),
    "a storage of another form": _pickled(b"\x80\x02}X\x01\x00\x00\x00a(X\x07\x00\x00\x00storageK\x01tQs."),
    "no end": _pickled(b"\x80\x02}"),
    "nothing on the stack": _pickled(b"\x80\x02."),
    "not an archive": write("w.pt", bytes(1000)),
    "an archive of something else": lambda folder: archive(folder / "w.pt", {"readme": b"hello"}),
    "empty": write("w.pt", b""),
    "cut off": lambda folder: (folder / "w.pt").write_bytes((folder / "w.pt").read_bytes()[:700]),
}

ENTRY = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


def _header(header: object, data: bytes = bytes(80)) -> Prepare:
    return lambda folder: safetensors(folder / "w.safetensors", header, data)


CASES["safetensors"] |= {
    "empty": write("w.safetensors", b""),
    "a header of an exabyte": write("w.safetensors", b"\xff" * 8 + b"{}"),
    "a header longer than the file": write("w.safetensors", (10**6).to_bytes(8, "little") + b"{}"),
    "a negative start": _header({"weight": {**ENTRY, "data_offsets": [-64, 0]}}),
    "an end beyond the file": _header({"weight": {**ENTRY, "data_offsets": [0, 2**40]}}),
    "a shape of an exabyte": _header({"weight": {**ENTRY, "shape": [2**31, 2**31]}}),
    "a shape that overflows": _header({"weight": {**ENTRY, "shape": [2**63, 2**63]}}),
    "a negative shape": _header({"weight": {**ENTRY, "shape": [-4, -4]}}),
    "overlapping tensors": _header({"weight": ENTRY, "bias": {**ENTRY, "shape": [4], "data_offsets": [0, 16]}}),
    "a gap": _header({"weight": ENTRY, "bias": {**ENTRY, "shape": [4], "data_offsets": [72, 88]}}),
    "an unknown type": _header({"weight": {**ENTRY, "dtype": "PICKLE"}}),
    "a name twice": _header(
        b'{"weight":' + json.dumps(ENTRY).encode() + b',"weight":' + json.dumps(ENTRY).encode() + b"}"
    ),
    "metadata that is a list": _header({"__metadata__": [1], "weight": ENTRY}),
    "a pickle": lambda folder: torch.save({"weight": torch.zeros(4)}, folder / "w.safetensors"),
    "weights that aren't numbers": lambda folder: save_file(
        {"weight": torch.full((4, 4), float("nan")), "bias": torch.zeros(4)}, folder / "w.safetensors"
    ),
    "a name with terminal escapes": _header({"\x1b[2J\u202e": ENTRY}, bytes(64)),
}


def _shard(header: object, data: bytes = bytes(256)) -> Prepare:
    return lambda folder: safetensors(folder / "shards/m-0.safetensors", header, data)


def _index(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "shards/model.safetensors.index.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return prepare


SHARD = {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]}
CASES["shard index"] |= {
    "a shard outside": _index(lambda tree: tree["weight_map"].update({"h.0.w": "../m-0.safetensors"})),
    "a shard by its full path": _index(lambda tree: tree["weight_map"].update({"h.0.w": "/etc/passwd"})),
    "a shard that isn't there": _index(lambda tree: tree["weight_map"].update({"h.0.w": "m-7.safetensors"})),
    "a tensor that isn't there": _index(lambda tree: tree["weight_map"].update({"h.7.w": "m-0.safetensors"})),
    "a tensor that it doesn't know": _shard(
        {"h.0.w": SHARD, "h.9.w": {**SHARD, "data_offsets": [256, 512]}}, bytes(512)
    ),
    "a shard that is the index": _index(
        lambda tree: tree["weight_map"].update({"h.0.w": "model.safetensors.index.json"})
    ),
    "no map": _index(lambda tree: tree.pop("weight_map")),
    "a shard of negative start": _shard({"h.0.w": {**SHARD, "data_offsets": [-256, 0]}}),
    "a shard of overlapping tensors": _shard({"h.0.w": SHARD, "h.3.w": SHARD}),
    "a shard that is too short": _shard({"h.0.w": SHARD}, bytes(8)),
    "a shard with more than it says": _shard({"h.0.w": SHARD}, bytes(400)),
    "a shard of a petabyte": _shard({"h.0.w": {**SHARD, "shape": [2**25, 2**25]}}),
    "a shard of a name twice": _shard(
        b'{"h.0.w":' + json.dumps(SHARD).encode() + b',"h.0.w":' + json.dumps(SHARD).encode() + b"}"
    ),
    "a shard of 5,000 digits": _shard(
        b'{"h.0.w":' + json.dumps({**SHARD, "shape": [7]}).replace("7", "7" * 5000).encode() + b"}"
    ),
    "weights that aren't numbers": _shard({"h.0.w": SHARD}, np.full(64, np.nan, np.float32).tobytes()),
}
