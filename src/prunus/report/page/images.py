"""How does a small picture get into a page that loads nothing?"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.report.page.page_marks import escape, section

__all__ = ["png_data_uri", "with_pictures"]


def with_pictures(page: str, title: str, pictures: Sequence[tuple[str, str]]) -> str:
    """Return a report's page with one more section: pictures side by side, each as HTML (an image, a drawing) and its caption.

    The captions are escaped; the pictures are yours, and a page loads only ``data:`` images.
    """
    figures = "".join(
        f"<figure>{picture}<figcaption>{escape(said)}</figcaption></figure>" for picture, said in pictures
    )
    return page.replace("</main>", section(title, f'<div class="pictures">{figures}</div>') + "</main>")


def png_data_uri(pixels: Any, *, side: int = 64) -> str:
    """Return a PNG as a data URI: the values are stretched to black and white, the pixels enlarged to about ``side``.

    Shapes:
        ``pixels`` is ``(height, width)``, ``(1, height, width)`` or ``(3, height, width)``, any range.
    """
    values = np.asarray(pixels, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    low, high = float(values.min()), float(values.max())
    gray = (255 * (values - low) / (high - low if high > low else 1.0)).astype(np.uint8)
    zoom = max(1, side // max(gray.shape[1:]))
    grid = gray.repeat(zoom, axis=1).repeat(zoom, axis=2).transpose(1, 2, 0)
    return "data:image/png;base64," + base64.b64encode(_png(grid)).decode()


def _png(grid: np.ndarray) -> bytes:
    """Encode ``(height, width, 1 or 3)`` bytes as PNG (ISO/IEC 15948), without filters."""
    height, width, channels = grid.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grid)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
