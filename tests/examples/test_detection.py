"""The detector of examples/detection.py gets half as large, keeps what it promised, and goes on as ONNX."""

import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "detection.py"))


def test_boxes_of_rendered_shapes_are_exact(example):
    images, targets = example["render"](20, seed=3)
    again, _ = example["render"](20, seed=3)
    assert torch.equal(images, again)
    assert images.shape == (20, 3, 64, 64)
    assert {0, 1, 2} == {int(label) for target in targets for label in target["labels"]}
    for target in targets:
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        assert bool((sides > 10).all())
        assert bool((target["boxes"] >= 0).all() and (target["boxes"] <= 64).all())


def test_the_detector_costs_half_keeps_its_contract_and_answers_the_same_as_onnx(example, tmp_path):
    record = example["main"](tmp_path)
    assert record.cost["pruned"].macs <= record.cost["dense"].macs / 2
    (search,) = record.searches
    delivered = next(row for row in search.candidates if row.number == search.delivered)
    assert delivered.test.kept
    assert delivered.test.metric == "map"
    row = next(row for row in record.comparison if row.metric == "map")
    assert row.dense > 0.4
    assert row.difference.low <= row.difference.value <= row.difference.high
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figcaption>dense") == page.count("<figcaption>pruned") == 6
    assert page.count("<rect x=") > 6
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    images = example["render"](3, seed=4)[0].numpy()
    outputs = session.run(None, {session.get_inputs()[0].name: images})
    assert sorted(output.shape for output in outputs) == [(3, 64, 3), (3, 64, 4)]
    assert all(np.isfinite(output).all() for output in outputs)
