"""Laws of splitting, scaling and handing out, for any data."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Split
from prunus.data import ArraySource, Examples, Scaler, content_digests, split
from prunus.data.sources.targets import read_targets
from prunus.data.split import PARTS, apportion

laws = settings(deadline=None, derandomize=True, max_examples=40)

SHARES = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**31)
SPLITS = st.builds(
    Split, validation=st.floats(0.05, 0.3), calibration=st.floats(0.05, 0.3), test=st.floats(0.05, 0.3), seed=SEEDS
)


def source_of(values, targets, n_classes):
    ids = tuple(map(str, range(len(values))))
    names = tuple(map(str, range(n_classes)))
    return ArraySource("set", ids, torch.as_tensor(values), torch.as_tensor(targets), "classification", names)


def attempt(function, *arguments):
    """Return (result, None), or (None, message) of the error that is raised on purpose."""
    try:
        return function(*arguments), None
    except DataError as error:
        return None, str(error)


@laws
@given(st.integers(0, 10_000), SHARES)
def test_apportioning_is_exact_and_within_one_of_the_quota(total, shares):
    counts = apportion(total, shares)
    assert sum(counts) == total
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - total * share / sum(shares)) < 1 + 1e-6


@laws
@given(st.lists(st.integers(0, 3), min_size=60, max_size=200), SPLITS)
def test_parts_are_a_partition_with_exact_sizes_and_fair_classes(targets, config):
    targets = np.asarray(targets)
    n = len(targets)
    source = source_of(torch.arange(n, dtype=torch.float32)[:, None], targets, 4)
    splits, message = attempt(split, source, config)
    if splits is None:
        assert "is missing from train" in message
        rarest = min(np.bincount(targets, minlength=4))
        train_share = 1 - config.test - config.validation - config.calibration
        assert rarest * train_share < 3  # what the message promises is enough
        return
    shares = {"test": config.test, "validation": config.validation, "calibration": config.calibration}
    shares["train"] = 1 - sum(shares.values())
    assert sorted(torch.cat([splits.part(part) for part in PARTS]).tolist()) == list(range(n))
    sizes = [len(splits.part(part)) for part in PARTS]
    assert sizes == apportion(n, [shares[part] for part in PARTS])
    for part in PARTS:
        counts = np.bincount(targets[splits.part(part)], minlength=4)
        assert (abs(counts - np.bincount(targets, minlength=4) * shares[part]) < 4).all()


@laws
@given(st.lists(st.integers(0, 25), min_size=60, max_size=120), SPLITS)
def test_no_content_is_in_two_parts_and_nothing_vanishes_unreported(values, config):
    values = torch.tensor(values, dtype=torch.float32)[:, None]
    source = source_of(values, np.arange(len(values)) % 2, 2)
    splits, message = attempt(split, source, config)
    if splits is None:
        assert "missing from train" in message or "stronger part" in message
        return
    seen = [set(values[splits.part(part)].flatten().tolist()) for part in PARTS]
    for place, left in enumerate(seen):
        for right in seen[place + 1 :]:
            assert not left & right
    left_out = {duplicate.removed_id for duplicate in splits.duplicates}
    kept = {str(row) for part in PARTS for row in splits.part(part).tolist()}
    assert not left_out & kept
    assert len(left_out) + len(kept) == len(values)
    for duplicate in splits.duplicates:
        assert values[int(duplicate.kept_id)] == values[int(duplicate.removed_id)]
        assert PARTS.index(duplicate.kept_split) < PARTS.index(duplicate.removed_split)


@laws
@given(st.integers(1, 40), st.integers(1, 40), SEEDS)
def test_digests_do_not_depend_on_the_chunks(first, second, seed):
    values = np.random.default_rng(seed).integers(0, 5, (37, 2)).astype(np.float32)
    source = source_of(values, np.arange(37) % 2, 2)
    digests = content_digests(source, chunk_rows=first)
    assert digests == content_digests(source, chunk_rows=second)
    same = (values[:, None] == values[None]).all(-1)
    assert [[a == b for b in digests] for a in digests] == same.tolist()


@laws
@given(st.integers(1, 60), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), SEEDS)
def test_the_scaler_is_numpys_mean_and_deviation_whatever_the_chunks(chunk, centre, spread, seed):
    values = np.random.default_rng(seed).normal(centre, spread, (60, 3)).astype(np.float32)
    scaler = Scaler.fit(source_of(values, np.arange(60) % 2, 2), torch.arange(60), chunk_rows=chunk)
    np.testing.assert_allclose(scaler.mean, values.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6 * spread)
    np.testing.assert_allclose(scaler.deviation, values.astype(np.float64).std(0), rtol=1e-4)


@laws
@given(st.integers(1, 30), st.integers(1, 11), SEEDS, st.booleans())
def test_every_example_is_handed_out_once_with_its_own_input_and_target(n, batch_size, seed, in_memory):
    values = torch.arange(n, dtype=torch.float32)[:, None]
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    source = source_of(values, np.arange(n) % 3, 3)
    examples = Examples(source, rows, budget_bytes=1 << 20 if in_memory else 0)
    keep = np.random.default_rng(seed).random(n) < 0.6
    chosen = examples.select(keep)
    seen = []
    for batch in chosen.batches(batch_size, torch.Generator().manual_seed(seed)):
        assert 0 < len(batch.index) <= batch_size
        for position, value, target in zip(batch.index.tolist(), batch.inputs, batch.targets, strict=True):
            assert chosen.ids[position] == str(int(value.item()))
            assert target.item() == int(value.item()) % 3
            seen.append(position)
    assert sorted(seen) == list(range(int(keep.sum())))


@laws
@given(st.lists(st.sampled_from(["x", "y", "zebra", "10", "9"]), min_size=2, max_size=40))
def test_class_numbers_lead_back_to_the_labels(labels):
    if len(set(labels)) < 2:
        return
    targets = read_targets(np.asarray(labels), task="auto", name="set")
    assert [targets.class_names[number] for number in targets.values] == labels
    assert list(targets.class_names) == sorted(set(labels))
