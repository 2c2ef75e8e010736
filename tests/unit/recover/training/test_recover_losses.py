from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import ModelError, ShapeError
from prunus.core.recipes.recipe import Distil
from prunus.data import Batch
from prunus.recover import default_loss, distillation_loss, given_loss, teacher_outputs
from prunus.recover.distil import soft_divergence
from prunus.tasks import Classification, Regression
from recover_stand_ins import make_batch, make_examples, make_model


def test_cross_entropy_with_smoothing_follows_the_formula():
    outputs, targets = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([1])
    log_p = torch.log_softmax(outputs, dim=1)[0]
    expected = -(0.9 * log_p[1] + 0.1 * log_p.mean())
    assert torch.isclose(default_loss(Classification(), 0.1)(outputs, make_batch(outputs, targets)), expected)


def test_regression_outputs_of_one_column_are_compared_row_by_row():
    targets = torch.tensor([1.0, 2.0, 4.0])
    batch = make_batch(targets, targets)
    loss = default_loss(Regression())
    assert loss(targets.unsqueeze(1), batch) == 0
    assert loss(targets + 2, batch) == 4
    with pytest.raises(ShapeError, match=r"shape \(3,\): got \(3, 2\)"):
        loss(torch.zeros(3, 2), batch)


def test_classification_outputs_of_another_shape_are_refused():
    batch = make_batch(torch.zeros(3, 1), torch.tensor([0, 1, 0]))
    with pytest.raises(ShapeError, match=r"must be \(3, classes\).*got \(3,\)"):
        default_loss(Classification(n_classes=3))(torch.zeros(3), batch)


def test_the_divergence_is_hinton_s_formula():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(5, 4, generator=draw), torch.randn(5, 4, generator=draw)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / 3) for x in t]
        q = [math.exp(x / 3) for x in s]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(soft_divergence(student, teacher, 3.0)) == pytest.approx(9 * total / 5, rel=1e-5)
    assert float(soft_divergence(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("cached", [False, True])
def test_distilling_mixes_both_losses_and_leaves_the_teacher(cached):
    teacher, examples = make_model().train(), make_examples()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    config, base = Distil(weight=0.3, temperature=2.0), default_loss(Classification())
    loss = distillation_loss(teacher, config, base, examples=examples if cached else None)
    batch = next(examples.batches(16, torch.Generator().manual_seed(1)))
    outputs = torch.randn(16, 3, requires_grad=True)
    expected = 0.7 * base(outputs, batch) + 0.3 * soft_divergence(outputs, teacher(batch.inputs), 2.0)
    value = loss(outputs, batch)
    value.backward()
    assert torch.isclose(value, expected, atol=1e-6)
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_distilling_a_regression_pulls_to_the_teacher_s_output():
    teacher, examples = nn.Linear(4, 1), make_examples(classes=0)
    loss = distillation_loss(teacher, Distil(weight=1.0), default_loss(Regression()))
    batch = next(examples.batches(8))
    assert float(loss(teacher(batch.inputs).detach() + 2, batch)) == pytest.approx(4, rel=1e-5)


def test_teacher_and_student_must_agree_in_shape():
    loss = distillation_loss(make_model(), Distil(), default_loss(Classification()))
    with pytest.raises(ShapeError, match=r"teacher \(8, 3\) and student \(8, 4\)"):
        loss(torch.zeros(8, 4), next(make_examples().batches(8)))


def test_teacher_outputs_come_in_the_order_of_the_examples():
    teacher, examples = make_model(), make_examples()
    outputs = teacher_outputs(teacher, examples, batch_size=7)
    assert torch.allclose(outputs, teacher(examples.inputs), atol=1e-6)


def test_a_module_is_a_loss_of_outputs_and_targets():
    outputs, targets = torch.randn(6, 3), torch.randint(0, 3, (6,))
    loss = given_loss(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), "loss")
    batch = Batch(torch.arange(6), torch.zeros(6, 1), targets)
    oracle = functional.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(loss(outputs, batch), oracle)
    with pytest.raises(ModelError, match="loss failed"):
        loss(outputs[:, 0], batch)
