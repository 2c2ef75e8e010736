"""Are texts and token ids that say nearly the same found, compared truly, and is nothing else dropped?"""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, RecipeError
from prunus.score import near_duplicate_sequences, near_duplicate_texts

WORDS = [f"{a}{b}" for a in ("apt", "boot", "cache", "daemon", "edit") for b in ("host", "index", "join", "link")]
ANY_TEXT = st.text(st.sampled_from("aBcé ß1,.!\n\tि漢🙂" + "e\u0301"), max_size=24)


def pieces_of_text(text, width=3):
    """The documented pieces, one by one."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain).split()
    if not words:
        return {("as given", text)}
    if width == 1:
        return {c for word in words for c in word}
    framed = [f" {word} " for word in words]
    return {word[i : i + width] for word in framed for i in range(max(len(word) - width + 1, 1))}


def pieces_of_sequence(values, width):
    return {tuple(values[i : i + width]) for i in range(max(len(values) - width + 1, 1))}


def jaccard(one, other):
    return len(one & other) / len(one | other)


def check_laws(found, sets, least, *, missed=0.0):
    """Compare with every pair's true similarity."""
    gone, kept = np.flatnonzero(~found.kept), np.flatnonzero(found.kept)
    assert found.kept[found.keeper].all(), "who stands for another one stays"
    assert (found.similarity[kept] == 1).all()
    for i in gone.tolist():
        true = jaccard(sets[i], sets[found.keeper[i]])
        assert true >= least - 1e-9, "what goes is near its keeper"
        assert found.similarity[i] == np.float32(true), "its similarity is the true one"
    names = {name: number for number, name in enumerate(sorted({piece for row in sets for piece in row}, key=repr))}
    holds = np.zeros((len(kept), len(names)), np.float32)
    for place, row in enumerate(kept.tolist()):
        holds[place, [names[piece] for piece in sets[row]]] = 1
    shared = holds @ holds.T
    size = holds.sum(axis=1)
    alike = shared / (size[:, None] + size - shared)
    n_near = (np.triu(alike, 1) >= least + 1e-6).sum()
    assert n_near <= missed * len(gone), "no two that stay are near"


def edited(random, words):
    words = list(words)
    for _ in range(int(random.integers(0, 4))):
        words[int(random.integers(len(words)))] = WORDS[int(random.integers(len(WORDS)))]
    return words


@given(st.lists(ANY_TEXT, max_size=30), st.integers(1, 6), st.sampled_from([0.3, 0.5, 0.8, 0.99]))
@settings(deadline=None)
def test_any_texts_are_compared_by_their_true_similarity(texts, width, least):
    found = near_duplicate_texts(texts, jaccard=least, width=width)
    check_laws(found, [pieces_of_text(text, width) for text in texts], least)


@given(st.integers(0, 10**6), st.sampled_from([0.4, 0.6, 0.8, 0.95]))
@settings(max_examples=6, deadline=None)
def test_in_tables_what_goes_is_near_what_stays_and_hardly_a_pair_is_missed(seed, least):
    random = np.random.default_rng(seed)
    sources = [[WORDS[k] for k in random.integers(0, len(WORDS), 8)] for _ in range(300)]
    texts = [" ".join(edited(random, sources[int(random.integers(300))])) for _ in range(1100)]
    check_laws(
        near_duplicate_texts(texts, jaccard=least, seed=seed), list(map(pieces_of_text, texts)), least, missed=0.03
    )


@given(st.lists(st.lists(st.integers(-3, 3), max_size=12), max_size=30), st.integers(1, 5), st.sampled_from([0.3, 0.8]))
@settings(deadline=None)
def test_any_sequences_are_compared_by_their_true_similarity(sequences, width, least):
    found = near_duplicate_sequences(sequences, jaccard=least, width=width)
    check_laws(found, [pieces_of_sequence(values, width) for values in sequences], least)


@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_pairs_at_the_threshold_are_found_as_often_as_is_said(recall):
    """Both of a pair share 16 of 20 pieces, and nothing with others: 4,000 pairs tell 1.5 % apart by three deviations."""
    numbers = np.arange(4000 * 20).reshape(4000, 20)
    one, other = numbers[:, :18], np.concatenate([numbers[:, :16], numbers[:, 18:]], axis=1)
    found = near_duplicate_sequences(np.concatenate([one, other]), jaccard=0.8, width=1, recall=recall)
    share = (~found.kept).sum() / 4000
    assert found.recall >= recall
    assert abs(share - found.recall) < 3 * (found.recall * (1 - found.recall) / 4000) ** 0.5 + 0.003, (
        share,
        found.recall,
    )


def test_order_case_punctuation_and_encoding_of_accents_make_no_difference():
    texts = ["Résumé of the talk", "talk, of the RE\u0301SUME\u0301!", "Resume of the talk"]
    found = near_duplicate_texts(texts, jaccard=0.99)
    assert found.keeper.tolist() == [0, 0, 2]
    assert found.similarity[1] == 1


def test_at_a_threshold_of_one_values_are_compared_as_given():
    assert near_duplicate_texts(["a b", "A b", "a b", "b a", "", ""], jaccard=1).keeper.tolist() == [0, 1, 0, 3, 4, 4]
    assert near_duplicate_sequences([[1, 2], [2, 1], [1, 2], [], [0]], jaccard=1).keeper.tolist() == [0, 1, 0, 3, 4]


