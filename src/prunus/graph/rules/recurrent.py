"""Recurrent layers as one operation, and their cells: gates are gates x hidden, all on the same hidden units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from torch import fx

from prunus.graph.solver.axes import Atom, product, split_product, sum_of, unify
from prunus.graph.solver.solve import Axes, Call, Solver, broadcast, join, rule

__all__ = ["RECURRENT", "recurrent_products"]

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_GATES = {"lstm": 4, "gru": 3}


@rule(*RECURRENT)
def recurrent(call: Call) -> list[Axes]:
    """Every layer and direction has the hidden units of the state; a layer reads what the one before gives, side by side."""
    *outer, read = call.axes("input")
    steps, examples = reversed(outer) if call["batch_first"] else outer
    call.freeze([steps], "its order matters to the recurrence")
    held = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    states = [call.solver.axes(node) for node in held]
    for counts, of_state, _ in states:
        call.freeze([counts], "it counts layers and directions")
        join(examples, of_state)
    hidden, cell = states[0][-1], states[-1][-1]
    n_layers, directions = call["num_layers"], 1 + call["bidirectional"]
    params = iter([call.solver.axes(node) for node in call["params"]])
    each = len(call["params"]) // (n_layers * directions)
    for _ in range(n_layers):
        for _ in range(directions):
            _layer(call, list(islice(params, each)), read, hidden, cell)
        read = sum_of([hidden] * directions)
    return [[*outer, read], *(list(state) for state in states)]


def _layer(call: Call, params: Sequence[Axes], read: Atom, hidden: Atom, cell: Atom) -> None:
    gates = _GATES.get(call.name, 1)
    (rows_of_input, its_width), (rows_of_hidden, its_state), *rest = params
    unify(its_width, read)
    unify(its_state, hidden)
    for rows in (rows_of_input, rows_of_hidden, *(axes[0] for axes in rest if len(axes) == 1)):
        _gated(call, rows, gates, cell)
    projection = [axes for axes in rest if len(axes) == 2]  # the cell's units become those of the state
    for made, own in projection:
        unify(made, hidden)
        unify(own, cell)
    if not projection:
        unify(hidden, cell)


def _gated(call: Call, rows: Atom, gates: int, cell: Atom) -> None:
    halves = split_product(rows, gates)
    if halves is None or not unify(halves[1], cell):
        call.freeze([rows, cell], "its gates don't have the size of the state")
    else:
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
    examples, hidden = call.axes("cx" if call.name == "_thnn_fused_lstm_cell" else "hx")
    for name in ("input_gates", "hidden_gates", "input_bias", "hidden_bias"):
        if call.has(name):
            *outer, rows = call.axes(name)
            broadcast(outer, [examples])
            _gated(call, rows, rows.size // hidden.size, hidden)
    *states, workspace = call.node.meta["val"]
    gates = call.new(workspace.shape[-1] // hidden.size, "it is a gate of the cell")
    return [*([examples, hidden] for _ in states), [examples, product([gates, hidden])]]
