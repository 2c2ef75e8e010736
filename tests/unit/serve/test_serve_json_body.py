"""The quick reader of requests reads what Python's own reader reads, and refuses what that refuses."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.serve.refusal import Refusal
from prunus.serve.wire.json_body import _unique, parse_body

KEYS = st.text(alphabet='ab":,{[\\ü\n', max_size=3)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), KEYS
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def written(value, draw):
    """Return the JSON of ``value``, in which a mapping may name a key twice."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)} : {written(inner, draw)}" for key, inner in value.items()]
        if pairs and draw.random() < 0.1:
            pairs.append(pairs[0])
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(inner, draw) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=draw.random() < 0.5)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(KEYS, TREES, max_size=4), st.integers(0, 2**32))
def test_what_is_read_is_what_python_reads_and_a_key_that_comes_twice_is_refused(tree, seed):
    text = written(tree, random.Random(seed)).encode()
    try:
        expected = json.loads(text, object_pairs_hook=_unique)
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(Refusal, match="each key once"):
            parse_body(text)
    else:
        found = parse_body(text)
        assert found == expected == tree
        assert json.dumps(found) == json.dumps(expected)  # True is not 1, and 1.0 is not 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": [1, {"b": 1, "b": 2}]}', "each key once"),
        (b'{"a": 1, "\\u0061": 2}', "each key once"),
        (b'{"a": NaN}', "JSON hasn't got"),
        (b'{"a": [1,]}', "expected JSON"),
        (b'{"a": 1', "expected JSON"),
        (b'{"a": ' + b"9" * 350 + b"}", "that float64 holds"),
        (b'{"a": ' + b"9" * 401 + b"}", "at most 400 digits"),
        (b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", "100 levels"),
        (b"[1]", "JSON object"),
        (b'{"a": "\xff"}', "UTF-8"),
    ],
)
def test_what_is_no_json_or_could_be_read_in_two_ways_is_refused(text, words):
    with pytest.raises(Refusal, match=words):
        parse_body(text)


@pytest.mark.parametrize("colon", ["", ":"])  # with one in a text, Python's reader has the last word
def test_both_readers_take_a_number_of_more_than_64_bits_for_a_float(colon):
    found = parse_body(f'{{"a": [{2**64 - 1}, {2**64}, {-(2**63)}, {-(2**100)}], "b": "{colon}"}}'.encode())["a"]
    assert [type(one) for one in found] == [int, float, int, float]
    assert found == [2**64 - 1, 2.0**64, -(2**63), -(2.0**100)]


def test_colons_in_texts_are_no_keys():
    assert parse_body(b'{"a": "b:c", "d": [":", {"e:": ":"}]}') == {"a": "b:c", "d": [":", {"e:": ":"}]}
