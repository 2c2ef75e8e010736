"""Is an epoch of few examples as long as one of many, and each as often in it as any other?"""

import numpy as np
import pytest
import torch

from prunus.core.recipes.recipe import Train
from prunus.core.runtime import generator
from prunus.data import ArraySource, Examples, Repeated
from prunus.recover import n_training_batches, train
from prunus.recover.distil import teacher_outputs


def examples_of(n):
    values = torch.arange(2 * n, dtype=torch.float32).reshape(n, 2) / n
    ids = tuple(map(str, range(n)))
    return Examples(ArraySource("set", ids, values, torch.arange(n) % 2, "classification", ("a", "b")), torch.arange(n))


@pytest.mark.parametrize(("own", "n"), [(4, 10), (7, 8), (5, 15), (3, 3), (1, 6)])
def test_each_comes_as_often_as_any_other_or_once_more_and_its_index_is_its_own(own, n):
    examples = examples_of(own)
    long = Repeated(examples, n)
    assert len(long) == n
    seen = np.zeros(own, int)
    for batch in long.batches(4, generator(0, "epoch")):
        assert torch.equal(batch.inputs, examples.inputs_at(batch.index))
        assert torch.equal(batch.targets, examples.targets[batch.index])
        np.add.at(seen, batch.index.numpy(), 1)
    assert seen.sum() == n
    assert seen.max() - seen.min() <= 1


def test_an_epoch_hangs_on_its_generator_alone_and_two_differ():
    long = Repeated(examples_of(6), 10)

    def order(epoch):
        return torch.cat([batch.index for batch in long.batches(4, generator(0, "epoch", epoch))]).tolist()

    first, second = order(0), order(1)
    assert order(0) == first != second
    assert sorted(first) != sorted(second)  # the rest is drawn anew


def test_without_a_generator_each_comes_once_so_that_a_teacher_is_looked_up_by_index():
    examples = examples_of(5)
    teacher = torch.nn.Linear(2, 2)
    known = teacher_outputs(teacher, Repeated(examples, 12))
    assert torch.allclose(known, teacher(examples.inputs_at(torch.arange(5))))


def test_a_training_takes_the_steps_of_one_on_so_many():
    counts = []
    for examples in (examples_of(22), Repeated(examples_of(9), 22)):
        steps = []
        model = torch.nn.Linear(2, 2)
        config = Train(epochs=3, batch_size=4, learning_rate=1e-4)
        train(model, examples, config, seed=0, stage="s", after_step=lambda steps=steps: steps.append(1))
        counts.append(len(steps))
    assert counts == [3 * n_training_batches(22, 4)] * 2
