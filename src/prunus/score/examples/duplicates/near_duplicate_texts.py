"""Which texts, or sequences of token ids, say nearly what another one says, found without a model?"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.types import Floats, Ints
from prunus.score.examples.duplicates.keepers import Duplicates, keep_typical
from prunus.score.examples.duplicates.near_sets import NearSets, similarities_of
from prunus.score.examples.duplicates.sequences import fitting_width, rows_of_integers
from prunus.score.examples.duplicates.shingles import SequenceShingles, TextShingles

__all__ = ["near_duplicate_sequences", "near_duplicate_texts", "sequence_similarities", "sequence_width"]


def near_duplicate_texts(
    texts: Any, *, jaccard: float = 0.8, width: int = 3, recall: float = 0.99, seed: int = 0
) -> Duplicates:
    """Return which texts are near-duplicates of a text that stays.

    A text is the set of its pieces: ``width`` characters in a row of a word with its borders, without case and punctuation. Two
    texts are as alike as the share of pieces that they have in common (their Jaccard similarity); the order of words doesn't
    matter. No text that goes is further from its keeper than the threshold, and no two that stay are nearer, but for pairs missed.

    Args:
        texts: a list of texts, an array, a column of pandas or Arrow.
        jaccard: the least similarity of duplicates, in (0, 1]; 1 asks for texts that are equal as given, character by character.
        width: how many characters make a piece.
        recall: the share of pairs at the threshold to find, in (0, 1); up to a thousand texts are all compared.
        seed: of the hashes.

    Raises:
        DataError: a row that is no text.
        RecipeError: a threshold, width or share out of its range.

    References:
        Broder, 1997 (least hashes); Indyk and Motwani, STOC 1998 (tables of them). What meets in a table is compared exactly.

    >>> near_duplicate_texts(["A fast editor for texts", "a plotting tool", "A fast editor, for texts!"]).keeper.tolist()
    [0, 1, 0]
    """
    _check(jaccard, width, recall)
    return _found(TextShingles(texts, width), jaccard, recall, seed)


def near_duplicate_sequences(
    sequences: Any,
    *,
    jaccard: float = 0.8,
    width: int | None = None,
    padding: int | None = None,
    recall: float = 0.99,
    seed: int = 0,
) -> Duplicates:
    """Return which sequences of integers (token ids, say) are near-duplicates of one that stays; else as for texts.

    Args:
        sequences: ``(n, length)`` integers, or a list of sequences of any lengths.
        jaccard: the least similarity of duplicates, in (0, 1]; 1 asks for sequences that are equal.
        width: how many integers in a row make a piece; default the fewest with which sequences that have nothing to do with each
            other share hardly one: more, the longer the sequences are and the fewer different integers there are.
        padding: the integer that only fills sequences up; it is left out.
        recall: the share of pairs at the threshold to find, in (0, 1); up to a thousand sequences are all compared.
        seed: of the hashes.

    Raises:
        DataError: rows that aren't sequences of integers.
        RecipeError: a threshold, width or share out of its range.

    >>> near_duplicate_sequences([[5, 8, 2, 9], [7, 7], [5, 8, 2, 9, 1]], jaccard=0.6, width=2).keeper.tolist()
    [0, 1, 0]
    """
    _check(jaccard, width or 1, recall)
    values, sizes = rows_of_integers(sequences, padding)
    return _found(SequenceShingles(values, sizes, width or fitting_width(values, sizes)), jaccard, recall, seed)


def sequence_width(sequences: Any, *, padding: int | None = None) -> int:
    """Return the width with which :func:`near_duplicate_sequences` compares sequences where none is given.

    >>> sequence_width(np.random.default_rng(0).integers(0, 30000, (50, 40)))
    1
    >>> sequence_width(np.random.default_rng(0).integers(0, 4, (50, 40)))
    5
    """
    return fitting_width(*rows_of_integers(sequences, padding))


def sequence_similarities(sequences: Any, pairs: Ints, *, width: int, padding: int | None = None) -> Floats:
    """Return the Jaccard similarity of some pairs of sequences, as :func:`near_duplicate_sequences` compares them.

    Shapes:
        ``pairs`` is ``(pairs, 2)``, numbers of rows; the result is ``(pairs,)``.

    >>> sequence_similarities([[5, 8, 2], [5, 8, 2, 9]], np.array([[0, 1]]), width=1).tolist()
    [0.75]
    """
    return similarities_of(SequenceShingles(*rows_of_integers(sequences, padding), width), pairs)


def _check(jaccard: float, width: int, recall: float) -> None:
    if not 0 < jaccard <= 1:
        raise RecipeError(f"the least Jaccard similarity of duplicates must be in (0, 1]: got {jaccard!r}")
    if not isinstance(width, int) or width < 1:
        raise RecipeError(f"the width of the pieces of near-duplicates must be at least 1: got {width!r}")
    if not 0 < recall < 1:
        raise RecipeError(f"the recall of near-duplicates must be in (0, 1): got {recall!r}")


def _found(shingles: TextShingles | SequenceShingles, jaccard: float, recall: float, seed: int) -> Duplicates:
    if jaccard == 1:
        return _equal(shingles.given())
    sets = NearSets(shingles, jaccard, recall, seed)
    same_as = sets.same_as
    of_sets = keep_typical(
        same_as == np.arange(len(same_as)),
        lambda alive, _: sets.near_pairs(alive),
        sets.similarities,
        jaccard,
        weight=np.bincount(same_as, minlength=len(same_as)),
    )
    return Duplicates(of_sets.keeper[same_as], of_sets.similarity[same_as], sets.recall)


def _equal(values: Iterable[Hashable]) -> Duplicates:
    """Return which values are equal to an earlier one."""
    first: dict[Hashable, int] = {}
    keeper = np.array([first.setdefault(value, row) for row, value in enumerate(values)], np.int64)
    return Duplicates(keeper, np.ones(len(keeper), np.float32), 1.0)
