"""What identifies an example by its content, and a data set as a whole?

An example's content is the bytes of its raw input, as float32 where that holds it exactly, else as float64 (-0.0 counts as 0.0,
as it does for a model). Both digests are taken a chunk at a time and don't depend on the chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from prunus.core.types import Digests
from prunus.data.large.scratch import scratch_array
from prunus.data.large.sorted_buckets import digest_of_rows
from prunus.data.sources.source import CHUNK_ROWS, Source, chunks

__all__ = ["content_digests", "digest_chunks", "digest_table", "fingerprint"]


def content_digests(source: Source, *, chunk_rows: int = CHUNK_ROWS) -> tuple[bytes, ...]:
    """Return one SHA-256 per example, of its raw input; equal inputs have equal digests."""
    return tuple(row.tobytes() for row in digest_table(source, chunk_rows=chunk_rows))


def digest_table(source: Source, *, chunk_rows: int = CHUNK_ROWS) -> Digests:
    """Return one SHA-256 per example, of its raw input, ``(n, 32)``; those that are held beside the data are taken from there."""
    held: Digests | None = getattr(source, "digests", None)
    if held is not None:
        return held
    found = scratch_array((len(source.ids), 32), np.uint8)
    place = 0
    for part in digest_chunks(source, chunk_rows=chunk_rows):
        found[place : place + len(part)] = part
        place += len(part)
    return found


def digest_chunks(source: Source, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[Digests]:
    """Yield the digests of the rows, some at a time."""
    for _, values in chunks(source, size=chunk_rows):
        wide = values.cpu().double() if values.dtype in (torch.float64, torch.int64) else values.float().cpu()
        single = (wide.float() + 0.0).numpy()
        if wide.dtype == torch.float32:
            yield digest_of_rows(single)
            continue
        fits = (wide == wide.float()).flatten(start_dim=1).all(dim=1).tolist()
        pairs = zip(fits, single, (wide + 0.0).numpy(), strict=True)
        digests = [hashlib.sha256((narrow if fit else row).tobytes()).digest() for fit, narrow, row in pairs]
        yield np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def fingerprint(source: Source, digests: Digests | Sequence[bytes]) -> str:
    """Return the SHA-256, in hexadecimal, over the ids, inputs, targets and names of a data set."""
    if known := getattr(source, "known_fingerprint", ""):
        return str(known)
    total = hashlib.sha256()
    header = (source.task, source.class_names, source.feature_names, tuple(source.input_shape))
    total.update(repr(header).encode())
    kind = torch.int64 if source.task == "classification" else torch.float32
    for first in range(0, len(source.ids), CHUNK_ROWS):
        behind = min(first + CHUNK_ROWS, len(source.ids))
        targets = source.targets[first:behind].to(kind).cpu().numpy()
        pairs = zip(source.ids[first:behind], digests[first:behind], targets, strict=True)
        for name, digest, target in pairs:
            encoded = name.encode()
            total.update(b"".join((len(encoded).to_bytes(8, "little"), encoded, bytes(digest), target.tobytes())))
    return total.hexdigest()
