"""How do lines of text become the token ids that a model takes?

By a ``tokenizer.json``, the file of the package ``tokenizers``, which holds no code. Lines of one request are padded to the
longest, or to the length that the model takes; longer ones than it takes are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import RecipeError, raise_if_out_of_memory
from prunus.core.files.plain_files import open_plain
from prunus.serve.refusal import Refusal
from prunus.serve.wire.tensor_data import Array
from prunus.serve.wire.tensor_specs import ModelSpec, TensorSpec

__all__ = ["Tokenizer"]

_MOST_BYTES = 64 * 2**20
_MOST_LETTERS = 100_000
_IDS, _MASK, _KINDS = ("input_ids", "input", "ids", "tokens"), ("attention_mask", "mask"), ("token_type_ids",)


class Tokenizer:
    """A tokenizer that was read from a file.

    Raises:
        RecipeError: there is none, or it can't be read.
        MissingExtraError: the package isn't installed.
    """

    def __init__(self, file: Path) -> None:
        package = require("tokenizers", extra="text")
        try:
            with open_plain(file) as opened:
                content = opened.read(_MOST_BYTES + 1)
            self._made = package.Tokenizer.from_buffer(content)
        except OSError as error:
            raise RecipeError(f"the tokenizer {file} can't be read: {error.strerror}") from error
        except Exception as error:  # its errors have no class of their own
            raise_if_out_of_memory(error)
            raise RecipeError(f"the tokenizer {file} is no tokenizer.json: {one_line(error)[:200]}") from error
        padding = self._made.padding or {}
        self._pad_id, self._pad_kind = padding.get("pad_id", 0), padding.get("pad_type_id", 0)
        self._made.no_padding()

    def arrays(self, texts: Sequence[str], spec: ModelSpec, field: str) -> list[Array]:
        """Return the ids, and what else the model takes of them, in its order.

        Raises:
            Refusal: a line is too long, or the model takes something that no text is.
        """
        if any(len(text) > _MOST_LETTERS for text in texts):
            raise Refusal(400, f"{field}: expected lines of at most {_MOST_LETTERS} letters", field=field)
        first = spec.inputs[0]
        if any((one.dtype.kind not in "iu" and one.datatype != "BOOL") or len(one.sizes) != 1 for one in spec.inputs):
            raise Refusal(400, f"{field}: the model takes no token ids, so it takes no text", field=field)
        span = first.sizes[0]
        if span.most is not None:
            self._made.enable_truncation(span.most)
        encoded: list[Any] = self._made.encode_batch(list(texts))
        longest = max(len(one.ids) for one in encoded)
        length = max(longest, span.least)
        return [self._array(one, encoded, length, field) for one in spec.inputs]

    def _array(self, spec: TensorSpec, encoded: Sequence[Any], length: int, field: str) -> Array:
        if spec.name in _IDS:
            rows, fill = [one.ids for one in encoded], self._pad_id
        elif spec.name in _MASK:
            rows, fill = [one.attention_mask for one in encoded], 0
        elif spec.name in _KINDS:
            rows, fill = [one.type_ids for one in encoded], self._pad_kind
        else:
            raise Refusal(400, f"{field}: the model takes {spec.name!r} beside text: send tensors", field=field)
        found = np.full((len(rows), length), fill, np.int64)
        for place, row in enumerate(rows):
            found[place, : len(row)] = row
        return found
