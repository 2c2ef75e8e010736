"""A model's own signature tells which part of a batch are its inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunus.core.errors import DataError
from prunus.data.sources.apart import Apart, Takes, layout

X, IDS, MASK, Y = torch.zeros(4, 3), torch.zeros(4, 5, dtype=torch.int64), torch.ones(4, 5), torch.arange(4)


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Pair(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Encoder(nn.Module):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Any = None, **more: Any) -> Any:
        return input_ids


class Detector(nn.Module):
    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        return images


def apart(batch: Any, model: nn.Module, **more: Any) -> tuple[Any, Any]:
    return Apart.of(batch, Takes.of(model), "data", **more)(batch)


@pytest.mark.parametrize(
    ("model", "batch", "inputs", "targets"),
    [
        (One(), X, X, None),
        (One(), (X,), X, None),
        (One(), (X, Y), X, Y),
        (One(), [X, Y], X, Y),
        (One(), (X, Y, MASK), X, (Y, MASK)),
        (nn.Sequential(nn.Identity()), (X, Y), X, Y),
        (Pair(), (X, MASK), (X, MASK), None),
        (Pair(), (X, MASK, Y), (X, MASK), Y),
        (Pair(), ((X, MASK), Y), (X, MASK), Y),
        (Pair(), {"a": X, "b": MASK, "y": Y}, {"a": X, "b": MASK}, Y),
        (Pair(), ({"a": X, "b": MASK}, Y), {"a": X, "b": MASK}, Y),
        (Encoder(), (IDS, MASK, Y), (IDS, MASK), Y),
        (Encoder(), (IDS, Y), IDS, Y),
        (Encoder(), {"input_ids": IDS, "idx": Y, "labels": Y}, {"input_ids": IDS}, Y),
        (Encoder(), {"input_ids": IDS, "text": ["a"] * 4}, {"input_ids": IDS}, None),
        (Encoder(), {"input_ids": IDS, "start": Y, "end": Y}, {"input_ids": IDS}, {"start": Y, "end": Y}),
        (One(), {"image": X, "label": Y}, X, Y),
        (Detector(), ((X, X), ({"boxes": X}, {"boxes": Y})), [X, X], [{"boxes": X}, {"boxes": Y}]),
    ],
    ids=range(18),
)
def test_inputs_and_targets_are_told_apart(model: nn.Module, batch: Any, inputs: Any, targets: Any) -> None:
    found = apart(batch, model)
    assert layout(found) == layout((inputs, targets))
    assert str(found) == str((inputs, targets))


def test_targets_are_left_out_where_nobody_wants_them() -> None:
    assert apart((X, Y), One(), labelled=False)[1] is None
    assert apart({"input_ids": IDS, "labels": Y}, Encoder(), labelled=False)[1] is None


@pytest.mark.parametrize(
    ("model", "batch", "said"),
    [
        (Pair(), {"left": X, "right": X}, r"expected the model's arguments \(a, b\) among the keys: got a dict \(left"),
        (One(), "text", "expected batches of tensors"),
        (One(), {"a": X, "b": X}, r"expected the model's arguments \(x\) among the keys"),
    ],
)
def test_what_the_model_cannot_take_is_said(model: nn.Module, batch: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        apart(batch, model)
    assert "\n" not in str(caught.value)


def test_a_layout_is_the_same_for_other_sizes_and_another_for_other_kinds() -> None:
    assert layout({"ids": IDS}) == layout({"ids": IDS[:, :2]})
    assert layout({"ids": IDS}) != layout({"ids": MASK})
    assert layout((X, Y)) != layout((X,))
    detections = [((X, X), ({"boxes": X}, {"boxes": Y})), ((X,), ({"boxes": X},))]
    assert layout(detections[0]) != layout(detections[1]), "boxes of another type"
    assert layout(((X, X), [{"boxes": X}])) == layout(((X,), [{"boxes": X}, {"boxes": Y}]))
    assert layout(X) != layout(X[0])
