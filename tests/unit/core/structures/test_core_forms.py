"""What held a model's tensors is made again from them alone."""

import copy
import dataclasses
import pickle
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from prunus.core.calls import answer, tensors
from prunus.core.structures.forms import Answer, Form, form_of, tensors_of

Pair = namedtuple("Pair", ["left", "right"])


@dataclasses.dataclass
class Output:
    loss: Any = None
    logits: Any = None
    values: Any = None


A, B, C = (torch.full((2,), float(n)) for n in range(3))
CASES = {
    "a tensor": A,
    "a list": [A, B],
    "a tuple in a list": [(A, B), C],
    "a mapping": {"z": A, "a": B, 3: [C]},
    "an ordered mapping": OrderedDict(z=A, a=B),
    "a named tuple": Pair(A, [B, C]),
    "nothing": None,
    "text and numbers": {"text": "a", "n": 3, "x": A},
    "an empty list": [[], A],
}


@pytest.mark.parametrize("case", CASES)
def test_a_structure_comes_back_from_its_tensors(case):
    made = form_of(CASES[case]).filled(tensors_of(CASES[case]))
    assert form_of(made) == form_of(CASES[case])
    assert [id(t) for t in tensors_of(made)] == [id(t) for t in tensors_of(CASES[case])]


def test_a_named_tuple_has_its_names_and_unpacks():
    made = form_of(Pair(A, B)).filled([A, B])
    left, right = made
    assert made.left is left is A
    assert made.right is right is B


def test_what_is_no_tensor_is_none():
    assert form_of({"text": "a", "n": 3, "x": A}).filled([A]) == {"text": None, "n": None, "x": A}


def test_a_dataclass_becomes_an_answer_that_is_read_by_name_key_and_place():
    made = form_of(Output(logits=A, values=[B, C])).filled([A, B, C])
    assert made.logits is made["logits"] is made[0] is A
    assert made["values"][1] is C  # mappings have a method of that name
    assert made.loss is None
    assert "loss" not in made
    assert made[:1] == (A,)
    with pytest.raises(AttributeError, match="has the fields logits, values, loss: got 'hidden'"):
        made.hidden  # noqa: B018


def test_an_answer_is_a_structure_like_any_other():
    made = Answer({"loss": None, "logits": A})
    assert form_of(made) == form_of(Output(logits=A)) or form_of(made).keys == ("loss", "logits")
    assert pytree.tree_leaves(made) == [A]
    assert pytree.tree_map(lambda t: t + 1, made).logits.tolist() == [1.0, 1.0]
    assert answer(made) is A
    assert [place for place, _ in tensors(made)] == ["logits"]
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin.logits.tolist() == twin["logits"].tolist() == A.tolist()
        assert twin.loss is None
    made["logits"] = B
    assert made.logits is B


def test_dataclasses_inside_of_containers_are_looked_into():
    found = {"out": [Output(logits=A), B]}
    assert tensors_of(found) == [A, B]
    assert form_of(found).filled([A, B])["out"][0].logits is A


def test_a_form_counts_its_tensors():
    assert form_of({"a": [A, B], "b": None}).n_tensors == 2
    assert Form("nothing").n_tensors == 0
