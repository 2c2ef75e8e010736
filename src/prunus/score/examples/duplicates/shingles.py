"""Of which pieces (shingles) does a text consist, or a sequence of integers, so that likeness is what two of them share?

A text is read without case, accents' encodings and punctuation, as words; a piece is so many characters of one word and its
borders. So the order of words doesn't matter, an edit costs the pieces that it touches, and no tokenizer is needed. A sequence's
pieces are so many integers in a row. Pieces are 64-bit hashes: two different ones are taken for one with a chance of 2^-64 a pair.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.errors import DataError
from prunus.core.types import Ints

__all__ = ["SequenceShingles", "Shingles", "TextShingles", "Words", "blocks", "scrambled"]

Words = npt.NDArray[np.uint64]

_BLOCK = 1 << 20
"""About so many characters or integers are taken apart at once: it bounds the memory."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Shingles:
    """The pieces of some rows, one row's after another's; a piece that a row has twice may stand there twice.

    Shapes:
        ``pieces`` is ``(all,)``, ``starts`` ``(rows + 1,)``: row ``i`` has ``pieces[starts[i]:starts[i + 1]]``.
    """

    pieces: Words
    starts: Ints


class TextShingles:
    """The pieces of texts: ``width`` characters in a row of a word with its borders; a shorter word is one piece.

    A text without any letter, digit or mark is one piece, itself.
    """

    def __init__(self, texts: Any, width: int) -> None:
        self.width = width
        self._of = _reader(texts)
        self._n = len(texts)

    def __len__(self) -> int:
        return self._n

    def given(self) -> Iterator[str]:
        """Yield every text as it was given.

        Raises:
            DataError: a row is no text.
        """
        _ = self.sizes  # refuses what is no text
        for start in range(0, self._n, 65536):
            yield from self._of(np.arange(start, min(start + 65536, self._n)))

    @cached_property
    def sizes(self) -> Ints:
        """About how many pieces each row has, ``(n,)``.

        Raises:
            DataError: a row is no text.
        """
        sizes = np.empty(self._n, np.int64)
        for start in range(0, self._n, 65536):
            block = self._of(np.arange(start, min(start + 65536, self._n)))
            sizes[start : start + len(block)] = _lengths(block, start)
        return sizes

    def __call__(self, rows: Ints) -> Shingles:
        """Return the pieces of some rows."""
        raw = self._of(rows)
        texts = [text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold() for text in raw]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        codes = np.frombuffer(("\0" + "\0".join(texts) + "\0").encode("utf-32-le", "surrogatepass"), np.uint32)
        codes = np.where(_is_of_word(codes), codes, np.uint32(0))
        ends = np.cumsum(lengths + 1) + 1  # where the row after each one begins
        within = np.empty(len(codes), np.bool_)  # of several borders in a row the last one stays
        within[-1] = True
        np.logical_or(codes[:-1] != 0, codes[1:] != 0, out=within[:-1])
        places = np.concatenate([[0], np.cumsum(within)])[np.concatenate([[0], ends - 1])]
        kept = codes[within].astype(np.uint64)
        pieces, whole = _windows(kept, self.width, np.ones(len(kept), np.bool_))
        if self.width == 1:
            whole = kept != 0
        else:
            # One that begins with a word stands even where the word is too short to fill it.
            whole |= kept == 0
            whole[-1] = False
        counts = np.concatenate([[0], np.cumsum(whole)])
        return _with_own_pieces(Shingles(pieces[whole], counts[places]), raw)


class SequenceShingles:
    """The pieces of sequences of integers: ``width`` in a row; a shorter sequence is one piece.

    Args:
        values: from numbers of rows to their integers, one row's after another's, and how many each row has.
        sizes: how many integers each row has, ``(n,)``.
        width: how many make a piece.
    """

    def __init__(self, values: Callable[[Ints], tuple[Ints, Ints]], sizes: Ints, width: int) -> None:
        self.values, self.sizes, self.width = values, sizes, width

    def __len__(self) -> int:
        return len(self.sizes)

    def given(self) -> Iterator[bytes]:
        """Yield every sequence as bytes."""
        for start in range(0, len(self), 4096):
            values, lengths = self.values(np.arange(start, min(start + 4096, len(self))))
            for part in np.split(values, np.cumsum(lengths)[:-1]):
                yield part.tobytes()

    def __call__(self, rows: Ints) -> Shingles:
        """Return the pieces of some rows."""
        values, lengths = self.values(rows)
        codes = np.zeros(len(values) + len(rows), np.uint64)
        ends = np.cumsum(lengths + 1)
        inside = np.ones(len(codes), np.bool_)
        inside[ends - 1] = False
        codes[inside] = np.maximum(scrambled(values.view(np.uint64)), np.uint64(1))  # 0 is the border
        pieces, whole = _windows(codes, self.width, codes != 0)
        whole &= np.append(codes[self.width - 1 :], np.zeros(self.width - 1, np.uint64))[: len(codes)] != 0
        whole[ends - 1 - lengths] = True  # a sequence's first, however short
        counts = np.concatenate([[0], np.cumsum(whole)])
        return Shingles(pieces[whole], counts[np.concatenate([[0], ends])])


