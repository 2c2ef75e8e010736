"""Bytes that somebody crafted: JSON that never ends, archives, arrays and images that lie about their size."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

BAD_JSON = {
    "empty": b"",
    "cut off": b'{"format": 2, "a": [',
    "not UTF-8": b"\xff\xfe\x00{}",
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "nested ten million times": b"[" * 10_000_000,
    "objects nested two thousand times": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    "nested below the limit of the parser": b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}",
    "three million values": b'{"format": 2, "a": [' + b"[]," * 3_000_000 + b"[]]}",
    "an integer of 5,000 digits": b'{"format": ' + b"9" * 5_000 + b"}",
    "an integer of a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
    "a number beyond float64": b'{"format": 2, "a": 1e999}',
    "NaN": b'{"format": NaN}',
    "a key twice among 200,000": b"{" + b",".join(b'"%d":0' % n for n in range(200_000)) + b',"7":0}',
    "a text without end": b'{"' + b'\\"' * 1_000_000,
    "a lone surrogate": b'{"format": "\\ud800"}',
    "terminal escapes": b'{"format": "\\u001b[2J\\u202e", "\\u001b[31m": 1}',
}

NOT_FILES = {
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "missing": lambda path: None,
}


def png(width: int, height: int, rows: bytes = b"", mode: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def npy(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = b"", order: bool = False) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": order, "shape": shape})
    return header.getvalue() + content


def npy_header(text: str) -> bytes:
    whole = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(whole)) + whole


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


def pt(path: Path, program: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    archive(path, {"archive/data.pkl": program, "archive/data/0": bytes(16), "archive/version": b"3\n"}, compression)


def safetensors(path: Path, header: object, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def grown_yaml(opened: str, first: str, closed: str) -> str:
    lines = [
        f"a0: &a0 {first}",
        *(f"a{i}: &a{i} {opened}{', '.join([f'*a{i - 1}'] * 10)}{closed}" for i in range(1, 10)),
    ]
    return "\n".join(lines)


def lying_page(path: Path, *, becomes: int | None = None, n_values: int | None = None) -> None:
    """Let the first page of a Parquet file, of one column in one plain page, say something else of itself.

    It is as much shorter as its header is longer, so that whatever the footer says about places holds.
    """
    content = path.read_bytes()
    end = 4 + pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size
    assert content[4:7] == b"\x15\x00\x15", "a data page"
    assert content[12:14] == b"\x2c\x15", "sizes of two bytes each"
    size = content[7:9] if becomes is None else _zigzag(becomes)
    values = content[14:16] if n_values is None else _zigzag(n_values)
    longer = len(size) + len(values) - 4
    held = _zigzag(((content[10] & 127 | content[11] << 7) >> 1) - longer)
    head = content[:7] + size + b"\x15" + held + content[12:14] + values
    path.write_bytes(head + content[16 : end - longer] + content[end:])


def _zigzag(number: int) -> bytes:
    """Return a whole number as Thrift's compact protocol has it."""
    number, parts = 2 * number if number >= 0 else -2 * number - 1, []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
