"""An .npz is read whole, without running anything from it."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import open_source

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


def save(path, **arrays):
    np.savez(path, **arrays)
    return Data(source=str(path))


@pytest.mark.parametrize("inputs", ["x", "X", "inputs", "data"])
@pytest.mark.parametrize("target", ["label", "labels", "target", "targets", "y"])
def test_the_usual_names_are_found(tmp_path, inputs, target):
    source = open_source(save(tmp_path / "a.npz", **{inputs: X, target: Y}))
    assert source.ids == ("0", "1", "2", "3", "4", "5")
    assert torch.equal(source.inputs(torch.tensor([5, 0])), torch.tensor([[10.0, 11.0], [0.0, 1.0]]))
    assert source.targets.tolist() == Y.tolist()
    assert source.feature_names == ()


def test_names_and_ids_are_taken_from_the_file(tmp_path):
    config = save(
        tmp_path / "a.npz",
        x=X,
        y=Y,
        id=np.array(list("abcdef")),
        class_names=np.array(["no", "yes"]),
        feature_names=np.array(["height", "width"]),
    )
    source = open_source(config)
    assert source.ids == tuple("abcdef")
    assert source.class_names == ("no", "yes")
    assert source.feature_names == ("height", "width")


def test_bytes_stay_bytes_in_memory_and_come_out_as_floats(tmp_path):
    source = open_source(save(tmp_path / "a.npz", x=np.full((4, 1, 2, 2), 255, np.uint8), y=Y[:4]))
    assert source.values.dtype == torch.uint8
    assert source.inputs(torch.arange(4)).dtype == torch.float32
    assert source.input_shape == (1, 2, 2)


def test_one_number_per_example_is_one_feature(tmp_path):
    assert open_source(save(tmp_path / "a.npz", x=X[:, 0], y=Y)).input_shape == (1,)


def test_the_target_array_can_be_named(tmp_path):
    save(tmp_path / "a.npz", x=X, kind=Y)
    assert open_source(Data(source=str(tmp_path / "a.npz"), target="kind")).targets.tolist() == Y.tolist()
    with pytest.raises(DataError, match=r"no target array 'knid' \(data\.target\); did you mean 'kind'"):
        open_source(Data(source=str(tmp_path / "a.npz"), target="knid"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Y}, "no input array: expected one called x, inputs or data, got y"),
        ({"x": X}, "no target array: expected label, target or y, got x"),
        ({"x": X, "y": Y[:5]}, "one target per input, got 6 inputs and 5 targets"),
        ({"x": X[:0], "y": Y[:0]}, "at least one example"),
        ({"x": X[:, :0], "y": Y}, "at least one example and one feature"),
        ({"x": np.where(X == 7, np.nan, X), "y": Y}, "input position 1, sample '3': expected a finite number, got nan"),
        ({"x": np.where(X == 7, 1e300, X), "y": Y}, "sample '3': expected a finite number, got inf"),
        ({"x": X, "y": Y, "feature_names": np.array(["a", "b"]), "id": Y}, "the id '0' is given twice .rows 0 and 2"),
        ({"x": X, "y": Y, "id": np.arange(5)}, "one id per input, got 5 ids"),
        ({"x": X, "y": Y, "feature_names": np.array(["a"])}, "got 1 feature_names"),
        ({"x": X.astype(str), "y": Y}, "expected numbers, got <U"),
        ({"x": np.float64(3), "y": Y}, "got a single number"),
        ({"x": X, "y": Y, "class_names": X}, "'class_names' must be a list of texts"),
    ],
)
def test_arrays_that_do_not_make_a_data_set_are_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(save(tmp_path / "a.npz", **arrays))
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_not_a_number_names_its_feature_where_it_has_a_name(tmp_path):
    bad = np.where(X == 7, np.nan, X)
    config = save(tmp_path / "a.npz", x=bad, y=Y, feature_names=np.array(["height", "width"]))
    with pytest.raises(DataError, match=r"column 'width', sample '3'"):
        open_source(config)


class Bomb:
    """Leave a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_an_object_array_is_refused_and_its_code_never_runs(tmp_path):
    mark = tmp_path / "was_run"
    config = save(tmp_path / "a.npz", x=np.array([Bomb(mark)] * 6, dtype=object), y=Y)
    with pytest.raises(DataError, match="the array 'x' holds Python objects"):
        open_source(config)
    assert not mark.exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["x"]  # the bomb does work
    assert mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    save(tmp_path / "a.npz", x=X, y=Y)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        open_source(Data(source=str(tmp_path / "a.npz")))


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        open_source(Data(source=str(tmp_path / "a.npz")))


def test_a_single_array_and_a_text_are_no_npz(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"expected an \.npz with several arrays"):
        open_source(Data(source=str(tmp_path / "a.npz")))
    (tmp_path / "a.npz").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="not a readable"):
        open_source(Data(source=str(tmp_path / "a.npz")))


def test_arguments_are_refused(tmp_path):
    save(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"takes no data\.args, got size"):
        open_source(Data(source=str(tmp_path / "a.npz"), args={"size": 3}))
