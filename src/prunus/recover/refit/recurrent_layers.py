"""How is a recurrent layer set right after a cut, so that its gates read what they read before?

A gate adds up two products: of the inputs, and of the state that the layer gave before. Both are linear, so each is fitted by
least squares as a linear layer is, with the states that the smaller layer really has. What an LSTM or a plain RNN adds up is
fitted as one product; a GRU multiplies its second one by a gate before they meet, so that the two are fitted apart. Layers of a
stack follow each other, each on what those before it give then.

References:
    Cho et al., 2014, arXiv:1406.1078 (GRU); He et al., ICCV 2017, arXiv:1707.06168 (least squares after a cut).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.recover.refit.fit_layers import fit_weights
from prunus.recover.refit.formula import Saved
from prunus.recover.refit.sequential import CallsDifferError, Pair

__all__ = ["RecurrentCall", "fit_recurrent", "recurrent_calls", "state_name", "why_not_recurrent"]

_Parts = tuple[Any, Any, Any, Any]
_Pairs = Sequence[tuple[Tensor, Tensor]]
_GATES = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}


@dataclass(frozen=True)
class RecurrentCall:
    """One call of a recurrent layer: its inputs ``(steps, batch, features)`` and the state that it began with, or None."""

    inputs: Tensor
    state: Tensor | None


def state_name(layer: int, reverse: bool) -> str:
    """Return the parameter whose columns are the units of a state: by it, what is left of them is looked up."""
    return f"weight_hh_l{layer}{'_reverse' if reverse else ''}"


def why_not_recurrent(module: nn.RNNBase) -> str | None:
    """Return why a recurrent layer can't be fitted, or None."""
    if type(module) not in _GATES:
        return f"a {type(module).__name__} has a forward of its own"
    if module.proj_size:
        return "its state is a projection"
    if any(name not in module._parameters for name in ("weight_ih_l0", "weight_hh_l0")):
        return "its weights are computed by a parametrization"
    return None


