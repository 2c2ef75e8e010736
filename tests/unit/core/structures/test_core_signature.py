"""However the tensors come, they are put into the order of the trace, or refused."""

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.core.structures.signature import signature_of


class Three(nn.Module):
    def forward(self, ids, mask=None, kinds=None, return_dict=True):
        return ids


class Any_(nn.Module):
    def forward(self, *inputs):
        return inputs[0]


A, B, C = (torch.full((1,), float(n)) for n in range(3))


def test_names_come_in_any_order():
    found = signature_of(Three(), (), {"mask": A, "ids": B})
    assert found.tensors((), {"ids": B, "mask": A}) == [A, B]
    assert found.names == ("mask", "ids")


def test_places_stand_for_the_names_of_forward():
    by_name = signature_of(Three(), (), {"kinds": A, "ids": B})
    assert by_name.tensors((B, None, A), {}) == [A, B]
    by_place = signature_of(Three(), (A, B), {})
    assert by_place.tensors((), {"mask": B, "ids": A}) == [A, B]
    assert by_place.tensors((A,), {"mask": B, "return_dict": True}) == [A, B]
    assert by_place.names == ()


def test_a_forward_of_any_number_of_inputs_numbers_them():
    found = signature_of(Any_(), (A, B), {})
    assert found.tensors((A, B), {}) == [A, B]
    with pytest.raises(ModelError, match="takes input_0, input_1: got 3 by position"):
        found.tensors((A, B, C), {})


@pytest.mark.parametrize(
    ("inputs", "named", "words"),
    [
        ((A,), {}, "the model takes ids, mask: got ids"),
        ((A, B, C), {}, "the model takes ids, mask: got ids, mask, kinds"),
        ((A,), {"ids": A, "mask": B}, "got ids twice, by position and by name"),
        ((A, [B]), {}, "takes mask as a tensor with one tensor, as it was traced: got a list with 1"),
        ((), {"labels": C, "ids": A, "mask": B}, "got labels, ids, mask"),
    ],
)
def test_what_wasnt_traced_is_refused(inputs, named, words):
    with pytest.raises(ModelError, match=words):
        signature_of(Three(), (A, B), {}).tensors(inputs, named)


def test_arguments_that_hold_several_tensors_keep_their_order():
    found = signature_of(Three(), ([A, B],), {"mask": {"x": C}})
    assert found.tensors((), {"mask": {"x": C}, "ids": [A, B]}) == [A, B, C]
    with pytest.raises(ModelError, match="takes ids as a list with 2 tensors, as it was traced: got a list with 1"):
        found.tensors(([A],), {"mask": {"x": C}})
