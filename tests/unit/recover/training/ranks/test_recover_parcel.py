"""What goes to another rank arrives as it was, and what every rank has of its own goes by its name."""

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.recover.training.ranks.parcel import pack, unpack


def test_a_model_arrives_with_what_it_shares_and_what_it_does_not_train():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    loose = torch.arange(4)[1:]
    copy, seen = unpack(pack((model, (loose, loose)), {}), {})
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in model.state_dict().items())
    assert copy[0].weight is copy[1].weight
    assert copy[0].weight is not model[0].weight
    assert [p.requires_grad for p in copy.parameters()] == [p.requires_grad for p in model.parameters()]
    assert seen[0] is seen[1]
    assert torch.equal(seen[0], loose)


def test_what_is_known_goes_by_its_name_alone():
    data, others = torch.zeros(1 << 20), torch.ones(1 << 20)
    parcel = pack({"data": data}, {"train": data})
    assert len(parcel.content) < 200
    assert not parcel.tensors
    assert unpack(parcel, {"train": others})["data"] is others


def test_what_cannot_be_sent_is_one_line():
    with pytest.raises(ModelError, match=r"can't go to the other ranks .*top of a module") as caught:
        pack(lambda: None, {})
    assert "\n" not in str(caught.value)


def test_a_copy_shares_no_memory():
    value = torch.zeros(3)
    copy = unpack(pack([value], {}), {})[0]
    copy += 1
    assert not value.any()