def blocks(shingles: TextShingles | SequenceShingles, rows: Ints) -> Iterator[Ints]:
    """Yield ``rows`` in parts that are taken apart at once."""
    until = np.cumsum(shingles.sizes[rows] + 1)
    start = 0
    while start < len(rows):
        before = until[start - 1] if start else 0
        stop = max(int(np.searchsorted(until, before + _BLOCK)), start + 1)
        yield rows[start:stop]
        start = stop


def scrambled(values: Words) -> Words:
    """Return a one-to-one scramble of 64-bit integers (Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _windows(codes: Words, width: int, inside: npt.NDArray[np.bool_]) -> tuple[Words, npt.NDArray[np.bool_]]:
    """Return the hash of the window that begins at each code, up to a border (0), and whether no border is before its last place.

    Args:
        codes: the codes of all rows.
        width: of a window.
        inside: at which codes one may begin.
    """
    padded = np.append(codes, np.zeros(width, np.uint64))
    pieces, whole = codes.copy(), inside
    for k in range(1, width):
        whole = inside
        code = padded[k : len(codes) + k] * inside
        pieces *= _FACTOR
        pieces += code
        inside = code != 0
    return scrambled(pieces), whole.copy()


def _with_own_pieces(shingles: Shingles, raw: Sequence[str]) -> Shingles:
    """Give each text that has no piece one: itself."""
    without = np.flatnonzero(np.diff(shingles.starts) == 0)
    if not len(without):
        return shingles
    own = [hashlib.blake2b(raw[i].encode("utf-8", "surrogatepass"), digest_size=8).digest() for i in without.tolist()]
    pieces = np.insert(shingles.pieces, shingles.starts[without], np.frombuffer(b"".join(own), np.uint64))
    more = np.zeros(len(shingles.starts), np.int64)
    more[without + 1] = 1
    return Shingles(pieces, shingles.starts + np.cumsum(more))


@cache
def _letters() -> npt.NDArray[np.uint8]:
    """Return what is known of each code point: 0 nothing yet, 1 a border, 2 of a word."""
    return np.zeros(0x110000, np.uint8)


def _is_of_word(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Tell which code points are letters, marks or numbers."""
    known = _letters()
    kinds = known[codes]
    if not kinds.all():
        for code in np.unique(codes[kinds == 0]).tolist():
            known[code] = 1 + (unicodedata.category(chr(code))[0] in "LMN")
        kinds = known[codes]
    return np.asarray(kinds == 2)


def _reader(texts: Any) -> Callable[[Ints], list[Any]]:
    """Return what gives the texts of some rows.

    Raises:
        DataError: no list of texts.
    """
    if isinstance(texts, str) or not hasattr(texts, "__len__") or not hasattr(texts, "__getitem__"):
        raise DataError(f"near-duplicates are looked for in a list of texts: got {type(texts).__name__}")
    if hasattr(texts, "to_pylist"):  # of pyarrow
        return lambda rows: texts.take(rows).to_pylist()
    values = texts.tolist() if hasattr(texts, "tolist") else texts  # of NumPy and pandas
    if isinstance(values, list | tuple):
        return lambda rows: [values[row] for row in rows.tolist()]
    return lambda rows: [values[int(row)] for row in rows.tolist()]


def _lengths(block: Sequence[Any], start: int) -> list[int]:
    try:
        return [_LENGTH(text) for text in block]
    except TypeError:
        row = next(i for i, text in enumerate(block) if not isinstance(text, str))
        raise DataError(
            f"near-duplicates are looked for in texts: row {start + row} is {type(block[row]).__name__} ({block[row]!r:.40}); "
            "leave it out, or give an empty text"
        ) from None


_LENGTH = str.__len__
