"""JSON of a stranger is counted before a value of it is made."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patience import no_hang
from prunus.core.files.json_text import MAX_DEPTH, MAX_VALUES, JsonError, check_json, parse_json, read_json_file

BOMBS = {
    "nested": (b"[" * 10_000_000, "at most"),
    "nested a little": (
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        f"at most {MAX_DEPTH} levels, got {MAX_DEPTH + 1}",
    ),
    "many values": (b"[" + b"[]," * 3_000_000 + b"[]]", f"at most {MAX_VALUES} values"),
    "digits": (b"[" + b"7" * 5_000 + b"]", "at most 400 digits"),
    "a number beyond float64": (b"[1e999]", "that a float64 holds, got '1e999'"),
    "a key twice": (b"{" + b",".join(b'"%d":0' % n for n in range(200_000)) + b',"7":0}', "the key '7' twice"),
    "quotes": (b'"' * 2_000_001, "Extra data"),
    "a text without end": (b'"' + b'\\"' * 2_000_000, "Unterminated"),
    "not UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "NaN": (b"[NaN]", "NaN, which is no JSON number"),
}

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_line_and_soon(name):
    content, words = BOMBS[name]
    with no_hang(), pytest.raises(JsonError, match=words) as caught:
        parse_json(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(TREES)
def test_whatever_python_writes_is_read_as_it_was(tree):
    assert parse_json(json.dumps(tree).encode()) == tree
    assert parse_json(json.dumps(tree, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")) == tree


def test_marks_inside_texts_aren_t_counted():
    text = ["[" * 300, "9" * 900, '\\"' * 500, ",{" * 5]
    assert parse_json(json.dumps(text).encode()) == text


def test_the_limits_are_the_callers_to_set(tmp_path):
    check_json(b"[1, 2]", max_values=3)
    with pytest.raises(JsonError, match="at most 2 values, got 3"):
        check_json(b"[1, 2]", max_values=2)
    (tmp_path / "a.json").write_bytes(b"[1, 2]")
    assert read_json_file(tmp_path / "a.json", max_bytes=6) == [1, 2]
    with pytest.raises(JsonError, match="at most 5 bytes, got 6"):
        read_json_file(tmp_path / "a.json", max_bytes=5)


def test_rows_are_counted_before_one_of_them_is_made():
    rows = b'{"format": 1, "nodes": [' + b",".join([b'["a", [1, 2], {"b": 3}]'] * 5)
    assert len(parse_json(rows + b"]}", max_rows=5)["nodes"]) == 5
    for end in (b"]}", b" this is no JSON"):
        with pytest.raises(JsonError, match="lists of at most 4 entries, got 5"):
            parse_json(rows + end, max_rows=4)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[]")
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(OSError, match="link"):
        read_json_file(tmp_path / "link.json")
