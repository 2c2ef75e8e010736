# ruff: noqa: F401 - fixtures are imported by name
"""In every format that holds free sizes, a file takes what the bundle takes and refuses the rest."""

from __future__ import annotations

import warnings

import pytest
import torch
from test_ship_inputs import Detector
from test_ship_sizes import CASES, answer, ids, image, loaded, saved

from prunus.core.errors import ModelError
from prunus.ship import load_bundle
from prunus.ship.deploy import export_file
from prunus.ship.formats import FORMATS
from tests_support import onnxruntime_installed

pytestmark = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")

FREE = [name for name in ("openvino", "torch") if FORMATS[name].free == "sizes"]


def test_a_recurrent_layer_has_any_length_in_torch_also_after_it_ran_in_this_process(tmp_path):
    """What ran before is remembered by torch, and its own patch of the layer then has no effect."""
    model, bundle = loaded("lstm", "graph", tmp_path / "b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.export(model, (ids(4, 9),), strict=False)
    assert export_file(bundle, "torch", tmp_path / "m").note == ""


def asked(to, path, inputs):
    return FORMATS[to].answers(path, [inputs])[0]


@pytest.mark.parametrize("to", FREE)
@pytest.mark.parametrize(
    ("name", "prefer"),
    [("lstm", "graph"), ("transformer", "eager"), ("transformer", "graph"), ("pair", "graph"), ("short", "graph"),
     ("flat", "eager")],
)  # fmt: skip
def test_the_file_answers_as_the_model_does_at_other_sizes_and_refuses_the_rest(to, name, prefer, tmp_path):
    model, bundle = loaded(name, prefer, tmp_path / "b")
    _, example, right, wrong = CASES[name]
    facts = export_file(bundle, to, tmp_path / "m")
    assert facts.difference < 1e-5
    assert facts.note == ""
    for inputs in (example, *right):
        assert torch.allclose(asked(to, tmp_path / "m", inputs)[0], answer(model, inputs), atol=1e-5)
    for inputs, _ in wrong:
        with pytest.raises(ModelError, match="doesn't run it"):
            asked(to, tmp_path / "m", inputs)


@pytest.mark.parametrize("to", FREE)
def test_several_outputs_keep_their_order(to, tmp_path):
    example = {"input_ids": ids(4, 7), "attention_mask": torch.ones(4, 7)}
    torch.manual_seed(0)
    model = Detector()
    saved(model, example, tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Detector)
    export_file(bundle, to, tmp_path / "m")
    given = {"attention_mask": torch.ones(3, 5), "input_ids": ids(3, 5)}
    for got, expected in zip(asked(to, tmp_path / "m", given), bundle.outputs(given), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("to", FREE)
def test_the_same_model_gives_the_same_bytes_and_no_word_of_the_machine(to, tmp_path):
    _, bundle = loaded("transformer", "graph", tmp_path / "b")
    written = []
    for name in ("one", "two"):
        path = tmp_path / name
        export_file(bundle, to, path)
        written.append(
            path.read_bytes() if path.is_file() else b"".join(p.read_bytes() for p in sorted(path.iterdir()))
        )
    assert written[0] == written[1]
    assert b"/prunus/" not in written[0]
    assert bytes(tmp_path) not in written[0]
