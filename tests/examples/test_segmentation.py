"""The U-Net of examples/segmentation.py gets half as large, keeps what it promised, and goes on as ONNX."""

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
    return runpy.run_path(str(EXAMPLES / "segmentation.py"))


def test_masks_of_rendered_shapes_are_exact(example):
    images, masks = example["render"](20, seed=3)
    assert torch.equal(images, example["render"](20, seed=3)[0])
    assert images.shape == (20, 3, 32, 32)
    assert masks.unique().tolist() == [0, 1, 2, 3]
    covered = (masks > 0).float().mean(dim=(1, 2))
    assert bool((covered > 0.03).all() and (covered < 0.9).all())


def test_a_circle_is_round_a_square_is_square_and_a_triangle_stands_on_its_base(example):
    masks = example["render"](200, seed=4)[1]
    shares: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for mask in masks:
        if len(mask.unique()) == 2:  # one class: mostly one shape alone
            rows, columns = torch.nonzero(mask, as_tuple=True)
            height, width = (int(v.max() - v.min()) + 1 for v in (rows, columns))
            shares[int(mask.max())].append(len(rows) / (height * width))
    assert np.median(shares[1]) == pytest.approx(np.pi / 4, abs=0.05)
    assert np.median(shares[2]) == 1
    assert np.median(shares[3]) == pytest.approx(0.5, abs=0.06)


def test_the_unet_costs_half_keeps_its_contract_and_answers_the_same_as_onnx(example, tmp_path):
    record = example["main"](tmp_path, n=400, epochs=6, recovery=3, max_drop=0.08)
    assert record.cost["pruned"].macs <= record.cost["dense"].macs / 2
    assert record.kind == "eager"
    (search,) = record.searches
    delivered = next(row for row in search.candidates if row.number == search.delivered)
    assert delivered.test.kept
    assert delivered.test.metric == "miou"
    row = next(row for row in record.comparison if row.metric == "miou")
    assert row.difference.low <= row.difference.value <= row.difference.high
    page = (tmp_path / "report.html").read_text()
    assert [page.count(f"<figcaption>{name}") for name in ("true", "dense", "pruned")] == [4, 4, 4]
    images = example["render"](3, seed=4)[0]
    session = onnxruntime.InferenceSession(tmp_path / "unet.onnx")
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    bundle = load_bundle(tmp_path / "bundle", builder=example["UNet"])
    with torch.no_grad():
        np.testing.assert_allclose(scores, bundle.model.eval()(images).numpy(), atol=1e-3)
