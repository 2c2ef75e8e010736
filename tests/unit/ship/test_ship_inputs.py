"""A bundle says what its model takes: token ids, bytes, several tensors by place or by name, and several outputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import BundleError, ModelError, ShapeError
from prunus.ship import load_bundle, save_bundle
from prunus.ship.deploy import export_file
from prunus.ship.inputs import described, made


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.out(torch.relu(self.embed(tokens)).mean(1))


class Camera(nn.Module):
    """It takes bytes, and divides them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, image):
        return self.out(self.conv(image.float() / 255).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, left, right):
        return self.out(torch.tanh(self.left(left)) - self.right(right))


@dataclasses.dataclass
class Found:
    logits: torch.Tensor
    boxes: torch.Tensor


class Detector(nn.Module):
    """Named inputs, and several outputs in a dataclass; the mask can't be taken for the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.logits, self.boxes = nn.Embedding(50, 8), nn.Linear(8, 2), nn.Linear(8, 4)

    def forward(self, attention_mask=None, input_ids=None):
        hidden = torch.relu(self.embed(input_ids)) * attention_mask.unsqueeze(-1)
        hidden = hidden.sum(1) / attention_mask.sum(1, keepdim=True).clamp(min=1)
        return Found(self.logits(hidden), self.boxes(hidden).sigmoid())


IDS = torch.randint(0, 50, (6, 7), generator=torch.Generator().manual_seed(0))
CASES = {
    "ids": (Reader, IDS),
    "bytes": (Camera, torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)),
    "two by place": (Pair, (torch.randn(6, 4), torch.randn(6, 3))),
    "two by name": (Pair, {"left": torch.randn(6, 4), "right": torch.randn(6, 3)}),
    "names and outputs": (Detector, {"input_ids": IDS, "attention_mask": torch.ones(6, 7)}),
}


def saved(name: str, folder):
    kind, example = CASES[name]
    torch.manual_seed(0)
    model = kind().eval()
    shape = described(example)[0].shape
    save_bundle(
        folder,
        model,
        built_by=None,
        dense=kind(),
        input_shape=shape,
        n_outputs=2,
        task="classification",
        example=example,
    )
    return model, example


def expected(model: nn.Module, example) -> list[torch.Tensor]:
    with torch.no_grad():
        out = (
            model(**example)
            if isinstance(example, dict)
            else model(*example)
            if isinstance(example, tuple)
            else model(example)
        )
    return [out.logits, out.boxes] if isinstance(out, Found) else [out]


@pytest.mark.parametrize("prefer", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_what_a_model_takes_comes_back_with_it(name, prefer, tmp_path):
    model, example = saved(name, tmp_path / "bundle")
    builder = CASES[name][0] if prefer == "eager" else None
    bundle = load_bundle(tmp_path / "bundle", builder=builder, prefer=prefer)
    assert (bundle.kind, bundle.manifest.no_graph) == (prefer, None)
    wanted = expected(model, example)
    for got, want in zip(bundle.outputs(example, batch_size=4), wanted, strict=True):
        assert torch.allclose(got, want, atol=1e-6)
    if isinstance(example, dict):
        turned = dict(reversed(example.items()))
        for got, want in zip(bundle.outputs(turned), wanted, strict=True):
            assert torch.allclose(got, want, atol=1e-6)
        if prefer == "graph":
            assert torch.allclose(
                bundle.model(**turned)[0] if len(wanted) > 1 else bundle.model(**turned), wanted[0], atol=1e-6
            )
            with pytest.raises(ModelError, match="by name: got"):
                bundle.model(**{next(iter(example)): example[next(iter(example))]})
    if len(wanted) == 1:
        assert torch.allclose(bundle.predict(example), wanted[0], atol=1e-6)
    else:
        with pytest.raises(ShapeError, match=r"this one gives 2; use outputs\(\.\.\.\)"):
            bundle.predict(example)
    if not isinstance(example, torch.Tensor):
        with pytest.raises(ModelError, match="one positional input and one output"):
            export_file(bundle, "mnn", tmp_path / "model.mnn")


def test_what_doesn_t_fit_the_description_is_said(tmp_path):
    saved("names and outputs", tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    mask = torch.ones(6, 7)
    with pytest.raises(ShapeError, match=r"takes \['input_ids', 'attention_mask'\]: got \['input_ids'\]"):
        bundle.outputs({"input_ids": IDS})
    with pytest.raises(ShapeError, match=r"'input_ids' must be int64 of shape \(n, any\): got torch.float32"):
        bundle.outputs({"input_ids": IDS.float(), "attention_mask": mask})
    with pytest.raises(
        ShapeError, match="'attention_mask' must have the size 6 in dimension 0, as input 'input_ids' has"
    ):
        bundle.outputs({"input_ids": IDS, "attention_mask": mask[:3]})


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (torch.tensor(1.0), r"with the batch as its first dimension: got \(\)"),
        ((), "1 to 64 tensors: got 0"),
        ("text", "with the batch as its first dimension: got str"),
        ((torch.ones(2, 3), torch.ones(3, 3)), r"input 1 must be a tensor with the batch .*: got \(3, 3\)"),
        ({"a b": torch.ones(2)}, r"got float32 \(2,\) by the name 'a b'"),
    ],
)
def test_an_example_that_is_none_is_refused(example, said):
    with pytest.raises(BundleError, match=said):
        described(example)


def test_inputs_to_try_are_as_described_and_always_the_same():
    takes = described({"ids": IDS, "mask": torch.ones(6, 7, dtype=torch.bool)})
    one, other = made(takes, 5, "check"), made(takes, 5, "check")
    assert {name: (value.dtype, tuple(value.shape)) for name, value in one.items()} == {
        "ids": (torch.int64, (5, 7)),
        "mask": (torch.bool, (5, 7)),
    }
    assert int(one["ids"].max()) <= int(IDS.max())
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_pruned_reader_of_ids_is_saved_and_predicts(tmp_path):
    labels = (IDS[:, 0] > 24).long()
    ids, labels = IDS.repeat(10, 1), labels.repeat(10)
    ids[:, 1:] = torch.randint(0, 50, (60, 6), generator=torch.Generator().manual_seed(1))
    optimizer = ModelOptimizer(
        Reader(), (ids, labels), strategy="magnitude_l2", train={"epochs": 1}, recovery={"epochs": 1}, seeds=[0]
    )
    optimizer.fit().prune(keep_fraction=0.5).save(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert torch.allclose(bundle.predict(ids), optimizer.predict_outputs(ids), atol=1e-6)
