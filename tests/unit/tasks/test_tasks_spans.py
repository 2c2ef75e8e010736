"""Spans of tags: against seqeval, and against a reading of the tags one after another."""

import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.evaluate import measure_quality
from prunus.tasks.text import Tagging, TokenClassification
from task_samples import batch_of, value_of

SCHEMES = {
    "IOB2": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    "BIOES": ("B-A", "I-A", "E-A", "S-A", "O", "B-B", "I-B", "E-B", "S-B"),
    "one type without a name": ("B", "I", "O"),
}


def read(tags):
    """The tags one after another: what is open, and what a tag does to it (conlleval's rules, written anew)."""
    found, opened, last = set(), None, "O"
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = tag[0], tag[2:]
        if opened is not None and (prefix in "BSO" or last in "ES" or kind != opened[0]):
            found.add((opened[0], opened[1], place - 1))
            opened = None
        if prefix != "O" and opened is None:
            opened = (kind, place)
        last = prefix
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_spans_are_those_of_a_reading_one_after_another(scheme, data):
    names = SCHEMES[scheme]
    tags = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=12))
    tagging = Tagging.of(names)
    first, last, kind = tagging.spans(np.asarray(tags, np.int64))
    found = {(tagging.kinds[k], int(a), int(b)) for k, a, b in zip(kind, first, last, strict=True)}
    assert found == read([names[tag] for tag in tags])
    assert len(found) == len(first)


def sentences(names, seed, n=30):
    rng = random.Random(seed)
    lengths = [rng.randint(0, 9) for _ in range(n)]
    draw = [[rng.randrange(len(names)) for _ in range(length)] for length in lengths]
    said = [[tag if rng.random() < 0.6 else rng.randrange(len(names)) for tag in row] for row in draw]
    width = max(lengths)
    labels = torch.full((n, width), -100)
    scores = torch.zeros(n, width, len(names))
    for row, (true, answered) in enumerate(zip(draw, said, strict=True)):
        # Places that aren't asked lie between those that are, as pieces of words do.
        places = sorted(rng.sample(range(width), len(true)))
        labels[row, places] = torch.tensor(true, dtype=torch.int64)
        scores[row] = torch.randn(width, len(names), generator=torch.Generator().manual_seed(row))
        for place, tag in zip(places, answered, strict=True):
            scores[row, place, tag] = 9.0
    words = [[[names[tag] for tag in row] for row in rows] for rows in (draw, said)]
    return scores, batch_of(labels), words


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_figure_is_what_seqeval_says(scheme, seed):
    metrics = pytest.importorskip("seqeval.metrics")
    names = SCHEMES[scheme]
    scores, batch, (true, said) = sentences(names, seed)
    task = TokenClassification(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function, average in (
            ("f1_micro", metrics.f1_score, "micro"),
            ("f1_macro", metrics.f1_score, "macro"),
            ("precision_weighted", metrics.precision_score, "weighted"),
            ("recall_macro", metrics.recall_score, "macro"),
        ):
            expected = function(true, said, average=average, zero_division=0)
            assert value_of(task, name, scores, batch) == pytest.approx(expected, abs=1e-9), name
        assert value_of(task, "token_accuracy", scores, batch) == pytest.approx(metrics.accuracy_score(true, said))


@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_that_of_a_reading_one_after_another(seed):
    names = SCHEMES["IOB2"]
    scores, batch, (true, said) = sentences(names, seed)
    pairs = [(read(a), read(b)) for a, b in zip(true, said, strict=True)]
    right, there, found = (sum(map(len, sets)) for sets in zip(*((a & b, a, b) for a, b in pairs), strict=True))
    assert value_of(TokenClassification(names), "f1_micro", scores, batch) == pytest.approx(2 * right / (there + found))


def test_no_span_goes_over_the_end_of_an_example():
    names = ("O", "B-X", "I-X")
    labels = torch.tensor([[0, 1], [2, 2]])
    task = TokenClassification(names)
    seen = task.observe(5.0 * torch.nn.functional.one_hot(labels, 3), batch_of(labels))
    assert seen["n_there"].tolist() == [[1], [1]]
    assert seen["n_right"].tolist() == [[1], [1]]


def test_the_types_of_spans_have_their_own_figures():
    names = SCHEMES["IOB2"]
    scores, batch, _ = sentences(names, 0)
    task = TokenClassification(names)
    quality = measure_quality(task.observe(scores, batch), task, bootstrap=50)
    assert [one.name for one in quality.per_class] == ["PER", "LOC"]


@pytest.mark.parametrize("names", [("noun", "verb"), ("O",), ("O", "B-X", "other"), ("B-X", "I-X"), ()])
def test_other_names_are_no_tags(names):
    assert Tagging.of(names) is None
