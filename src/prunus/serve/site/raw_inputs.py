"""How do an image, rows of a table or lines of text become the tensors that a model takes, as for its training?

The bundle says how: its columns and their codes, its image size, its scalers (which are in the exported model). Lines of text
need a tokenizer, which no bundle holds: whoever starts the server names its file. It is the code that ``prunus predict`` runs.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from prunus.core.errors import DataError
from prunus.core.text import shown
from prunus.data.columns.fitted import Columns
from prunus.data.sources.image_folder import read_image
from prunus.data.sources.table_rows import read_rows
from prunus.serve.refusal import Refusal
from prunus.serve.running.served_model import ServedModel
from prunus.serve.site.text_tokens import Tokenizer
from prunus.serve.wire.json_body import parse_body
from prunus.serve.wire.tensor_data import Array

__all__ = ["raw_arrays"]

_WORDS = ("row", "rows", "image", "images", "text", "texts")


def raw_arrays(body: bytes, kind: str, model: ServedModel, tokenizer: Tokenizer | None, most: int) -> list[Array]:
    """Return the tensors that a request's raw inputs are, in the model's order.

    Args:
        kind: the content type: ``image/...`` is one image, ``text/csv`` a table with a header, ``text/plain`` lines of text, and
            all else JSON with one of ``row``, ``rows``, ``image``, ``images`` (in base64), ``text`` and ``texts``.
        most: so many examples at most.

    Raises:
        Refusal: they can't be what the model takes; it names the field.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return [_images([body], ["body"], model)]
    if kind == "text/csv":
        return [_rows(_few(_of_csv(body), "body", most), "rows", model)]
    if kind == "text/plain":
        return _texts(_few(_utf8(body).splitlines(), "body", most), "body", model, tokenizer)
    tree = parse_body(body)
    given = [word for word in tree if word in _WORDS]
    if len(given) != 1 or len(tree) - ("id" in tree) != 1:
        raise Refusal(400, f"body: expected one of {', '.join(_WORDS)}, got {shown(list(tree))}", field="body")
    word, value = given[0], tree[given[0]]
    many = word.endswith("s")
    items = _few(value if many else [value], word, most)
    fields = [f"{word}[{place}]" for place in range(len(items))] if many else [word]
    if word.startswith("row"):
        return [_rows(items, word, model)]
    for item, field in zip(items, fields, strict=True):
        if not isinstance(item, str):
            raise Refusal(400, f"{field}: expected a text, got {shown(item)}", field=field)
    if word.startswith("text"):
        return _texts(items, word, model, tokenizer)
    return [_images([_base64(item, field) for item, field in zip(items, fields, strict=True)], fields, model)]


def _few(items: Any, field: str, most: int) -> list[Any]:
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        got = len(items) if isinstance(items, list) else shown(items)
        raise Refusal(400, f"{field}: expected a list of 1 to {most}, got {got}", field=field)
    return items


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "body: expected text in UTF-8", field="body") from None


def _base64(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"{field}: expected an image's file in base64", field=field) from None


def _of_csv(body: bytes) -> list[dict[str, Any]]:
    try:
        found = list(csv.DictReader(io.StringIO(_utf8(body)), strict=True))
    except csv.Error as error:
        raise Refusal(400, f"body: expected CSV with a header, got {error}", field="body") from None
    for place, row in enumerate(found):
        if None in row:
            field = f"rows[{place}]"
            raise Refusal(400, f"{field}: it has more fields than the header", field=field)
    return found


def _rows(rows: Sequence[Any], word: str, model: ServedModel) -> Array:
    """Return the features of some rows, each a mapping from columns to values."""
    manifest = model.manifest
    if not manifest.feature_names:
        raise Refusal(400, f"{word}: the model was trained on no table, so it takes no rows", field=word)
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or not all(
            value is None or isinstance(value, (str, int, float)) for value in row.values()
        ):
            field = word if word == "row" else f"{word}[{place}]"
            raise Refusal(
                400, f"{field}: expected an object of columns and their values, got {shown(row)}", field=field
            )
    held = list(dict.fromkeys(name for row in rows for name in row))
    columns, order = manifest.columns, None
    if columns is None:
        columns, order = Columns.of_features(manifest.feature_names, held)
    wanted = [name for name in columns.names if name not in held]
    if wanted:
        raise Refusal(400, f"{word}: the model needs the column {wanted[0]!r}", field=f"{word}.{wanted[0]}"[:100])
    # As a CSV file has them: texts, which are read by the kind of their column.
    table = pa.table({name: pa.array([_cell(row.get(name)) for row in rows], pa.string()) for name in columns.names})
    try:
        found = read_rows(table, columns, Path(word), order=order)
    except DataError as error:
        raise Refusal(400, str(error), field=word) from None
    if found.bad:
        bad = found.bad[0]
        field = f"{word}{'' if word == 'row' else f'[{bad.row}]'}{'' if bad.column is None else f'.{bad.column}'}"
        raise Refusal(400, f"{field}: expected {bad.expected}, got {bad.got}", field=field)
    values: Array = found.values.numpy()
    return values.astype(model.spec.inputs[0].dtype)


def _cell(value: str | float | None) -> str | None:
    return (
        value
        if value is None or isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else repr(value)
    )


def _images(files: Sequence[bytes], fields: Sequence[str], model: ServedModel) -> Array:
    """Return the pixels of some images, converted and resized as for training."""
    takes = model.manifest.takes
    shape = takes[0].shape
    if len(takes) != 1 or len(shape) != 3 or shape[0] not in (1, 3):
        raise Refusal(400, f"{fields[0]}: the model takes no image alone", field=fields[0])
    found = []
    for content, field in zip(files, fields, strict=True):
        handle = os.memfd_create("image")  # a file that is on no disk: the decoder's checks are those of files
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(content)
            where = Path(f"/proc/self/fd/{handle}")
            found.append(read_image(where, (shape[1], shape[2]), "L" if shape[0] == 1 else "RGB"))
        except DataError as error:
            raise Refusal(400, str(error).replace(f"{where}", field), field=field) from None
        finally:
            os.close(handle)
    return torch.stack(found).numpy().astype(model.spec.inputs[0].dtype)


def _texts(texts: Sequence[str], word: str, model: ServedModel, tokenizer: Tokenizer | None) -> list[Array]:
    if tokenizer is None:
        raise Refusal(400, f"{word}: this server has no tokenizer: start it with --tokenizer FILE", field=word)
    found = tokenizer.arrays(texts, model.spec, word)
    return [np.ascontiguousarray(array, spec.dtype) for array, spec in zip(found, model.spec.inputs, strict=True)]
