"""What was changed since it was written is noticed, whatever bit it was."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.files.sealed import DamagedError, seal, sealed_tree, tree_sha256, unseal, unsealed_tree


@given(st.binary(max_size=40), st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_flipped_bit_and_any_cut_of_a_sealed_file_is_noticed(tmp_path_factory, content, data):
    path = tmp_path_factory.mktemp("sealed") / "x"
    path.write_bytes(content)
    seal(path)
    assert unseal(path) == content
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    path.write_bytes(whole)
    with pytest.raises(DamagedError):
        unseal(path)


def test_a_missing_file_is_none_and_a_link_is_damage(tmp_path):
    assert unseal(tmp_path / "x") is None
    (tmp_path / "y").write_bytes(b"")
    seal(tmp_path / "y")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    with pytest.raises(DamagedError, match="no plain file"):
        unseal(tmp_path / "x")


def test_a_sealed_tree_reads_back_from_json_with_the_hash_that_it_was_given():
    tree = {"b": [1, 2.5, None, True], "a": {"x": "é\u202e", "y": 1e-30}}
    again = json.loads(json.dumps(sealed_tree(tree), indent=3))
    assert again["sha256"] == tree_sha256(again) == tree_sha256(tree)
    assert tree_sha256(json.loads('{"a": "\\ud800"}')) != tree_sha256({"a": "\ud801"})


def test_a_sealed_tree_comes_back_and_what_is_none_is_damage():
    content = json.dumps(sealed_tree({"a": [1, "é"]})).encode()
    assert unsealed_tree(content)["a"] == [1, "é"]
    with pytest.raises(DamagedError, match="was changed"):
        unsealed_tree(content.replace(b"1", b"2", 1))
    for other in (b"", b"[]", b"3", b"null", b"{}", b"\xff", b"[" * 9999, b'{"a": NaN, "sha256": ""}', content[:-1]):
        with pytest.raises(DamagedError, match="no JSON object"):
            unsealed_tree(other)
