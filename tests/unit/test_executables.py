"""What can run code when it is loaded is loaded by one function, which asks if it was verified; no other way is in the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus.core.errors import BundleError
from prunus.ship.executable_files import load_program, write_program

SOURCES = Path(__file__).parents[2] / "src"
LOADS_PROGRAMS = "ship/executable_files.py"
SPEAKS_TO_RANKS = "recover/training/ranks/parcel.py"
"""Unpickles what rank 0 of one training sends to the others, as torch's own broadcast of objects does; never a file."""
SPEAKS_TO_WORKERS = "scale/dispatch/attempt.py"
"""Unpickles what a process that a run started, or a node of the cluster that it was given, sends; never a file."""
UNSAFE = {
    "torch.export.load", "torch.jit.load", "torch._export.load", "torch._inductor.aoti_load_package", "torch.hub.load",
    "torch.package.PackageImporter", "torch._inductor.aoti_compile_and_package",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "pandas.read_pickle", "pd.read_pickle",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip
FLAGS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
DEFAULTS = {("np.load", "allow_pickle"), ("numpy.load", "allow_pickle")}
"""What is safe where nothing is said."""


def loading(code: str) -> Iterator[tuple[int, str]]:
    """Yield the lines on which a file that can run code would be loaded, and by what."""
    tree = ast.parse(code)
    called: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            called |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            called |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.asname != "np"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        first, dot, rest = ast.unparse(node).partition(".")
        name = called.get(first, first) + dot + rest
        if name in UNSAFE:
            yield node.lineno, name
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            name = called.get(first, first) + dot + rest
            if name in FLAGS:
                flag, safe = FLAGS[name]
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                if given.get(flag) != str(safe) and not (flag not in given and (name, flag) in DEFAULTS):
                    yield node.lineno, name


@pytest.mark.parametrize(
    "path", sorted((SOURCES / "prunus").rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES))
)
def test_no_file_loads_what_can_run_code(path):
    found = list(loading(path.read_text(encoding="utf-8")))
    if str(path.relative_to(SOURCES / "prunus")) == LOADS_PROGRAMS:
        assert [name for _, name in found] == ["torch.export.load"]
    elif str(path.relative_to(SOURCES / "prunus")) == SPEAKS_TO_RANKS:
        assert [name for _, name in found] == ["pickle.Unpickler"]
    elif str(path.relative_to(SOURCES / "prunus")) == SPEAKS_TO_WORKERS:
        assert [name for _, name in found] == ["pickle.loads"]
    else:
        assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import torch as t\nt.load(path)",
        "from torch import load\nload(path)",
        "from torch.export import load as read\nread(path)",
        "import torch\nreader = torch.export.load\nreader(path)",
        "import pickle\npickle.loads(b'')",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader)",
        "import torch\ntorch.jit.load(path)",
    ],
)
def test_every_way_is_noticed(code):
    assert list(loading(code))


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(x, weights_only=True)",
        "import numpy as np\nnp.load(x)",
        "import yaml\nyaml.safe_load(x)",
    ],
)
def test_a_safe_way_is_let_through(code):
    assert not list(loading(code))


@pytest.fixture
def program():
    return torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))


def test_a_program_is_loaded_only_if_it_was_written_here_or_verified(program, tmp_path, monkeypatch):
    own = write_program(program, tmp_path / "own.pt2")
    x = torch.ones(1, 2)
    assert torch.equal(load_program(tmp_path / "own.pt2").module()(x), program.module()(x))
    monkeypatch.setattr("prunus.ship.executable_files._WRITTEN", set())  # as in a process that didn't write it
    with pytest.raises(BundleError, match="runs code when it is loaded"):
        load_program(tmp_path / "own.pt2")
    load_program(tmp_path / "own.pt2", sha256=own)
    content = bytearray((tmp_path / "own.pt2").read_bytes())
    content[-1] ^= 1
    (tmp_path / "own.pt2").write_bytes(content)
    with pytest.raises(BundleError, match="isn't what was verified"):
        load_program(tmp_path / "own.pt2", sha256=own)


def test_a_link_to_a_program_is_not_followed(program, tmp_path):
    write_program(program, tmp_path / "own.pt2")
    (tmp_path / "link.pt2").symlink_to(tmp_path / "own.pt2")
    with pytest.raises(BundleError, match="plain file"):
        load_program(tmp_path / "link.pt2")
