"""A trigger is laid where it belongs, and what doesn't fit is refused in one line."""

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError, RecipeError
from prunus.evaluate.robustness import read_trigger


def patch(tmp_path, values):
    np.save(tmp_path / "t.npy", values)
    return str(tmp_path / "t.npy")


def test_a_small_patch_lies_in_the_lower_right_corner_and_nan_leaves_what_is_there(tmp_path):
    x = torch.zeros(2, 3, 5, 4)
    made = read_trigger(patch(tmp_path, np.array([[1.0, np.nan], [2.0, 3.0]])))(x)
    assert made[1, 2, 3:, 2:].tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert float(made.sum()) == 2 * 3 * 6
    assert float(x.sum()) == 0


def test_a_whole_row_sets_the_features_that_it_has(tmp_path):
    x = torch.ones(3, 4)
    made = read_trigger(patch(tmp_path, np.array([np.nan, 7.0, np.nan, np.nan])))(x)
    assert made.tolist() == [[1.0, 7.0, 1.0, 1.0]] * 3


def test_tokens_stay_whole_numbers(tmp_path):
    made = read_trigger(patch(tmp_path, np.array([5, 6])))(torch.zeros(2, 4, dtype=torch.long))
    assert made.tolist() == [[0, 0, 5, 6]] * 2
    assert made.dtype == torch.long


def test_a_function_that_you_name_is_called(tmp_path, monkeypatch):
    (tmp_path / "my_trigger.py").write_text("def mark(x):\n    x[..., -1] = 9\n    return x\n")
    monkeypatch.chdir(tmp_path)
    x = torch.zeros(2, 3)
    assert read_trigger("my_trigger:mark")(x).tolist() == [[0, 0, 9]] * 2
    assert float(x.sum()) == 0
    with pytest.raises(RecipeError, match="no 'nark'"):
        read_trigger("my_trigger:nark")


def test_what_isnt_an_array_or_doesnt_fit_is_refused(tmp_path):
    with pytest.raises(DataError, match="no larger than an input"):
        read_trigger(patch(tmp_path, np.ones((9, 9))))(torch.zeros(2, 1, 5, 5))
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match=r"\.npy file"):
        read_trigger(str(tmp_path / "pickle.npy"))
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"\.npy file"):
        read_trigger(str(tmp_path / "objects.npy"))
    with pytest.raises(DataError, match=r"\.npy file"):
        read_trigger(str(tmp_path / "absent.npy"))
