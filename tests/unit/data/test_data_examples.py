"""Examples never change, hand out every example once, and agree with the source wherever they keep their inputs."""

import numpy as np
import pytest
import torch

from patience import steps_of
from prunus.core.errors import DataError
from prunus.data import ArraySource, Examples, Scaler

N = 20
VALUES = torch.arange(N * 3, dtype=torch.float32).reshape(N, 3)
SOURCE = ArraySource(
    "set",
    tuple(f"s{row}" for row in range(N)),
    VALUES,
    torch.arange(N) % 4,
    "classification",
    tuple("abcd"),
    ("u", "v", "w"),
)
ROWS = torch.tensor([3, 19, 0, 7, 8, 11, 2])
SCALER = Scaler(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 8.0]))


@pytest.fixture(params=[1 << 20, 0], ids=["kept in memory", "read again"])
def examples(request):
    return Examples(SOURCE, ROWS, scaler=SCALER, budget_bytes=request.param)


def joined(examples, batch_size=3, generator=None):
    batches = list(examples.batches(batch_size, generator))
    return [torch.cat([batch[field] for batch in batches]) for field in range(3)]


def test_in_order_every_example_comes_once_scaled(examples):
    index, inputs, targets = joined(examples)
    assert index.tolist() == list(range(7))
    assert torch.equal(inputs, (VALUES[ROWS] - SCALER.mean) / SCALER.deviation)
    assert torch.equal(targets, SOURCE.targets[ROWS])
    assert [len(batch.index) for batch in examples.batches(3)] == [3, 3, 1]


def test_shuffled_every_example_comes_once_and_the_generator_decides(examples):
    first, again, other = (joined(examples, 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert sorted(first[0].tolist()) == list(range(7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], examples.inputs_at(first[0]))
    assert torch.equal(first[2], examples.targets[first[0]])


def test_a_generator_moves_on_from_epoch_to_epoch(examples):
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(joined(examples, 3, generator)[0], joined(examples, 3, generator)[0])


def test_what_is_known_about_them(examples):
    assert len(examples) == 7
    assert examples.ids == ("s3", "s19", "s0", "s7", "s8", "s11", "s2")
    assert (examples.n_outputs, examples.task.name, examples.class_names) == (4, "classification", tuple("abcd"))
    assert (examples.feature_names, examples.input_shape) == (("u", "v", "w"), (3,))
    assert "n=7" in repr(examples)


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, list])
def test_selecting_takes_rows_ids_targets_and_inputs_together(examples, form):
    keep = [True, False, False, True, True, False, True]
    joined(examples)  # whether the inputs are made before or after makes no difference
    chosen = examples.select(form(keep)).select(form([True, True, False, True]))
    assert chosen.ids == ("s3", "s7", "s2")
    assert chosen.rows.tolist() == [3, 7, 2]
    index, inputs, targets = joined(chosen, 2)
    assert index.tolist() == [0, 1, 2]
    assert torch.equal(inputs, SCALER(VALUES[[3, 7, 2]]))
    assert torch.equal(targets, SOURCE.targets[[3, 7, 2]])
    assert len(examples) == 7  # untouched


def test_nothing_can_be_selected(examples):
    none = examples.select(np.zeros(7, bool))
    assert (len(none), none.ids, list(none.batches(2))) == (0, (), [])


def test_other_targets_leave_the_old_ones_alone(examples):
    changed = examples.with_targets(np.array([3, 3, 3, 3, 0, 0, 0]))
    assert changed.targets.dtype == torch.int64
    assert changed.select(np.arange(7) > 3).targets.tolist() == [0, 0, 0]
    assert torch.equal(examples.targets, SOURCE.targets[ROWS])
    assert examples.with_targets(np.array([3.0] * 7)).targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0] * 6, r"one target per example, \(7,\): got shape \(6,\)"),
        ([4] * 7, r"class numbers 0\.\.3, got 4\.\.4"),
        ([-1, 0, 0, 0, 0, 0, 0], "got -1"),
        ([0.5] * 7, "class numbers"),
    ],
)
def test_targets_that_do_not_fit_are_refused(examples, targets, message):
    with pytest.raises(DataError, match=message):
        examples.with_targets(torch.tensor(targets))


@pytest.mark.parametrize("keep", [[True] * 6, [1] * 7, [[True] * 7]])
def test_keep_must_hold_one_truth_value_per_example(examples, keep):
    with pytest.raises(DataError, match=r"one truth value per example, \(7,\): got"):
        examples.select(keep)


def test_regression_has_one_output_and_float_targets():
    source = ArraySource("set", SOURCE.ids, VALUES, torch.arange(N).float(), "regression")
    examples = Examples(source, ROWS)
    assert examples.n_outputs == 1
    assert examples.with_targets(np.arange(7)).targets.dtype == torch.float32
    with pytest.raises(DataError, match="finite targets"):
        examples.with_targets(torch.full((7,), float("nan")))


def test_moving_keeps_everything(examples):
    moved = examples.select(ROWS > 2).to("cpu")
    assert moved.ids == examples.select(ROWS > 2).ids
    assert torch.equal(joined(moved)[1], joined(examples.select(ROWS > 2))[1])


def test_a_batch_must_hold_something(examples):
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        list(examples.batches(0))


def test_in_memory_an_epoch_needs_no_work_per_example():
    n = 1_000_000
    source = ArraySource(
        "big", tuple(map(str, range(n))), torch.zeros(n, 4), torch.zeros(n, dtype=torch.int64), "classification", ("a",)
    )
    examples = Examples(source, torch.arange(n))

    def epoch():
        assert sum(len(batch.targets) for batch in examples.batches(512, torch.Generator())) == n

    assert steps_of(epoch) < n / 4  # of a batch of 512, some seventy
