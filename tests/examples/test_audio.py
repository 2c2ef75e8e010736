"""The tagger of examples/audio.py loses half of its MACs, LSTM units among them, keeps what it promised, and goes on as ONNX."""

import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from prunus import load_bundle

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "audio.py"))


def test_tags_say_when_a_sound_is_there(example):
    clips, tags = example["render"](40, seed=3)
    assert torch.equal(clips, example["render"](40, seed=3)[0])
    assert clips.shape == (40, 32, 62)
    assert tags.shape == (40, 62)
    assert tags.unique().tolist() == [0, 1, 2, 3]
    inner = (tags[:, 1:-1] == tags[:, :-2]) & (tags[:, 1:-1] == tags[:, 2:])  # away from the edges of a sound
    power = clips.amax(dim=1)[:, 1:-1]
    assert float(power[inner & (tags[:, 1:-1] > 0)].quantile(0.05)) > float(
        power[inner & (tags[:, 1:-1] == 0)].median()
    )


def test_the_tagger_costs_half_keeps_its_contract_and_answers_the_same_as_onnx(example, tmp_path):
    record = example["main"](tmp_path, n=240, epochs=3, recovery=1, max_drop=0.1)
    assert record.cost["pruned"].macs <= record.cost["dense"].macs / 2
    assert record.kind == "eager"
    units = {layer.name: layer for layer in record.layers if "memory" in layer.name}
    assert units
    assert any(layer.after < layer.before for layer in units.values())
    assert {row.kind for facts in record.adjustments for row in facts.checks} == {"least_squares"}
    (search,) = record.searches
    assert search.result.test.kept
    assert search.result.test.metric == "dice_foreground"
    clips = example["render"](3, seed=4)[0]
    session = onnxruntime.InferenceSession(tmp_path / "tagger.onnx")
    (scores,) = session.run(None, {session.get_inputs()[0].name: clips.numpy()})
    bundle = load_bundle(tmp_path / "bundle", builder=example["Tagger"])
    with torch.no_grad():
        np.testing.assert_allclose(scores, bundle.model.eval()(clips).numpy(), atol=1e-3)
