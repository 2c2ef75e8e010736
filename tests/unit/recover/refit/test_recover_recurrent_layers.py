"""A recurrent layer is fitted as the linear products that its gates add up, and never made worse."""

import pytest
import torch
from torch import nn

import prunus
from prunus.core.events import silent
from prunus.data import Batches
from prunus.recover import adjust, distance
from prunus.recover.refit.recurrent_layers import RecurrentCall, _states, _through, state_name

KINDS = [nn.RNN, nn.LSTM, nn.GRU]


def redundant(kind, seed=0, **options):
    """Return a model over sequences whose inputs and states have twins: half of them say it all."""
    torch.manual_seed(seed)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 16)
            self.rnn = kind(16, 12, batch_first=True, **options)
            self.head = nn.Linear(12 * (2 if options.get("bidirectional") else 1), 3)

        def forward(self, x):
            return self.head(self.rnn(self.first(x).tanh())[0])

    model = Model().eval()
    with torch.no_grad():
        model.first.weight[8:] = model.first.weight[:8]
        model.first.bias[8:] = model.first.bias[:8]
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("begun", [False, True])
def test_layers_one_by_one_are_the_layer_as_torch_runs_it(kind, options, begun):
    torch.manual_seed(0)
    rnn = kind(5, 7, **options)
    x = torch.randn(6, 3, 5)
    places = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    state = torch.randn(places, 3, 7) if begun else None
    given = (state, torch.zeros_like(state)) if begun and kind is nn.LSTM else state
    assert torch.allclose(_through(rnn, RecurrentCall(x, state)), rnn(x, given)[0], atol=1e-6)


def test_a_state_before_each_step_is_the_one_after_the_step_before():
    rnn, x = nn.GRU(5, 7, bidirectional=True), torch.randn(6, 3, 5)
    with torch.no_grad():
        before, after = _states(rnn, 0, False, x, None)
        assert torch.equal(before[1:], after[:-1])
        assert not before[0].any()
        before, after = _states(rnn, 0, True, x, None)
        assert torch.equal(before[:-1], after[1:])
        assert not before[-1].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_inputs_that_had_twins_are_made_good_exactly(kind, options):
    model = redundant(kind, **options)
    x = torch.randn(64, 9, 4, generator=torch.Generator().manual_seed(1))
    graph = prunus.analyze(model, (x[:2],))
    (group,) = [g for g in graph.groups if "first.weight" in {m.tensor for m in g.members}]
    keep = torch.arange(16) < 8
    small = prunus.shrink(model, (x[:2],), graph, {group.name: keep}).model
    lost = distance(small, model, Batches([(x, None)]))
    found = adjust(small, model, Batches([(x, None)]), ["least_squares"], damping=1e-8)
    (check,) = found.checks
    assert "rnn" in check.fitted
    assert distance(small, model, Batches([(x, None)])) < 0.02 * lost


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_go_are_made_good_as_far_as_can_be(kind):
    torch.manual_seed(0)
    model = redundant(kind)
    x = torch.randn(128, 9, 4, generator=torch.Generator().manual_seed(1))
    without = prunus.prune(
        model, x[:2], data=x, adjust=(), criterion="magnitude_l2", allocation="uniform", listener=silent
    )
    fitted = prunus.prune(model, x[:2], data=x, criterion="magnitude_l2", allocation="uniform", listener=silent)
    assert fitted.adjusted is not None
    assert "rnn" in fitted.adjusted.checks[0].fitted
    assert fitted.distance < 0.8 * without.distance


def test_a_fit_that_makes_held_out_examples_worse_is_taken_back(monkeypatch):
    from prunus.recover.refit import recurrent_layers as recurrent

    model = redundant(nn.GRU)
    x = torch.randn(64, 9, 4)
    graph = prunus.analyze(model, (x[:2],))
    (group,) = [g for g in graph.groups if "first.weight" in {m.tensor for m in g.members}]
    small = prunus.shrink(model, (x[:2],), graph, {group.name: torch.arange(16) < 8}).model
    before = {name: value.clone() for name, value in small.rnn.state_dict().items()}

    def spoil(weight, *given):
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape))

    monkeypatch.setattr(recurrent, "_fit_product", spoil)
    (check,) = adjust(small, model, Batches([(x, None)]), ["least_squares"]).checks
    assert "rnn" in check.returned
    assert all(torch.equal(before[name], value) for name, value in small.rnn.state_dict().items())


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.LSTM(16, 20, proj_size=12, batch_first=True), "its state is a projection"),
        (lambda: type("Own", (nn.GRU,), {})(16, 12, batch_first=True), "has a forward of its own"),
    ],
)
def test_what_cannot_be_fitted_is_named(make, why):
    model = redundant(nn.GRU)
    model.rnn = make()
    x = torch.randn(32, 9, 4)
    found = adjust(
        prunus.shrink(model, (x[:2],), prunus.analyze(model, (x[:2],)), {}).model,
        model,
        Batches([(x, None)]),
        ["least_squares"],
    )
    assert why in found.checks[0].left_out["rnn"]


def test_the_name_of_a_state_is_that_of_the_weight_that_reads_it():
    rnn = nn.LSTM(2, 3, num_layers=2, bidirectional=True)
    assert {state_name(layer, back) for layer in (0, 1) for back in (False, True)} == {
        name for name, _ in rnn.named_parameters() if name.startswith("weight_hh")
    }
