"""What identifies an example by its content, and a data set as a whole?

An example's content is the bytes of its raw input, as float32 where that holds it exactly, else as float64 (-0.0 counts as 0.0,
as it does for a model). Both digests are taken a chunk at a time and don't depend on the chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from prunus.data.sources.source import CHUNK_ROWS, Source, chunks

__all__ = ["content_digests", "fingerprint"]


def content_digests(source: Source, *, chunk_rows: int = CHUNK_ROWS) -> tuple[bytes, ...]:
    """Return one SHA-256 per example, of its raw input; equal inputs have equal digests."""
    digests: list[bytes] = []
    for _, values in chunks(source, size=chunk_rows):
        wide = values.cpu().double() if values.dtype in (torch.float64, torch.int64) else values.float().cpu()
        single = (wide.float() + 0.0).numpy()
        if wide.dtype == torch.float32:
            digests += [hashlib.sha256(row.tobytes()).digest() for row in single]
            continue
        fits = (wide == wide.float()).flatten(start_dim=1).all(dim=1).tolist()
        pairs = zip(fits, single, (wide + 0.0).numpy(), strict=True)
        digests += [hashlib.sha256((narrow if fit else row).tobytes()).digest() for fit, narrow, row in pairs]
    return tuple(digests)


def fingerprint(source: Source, digests: Sequence[bytes]) -> str:
    """Return the SHA-256, in hexadecimal, over the ids, inputs, targets and names of a data set."""
    total = hashlib.sha256()
    header = (source.task, source.class_names, source.feature_names, tuple(source.input_shape))
    total.update(repr(header).encode())
    kind = torch.int64 if source.task == "classification" else torch.float32
    targets = source.targets.to(kind).cpu().numpy()
    for name, digest, target in zip(source.ids, digests, targets, strict=True):
        encoded = name.encode()
        total.update(len(encoded).to_bytes(8, "little") + encoded + digest + target.tobytes())
    return total.hexdigest()
