"""A file of NNCF holds whole numbers where it should, is the same each time, and nobody is told of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus.core.code.extras import require
from prunus.core.errors import ModelError
from prunus.evaluate.timing.onnx_session import export_onnx
from prunus.ship.openvino_file import XML, OpenVinoFile, OpenVinoModel
from prunus.ship.quantize.openvino_int8 import NncfInt8
from prunus.ship.quantize.put_back import relative_error

N_LAYERS = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    ).eval()


def file_of(model, example, folder: Path) -> OpenVinoFile:
    openvino = require("openvino", extra="openvino")
    folder.mkdir()
    openvino.save_model(openvino.Core().read_model(export_onnx(model, example)), folder / XML, compress_to_fp16=False)
    return OpenVinoFile.at(folder)


def stored(file: OpenVinoFile) -> int:
    """Return how many weights of two or more dimensions are stored in 8 bits."""
    openvino = require("openvino", extra="openvino")
    nodes = file.read(openvino.Core()).get_ordered_ops()
    return sum(
        node.get_type_name() == "Constant"
        and str(node.get_element_type()) == "<Type: 'int8_t'>"
        and len(node.shape) > 1
        for node in nodes
    )


def rounded(file: OpenVinoFile) -> int:
    openvino = require("openvino", extra="openvino")
    return sum(node.get_type_name() == "FakeQuantize" for node in file.read(openvino.Core()).get_ordered_ops())


@pytest.fixture(scope="module")
def images():
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return file_of(network(), torch.zeros(2, 3, 8, 8), tmp_path_factory.mktemp("ov") / "float")


@pytest.fixture(scope="module")
def int8(file, images):
    return NncfInt8(file, [{"input": part.numpy(), "unused": part.numpy()} for part in images.split(16)])


def test_all_layers_are_int8_and_the_answers_nearly_the_same(int8, file, images):
    made = int8.of_all_but(())
    assert len(int8.layers) == stored(made) == N_LAYERS
    assert not any("WithoutBiases" in name for name in int8.layers)
    expected = [network()(images).detach()]
    assert relative_error(expected, OpenVinoModel(file).outputs(images)) < 1e-5
    assert 0 < relative_error(expected, OpenVinoModel(made).outputs(images)) < 0.05
    assert int8.of_all_but(()) == made, "the same examples give the same bytes"


def test_a_layer_stays_in_float_or_is_the_only_one_that_is_rounded(int8, file, images):
    expected = OpenVinoModel(file).outputs(images)
    apart = []
    for layer in int8.layers:
        assert stored(int8.of_all_but([layer])) == N_LAYERS - 1
        alone = int8.of_only(layer)
        assert rounded(alone) == 2, "what comes in, and the weights"
        apart.append(relative_error(expected, OpenVinoModel(alone).outputs(images)))
    assert all(0 < one < 0.05 for one in apart)
    none = OpenVinoModel(int8.of_all_but(int8.layers)).outputs(images)
    assert relative_error(expected, none) < 1e-6, "with every layer in float nothing is rounded"


def test_whoever_attends_is_smoothed_and_its_products_may_go_back_to_float(tmp_path):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(8, 6, 16, generator=torch.Generator().manual_seed(2))
    file = file_of(model, x[:2], tmp_path / "float")
    int8 = NncfInt8(file, [{"input": x.numpy()}])
    assert len(int8.layers) >= 5, "four projections, and a product of attention"
    expected = OpenVinoModel(file).outputs(x)
    assert 0 < relative_error(expected, OpenVinoModel(int8.of_all_but(())).outputs(x)) < 0.05
    assert relative_error(expected, OpenVinoModel(int8.of_all_but(int8.layers)).outputs(x)) < 1e-5


def test_a_model_without_anything_to_gain_is_refused(tmp_path):
    file = file_of(nn.ReLU(), torch.zeros(2, 3), tmp_path / "float")
    with pytest.raises(ModelError, match="needs operations that NNCF knows in 8 bits: the model has none"):
        NncfInt8(file, [{"input": torch.randn(4, 3).numpy()}])


CHILD = """
import sys
asked = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        asked.append(event)
        raise OSError("no network here")
sys.addaudithook(hook)
if sys.argv[1] == "plainly":
    import openvino
else:
    if sys.argv[1] == "after another's import":
        import nncf
        asked.clear()
    import torch
    from pathlib import Path
    from prunus.core.code.extras import require
    from prunus.evaluate.timing.onnx_session import export_onnx
    from prunus.ship.openvino_file import OpenVinoFile, OpenVinoModel
    from prunus.ship.quantize.openvino_int8 import NncfInt8
    openvino, x = require("openvino", extra="openvino"), torch.randn(4, 8)
    openvino.save_model(openvino.Core().read_model(export_onnx(torch.nn.Linear(8, 4), x)), "model.xml")
    int8 = NncfInt8(OpenVinoFile.at(Path()), [{"input": x.numpy()}])
    OpenVinoModel(int8.of_all_but(())).outputs(x)
    assert "pytest" not in sys.modules, "where it is, NNCF reports nothing anyway"
import concurrent.futures.thread as pool
pool._python_exit()  # what was to be sent in other threads is
print(len(asked))
"""


def attempts(how: str, home: Path) -> int:
    """Return how often a process on its own, in which nothing looks like a test, asked for a host or a connection."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CI", "NNCF_", "GITHUB_", "PYTEST"))}
    path = os.pathsep.join([str(Path(__file__).parents[4] / "src"), kept.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, how],
        env={**kept, "HOME": str(home), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


def test_nothing_leaves_the_machine(tmp_path):
    assert attempts("as prunus does", tmp_path) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.bin", "model.xml"], (
        "nothing is kept about the user either"
    )


@pytest.mark.nightly
@pytest.mark.parametrize(("how", "some"), [("plainly", True), ("after another's import", False)])
def test_what_would_have_left_it(tmp_path, how, some):
    """Imported plainly, OpenVINO asks for its maker's host: the check above can fail."""
    assert (attempts(how, tmp_path) > 0) == some