@torch.no_grad()
def recurrent_calls(layer: nn.RNNBase, run: Callable[[], object]) -> list[RecurrentCall]:
    """Return how ``layer`` is called while ``run()`` runs its model.

    Raises:
        CallsDifferError: it is given packed sequences, whose rows have no fixed place.
    """
    seen: list[RecurrentCall] = []

    def hook(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs = given[0] if given else named.get("input")
        state = given[1] if len(given) > 1 else named.get("hx")
        if not isinstance(inputs, Tensor):
            raise CallsDifferError
        state = state[0] if isinstance(state, tuple) else state
        if inputs.dim() == 2:
            inputs, state = inputs.unsqueeze(1), None if state is None else state.unsqueeze(1)
        elif module.batch_first:
            inputs = inputs.transpose(0, 1)
        seen.append(RecurrentCall(inputs.detach().clone(), None if state is None else state.detach().clone()))

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return seen


@torch.no_grad()
def fit_recurrent(
    new: nn.RNNBase,
    old: nn.RNNBase,
    calls: Sequence[tuple[RecurrentCall, RecurrentCall]],
    held_out: Sequence[tuple[RecurrentCall, RecurrentCall]],
    kept: Mapping[str, Tensor],
    *,
    damping: float,
) -> tuple[str | None, bool]:
    """Fit the smaller layer in place; return why it wasn't, or None, and whether what came out was worse and is taken back.

    Args:
        calls: of the smaller layer and of the one before the cut, on the same examples; ``held_out`` on others, which judge.
        kept: which units of each state are left, by :func:`state_name`; without an entry all of them.
    """
    directions = 2 if new.bidirectional else 1
    before = Saved(new)
    old_inputs = [one.inputs for _, one in calls]
    new_inputs = [one.inputs for one, _ in calls]
    for layer in range(new.num_layers):
        olds, news = [], []
        for reverse in (False, True)[:directions]:
            place = layer * directions + int(reverse)
            name = state_name(layer, reverse)
            left = kept.get(name)
            if (left is None and new.hidden_size != old.hidden_size) or (
                left is not None and len(left) != new.hidden_size
            ):
                before.restore()
                return "what is left of its state isn't known", False
            rows = _rows(left, old.hidden_size, _GATES[type(new)])
            for fit in (_fit_inputs, _fit_states):  # the states are others once the inputs are right
                runs = [
                    (
                        _states(new, layer, reverse, mine, _first(call.state, place)),
                        _states(old, layer, reverse, theirs, _first(other.state, place)),
                    )
                    for (call, other), mine, theirs in zip(calls, new_inputs, old_inputs, strict=True)
                ]
                states = [(now[0], earlier[0]) for now, earlier in runs]
                inputs = list(zip(new_inputs, old_inputs, strict=True))
                parts = _parts(new, layer, reverse), _parts(old, layer, reverse)
                why = fit(isinstance(new, nn.GRU), *parts, inputs, states, rows, damping)
                if why is not None:
                    before.restore()
                    return why, False
            olds.append([theirs[1] for _, theirs in runs])
            news.append(
                [
                    _states(new, layer, reverse, mine, _first(call.state, place))[1]
                    for (call, _), mine in zip(calls, new_inputs, strict=True)
                ]
            )
        old_inputs = [torch.cat(parts, dim=-1) for parts in zip(*olds, strict=True)]
        new_inputs = [torch.cat(parts, dim=-1) for parts in zip(*news, strict=True)]
    after = _error(new, old, held_out, kept)
    now = Saved(new)
    before.restore()
    if not after <= _error(new, old, held_out, kept):
        return None, True
    now.restore()
    return None, False


def _first(state: Tensor | None, place: int) -> Tensor | None:
    return None if state is None else state[place]


def _parts(rnn: nn.RNNBase, layer: int, reverse: bool) -> _Parts:
    """Return the weights and biases of one layer and direction: of the inputs, of the state."""
    ending = f"_l{layer}{'_reverse' if reverse else ''}"
    return tuple(rnn._parameters.get(f"{kind}{ending}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # type: ignore[return-value]


@torch.no_grad()
def _states(rnn: nn.RNNBase, layer: int, reverse: bool, inputs: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the state before each step and after it, ``(steps, batch, units)``, in the order of the inputs."""
    kind: Any = type(rnn)
    one = kind(inputs.shape[-1], rnn.hidden_size, bias=rnn.bias, **_nonlinearity(rnn)).to(inputs).eval()
    for own, held in zip(one.parameters(), _held(rnn, layer, reverse), strict=True):
        own.copy_(held)
    steps = inputs.flip(0) if reverse else inputs
    begin = inputs.new_zeros(1, inputs.shape[1], rnn.hidden_size) if first is None else first.unsqueeze(0)
    given: Any = (begin, torch.zeros_like(begin)) if isinstance(rnn, nn.LSTM) else begin
    after = one(steps, given)[0]
    earlier = torch.cat([begin, after[:-1]])
    return (earlier.flip(0), after.flip(0)) if reverse else (earlier, after)


def _held(rnn: nn.RNNBase, layer: int, reverse: bool) -> list[Tensor]:
    return [tensor for tensor in _parts(rnn, layer, reverse) if tensor is not None]


def _nonlinearity(rnn: nn.RNNBase) -> dict[str, Any]:
    return {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}


def _fit_inputs(
    apart: bool, mine: _Parts, theirs: _Parts, inputs: _Pairs, states: _Pairs, rows: Tensor, damping: float
) -> str | None:
    """Fit what the gates get of the inputs."""
    return _fit_product(mine[0], mine[2], theirs[0], theirs[2], inputs, rows, damping)


def _fit_states(
    apart: bool, mine: _Parts, theirs: _Parts, inputs: _Pairs, states: _Pairs, rows: Tensor, damping: float
) -> str | None:
    """Fit what the gates get of the state, where it meets the inputs later; else both, which make good for each other."""
    if apart:
        return _fit_product(mine[1], mine[3], theirs[1], theirs[3], states, rows, damping)
    both = [
        (torch.cat((x, state), dim=-1), torch.cat((old_x, old_state), dim=-1))
        for (x, old_x), (state, old_state) in zip(inputs, states, strict=True)
    ]
    weight = nn.Parameter(torch.cat(mine[:2], dim=1))
    bias = None if mine[2] is None else nn.Parameter(mine[2] + mine[3])
    old_bias = None if theirs[2] is None else theirs[2] + theirs[3]
    why = _fit_product(weight, bias, torch.cat(theirs[:2], dim=1), old_bias, both, rows, damping)
    n_inputs = mine[0].shape[1]
    mine[0].copy_(weight[:, :n_inputs])
    mine[1].copy_(weight[:, n_inputs:])
    if bias is not None:
        mine[2].add_(bias - mine[2] - mine[3])  # the sum of the two is all that counts
    return why


def _fit_product(
    weight: nn.Parameter,
    bias: nn.Parameter | None,
    old_weight: Tensor,
    old_bias: Tensor | None,
    seen: _Pairs,
    rows: Tensor,
    damping: float,
) -> str | None:
    """Fit one product as the linear layer that it is."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    if bias is not None:
        layer.bias = bias

    def pairs() -> Iterable[Pair]:
        for x, y in seen:
            wanted = nn.functional.linear(y, old_weight, old_bias).index_select(-1, rows.to(y.device))
            yield Pair(x, layer(x), y, wanted)

    return fit_weights(layer, pairs(), None, damping=damping)


def _rows(left: Tensor | None, hidden: int, gates: int) -> Tensor:
    """Return the rows of the old weights that are left: the same units of every gate."""
    units = torch.arange(hidden) if left is None else left
    return torch.cat([units + gate * hidden for gate in range(gates)])


def _error(
    new: nn.RNNBase,
    old: nn.RNNBase,
    calls: Sequence[tuple[RecurrentCall, RecurrentCall]],
    kept: Mapping[str, Tensor],
) -> float:
    """Return how far the outputs are from those that are left of the old layer's, in squares."""
    total = 0.0
    directions = (False, True)[: 2 if new.bidirectional else 1]
    last = new.num_layers - 1
    for call, other in calls:
        found = _through(new, call).chunk(len(directions), dim=-1)
        wanted = _through(old, other).chunk(len(directions), dim=-1)
        for reverse, mine, theirs in zip(directions, found, wanted, strict=True):
            left = kept.get(state_name(last, reverse))
            rest = theirs if left is None else theirs.index_select(-1, left.to(theirs.device))
            total += float((rest - mine).double().square().sum())
    return total


def _through(rnn: nn.RNNBase, call: RecurrentCall) -> Tensor:
    """Return the outputs of all layers together."""
    values = call.inputs
    directions = (False, True)[: 2 if rnn.bidirectional else 1]
    for layer in range(rnn.num_layers):
        parts = [
            _states(rnn, layer, reverse, values, _first(call.state, layer * len(directions) + int(reverse)))[1]
            for reverse in directions
        ]
        values = torch.cat(parts, dim=-1)
    return values
