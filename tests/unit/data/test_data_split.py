"""The parts of a split are disjoint by row and by content, and what was left out is told."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Split
from prunus.data import ArraySource, Duplicate, split
from prunus.data.large.row_names import RowNumbers
from prunus.data.split import PARTS, deal


def source_of(values, targets, task="classification"):
    targets = torch.as_tensor(targets)
    names = tuple("abcdefghij"[: int(targets.max()) + 1]) if task == "classification" else ()
    values = torch.as_tensor(values, dtype=torch.float32)
    values = values[:, None] if values.dim() == 1 else values
    return ArraySource("set", tuple(f"s{row}" for row in range(len(values))), values, targets, task, names)


def balanced(n, n_classes=2):
    return source_of(torch.arange(n), torch.arange(n) % n_classes)


def test_sizes_are_exact_and_every_class_is_shared_alike():
    splits = split(balanced(1000, 4), Split(validation=0.15, calibration=0.1, test=0.2))
    sizes = {part: len(splits.part(part)) for part in PARTS}
    assert sizes == {"test": 200, "validation": 150, "calibration": 100, "train": 550}
    for part in PARTS:
        counts = torch.bincount(splits.part(part) % 4)
        assert counts.max() - counts.min() <= 1


def test_the_seed_decides():
    source = balanced(60)
    first, again, other = (split(source, Split(seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first.part(part), again.part(part)) for part in PARTS)
    assert not torch.equal(first.test, other.test)


def test_regression_shares_out_the_range_of_the_target():
    targets = torch.arange(200, dtype=torch.float32).flip(0)
    splits = split(source_of(torch.arange(200), targets, "regression"), Split(test=0.2))
    tenths = torch.bincount((targets[splits.test] // 20).long(), minlength=10)
    assert tenths.tolist() == [4] * 10


def planted(part, twin_part, *, same_label):
    """Return a source where one row of ``part`` repeats the input of a row of ``twin_part``."""
    source = balanced(40)
    splits = split(source, Split())
    row = int(splits.part(part)[0])
    twin = next(int(r) for r in splits.part(twin_part) if (int(r) % 2 == row % 2) == same_label)
    values = source.values.clone()
    values[row] = values[twin]
    return replace(source, values=values), row, twin


@pytest.mark.parametrize("same_label", [True, False])
@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        ("train", "test"),
        ("train", "validation"),
        ("train", "calibration"),
        ("validation", "test"),
        ("calibration", "test"),
        ("calibration", "validation"),
    ],
)
def test_of_a_duplicate_across_parts_the_stronger_part_keeps_its_own(weak, strong, same_label):
    source, row, twin = planted(weak, strong, same_label=same_label)
    splits = split(source, Split())
    assert splits.duplicates == (Duplicate(f"s{twin}", f"s{row}", strong, weak, not same_label),)
    assert row not in splits.part(weak)
    assert twin in splits.part(strong)
    assert sum(len(splits.part(part)) for part in PARTS) == 39


def test_duplicates_inside_train_stay_and_are_counted():
    source, *_ = planted("train", "train", same_label=False)
    # The first two training rows of differing class are now equal.
    splits = split(source, Split())
    assert splits.duplicates == ()
    assert splits.repeats_in_train == 2
    assert len(splits.train) == 22


def test_minus_zero_is_zero_for_a_model_and_for_a_duplicate():
    source = balanced(40)
    splits = split(source, Split())
    values = source.values.clone() + 1
    values[splits.test[0]], values[splits.train[0]] = 0.0, -0.0
    assert len(split(replace(source, values=values), Split()).duplicates) == 1


def test_a_class_that_is_missing_from_train_is_named_with_what_is_needed():
    targets = torch.zeros(100, dtype=torch.int64)
    targets[50:] = 1
    # Class c has one example: some seed puts it into another part.
    targets[7] = 2
    source = source_of(torch.arange(100), targets)
    with pytest.raises(
        DataError, match=r"class 'c' is missing from train: it has 1 example in all.* 30 different ones are enough"
    ):
        for seed in range(40):
            split(source, Split(seed=seed, test=0.5, validation=0.2, calibration=0.2))


def test_a_class_whose_training_examples_all_repeat_test_examples_is_missing():
    source = source_of([*range(30), *[50.0] * 10], [0] * 15 + [1] * 15 + [2] * 10)
    with pytest.raises(DataError, match="class 'c' is missing from train: it has 10 examples"):
        split(source, Split())


def test_too_few_examples_to_split_are_refused():
    with pytest.raises(
        DataError, match=r"too few examples to split: 4 leave none for calibration .its share is 0\.1.; at least 10"
    ):
        split(balanced(4), Split())


def test_a_part_that_only_repeats_a_stronger_one_is_refused():
    with pytest.raises(
        DataError, match=r"every example of (validation|calibration|train) has the same input as one of a stronger"
    ):
        split(source_of([5.0] * 40, torch.arange(40) % 2), Split())


def peak_bytes(compute):
    """Return the most bytes that are allocated at once meanwhile, but for what lies in files."""
    tracemalloc.start()
    try:
        compute()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_byte_is_held_for_each_row_that_is_dealt_out():
    few, many = (np.arange(1 << exponent) % 4 for exponent in (18, 20))
    more = peak_bytes(lambda: deal(many, Split(), "many")) - peak_bytes(lambda: deal(few, Split(), "few"))
    assert more < 0.1 * (len(many) - len(few))


def test_no_byte_is_held_for_each_row_of_a_split():
    def peak(n):
        digests = np.random.default_rng(0).integers(0, 256, (n, 32), dtype=np.uint8)
        targets, nothing = torch.arange(n) % 4, torch.zeros(1, 1).expand(n, 1)
        source = ArraySource("many", RowNumbers(n), nothing, targets, "classification", ("a", "b", "c", "d"))
        return peak_bytes(lambda: split(source, Split(), digests=digests))

    assert peak(1 << 20) - peak(1 << 18) < 0.1 * ((1 << 20) - (1 << 18))
