"""Recurrent layers as one operation, and their cells: gates are gates x hidden, all on the same hidden units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, fx

from prunus.graph.axes import Atom, freeze, product, split_product, sum_of, unify
from prunus.graph.solve import Axes, Call, Solver, join, rule

__all__ = ["RECURRENT", "recurrent_products"]

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_GATES = {"lstm": 4, "gru": 3}


@rule(*RECURRENT)
def recurrent(call: Call) -> list[Axes]:
    """Every layer and direction has the hidden units of the state; a layer reads what the one before gives, side by side."""
    given = call.axes("input")
    held = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    states = [call.solver.axes(node) for node in held]
    hidden, cell = states[0][-1], states[-1][-1]
    batch = 0 if call["batch_first"] else 1
    call.freeze([given[1 - batch]], "its order matters to the recurrence")
    for state in states:
        call.freeze(state[:1], "it counts layers and directions")
        join(given[batch], state[1])
    directions = 2 if call["bidirectional"] else 1
    read = given[-1]
    params = [call.solver.axes(node) for node in call["params"]]
    each = len(params) // (call["num_layers"] * directions)
    for layer in range(call["num_layers"]):
        for direction in range(directions):
            start = (layer * directions + direction) * each
            _layer(call, params[start : start + each], read, hidden, cell)
        read = hidden if directions == 1 else sum_of([hidden] * directions)
    return [[*given[:-1], read], *(list(state) for state in states)]


def _layer(call: Call, params: Sequence[Axes], read: Atom, hidden: Atom, cell: Atom) -> None:
    gates = _GATES.get(call.name, 1)
    to_input, to_hidden, *rest = params
    unify(to_input[1], read)
    unify(to_hidden[1], hidden)
    projected = len(rest) % 2 == 1
    for axes in (to_input, to_hidden, *(rest[:-1] if projected else rest)):
        _gated(call, axes[0], gates, cell)
    if not projected:
        unify(hidden, cell)
    else:
        unify(rest[-1][0], hidden)
        unify(rest[-1][1], cell)


def _gated(call: Call, rows: Atom, gates: int, cell: Atom) -> None:
    halves = split_product(rows, gates) if gates > 1 else (Atom(1), rows)
    if halves is None or not unify(halves[1], cell):
        freeze(rows, f"its gates don't have the size of the state ({call.where})")
        return
    call.freeze([halves[0]], "it is a gate of the cell")


def recurrent_products(solver: Solver, node: fx.Node) -> Iterator[tuple[Axes, Axes]]:
    """Yield the products that a recurrent layer computes: (positions and examples, the matrix)."""
    rows = solver.axes(node.args[0])[:-1]  # type: ignore[arg-type]
    for weight in node.args[2]:  # type: ignore[union-attr]
        axes = solver.axes(weight)  # type: ignore[arg-type]
        if len(axes) == 2:
            yield rows, axes


@rule("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell")
def fused_cell(call: Call) -> list[Axes]:
    """Gates are gates x hidden, all on the same hidden units."""
    state = call.axes("cx" if call.has("cx") else "hx")
    for name in ("input_gates", "hidden_gates", "input_bias", "hidden_bias"):
        if call.has(name):
            gates = call.axes(name)
            halves = split_product(gates[-1], gates[-1].size // state[-1].size)
            if halves is None or not unify(halves[1], state[-1]):
                call.freeze([gates[-1], state[-1]], "its gates don't have the size of the state")
            else:
                call.freeze([halves[0]], "it is a gate of the cell")
            if len(gates) > 1:
                join(gates[0], state[0])
    rest = [value for value in call.node.meta["val"] if isinstance(value, Tensor)][-1]
    states = len(call.node.meta["val"]) - 1
    workspace = product([call.new(rest.shape[-1] // state[-1].size, "it is a gate of the cell"), state[-1]])
    return [*(list(state) for _ in range(states)), [state[0], workspace]]
