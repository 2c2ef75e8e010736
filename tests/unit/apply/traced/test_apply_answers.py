"""A traced computation answers with what the class answers with, however it is called."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import prunus
from prunus.apply import shrink
from prunus.core.errors import ModelError
from prunus.core.structures.forms import form_of
from prunus.graph import analyze


@dataclasses.dataclass
class Found:
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    extra: tuple[torch.Tensor, ...] | None = None


class Detector(nn.Module):
    """Its layers of attention hold how many heads they have: they can't follow a cut."""

    def __init__(self, answers_with):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 1)
        self.classes, self.boxes = nn.Linear(16, 3), nn.Linear(16, 4)
        self.answers_with = answers_with

    def forward(self, seen, weight=None):
        seen = self.body(self.embed(seen))
        seen = seen if weight is None else seen * weight[..., None]
        return self.answers_with(self.classes(seen), self.boxes(seen).sigmoid())


ANSWERS = {
    "a mapping": lambda logits, boxes: {"logits": logits, "pred_boxes": boxes},
    "a dataclass": lambda logits, boxes: Found(logits=logits, extra=(boxes,)),
    "a nested structure": lambda logits, boxes: [{"logits": logits}, (boxes, {"of": Found(logits=boxes)})],
}
X, WEIGHT = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 15).view(3, 5)


def made(answers_with):
    torch.manual_seed(0)
    return Detector(answers_with).eval()


def traced(model, *inputs, **named):
    graph = analyze(model, inputs, named)
    return shrink(model, inputs, graph, {}, kwargs=named, prefer="graph").model


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_has_the_form_of_the_models(case):
    model = made(ANSWERS[case])
    graph = traced(model, X)
    assert form_of(graph(X)) == form_of(model(X))
    torch.testing.assert_close(
        graph(X[:2]), graph.answer.filled([t[:2] for t in prunus.core.structures.forms.tensors_of(model(X))])
    )


def test_names_are_read_where_the_class_could_not_follow_the_cut(tmp_path):
    model = made(ANSWERS["a mapping"])
    graph = analyze(model, (X,))
    (heads,) = [group.name for group in graph.groups if group.kind == "head"]
    small = shrink(model, (X,), graph, {heads: torch.tensor([True, False, False, True])})
    assert small.kind == "graph"
    assert {name: value.shape for name, value in small.model(X).items()} == {
        "logits": (3, 5, 3),
        "pred_boxes": (3, 5, 4),
    }
    again = prunus.prune(small.model, X, keep_fraction=0.7, criterion="magnitude_l2", listener=lambda event: None)
    assert set(again.model(X)) == {"logits", "pred_boxes"}


def test_inputs_are_known_by_name_and_by_place():
    model = made(ANSWERS["a mapping"])
    expected = model(X, WEIGHT)["logits"]
    for graph in (traced(model, X, WEIGHT), traced(model, weight=WEIGHT, seen=X), traced(model, X, weight=WEIGHT)):
        torch.testing.assert_close(graph(seen=X, weight=WEIGHT)["logits"], expected)
        torch.testing.assert_close(graph(weight=WEIGHT, seen=X)["logits"], expected)
        torch.testing.assert_close(graph(X, WEIGHT)["logits"], expected)
        with pytest.raises(ModelError, match="got seen"):
            graph(X)


def test_two_inputs_of_one_shape_arent_taken_for_each_other():
    class Minus(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, left, right):
            return self.b(self.a(left).relu()) - right

    model, left, right = Minus().eval(), torch.randn(3, 4), torch.randn(3, 4)
    graph = traced(model, left, right)
    torch.testing.assert_close(graph(right=right, left=left), model(left, right))
    torch.testing.assert_close(copy.deepcopy(graph)(right=right, left=left), model(left, right))
