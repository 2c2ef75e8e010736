"""Targets become class numbers or values, and what can't is named."""

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.data.sources.targets import read_targets


def read(values, task="auto", **options):
    return read_targets(np.asarray(values), task=task, name="set", **options)


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([7, 0, 7], ("0", "7"), [1, 0, 1]),
        ([10.0, 9.0], ("9", "10"), [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
    ],
)
def test_class_numbers_follow_the_sorted_labels(values, names, numbers):
    targets = read(values)
    assert (targets.task, targets.class_names) == ("classification", names)
    assert targets.values.dtype == torch.int64
    assert targets.values.tolist() == numbers


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (np.array([0.5, 1.0]), "regression"),
        (np.arange(30), "regression"),
        (np.arange(20), "classification"),
        (np.arange(100) % 21, "regression"),  # 21 values, fewer than 5 each
        (np.arange(105) % 21, "classification"),  # 21 values, 5 each
        (np.arange(30).astype(str), "classification"),
    ],
)
def test_the_task_is_read_off_the_values(values, task):
    assert read(values).task == task


def test_the_task_can_be_set():
    assert read([0, 1, 1], task="regression").values.dtype == torch.float32
    assert len(read(np.arange(40), task="classification").class_names) == 40


def test_a_single_column_counts_as_a_list():
    assert read([[0], [1]]).values.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0.0, np.nan], {}, r"'target', row 1 .*got nan"),
        ([0.5, np.inf], {}, "row 1 .*got inf"),
        ([0, -1], {}, "row 1 .*label out of range: expected a class number 0 or more, got -1"),
        (
            [-5, 3, 12, -5],
            {},
            "row 0 .*got -5; set data.task to regression if it is a value to predict, write the classes",
        ),
        ([0.0, 123456789.5], {"task": "classification"}, r"row 1 .*got 123456789\.5; set data.task to regression"),
        (
            [1.7e9, 1.7e9 + 7],
            {"task": "regression"},
            "too close together for float32: got 1700000000.0 to 1700000007.0",
        ),
        ([0, 3], {"class_names": ["a", "b"]}, r"row 1 .*expected a class number 0\.\.1, got 3"),
        ([0.0, 1e300], {}, "row 1 .*label out of range"),
        ([0, 1], {"class_names": ["a", "b", "c"]}, "the class 'c' has no example"),
        ([3, 3], {}, "two classes or more, got only '3'"),
        (["x", "x"], {}, "got only 'x'"),
        (["x", ""], {}, "row 1 .*empty text"),
        ([1.5, 1.5], {}, "every row has the same value 1.5"),
        ([0.5, 1.0], {"task": "classification"}, "row 0 .*expected a class number, got 0.5; set data.task"),
        (["a", "b"], {"task": "regression"}, "regression needs numbers, got 'a'"),
        ([1.0, 1e300], {"task": "regression"}, "row 1 .*too large for float32"),
        ([], {}, "empty set"),
        ([[0, 1], [1, 0]], {}, r"one target per example, got an array of shape \(2, 2\)"),
        (np.array([b"a", b"b"]), {}, "expected numbers or text"),
        (np.array([None, "b"], dtype=object), {}, "expected numbers or text"),
        (np.array([1j, 2j]), {}, "expected numbers or text"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_targets_that_can_not_be_learnt_are_refused_in_one_line(values, options, message):
    with pytest.raises(DataError, match=message) as caught:
        read(values, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("set")
