"""A source's name decides how it is read, and what can't be read is named; inputs to predict are matched by name."""

import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from prunus.core.endings import in_words, own_endings
from prunus.core.errors import DataError, MissingExtraError
from prunus.core.recipes.recipe import Data
from prunus.data import encoded_as, open_inputs, open_source
from prunus.data.sources.bundled import BUNDLED
from prunus.data.sources.formats import readers, readers_table
from tests_support import fitted


def refused(name, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(Data(source=name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_a_near_one(tmp_path):
    (tmp_path / "train.csv").write_text("a,label\n1,0\n")
    refused(str(tmp_path / "trian.csv"), r"trian\.csv: there is no such file or folder; did you mean 'train\.csv'")
    refused(
        str(tmp_path / "zzz" / "q.npz"),
        rf"q\.npz: there is no such file or folder; give a file that ends in {re.escape(in_words())}",
    )


def test_an_unknown_ending_is_named(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    (tmp_path / "plain").write_text("x")
    refused(str(tmp_path / "a.xlsx"), rf"expected a file that ends in {re.escape(in_words())}, got '\.xlsx'")
    refused(str(tmp_path / "plain"), "got 'no ending'")


def test_a_reader_lies_in_the_file_that_is_called_after_its_ending():
    """So that the endings are known before anything heavy is imported; there is no other list of them."""
    assert own_endings() == tuple(row["ending"] for row in readers_table())
    for name in readers:
        assert f"prunus.data.readers.read_{name}" in sys.modules


def test_an_ending_in_capitals_is_the_same(tmp_path):
    (tmp_path / "A.CSV").write_text("a,label\n1,0\n2,1\n")
    assert open_source(Data(source=str(tmp_path / "A.CSV"))).feature_names == ("a",)


@pytest.mark.parametrize("name", BUNDLED)
def test_scikit_learns_sets_open(name):
    source = open_source(Data(source=f"sklearn:{name}"))
    n = len(source.ids)
    assert source.targets.shape == (n,)
    assert source.inputs(torch.arange(3)).shape == (3, *source.input_shape)
    assert source.task == ("regression" if name == "diabetes" else "classification")
    assert len(source.feature_names) == (0 if name == "digits" else source.input_shape[0])


def test_digits_are_images_of_0_to_16_and_diabetes_is_not_scaled_over_all_rows():
    from sklearn.datasets import load_digits

    digits = open_source(Data(source="sklearn:digits"))
    values = digits.inputs(torch.arange(1797))
    assert digits.input_shape == (1, 8, 8)
    assert (values.min(), values.max()) == (0, 16)
    assert np.array_equal(values[:, 0].numpy(), load_digits().images)
    assert digits.class_names == tuple("0123456789")
    ages = open_source(Data(source="sklearn:diabetes")).inputs(torch.arange(442))[:, 0]
    assert (ages.min(), ages.max()) == (19, 79)


def test_an_unknown_bundled_set_is_named():
    refused("sklearn:digit", "sklearn:digit: scikit-learn has no such data set here; did you mean 'digits'")
    with pytest.raises(DataError, match=r"takes no data\.args, got size"):
        open_source(Data(source="sklearn:iris", args={"size": 1}))


def test_without_scikit_learn_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prunus\[sklearn\]'"):
        open_source(Data(source="sklearn:iris"))


FEATURES = ("size", "color=blue", "color=red")


def table(path, **columns):
    written = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(written, path)
    else:
        pyarrow.parquet.write_table(written, path)
    return str(path)


def inputs(path, *, shape=(3,), names=FEATURES):
    return open_inputs(path, input_shape=shape, feature_names=names)


@pytest.fixture(params=["p.csv", "p.parquet"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_columns_are_matched_by_name_and_others_are_ignored(path):
    name = table(path, junk=["?", "!"], color=["red", "blue"], size=[1.5, 2.5], id=["p", "q"], label=[None, None])
    ids, values = inputs(name)
    assert ids == ("p", "q")
    assert values.tolist() == [[1.5, 0, 1], [2.5, 1, 0]]


def test_a_table_that_was_trained_on_encodes_the_same_again(path):
    rng = np.random.default_rng(0)
    name = table(
        path,
        a=rng.normal(size=20),
        city=rng.choice(["rome", "oslo", "lima"], 20),
        flag=rng.choice([True, False], 20),
        label=rng.choice(["x", "y"], 20),
    )
    source = encoded_as(opened := open_source(Data(source=name)), fitted(opened))
    _, values = open_inputs(name, input_shape=source.input_shape, feature_names=source.feature_names)
    assert torch.equal(values, source.inputs(torch.arange(20)))


def test_categories_that_look_like_numbers_are_matched_as_text(path):
    _, values = inputs(table(path, size=[1, 2], grade=[1, 3]), names=("size", "grade=1", "grade=3"))
    assert values.tolist() == [[1, 1, 0], [2, 0, 1]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"siez": [1.0], "color": ["red"]}, "the model needs the column 'size'; did you mean 'siez'"),
        ({"size": [1.0]}, "the model needs the column 'color'; "),
        ({"size": [1.0], "color": [""]}, "column 'color', row 0 .*expected a category, .* got an empty cell"),
        ({"size": ["big"], "color": ["red"]}, "column 'size', row 0 .*expected a finite number, got 'big'"),
        ({"size": [1.0, float("inf")], "color": ["red", "red"]}, "column 'size', row 1 .*a finite number.*, got inf"),
        ({"size": [1.0, 2.0], "color": ["red", "red"], "id": ["a", "a"]}, "'id', row 1 .*got 'a', as in row 0"),
        ({"size": [], "color": []}, "empty set"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(path, columns, message):
    kinds = {"size": pa.float64(), "color": pa.string()}
    arrays = {name: values or pa.array(values, kinds[name]) for name, values in columns.items()}
    with pytest.raises(DataError, match=message) as caught:
        inputs(table(path, **arrays))
    assert "\n" not in str(caught.value)


def test_a_model_without_column_names_takes_all_columns_in_order(path):
    name = table(path, id=[5, 6], u=[1, 2], v=[3, 4])
    assert inputs(name, shape=(2,), names=())[1].tolist() == [[1, 3], [2, 4]]
    with pytest.raises(DataError, match=r"inputs of shape \(3,\) and knows no column names, got 2 columns"):
        inputs(name, names=())


def test_an_npz_to_predict_needs_no_labels_but_the_shape(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.ones((2, 3)), id=np.array(["a", "b"]))
    ids, values = inputs(str(tmp_path / "p.npz"))
    assert ids == ("a", "b")
    assert values.dtype == torch.float32
    with pytest.raises(DataError, match=r"the model needs inputs of shape \(4,\), got \(3,\)"):
        inputs(str(tmp_path / "p.npz"), shape=(4,), names=())
    np.savez(tmp_path / "p.npz", x=np.full((2, 3), np.nan))
    with pytest.raises(
        DataError, match=r"'size', row 0 .*a finite number, got nan and 2 more such values \(2 such rows"
    ):
        inputs(str(tmp_path / "p.npz"))
    np.savez(tmp_path / "p.npz", x=np.ones((0, 3)))
    with pytest.raises(DataError, match="empty set"):
        inputs(str(tmp_path / "p.npz"))


def test_inputs_that_are_not_there_or_unknown_are_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        inputs(str(tmp_path / "none.csv"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"an image or a folder of images, got '\.txt'"):
        inputs(str(tmp_path / "a.txt"))
