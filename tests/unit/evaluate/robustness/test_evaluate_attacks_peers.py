"""Attacks agree with foolbox and with the Adversarial Robustness Toolbox: the same step, and as many examples broken.

Neither package is among those that prunus needs; without them there is nothing to compare with.
"""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from prunus.evaluate.robustness import Effort, Threat, attacked
from prunus.evaluate.robustness.attacks.apgd import apgd
from prunus.evaluate.robustness.attacks.fab import fab
from prunus.evaluate.robustness.attacks.pgd import pgd
from prunus.evaluate.robustness.attacks.square import square
from prunus.evaluate.robustness.attacks.square_l2 import square_l2
from prunus.evaluate.robustness.attacks.threat import wrong

N = 200


@pytest.fixture(scope="module")
def subject():
    """Return a conv net that was trained on digits, and test images with their labels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(15):
        for rows in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False), x[-N:], y[-N:]


def threat(norm, reach):
    return Threat(norm, reach, torch.tensor(0.0), torch.tensor(1.0), torch.tensor(True))


def draw():
    return torch.Generator().manual_seed(0)


def accuracy(model, x, y):
    return 1 - float(wrong(model(x), y).float().mean())


def of_foolbox(model, x, y, attack, reach):
    foolbox = pytest.importorskip("foolbox")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = foolbox.PyTorchModel(model, bounds=(0, 1))
        return attack(foolbox.attacks)(made, x, y, epsilons=reach)[1]


def of_art(model, x, y, attack):
    pytest.importorskip("art")
    pytest.importorskip("multiprocess")  # which its AutoAttack needs, and doesn't say
    np.random.seed(0)  # noqa: NPY002 - what that package draws from
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        made = PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            input_shape=(1, 8, 8),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        return torch.from_numpy(attack(evasion, made).generate(x.numpy(), np.eye(10)[y.numpy()]))


@pytest.mark.parametrize("reach", [0.05, 0.1])
def test_one_step_is_foolboxs_fast_gradient_sign(subject, reach):
    model, x, y = subject
    theirs = of_foolbox(model, x, y, lambda known: known.LinfFastGradientAttack(), reach)
    ours = pgd(model, x, y, threat("linf", reach), steps=1, restarts=0, draw=draw())
    # What is answered wrongly anyway stays as it is here.
    good = ~wrong(model(x), y)
    assert torch.equal(wrong(model(ours), y)[good], wrong(model(theirs), y)[good])
    fooled = wrong(model(ours), y) & good
    assert torch.allclose(ours[fooled], theirs[fooled], atol=1e-6)


@pytest.mark.parametrize(("norm", "reach"), [("linf", 0.08), ("linf", 0.15), ("l2", 0.4), ("l2", 0.8)])
def test_as_many_withstand_pgd_as_foolboxs(subject, norm, reach):
    model, x, y = subject
    theirs = of_foolbox(
        model,
        x,
        y,
        lambda known: (known.LinfPGD if norm == "linf" else known.L2PGD)(steps=40, rel_stepsize=2.5 / 40),
        reach,
    )
    ours = pgd(model, x, y, threat(norm, reach), steps=40, restarts=1, draw=draw())
    assert accuracy(model, ours, y) == pytest.approx(accuracy(model, theirs, y), abs=0.02)


@pytest.mark.parametrize(("norm", "order", "reach"), [("linf", np.inf, 0.1), ("l2", 2, 0.6)])
def test_as_many_withstand_pgd_as_arts(subject, norm, order, reach):
    model, x, y = subject
    theirs = of_art(
        model,
        x,
        y,
        lambda known, made: known.ProjectedGradientDescent(
            made,
            norm=order,
            eps=reach,
            eps_step=2.5 * reach / 40,
            max_iter=40,
            num_random_init=1,
            batch_size=N,
            verbose=False,
        ),
    )
    ours = pgd(model, x, y, threat(norm, reach), steps=40, restarts=1, draw=draw())
    assert accuracy(model, ours, y) == pytest.approx(accuracy(model, theirs, y), abs=0.025)


@pytest.mark.parametrize(("loss", "called"), [("ce", "cross_entropy"), ("dlr", "difference_logits_ratio")])
@pytest.mark.parametrize(("norm", "order", "reach"), [("linf", np.inf, 0.1), ("l2", 2, 0.6)])
def test_no_more_withstand_auto_pgd_than_arts(subject, loss, called, norm, order, reach):
    model, x, y = subject
    theirs = of_art(
        model,
        x,
        y,
        lambda known, made: known.AutoProjectedGradientDescent(
            made,
            norm=order,
            eps=reach,
            eps_step=2 * reach,
            max_iter=50,
            nb_random_init=1,
            batch_size=N,
            loss_type=called,
            verbose=False,
        ),
    )
    ours = apgd(model, x, y, threat(norm, reach), steps=50, loss=loss, draw=draw())
    assert accuracy(model, ours, y) <= accuracy(model, theirs, y) + 0.02


def test_no_more_withstand_square_than_arts(subject):
    model, x, y = subject
    theirs = of_art(
        model,
        x,
        y,
        lambda known, made: known.SquareAttack(
            made, norm=np.inf, eps=0.1, max_iter=300, nb_restarts=1, batch_size=N, p_init=0.8, verbose=False
        ),
    )
    ours = square(model, x, y, threat("linf", 0.1), queries=300, draw=draw())
    assert accuracy(model, ours, y) <= accuracy(model, theirs, y) + 0.02


def test_no_more_withstand_everything_than_arts_autoattack(subject):
    model, x, y = subject
    theirs = of_art(
        model,
        x,
        y,
        lambda known, made: known.AutoAttack(
            made, norm=np.inf, eps=0.1, eps_step=0.1, batch_size=N, attacks=_few_queries(known, made)
        ),
    )
    ours = attacked(model, x, y, threat("linf", 0.1), effort=Effort(), seed=0)
    assert float(ours.standing.float().mean()) <= accuracy(model, theirs, y) + 0.01
    assert float(ours.standing.float().mean()) <= float(ours.pgd.float().mean())


def _few_queries(known, made):
    """Return the attacks that it runs by default, with a tenth of Square's queries, which take minutes."""
    by_gradient = [
        known.AutoProjectedGradientDescent(
            made,
            norm=np.inf,
            eps=0.1,
            eps_step=0.2,
            max_iter=100,
            nb_random_init=1,
            batch_size=N,
            loss_type=loss,
            verbose=False,
        )
        for loss in ("cross_entropy", "difference_logits_ratio")
    ]
    gradient_free = known.SquareAttack(
        made, norm=np.inf, eps=0.1, max_iter=500, nb_restarts=1, batch_size=N, verbose=False
    )
    return [*by_gradient, gradient_free]


def of_torchattacks(model, x, y, attack):
    known = pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attack(known)(x, y).detach()


@pytest.mark.parametrize(("norm", "called", "reach"), [("linf", "Linf", 0.1), ("l2", "L2", 0.5)])
def test_as_many_withstand_fab_as_torchattackss(subject, norm, called, reach):
    model, x, y = subject
    theirs = of_torchattacks(
        model,
        x,
        y,
        lambda known: known.FAB(
            model, norm=called, eps=reach, steps=50, n_restarts=1, multi_targeted=True, n_classes=10
        ),
    )
    ours = fab(model, x, y, threat(norm, reach), steps=50, most=9)
    assert accuracy(model, ours, y) == pytest.approx(accuracy(model, theirs, y), abs=0.02)


@pytest.mark.parametrize("reach", [0.5, 1.0])
def test_no_more_withstand_square_in_l2_than_torchattackss(subject, reach):
    model, x, y = subject
    theirs = of_torchattacks(
        model, x, y, lambda known: known.Square(model, norm="L2", eps=reach, n_queries=300, p_init=0.8)
    )
    ours = square_l2(model, x, y, threat("l2", reach), queries=300, draw=draw())
    assert accuracy(model, ours, y) <= accuracy(model, theirs, y) + 0.02
