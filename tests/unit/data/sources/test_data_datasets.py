"""A user's own Dataset is read once to know its labels, and its mistakes come back with the sample's number."""

import sys
import textwrap

import pytest
import torch
from torch.utils.data import TensorDataset

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import open_source, prepare_dataset
from prunus.data.sources.datasets import DatasetSource, read_dataset


class Pairs:
    """A map-style data set of whatever pairs it is given."""

    def __init__(self, pairs, **attributes):
        self.pairs = pairs
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, row):
        item = self.pairs[row]
        if isinstance(item, Exception):
            raise item
        return item


CONFIG = Data(source="mine:pairs")
GOOD = [(torch.full((2,), float(row)), row % 2) for row in range(6)]


def refused(pairs, message, config=CONFIG):
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(pairs, config)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        names.append(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_tensor_data_set_and_a_list_of_its_pairs_are_the_same_source():
    inputs, targets = torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    fast = read_dataset(TensorDataset(inputs, targets), CONFIG)
    slow = read_dataset(Pairs(list(TensorDataset(inputs, targets))), CONFIG)
    rows = torch.arange(6)
    assert torch.equal(fast.inputs(rows), inputs)
    assert torch.equal(slow.inputs(rows), inputs)
    assert torch.equal(fast.targets, slow.targets)
    assert fast.ids == slow.ids == tuple("012345")


def test_inputs_are_read_again_whenever_they_are_needed():
    source = read_dataset(Pairs(GOOD), CONFIG)
    assert isinstance(source, DatasetSource)
    assert not source.fixed
    assert source.inputs(torch.tensor([5, 0])).tolist() == [[5.0, 5.0], [0.0, 0.0]]
    assert source.inputs(torch.tensor([], dtype=torch.int64)).shape == (0, 2)
    assert source.targets.tolist() == [0, 1, 0, 1, 0, 1]


def test_inputs_and_targets_come_in_many_forms():
    pairs = [
        (torch.tensor([1, 2], dtype=torch.uint8).numpy(), torch.tensor(0)),
        ([3, 4], torch.tensor([1])),
        (torch.tensor([5.0, 6.0], dtype=torch.bfloat16), 1.0),
    ]
    source = read_dataset(Pairs(pairs), CONFIG)
    assert source.inputs(torch.arange(3)).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert source.targets.tolist() == [0, 1, 1]
    assert read_dataset(Pairs([(x, "ab"[y]) for x, y in GOOD]), CONFIG).class_names == ("a", "b")


def test_class_names_come_from_the_data_set_and_bound_the_labels():
    assert read_dataset(Pairs(GOOD, classes=["no", "yes"]), CONFIG).class_names == ("no", "yes")
    refused(Pairs([*GOOD, (torch.ones(2), 2)], classes=["no", "yes"]), r"row 6 .*expected a class number 0\.\.1, got 2")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.ones(3), 0), r"all inputs must have one shape: sample '2' has \(3,\), sample '0' has \(2,\)"),
        (torch.ones(2), r"sample '2' must be an .input, target. pair, got Tensor"),
        ((1, 2, 3), "sample '2' must be an .input, target. pair, got tuple of 3"),
        (ValueError("disk\nfell off"), "reading sample '2' failed: ValueError: disk fell off"),
        ((torch.tensor([1.0, float("nan")]), 0), "input position 1, sample '2': expected a finite number, got nan"),
        ((torch.ones(2), None), "the target of sample '2' must be one number or text, got NoneType"),
        ((torch.ones(2), torch.ones(3)), r"got Tensor of shape \(3,\)"),
        ((torch.ones(2), "cat"), "sample '2' has the target 'cat', sample '0' has 0: use one kind"),
        ((torch.ones(2), -1), "row 2 .*label out of range.*got -1"),
        (("a picture", 0), "the input of sample '2' must be a tensor of numbers, got str"),
        (({"image": 1}, 0), "the input of sample '2' must be a tensor of numbers, got dict"),
        (([[1], [2, 3]], 0), "the input of sample '2' is no array: ValueError"),
    ],
)
def test_a_bad_example_is_named(item, message):
    refused(Pairs([*GOOD[:2], item, *GOOD[3:]]), message)


def test_an_error_in_an_example_is_chained():
    assert isinstance(refused(Pairs([*GOOD, OSError("gone")]), "OSError: gone").__cause__, OSError)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from GOOD


class Immeasurable(Pairs):
    def __len__(self):
        raise TypeError("no length")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected a map-style torch Dataset, got NoneType"),
        ({0: GOOD[0]}, "got dict"),
        ("text", "got str"),
        (Endless(), "got Endless; return one with __len__ and __getitem__"),
        (torch.utils.data.DataLoader(Pairs(GOOD)), "got DataLoader"),
        (Pairs([]), "empty set"),
        (Immeasurable(GOOD), "its length can't be told: TypeError: no length"),
    ],
)
def test_what_is_no_map_style_data_set_is_refused(value, message):
    refused(value, message)


def test_the_function_is_found_called_with_its_arguments_and_seeded(user_code):
    user_code(
        "dataset_of_mine",
        """
        import torch
        from torch.utils.data import TensorDataset

        def noise(n):
            import dataset_helper  # imported while it runs
            return TensorDataset(torch.randn(n, 2), torch.arange(n) % dataset_helper.CLASSES)
        """,
    )
    user_code("dataset_helper", "CLASSES = 3\n")
    config = Data(source="dataset_of_mine:noise", args={"n": 9})
    torch.manual_seed(1)
    first = open_source(config).inputs(torch.arange(9))
    torch.manual_seed(2)
    assert torch.equal(first, open_source(config).inputs(torch.arange(9)))
    with pytest.raises(DataError, match=r"has no argument 'm' \(data\.args\): choose one of: n"):
        open_source(Data(source="dataset_of_mine:noise", args={"m": 9}))
    with pytest.raises(DataError, match=r"needs the argument 'n': add it to data\.args"):
        open_source(Data(source="dataset_of_mine:noise"))


def test_the_users_mistakes_come_back_as_one_line(user_code):
    user_code("dataset_broken", "def f():\n    raise RuntimeError('no\\nluck')\ndef g(): return 3\n")
    for source, message in {
        "dataset_broken:f": "dataset_broken:f failed: RuntimeError: no luck",
        "dataset_broken:g": "expected a map-style torch Dataset, got int",
        "dataset_broken:h": "has no 'h'",
        "dataset_absent:f": "no module 'dataset_absent'",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            open_source(Data(source=source))
        assert "\n" not in str(caught.value)


def test_a_data_set_can_be_prepared_directly():
    prepared = prepare_dataset(Pairs([(torch.full((2,), float(row)), row % 2) for row in range(40)]))
    assert prepared.train.class_names == ("0", "1")
    assert len(prepared.train) == 22
    assert prepared.source.name == "Pairs"
