"""A .pt file is read as tensors or refused: its pickle never runs, its sizes are never believed."""

import contextlib
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from prunus.core.errors import WeightsError
from prunus.models import load_weights
from prunus.models.pickle_file import read_checkpoint

TENSORS = {"w": torch.arange(4.0), "v": torch.ones(3)}


def rewritten(path, edit, *, records=None):
    """Save TENSORS to ``path`` with ``edit`` applied to the pickle, and other records replaced."""
    torch.save(TENSORS, path)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            changed = edit(data) if name.endswith("data.pkl") else (records or {}).get(name.partition("/")[2], data)
            if changed is not None:
                archive.writestr(name, changed)
    return path


def swap(old, new):
    def edit(program):
        assert program.count(old) == 1
        return program.replace(old, new)

    return edit


STORAGE_OF_4 = b"cpuq\x06K\x04t"  # ... 'cpu', 4 elements)
SIZE_OF_4 = b"QK\x00K\x04\x85"  # offset 0, size (4,)
BIG_STORAGE = swap(STORAGE_OF_4, b"cpuq\x06K\xc8t")
BIG_TENSOR = swap(SIZE_OF_4, b"QK\x00K\xc8\x85")


def refused(path, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("nest", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_plain_or_nested(tmp_path, nest):
    content = TENSORS if nest is None else {"epoch": 3, nest: TENSORS, "loss": 0.5}
    torch.save(content, tmp_path / "w.pt")
    loaded = read_checkpoint(tmp_path / "w.pt")
    assert list(loaded) == ["w", "v"]
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "kind",
    [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64, torch.uint16],
)
def test_every_number_type_passes_the_check_of_sizes(tmp_path, kind):
    tensor = torch.tensor([0, 1, 1]).to(kind)
    torch.save(
        {"w": tensor, "part": torch.zeros(10, dtype=kind)[3:5], "p": nn.Parameter(torch.ones(2))}, tmp_path / "w.pt"
    )
    loaded = read_checkpoint(tmp_path / "w.pt")
    assert torch.equal(loaded["w"], tensor)
    assert loaded["part"].shape == (2,)


def test_views_of_one_storage_come_back_as_separate_tensors(tmp_path):
    base = torch.arange(6.0)
    torch.save({"a": base[:3], "b": base[2:].reshape(2, 2).T}, tmp_path / "w.pt")
    loaded = read_checkpoint(tmp_path / "w.pt")
    loaded["a"].zero_()
    assert torch.equal(loaded["b"], base[2:].reshape(2, 2).T)


class Bomb:
    """Leave a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["torch.save", "torch.save, old", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, form):
    mark, path = tmp_path / "was_run", tmp_path / "w.pt"
    content = {"w": torch.zeros(1), "evil": Bomb(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"evil": Bomb(mark)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    with pytest.raises(
        WeightsError, match=r"refused, it holds more than tensors .posix.mkdir.|not a \.pt file"
    ) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert torch.equal(model.weight, before)
    if form == "torch.save":
        torch.load(path, weights_only=False)  # the bomb does work
        assert mark.exists()


def test_a_whole_pickled_model_is_refused_with_advice(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    refused(
        tmp_path / "w.pt",
        r"refused, it holds more than tensors \(torch.nn.modules.linear.Linear\).*save model\.state_dict\(\)",
    )


def test_an_unedited_rewrite_loads(tmp_path):
    """The crafted files below are refused for what was changed in them, not for how they are written."""
    assert torch.equal(read_checkpoint(rewritten(tmp_path / "w.pt", lambda program: program))["w"], TENSORS["w"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (BIG_STORAGE, "refused, storage '0' declares 200 elements .800 bytes. and holds 16 bytes"),
        (lambda program: BIG_STORAGE(BIG_TENSOR(program)), "refused, storage '0' declares 200 elements"),
        (BIG_TENSOR, "refused, a tensor declares more elements than its storage holds"),
        (swap(SIZE_OF_4, b"QK\x04K\x04\x85"), "refused, a tensor declares more elements"),  # offset 4, size 4
        (
            swap(b"K\x04\x85q\x08K\x01\x85", b"K\x04\x85q\x08K\x09\x85"),
            "refused, a tensor declares more elements",
        ),  # stride 9
        (swap(b"FloatStorage", b"DoubleStorage"), r"refused, storage '0' declares 4 elements .32 bytes."),
        (swap(STORAGE_OF_4, b"cpuq\x06J\xff\xff\xff\xfft"), "refused, storage '0' declares -1 elements"),
        (
            swap(b"ctorch\nFloatStorage", b"ctorch\nNoSuchStorage"),
            "refused, unknown storage type 'torch NoSuchStorage'",
        ),
        (swap(STORAGE_OF_4, b"cpuq\x06K\x02K\x02\x860K\x04t"), "in a form that torch.save never writes"),
    ],
)
def test_a_file_that_declares_more_than_it_holds_is_refused(tmp_path, edit, message):
    refused(rewritten(tmp_path / "w.pt", edit), message)


def test_what_torch_itself_says_to_the_crafted_files(tmp_path):
    """Whatever this torch does with them, prunus doesn't rely on it for the declared storage."""
    for edit in (BIG_STORAGE, BIG_TENSOR):
        with pytest.raises(RuntimeError):
            torch.load(rewritten(tmp_path / "w.pt", edit), weights_only=True)


def test_a_size_that_hides_behind_a_remembered_value_is_refused(tmp_path):
    # 'storage', type, key and location may be remembered; the number of elements must stand there in full.
    edit = swap(STORAGE_OF_4, b"cpuq\x06h\x06t")
    refused(rewritten(tmp_path / "w.pt", edit), "in a form that torch.save never writes")


def test_an_archive_with_missing_or_short_data_is_refused(tmp_path):
    refused(
        rewritten(tmp_path / "a.pt", lambda program: program, records={"data/0": None}),
        "the data of storage '0' is not in it",
    )
    refused(
        rewritten(tmp_path / "b.pt", lambda program: program, records={"data/0": bytes(15)}),
        "declares 4 elements .16 bytes. and holds 15",
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    torch.save(TENSORS, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "w.pt", r"this is not a \.pt file as PyTorch has written them since 1\.6, or it is cut off")


def test_the_format_before_1_6_is_refused_with_advice(tmp_path):
    torch.save(TENSORS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    refused(
        tmp_path / "w.pt", r"save it again with torch\.save\(model\.state_dict\(\), \.\.\.\), best as \.safetensors"
    )


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "w.pt", "malformed: expected one data.pkl and each name once")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "expected a state dict .names and tensors., got Tensor"),
        ([TENSORS], "got list"),
        ({"w": 3}, "got int under 'w'; a nested one is looked for under state_dict, model_state_dict, model"),
        ({3: torch.ones(2)}, "got Tensor under 3"),
        ({"w": torch.eye(3).to_sparse()}, "'w' must be a plain dense tensor, got torch.sparse_coo"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", message)


def test_flipped_bytes_never_do_worse_than_an_error(tmp_path):
    torch.save(TENSORS, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    start = whole.index(b"\x80\x02}")
    for place in range(start, start + 162, 3):
        (tmp_path / "w.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        with contextlib.suppress(WeightsError):
            read_checkpoint(tmp_path / "w.pt")
