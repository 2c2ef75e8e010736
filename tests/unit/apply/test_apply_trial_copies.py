"""What tries of one model share: slices of its parameters, and copies that a forward may write into."""

import torch
from torch import nn

from prunus.apply.classes.slices import slice_tensors
from prunus.apply.difference import Trial


def test_a_copy_that_forward_wrote_into_is_made_anew():
    model = nn.Linear(3, 2)
    trial, weight = Trial(model), model.weight.detach()
    first = trial.copy_of("weight", weight)
    assert trial.copy_of("weight", weight) is first
    first.zero_()
    assert torch.equal(trial.copy_of("weight", weight), model.weight)
    other = torch.ones(2, 3)
    assert torch.equal(trial.copy_of("weight", other), other)


def test_a_slice_is_looked_up_by_what_stays_and_cut_anew_once_it_was_written():
    known = {}

    def sliced(keep):
        model = nn.Linear(3, 4)
        with torch.no_grad():
            model.weight.copy_(torch.arange(12.0).view(4, 3))
        slice_tensors(model, {("weight", 0): torch.tensor(keep)}, known)
        return model.weight

    first = sliced([True, False, True, False])
    assert first[:, 0].tolist() == [0.0, 6.0]
    assert sliced([True, False, True, False]).data_ptr() == first.data_ptr()
    assert sliced([False, True, True, False])[:, 0].tolist() == [3.0, 6.0]
    with torch.no_grad():
        first.zero_()
    assert sliced([True, False, True, False])[:, 0].tolist() == [0.0, 6.0]