def test_texts_without_words_are_duplicates_of_the_same_text_only():
    assert near_duplicate_texts(["", "!!", "🙂", "!!", "?", "", "🙂"]).keeper.tolist() == [0, 1, 2, 1, 4, 0, 2]


def test_the_text_with_most_duplicates_stays_and_copies_count():
    base = "alpha beta gamma delta epsilon zeta eta theta"
    longer, other = base + " iota", base + " lambda"
    assert near_duplicate_texts([longer, base, other], jaccard=0.8).keeper.tolist() == [1, 1, 1]
    a, b, c, d = ([*range(start, start + 10)] for start in range(4))  # each is near the next one only: 9 of 11
    assert near_duplicate_sequences([a, b, c, d], width=1).keeper.tolist() == [1, 1, 1, 3]
    found = near_duplicate_sequences([a, b, c, d, d], width=1)
    assert found.keeper.tolist() == [0, 2, 2, 2, 2]
    assert found.similarity.tolist() == np.array([1, 9 / 11, 1, 9 / 11, 9 / 11], np.float32).tolist()


@pytest.mark.parametrize("n_edits", [0, 1])
def test_a_crowd_of_like_texts_keeps_one(n_edits):
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join([*words, *[f"x{i}"] * n_edits]) for i in range(3000)]
    found = near_duplicate_texts(texts, jaccard=0.9)
    assert found.kept.sum() <= 3
    assert found.similarity.min() >= 0.9


def test_a_low_threshold_looks_through_more_tables_than_are_held():
    random = np.random.default_rng(0)
    sources = random.integers(0, 10**6, (1500, 12))
    copies = sources.copy()
    copies[:, 5:] = random.integers(0, 10**6, (1500, 7))
    # 5 of 19 are shared. The 16 tables that are held find 98.9 %, and all 23 find 99.9 %.
    found = near_duplicate_sequences(np.concatenate([sources, copies]), jaccard=0.26, width=1, recall=0.999)
    assert (~found.kept).sum() >= 1493


def test_a_seed_gives_the_same_answer_and_a_form_of_the_texts_makes_none():
    random = np.random.default_rng(0)
    texts = [" ".join(WORDS[k] for k in random.integers(0, len(WORDS), 5)) for _ in range(1100)]
    first = near_duplicate_texts(texts, jaccard=0.9)
    for same in (texts, tuple(texts), np.array(texts), pa.array(texts), pa.chunked_array([texts[:7], texts[7:]])):
        again = near_duplicate_texts(same, jaccard=0.9)
        assert again.keeper.tolist() == first.keeper.tolist()
        assert again.similarity.tobytes() == first.similarity.tobytes()


def test_padding_is_left_out_and_a_tensor_is_as_good_as_lists():
    rows = [[5, 8, 2, 9, 4, 4], [7, 7], [5, 8, 2, 9, 4, 4, 1]]
    padded = torch.tensor([row + [-1] * (9 - len(row)) for row in rows])
    found = near_duplicate_sequences(rows, width=2)
    assert found.keeper.tolist() == [0, 1, 0]  # 5 of 6 pairs
    assert near_duplicate_sequences(padded, width=2, padding=-1).similarity.tolist() == found.similarity.tolist()


def test_unrelated_sequences_of_few_different_integers_are_no_duplicates():
    letters = np.random.default_rng(0).integers(0, 4, (1010, 300))  # like DNA: every single letter is in each of them
    assert near_duplicate_sequences(letters, jaccard=0.5).kept.all()
    assert not near_duplicate_sequences(letters, jaccard=0.5, width=1).kept[1:].any()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_texts_keep_themselves(n):
    assert near_duplicate_texts(["a"] * n).keeper.tolist() == list(range(n))
    assert near_duplicate_sequences([[1]] * n).keeper.tolist() == list(range(n))


def test_what_is_wrong_is_said():
    with pytest.raises(DataError, match=r"row 2 is NoneType \(None\)"):
        near_duplicate_texts(["a", "b", None])
    with pytest.raises(DataError, match=r"row 1 is float \(nan\)"):
        near_duplicate_texts(["a", float("nan")], jaccard=1)
    with pytest.raises(DataError, match=r"in a list of texts: got str"):
        near_duplicate_texts("a text")
    with pytest.raises(RecipeError, match=r"Jaccard similarity of duplicates must be in \(0, 1\]: got 80"):
        near_duplicate_texts(["a"], jaccard=80)
    with pytest.raises(RecipeError, match=r"width of the pieces of near-duplicates must be at least 1: got 0"):
        near_duplicate_texts(["a"], width=0)
    with pytest.raises(RecipeError, match=r"recall of near-duplicates must be in \(0, 1\): got 1"):
        near_duplicate_texts(["a"], recall=1)
    with pytest.raises(DataError, match=r"got float64 of shape \(2, 2\)"):
        near_duplicate_sequences(np.ones((2, 2)))
    with pytest.raises(DataError, match=r"row 1 is float64 of shape \(1,\)"):
        near_duplicate_sequences([[1], [0.5]])
    with pytest.raises(DataError, match=r"row 0 is <U1 of shape \(2,\)"):
        near_duplicate_sequences([["a", "b"]])
