from __future__ import annotations

import gc
import weakref

import pytest
import torch

from prunus.core.recipes.recipe import Train
from prunus.recover import train
from prunus.recover.training import step_values
from prunus.recover.training.step_values import StepValues
from recover_stand_ins import make_examples, make_model


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_what_comes_out_is_the_stack_of_what_went_in(n, shape):
    given = [torch.randn(shape) for _ in range(n)]
    values = StepValues()
    assert not values
    for value in given:
        values.append(value)
    assert values
    assert torch.equal(values.whole(), torch.stack(given))


def test_no_tensor_is_kept_for_each_step():
    values, seen = StepValues(), []
    for step in range(5000):
        value = torch.tensor(float(step))
        seen.append(weakref.ref(value))
        values.append(value)
    del value
    assert sum(one() is not None for one in seen) < 1024


def test_an_epoch_of_many_steps_holds_as_many_tensors_as_one_of_few(monkeypatch):
    monkeypatch.setattr(step_values, "_AT_ONCE", 16)
    alive: list[int] = []

    def count() -> None:
        alive.append(
            sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()) if len(alive) in (39, 599) else 0
        )

    train(make_model(), make_examples(n=1200), Train(epochs=1, batch_size=2), seed=0, stage="fit", after_step=count)
    assert len(alive) == 600
    assert alive[599] < alive[39] + 150
