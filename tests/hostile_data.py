"""Which data files does somebody craft?"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hostile_bytes import archive, lying_page, npy, npy_header, png
from hostile_loaders import CASES, Call, Prepare, write

LABELS = npy((4,), "<i8", np.array([0, 1, 0, 1]).tobytes())


def _npz(x: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Prepare:
    return lambda folder: archive(folder / "a.npz", {"x.npy": x, "y.npy": LABELS, **more}, compression)


CASES["npz"] |= {
    "a hundred million rows of one byte": _npz(npy((10**8, 1), "|u1", bytes(10**8)), zipfile.ZIP_DEFLATED),
    "zeros that inflate a thousand times": _npz(npy((20_000, 1000), "<f8", bytes(160_000_000)), zipfile.ZIP_DEFLATED),
    "a shape of eight terabytes": _npz(npy((2**40,), "<f8", bytes(64))),
    "a shape that overflows": _npz(npy((2**62, 2**62), "<f8", bytes(64))),
    "a negative shape": _npz(npy((-1, 4), "<f8", bytes(64))),
    "texts of two gigabytes": _npz(npy((4,), "<U500000000", bytes(64))),
    "elements of two gigabytes": _npz(npy((1,), "|V2000000000", bytes(64))),
    "Python objects": lambda folder: np.savez(
        folder / "a.npz", x=np.array([Call(__import__("os").system, "touch ran")]), y=np.ones(1)
    ),
    "a header that is code": _npz(
        npy_header("{'descr': __import__('os').system('touch ran'), 'fortran_order': False, 'shape': (4,)}\n")
    ),
    "a header nested a thousand times": _npz(npy_header("(" * 1000 + ")" * 1000 + "\n")),
    "a header without a shape": _npz(npy_header("{'descr': '<f8'}\n")),
    "an unknown version": _npz(b"\x93NUMPY\x09\x09" + bytes(100)),
    "a member that is no array": _npz(b"hello"),
    "not numbers": _npz(npy((4, 2), "<f8", np.full(8, np.nan).tobytes())),
    "infinite values": _npz(npy((4, 2), "<f8", np.full(8, np.inf).tobytes())),
    "no inputs": lambda folder: archive(folder / "a.npz", {"y.npy": LABELS}),
    "more inputs than targets": _npz(npy((5, 2), "<f8", bytes(80))),
    "a name twice": lambda folder: _twice(folder / "a.npz"),
    "one array alone": write("a.npz", npy((4, 2), "<f8", bytes(64))),
    "cut off": lambda folder: (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:-30]),
    "empty": write("a.npz", b""),
}


def _twice(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as file:
        for content in (npy((4, 2), "<f8", bytes(64)), npy((4, 1), "<f8", bytes(32))):
            information = zipfile.ZipInfo("x.npy")
            file.writestr(information, content)
        file.writestr("y.npy", LABELS)


def _csv(text: str | bytes) -> Prepare:
    return write("a.csv", text.encode() if isinstance(text, str) else text)


CASES["CSV"] |= {
    "one field of 20 MB": _csv("a,label\n" + "x" * 20_000_000 + ",1\n" + "y,0\n" * 1000),
    "one label of a megabyte": _csv("a,label\n1," + "x" * 1_000_000 + "\n" + "1,y\n" * 100_000),
    "integers of 5,000 digits": _csv("a,label\n" + ("9" * 5_000 + ",1\n") * 100 + "1,0\n"),
    "fifty thousand columns of one name": _csv(",".join(["c"] * 50_000) + "\n" + ",".join(["1"] * 50_000) + "\n"),
    "a column twice": _csv("a,a,label\n1,2,0\n3,4,1\n"),
    "a column without a name": _csv(",label\n1,0\n2,1\n"),
    "a quote that never ends": _csv('a,label\n"1,0\n' + "2,1\n" * 1000),
    "rows of unequal length": _csv("a,label\n1,0\n1,2,3\n"),
    "a word among numbers": _csv("a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(9)) + "x,1\n"),
    "infinite values": _csv("a,label\ninf,0\n1,1\n"),
    "empty cells alone": _csv("a,label\n,0\n,1\n"),
    "not UTF-8": _csv(b"a,label\n\xff,0\n\xfe,1\n"),
    "zero bytes": _csv(bytes(1000)),
    "empty": _csv(""),
    "a header alone": _csv("a,label\n"),
    "a thousand categories": _csv("a,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(1000))),
    "no target": _csv("a,b\n1,2\n"),
    "terminal escapes in a name": _csv("\x1b[2J,\x1b[2J,label\n1,2,0\n"),
}


def _parquet(table: Callable[[], pa.Table], **options: Any) -> Prepare:
    return lambda folder: pq.write_table(table(), folder / "a.parquet", **options)


def _equal_rows(n_rows: int) -> pa.Table:
    return pa.table({"a": np.zeros(n_rows, np.int64), "label": np.zeros(n_rows, np.int8)})


def _one_text(n_letters: int, n_rows: int) -> pa.Table:
    column = pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), pa.array(["x" * n_letters]))
    return pa.table({"a": column, "label": np.arange(n_rows) % 2})


def _lying(**words: int) -> Prepare:
    def prepare(folder: Path) -> None:
        table = pa.table({"a": np.arange(1000.0), "label": np.arange(1000) % 2})
        pq.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False)
        lying_page(folder / "a.parquet", **words)

    return prepare


def _empty_texts(n_texts: int) -> pa.Table:
    return pa.table({"a": [""] * n_texts, "label": np.zeros(n_texts, np.int8)})


CASES["Parquet"] |= {
    "a page that says it becomes two gigabytes": _lying(becomes=2**31 - 1),
    "a page that says it becomes two hundred megabytes": _lying(becomes=2 * 10**8),
    "a page of two billion values": _lying(n_values=2**31 - 1),
    "a page of less than nothing": _lying(becomes=-5),
    "six million equal rows": _parquet(lambda: _equal_rows(6_000_000)),
    "sixty columns of a million flags": _parquet(
        lambda: pa.table({**{f"a{i}": np.arange(10**6) % 2 == 0 for i in range(60)}, "label": np.arange(10**6) % 2})
    ),
    "six million texts of no letters": _parquet(lambda: _empty_texts(6_000_000)),
    "texts in lists, by what they share": _parquet(
        lambda: pa.table({"a": [["x" * 10_000] * 1000], "label": [1]}),
        use_dictionary=False,
        column_encoding={"a.list.element": "DELTA_BYTE_ARRAY", "label": "PLAIN"},
    ),
    "twenty million equal rows": _parquet(lambda: _equal_rows(20_000_000)),
    "one text of 100 kB in a million rows": _parquet(lambda: _one_text(100_000, 1_000_000), store_schema=False),
    "one text of 100 kB in a million rows, as a dictionary": _parquet(lambda: _one_text(100_000, 1_000_000)),
    "one label of 100 kB": _parquet(lambda: pa.table({"a": np.arange(1000.0), "label": ["x" * 100_000, "y"] * 500})),
    "nested lists": _parquet(lambda: pa.table({"a": [[[1.0]], [[2.0]]], "label": [0, 1]})),
    "a column twice": _parquet(
        lambda: pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([0])], names=["a", "a", "label"])
    ),
    "no rows": _parquet(lambda: pa.table({"a": pa.array([], pa.float64()), "label": pa.array([], pa.int8())})),
    "empty cells alone": _parquet(lambda: pa.table({"a": pa.array([None, None], pa.float64()), "label": [0, 1]})),
    "numbers beyond float32": _parquet(lambda: pa.table({"a": [1e300, 1.0], "label": [0, 1]})),
    "moments beyond all years": _parquet(
        lambda: pa.table({"a": pa.array([1, 2**62], pa.timestamp("us")), "label": [0, 1]})
    ),
    "durations": _parquet(lambda: pa.table({"a": pa.array([1, 2], pa.duration("s")), "label": [0, 1]})),
    "a footer of zeros": write("a.parquet", b"PAR1" + bytes(100) + b"PAR1"),
    "a footer longer than the file": write("a.parquet", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "cut off": lambda folder: (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20]),
    "a flipped page": lambda folder: _flip_page(folder / "a.parquet"),
    "empty": write("a.parquet", b""),
}


def _flip_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4, 40):
        content[place] ^= 0x55
    path.write_bytes(content)


def _image(content: bytes, name: str = "0.png") -> Prepare:
    return lambda folder: [(folder / "images" / kind / name).write_bytes(content) for kind in ("a", "b")]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n(touch ran) (w) file\n%%EOF\n"
CASES["images"] |= {
    "36 million pixels in a hundred bytes": _image(png(6_000, 6_000)),
    "144 million pixels in a hundred bytes": _image(png(12_000, 12_000)),
    "four billion pixels in a hundred bytes": _image(png(65_000, 65_000)),
    "40 million pixels of zeros": _image(png(6_400, 6_400, bytes(6_400 * (3 * 6_400 + 1)))),
    "no pixels": _image(png(2, 2)),
    "no width": _image(png(0, 2)),
    "PostScript named png": _image(EPS),
    "a text named png": _image(b"hello"),
    "empty": _image(b""),
    "cut off": _image(png(2, 2, bytes(14))[:-30]),
    "another size": _image(png(3, 2, bytes(20))),
    "sixteen bits": _image(png(2, 2, bytes(14)).replace(b"\x08\x02", b"\x10\x00")),
    "a BMP of four billion pixels": _image(
        b"BM" + bytes(12) + b"(\0\0\0" + b"\xff\xff\0\0" * 2 + b"\x01\0\x18\0" + bytes(24), "0.bmp"
    ),
    "a GIF of four billion pixels": _image(
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x00;", "0.gif"
    ),
    "a PPM of nine billion pixels": _image(b"P6 99999 99999 255\n" + bytes(10), "0.ppm"),
    "a name with terminal escapes": lambda folder: (folder / "images/a" / "\x1b[2J.png").write_bytes(b"no"),
}
