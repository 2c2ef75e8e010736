"""A data set that is read when needed is split by number; parts of one's own are taken as they are, unless they share examples."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from drawn_stand_ins import Made, two_inputs
from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import Takes, open_drawn, prepare_drawn
from prunus.data.prepare import Prepared
from prunus.tasks import Classification

TASK = Classification(("r", "g", "b"))
PARTS = ("train", "validation", "calibration", "test")


def prepared(data: Any, takes: Takes | None = None, **config: Any) -> Prepared:
    parts = data if isinstance(data, dict) else {"train": data}
    sources = {part: open_drawn(given, takes or Takes(), f"data[{part!r}]") for part, given in parts.items()}
    return prepare_drawn(sources, Data(source="memory", **{"standardize": False, **config}), TASK)


def test_parts_are_disjoint_and_hold_all_examples() -> None:
    data = Made(10_000)
    found = prepared(data)
    rows = torch.cat([getattr(found, part).rows for part in PARTS])
    assert sorted(rows.tolist()) == list(range(10_000))
    assert data.n_read < 200, "splitting must not read"
    assert not found.scaler.scales
    assert any("no duplicates are looked for" in note for note in found.notes)


def test_classes_are_shared_out_evenly_where_they_are_known() -> None:
    labels = [0] * 90 + [1] * 20 + [2] * 10

    class Uneven(Made):
        targets = labels

        def __getitem__(self, row: int) -> Any:
            return super().__getitem__(row)[0], labels[row]

    found = prepared(Uneven(120))
    assert torch.bincount(found.test.targets).tolist() == [18, 4, 2]
    assert prepared(Made()).test.known_targets is None


def test_a_batch_is_what_the_data_set_gives_and_training_draws_anew() -> None:
    found = prepared(Made(flips=True)).train
    draw = torch.Generator().manual_seed(0)

    def epoch(generator: torch.Generator | None) -> dict[int, Any]:
        batches = list(found.batches(16, generator))
        return {int(row): image for batch in batches for row, image in zip(batch.index, batch.inputs, strict=True)}

    one, two, still, again = epoch(draw), epoch(draw), epoch(None), epoch(None)
    assert one.keys() == still.keys() == set(range(len(found)))
    assert any(not torch.equal(one[row], two[row]) for row in one), "an epoch repeated the augmentation of another"
    assert all(torch.equal(still[row], again[row]) for row in still), "two models would see other inputs"
    repeated = torch.Generator().manual_seed(0)
    assert all(torch.equal(image, one[row]) for row, image in epoch(repeated).items()), (
        "a resumed training would differ"
    )


def test_a_batch_carries_its_own_labels() -> None:
    for data in (Made(), Made(targets=[row % 3 for row in range(120)])):
        part = prepared(data).train.select(torch.arange(66) % 2 == 0)
        for batch in part.batches(5, torch.Generator().manual_seed(3)):
            assert torch.equal(batch.targets, part.rows[batch.index] % 3)


def test_own_parts_are_taken_whole_and_the_rest_from_train() -> None:
    found = prepared({"train": Made(100), "test": DataLoader(Made(40), batch_size=8)})
    assert len(found.test) == 40
    assert len(found.train) + len(found.validation) + len(found.calibration) == 100


def test_a_repaired_label_takes_the_place_of_what_is_read() -> None:
    train = prepared(Made(targets=[row % 3 for row in range(120)])).train
    changed = train.with_targets((train.targets + 1) % 3)
    batch = next(iter(changed.batches(9)))
    assert torch.equal(batch.targets, (changed.rows[:9] + 1) % 3)


def test_without_targets_they_are_the_teacher_s_answers() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    images = torch.randn(60, 3, 2, 2)
    found = prepare_drawn(
        {"train": open_drawn(images, Takes(), "data")}, Data(source="m", standardize=False), TASK, teacher=teacher
    )
    batch = next(iter(found.train.batches(7)))
    assert torch.equal(batch.targets, teacher(batch.inputs).detach())


def test_arrays_that_repeat_an_example_lose_it_in_the_weaker_part() -> None:
    ids, numbers, labels = two_inputs(60)
    parts = {"train": (ids, numbers, labels), "test": (ids[:10], numbers[:10], labels[:10])}
    with pytest.raises(
        DataError, match=r"10 examples are in two parts.*numbers . = ., . = ., . = ., \.\.\.\); remove them, or set"
    ):
        prepared(parts, Takes(2, 2))
    found = prepared(parts, Takes(2, 2), split={"shared": "leave_out"})
    assert len(found.test) == 10
    assert not set(found.train.rows.tolist()) & set(range(10))
    assert any("10 examples are in a stronger part" in note for note in found.notes)


def test_scaling_that_is_asked_for_is_fitted_in_a_pass() -> None:
    found = prepared(Made(60), standardize=True)
    values = torch.cat([batch.inputs for batch in found.train.batches(16)])
    assert values.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    halved = next(iter(prepared(Made(60), scale=2.0).train.batches(4))).inputs
    assert torch.allclose(2 * halved, next(iter(prepared(Made(60)).train.batches(4))).inputs)


ALL = Made(100)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train": ALL, "test": ALL}, r"100 examples are in two parts, one of which is your own: .* in test and train"),
        (
            {"train": Subset(ALL, range(60)), "validation": DataLoader(Subset(ALL, range(58, 80)))},
            r"2 examples are in two parts, .*2 in validation and train \(numbers 0 = 58, 1 = 59\)",
        ),
        (
            {"train": Made(100), "test": [(torch.zeros(3), 0)] * 9},
            r"data\['test'\]: expected inputs like those of train, float32 \[1, 3, 6, 6\]: got float32 \[1, 3\]",
        ),
        (
            {"train": Made(100), "test": torch.zeros(9, 3, 6, 6)},
            "expected labels in all parts or in none: got none here",
        ),
        (Made(3), "too few examples to split: 3 leave none"),
        (
            (torch.zeros(60, 2, 2), torch.arange(60)),
            r"example 3: label out of range: expected a class number 0\.\.2, got 3",
        ),
        ((torch.rand(60, 2, 2), torch.zeros(60, dtype=torch.int64)), "class 'g' is missing from train"),
    ],
    ids=range(7),
)
def test_what_does_not_fit_together_is_said_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        prepared(data)
    assert "\n" not in str(caught.value)


def test_a_column_to_split_by_is_refused_where_there_are_none() -> None:
    with pytest.raises(DataError, match=r"data\.split\.groups names a column, and this source has none"):
        prepared(Made(), split={"groups": "patient"})
    with pytest.raises(DataError, match=r"data\.groups names a column, and this source has none"):
        prepared(Made(), groups="patient")


def test_scaling_of_several_inputs_is_refused() -> None:
    with pytest.raises(DataError, match="only one input of fractional numbers is scaled: got a tuple"):
        prepared(two_inputs(60), Takes(2, 2), standardize=True)
