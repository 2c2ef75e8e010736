"""Which tensor of an answer is the one that a task reads."""

import pytest
import torch

from prunus.core.errors import ModelError
from prunus.tasks.one_tensor import one_tensor


def test_the_only_tensor_of_an_answer_is_read_and_of_several_the_one_called_logits():
    one, two = torch.zeros(2, 3), torch.ones(2, 3)
    assert one_tensor((one,)) is one
    assert one_tensor({"hidden": one, "logits": two}) is two
    with pytest.raises(ModelError, match="one tensor of floating-point scores, or a structure with logits"):
        one_tensor((one, two))
