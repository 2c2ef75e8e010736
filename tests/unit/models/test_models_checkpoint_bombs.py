"""A small .pt file never becomes large or slow, and honest ones with shared storages load as they were saved."""

import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from torch import nn

from patience import no_hang
from prunus.core.errors import WeightsError
from prunus.models.pickle_data import MAX_INSTRUCTIONS
from prunus.models.pickle_file import read_checkpoint


def with_pickle(path, program, compression=zipfile.ZIP_STORED):
    """Write an archive of one storage of four floats with ``program`` as its pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", bytes(16))
    return path


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


STORAGE = torch.zeros(2**18)
SAVED = {
    "a storage that is repeated": ({"w": torch.zeros(1).expand(2**34)}, "it would become 68719476736 bytes"),
    "overlapping rows": ({"w": STORAGE.as_strided((2**17, 2**17), (1, 1))}, "it would become 68719476736 bytes"),
    "twenty thousand views": ({f"w{i}": STORAGE[i:] for i in range(20_000)}, "it would become"),
    "a bytearray": ({"w": Call(bytearray, 64 << 30)}, "expected a state dict .* got bytearray under 'w'"),
    "a tensor without data": ({"w": torch.empty(2**40, device="meta")}, "expected a state dict"),
}
KEY = b"(" * 400_000 + b"t" * 400_000
DOUBLED = b")q\x00" + b"h\x00\x86q\x00" * 60
PICKLES = {
    "a key nested 400,000 times": (b"\x80\x02}" + KEY + b"K\x01s.", "got int under a key that is a tuple"),
    "a key of 2 to the 60 parts": (b"\x80\x02}" + DOUBLED + b"K\x01s.", "got int under a key that is a tuple"),
    "more instructions than a model has": (b"\x80\x02" + b"]" * (MAX_INSTRUCTIONS + 1) + b".", "more than .* instructions"),
    "a place in the memo of two billion": (b"\x80\x02}r\xff\xff\xff\x7f.", None),
    "bytes that aren't there": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "can't be followed"),
    "a number of 200,000 digits": (b"\x80\x02}X\x01\x00\x00\x00aI" + b"9" * 200_000 + b"\ns.", "can't be followed"),
    "a number of a megabyte": (b"\x80\x02}X\x01\x00\x00\x00a\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"s.", "got int under 'a'"),
    "a class by instruction": (b"(iposix\nsystem\n.", "holds more than tensors .posix.system."),
    "an old-fashioned call": (b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "holds more than tensors .posix.system."),
    "a name of a megabyte": (b"\x80\x02c" + b"x" * 2**20 + b"\nf\n.", "holds more than tensors"),
    "no end": (b"\x80\x02}", "can't be followed"),
    "nothing on the stack": (b"\x80\x02.", "can't be followed"),
    "a mark that isn't there": (b"\x80\x02u.", "can't be followed"),
    "extensions": (b"\x80\x02\x82\x01.", "which torch.save never writes|in a form that"),
}  # fmt: skip


def refused_soon(path, words):
    with no_hang(), pytest.raises(WeightsError, match=words) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", SAVED)
def test_tensors_larger_than_their_file_are_refused(tmp_path, name):
    content, words = SAVED[name]
    torch.save(content, tmp_path / "w.pt")
    refused_soon(tmp_path / "w.pt", words)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_made_by_hand_is_refused(tmp_path, name):
    program, words = PICKLES[name]
    with_pickle(tmp_path / "w.pt", program)
    if words is None:  # harmless: nothing is as large as its number
        assert read_checkpoint(tmp_path / "w.pt") == {}
    else:
        refused_soon(tmp_path / "w.pt", words)


def test_a_compressed_pickle_is_refused(tmp_path):
    with_pickle(tmp_path / "w.pt", b"\x80\x02" + b"]" * 50_000_000, zipfile.ZIP_DEFLATED)
    refused_soon(tmp_path / "w.pt", "compressed or overlap")


def test_colliding_keys_cost_nothing(tmp_path):
    numbers = (b"\x8a\x0b" + ((2**61 - 1) * n).to_bytes(11, "little") + b"N" for n in range(50_000))
    program = b"\x80\x02}(" + b"".join(numbers)
    refused_soon(with_pickle(tmp_path / "w.pt", program + b"u."), "expected a state dict")


def test_tied_weights_load_as_one(tmp_path):
    shared = nn.Linear(8, 8)
    model = nn.ModuleDict({"a": shared, "b": shared, **{f"t{i}": shared for i in range(500)}})
    torch.save(model.state_dict(), tmp_path / "w.pt")
    loaded = read_checkpoint(tmp_path / "w.pt")
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert len({value.data_ptr() for value in loaded.values()}) == 2


def test_every_kind_of_tensor_comes_back_as_torch_itself_loads_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    tagged = base.clone()
    tagged.tag = "kept"
    content = {
        "rows": base[1:3], "columns": base[:, ::2], "turned": base.T, "tagged": tagged, "parameter": nn.Parameter(base.clone()),
        "frozen": nn.Parameter(base[0], requires_grad=False), "scalar": torch.tensor(3), "empty": torch.empty(0, 3),
        "repeated": torch.arange(4).expand(3, 4), "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
        **{str(kind): torch.arange(9).to(kind) for kind in (torch.uint16, torch.uint32, torch.float8_e4m3fn, torch.bfloat16)},
    }  # fmt: skip
    torch.save(content, tmp_path / "w.pt")
    wanted = torch.load(tmp_path / "w.pt", weights_only=True)
    loaded = read_checkpoint(tmp_path / "w.pt")
    assert list(loaded) == list(wanted)
    for name, value in wanted.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert torch.equal(loaded[name].double() if value.is_floating_point() else loaded[name],
                           value.double() if value.is_floating_point() else value)  # fmt: skip


def test_what_lies_beside_a_state_dict_is_passed_over(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "history": [0.5] * 1000, "best": (1, 2.5, None, True),
        "state_dict": model.state_dict(), (1, 2): {3, 4}, 5: b"bytes", "z": 3j, "counts": Counter("aab"), "size": torch.Size([2]),
        "ordered": OrderedDict(a=1), "type": torch.float16,
    }  # fmt: skip
    for protocol in (2, 4, 5):
        torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
        loaded = read_checkpoint(tmp_path / "w.pt")
        assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_records_that_lie_on_one_another_are_refused(tmp_path):
    torch.save({"a": torch.ones(2**16), "b": torch.zeros(2**16)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "a") as archive:
        first = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        for number in range(40):
            again = zipfile.ZipInfo(f"w/data/x{number}")
            again.file_size = again.compress_size = first.file_size
            again.header_offset, again.CRC = first.header_offset, first.CRC
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True
    refused_soon(tmp_path / "w.pt", "compressed or overlap")
