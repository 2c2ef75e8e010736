"""Attacks: what they find is allowed, on linear models it is all there is, and hidden gradients don't hide from all of them."""

import pytest
import torch
from scipy import stats
from torch import nn

from prunus.evaluate.robustness import Effort, Threat, attacked, clopper_pearson
from prunus.evaluate.robustness.attacks.apgd import apgd, apgd_targeted, difference_of_logits
from prunus.evaluate.robustness.attacks.pgd import pgd
from prunus.evaluate.robustness.attacks.square import square
from prunus.evaluate.robustness.attacks.threat import inside, lengths, margin, wrong

FAST = Effort(pgd_steps=10, restarts=1, steps=20, targets=3, queries=200)


def threat(norm="linf", reach=0.1, low=-100.0, high=100.0):
    return Threat(norm, reach, torch.tensor(low), torch.tensor(high), torch.tensor(True))


def linear(n_classes=2, n_features=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n_classes, n_features, generator=draw), torch.randn(n_classes, generator=draw)


def points(weight, bias, n=300, seed=1):
    x = torch.randn(n, weight.shape[1], generator=torch.Generator().manual_seed(seed))
    return x, (x @ weight.T + bias).argmax(dim=1)


def runs(name):
    def draw():
        return torch.Generator().manual_seed(3)

    return {
        "pgd": lambda m, x, y, t: pgd(m, x, y, t, steps=20, restarts=2, draw=draw()),
        "apgd_ce": lambda m, x, y, t: apgd(m, x, y, t, steps=30, loss="ce", draw=draw()),
        "apgd_dlr": lambda m, x, y, t: apgd(m, x, y, t, steps=30, loss="dlr", draw=draw()),
        "apgd_targeted": lambda m, x, y, t: apgd_targeted(m, x, y, t, steps=30, most=9, draw=draw()),
        "square": lambda m, x, y, t: square(m, x, y, t, queries=300, draw=draw()),
    }[name]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "apgd_dlr", "apgd_targeted", "square"])
def test_of_two_classes_by_a_line_all_that_can_be_broken_is(name, norm):
    """The distance to the line is known: the lead over the weights' dual norm."""
    if (name, norm) == ("square", "l2"):
        return
    weight, bias = linear()
    x, right = points(weight, bias)
    apart = weight[1] - weight[0]
    distance = margin(x @ weight.T + bias, right) / (apart.abs().sum() if norm == "linf" else apart.norm())
    reach = {"linf": 0.1, "l2": 0.3}[norm]
    found = runs(name)(lambda z: z @ weight.T + bias, x, right, threat(norm, reach))
    broken = wrong(found @ weight.T + bias, right)
    # Steps of one length along the ball come near its end, those that halve come to it.
    sure = (distance - reach).abs() > (0.02 if (name, norm) == ("pgd", "l2") else 2e-3)
    assert 0.05 < float((distance < reach).float().mean()) < 0.9
    assert torch.equal(broken[sure], (distance < reach)[sure])


@pytest.mark.parametrize("name", ["apgd_targeted", "apgd_ce", "pgd"])
def test_of_many_classes_the_nearest_border_is_found(name):
    weight, bias = linear(n_classes=5)
    x, right = points(weight, bias)
    scores = x @ weight.T + bias
    apart = weight[None] - weight[right][:, None]
    lead = scores.gather(1, right[:, None]) - scores
    distance = (lead / apart.abs().sum(dim=2).clamp(min=1e-9)).scatter(1, right[:, None], torch.inf).amin(dim=1)
    found = runs(name)(lambda z: z @ weight.T + bias, x, right, threat())
    broken = wrong(found @ weight.T + bias, right)
    assert not (broken & (distance > 0.1 + 1e-4)).any(), "nothing beyond reach is broken"
    share = float(broken[distance < 0.098].float().mean())
    assert share == 1.0 if name == "apgd_targeted" else share > 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pgd", "apgd_ce", "apgd_dlr", "apgd_targeted", "square"])
def test_what_is_found_lies_in_the_ball_and_in_the_box_and_leaves_alone_what_may_not_change(name, norm):
    if (name, norm) == ("square", "l2"):
        return
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 20), nn.ReLU(), nn.Linear(20, 5))
    x, right = torch.rand(50, 3, 6, 6), torch.randint(0, 5, (50,))
    free = torch.ones(3, 6, 6, dtype=torch.bool)
    free[1] = False
    allowed = Threat(norm, 0.2, torch.tensor(0.0), torch.tensor(1.0), free)
    found = runs(name)(model, x, right, allowed)
    away = found - x
    size = away.abs().amax() if norm == "linf" else lengths(away).amax()
    assert float(size) <= 0.2 + 1e-5
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found[:, 1], x[:, 1])


def test_pgd_alone_sees_a_fortress_where_gradients_vanish_and_square_doesnt():
    weight, bias = linear(n_features=20)
    x, right = points(weight, bias)

    def hidden(z):
        return (z * 50).round() / 50 @ weight.T + bias  # the gradient of rounding is zero

    found = attacked(hidden, x, right, threat(reach=0.15), effort=FAST, seed=0)
    assert int(found.standing.sum()) < 0.7 * int(found.pgd.sum())
    assert found.rows[-1].attack == "square"
    assert found.rows[-1].broken > 30


def test_an_example_stands_only_where_no_attack_breaks_it_and_the_same_seed_finds_the_same():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 4))
    x = torch.randn(200, 8)
    right = model(x).argmax(dim=1)
    right[:10] = (right[:10] + 1) % 4
    one, two = (attacked(model, x, right, threat(reach=0.2), effort=FAST, seed=5) for _ in range(2))
    assert int((~one.right).sum()) == 10
    assert torch.equal(one.standing, two.standing)
    assert one.rows == two.rows
    assert not (one.standing & ~one.pgd).any()
    assert not (one.pgd & ~one.right).any()
    left = int(one.right.sum())
    for row in one.rows:
        assert row.tried == left
        left -= row.broken
        assert row.standing == left
    assert left == int(one.standing.sum())


def test_a_difference_of_logits_doesnt_change_with_their_scale():
    scores, right = torch.randn(20, 5), torch.randint(0, 5, (20,))
    assert torch.allclose(difference_of_logits(scores, right), difference_of_logits(7 * scores + 3, right), atol=1e-5)
    own = scores[0, right[0]]
    ordered = scores[0].sort(descending=True).values
    other = max(float(s) for k, s in enumerate(scores[0]) if k != right[0])
    assert difference_of_logits(scores, right)[0] == pytest.approx(
        -float((own - other) / (ordered[0] - ordered[2])), rel=1e-4
    )


def test_an_outlier_beyond_the_box_may_stay_where_it_is():
    far = Threat("linf", 0.1, torch.tensor(-1.0), torch.tensor(1.0), torch.tensor(True))
    x = torch.tensor([[3.0, 0.0]])
    assert inside(x + 1.0, x, far).tolist() == [[3.0, pytest.approx(0.1)]]


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (7, 30), (199, 256)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(k, n):
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-6)
