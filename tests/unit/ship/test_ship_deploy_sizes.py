"""An ONNX file takes what the bundle takes (several inputs, ids, bytes, other lengths and sizes), and refuses what it refuses."""

from __future__ import annotations

import pytest
import torch
from test_ship_inputs import Detector
from test_ship_sizes import (
    CASES,
    Adaptive,
    Camera,
    answer,
    ids,
    ids_and_mask,
    image,
    loaded,
    photo,
    saved,
    steps,
)
from torch import nn

from prunus.core.errors import ModelError
from prunus.data import Scaler
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.ship import load_bundle
from prunus.ship.deploy import export_file
from prunus.ship.formats import to_onnx
from tests_support import onnxruntime_installed

pytestmark = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")


@pytest.mark.parametrize(
    ("name", "prefer"),
    [("lstm", "graph"), ("transformer", "eager"), ("transformer", "graph"), ("pair", "graph"), ("short", "graph"),
     ("flat", "eager")],
)  # fmt: skip
def test_the_file_answers_as_the_model_does_at_other_sizes_and_refuses_the_rest(name, prefer, tmp_path):
    model, bundle = loaded(name, prefer, tmp_path / "b")
    _, example, right, wrong = CASES[name]
    facts = export_file(bundle, "onnx", tmp_path / "m.onnx")
    assert facts.difference < 1e-5
    file = OnnxModel((tmp_path / "m.onnx").read_bytes())
    for inputs in (example, *right):
        assert torch.allclose(file(inputs), answer(model, inputs), atol=1e-5)
    for inputs, _ in wrong:
        with pytest.raises(ModelError, match="ONNX Runtime fails on"):
            file(inputs)


@pytest.mark.parametrize("prefer", ["eager", "graph"])
@pytest.mark.parametrize(("kind", "of"), [(Adaptive, image), (Camera, photo)])
def test_images_of_any_size_where_the_last_pooling_is_one_mean(kind, of, prefer, tmp_path):
    class Mean(kind):
        def __init__(self):
            super().__init__()
            self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 2)

    torch.manual_seed(0)
    model = Mean()
    saved(model, of(4, 16), tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Mean, prefer=prefer)
    assert export_file(bundle, "onnx", tmp_path / "m.onnx").sizes == ("(n, 3, 3 or more, 3 or more)",)
    file = OnnxModel((tmp_path / "m.onnx").read_bytes())
    for inputs in (of(3, 24), of(1, 7, 31)):
        assert torch.allclose(file(inputs), answer(model, inputs), atol=1e-5)
    with pytest.raises(ModelError, match="ONNX Runtime fails on"):
        file(of(2, 2))


def test_a_pooling_that_onnx_hasnt_got_at_any_size_keeps_that_of_the_example_and_says_so(tmp_path):
    model, bundle = loaded("adaptive", "graph", tmp_path / "b")
    facts = export_file(bundle, "onnx", tmp_path / "m.onnx")
    assert facts.sizes == ("(n, 3, 16, 16)",)
    assert facts.note.startswith("sizes are those of the example, since others can't be exported (")
    file = OnnxModel((tmp_path / "m.onnx").read_bytes())
    assert torch.allclose(file(image(3, 16)), answer(model, image(3, 16)), atol=1e-5)
    with pytest.raises(ModelError, match="Got: 24 Expected: 16"):
        file(image(2, 24))


def test_the_line_says_what_may_vary(tmp_path):
    _, bundle = loaded("transformer", "graph", tmp_path / "b")
    facts = export_file(bundle, "onnx", tmp_path / "m.onnx").to_dict()
    assert facts["sizes"] == ["input_ids (n, 1 to 40)", "attention_mask (n, 1 to 40)"]


def test_several_outputs_keep_their_order(tmp_path):
    example = {"input_ids": ids(4, 7), "attention_mask": torch.ones(4, 7)}
    torch.manual_seed(0)
    model = Detector()
    saved(model, example, tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Detector)
    export_file(bundle, "onnx", tmp_path / "m.onnx")
    given = {"input_ids": ids(3, 5), "attention_mask": torch.ones(3, 5)}
    file = OnnxModel((tmp_path / "m.onnx").read_bytes())
    assert [value.name for value in file.session.get_outputs()] == ["output_0", "output_1"]
    for got, expected in zip(file.outputs(given), bundle.outputs(given), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


def test_the_scaler_of_images_is_in_the_file(tmp_path):
    torch.manual_seed(0)
    model = Adaptive()
    saved(model, image(4, 16), tmp_path / "b", scaler=Scaler(torch.full((3, 1, 1), 5.0), torch.full((3, 1, 1), 2.0)))
    bundle = load_bundle(tmp_path / "b", prefer="graph")
    export_file(bundle, "onnx", tmp_path / "m.onnx")
    raw = image(2, 16) * 2 + 5
    expected = answer(model, (raw - 5) / 2)
    assert torch.allclose(bundle.predict(raw), expected, atol=1e-5)
    assert torch.allclose(OnnxModel((tmp_path / "m.onnx").read_bytes())(raw), expected, atol=1e-5)


def test_a_file_that_is_right_at_the_example_s_size_alone_takes_no_other(tmp_path, monkeypatch):
    """The exporter is made to lose how a length is followed: the check at another length notices."""
    _, bundle = loaded("transformer", "graph", tmp_path / "b")
    real = to_onnx.export_onnx

    class Cut(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, **given):
            return self.model(**given) * (1 + (given["input_ids"].shape[1] - 9))

    monkeypatch.setattr(to_onnx, "export_onnx", lambda model, *more: real(Cut(model), *more))
    facts = export_file(bundle, "onnx", tmp_path / "m.onnx")
    assert facts.sizes == ("input_ids (n, 9)", "attention_mask (n, 9)")
    with pytest.raises(ModelError, match="ONNX Runtime fails on"):
        OnnxModel((tmp_path / "m.onnx").read_bytes())(ids_and_mask(2, 10))


def test_other_steps(tmp_path):
    model, bundle = loaded("loop", "graph", tmp_path / "b")
    export_file(bundle, "onnx", tmp_path / "m.onnx")
    file = OnnxModel((tmp_path / "m.onnx").read_bytes())
    assert torch.allclose(file(steps(3, 8)), answer(model, steps(3, 8)), atol=1e-5)
