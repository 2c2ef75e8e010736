"""What must the numbers be that ``forward`` takes its sizes from, after the cut?

The trace says which attribute is the size of which dimension, and the axes say what is left of that dimension. An attribute
that would have to be two numbers at once stays as it is; the comparison with the traced computation then shows that the class
can't follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from prunus.graph import Solution
from prunus.graph.solver.axes import Atom, factors
from prunus.graph.solver.axis_positions import left_of
from prunus.graph.tracing.observe import Attribute, Expression, SizeUse

__all__ = ["mend_sizes"]


def mend_sizes(model: nn.Module, smaller: nn.Module, solution: Solution, kept: Mapping[str, int]) -> None:
    """Set the attributes of ``smaller`` (a copy of ``model``) that its forward takes changed sizes from."""
    sizes = solution.sizes(kept)
    wanted: dict[Attribute, set[int]] = {}
    compared: dict[Attribute, set[int]] = {}
    compound: list[tuple[Expression, int]] = []
    for use in solution.solver.trace.uses:
        want = _want(solution, use, sizes)
        if want is None:
            continue
        if isinstance(use.expression, Attribute) and use.kind == "compared":
            compared.setdefault(use.expression, set()).add(want)
        elif isinstance(use.expression, Attribute):
            wanted.setdefault(use.expression, set()).add(want)
        else:
            compound.append((use.expression, want))
    for attribute, found in compared.items():
        # A check of a size is no use of it. Several dimensions may be as large as the one that is meant: what is cut changes.
        changed = found - {attribute.get()}
        if attribute not in wanted and changed:
            wanted[attribute] = changed
    values = {attribute: found.pop() for attribute, found in wanted.items() if len(found) == 1}
    # Products first: in a division one side may be a number that the trace read off a tensor of the old size.
    for expression, want in sorted(compound, key=lambda pair: "//" in repr(_signs(pair[0]))):
        unknown = {a for a in _attributes(expression) if a not in wanted and a not in values}
        solved = {a: value for a in unknown if (value := _solve(expression, want, a, values)) is not None}
        if len(solved) == 1:  # sizes only shrink: often just one of the unknown numbers can explain the change
            values.update(solved)
    twins = _twins(model, smaller)
    for attribute, value in values.items():
        if value != attribute.get() and id(attribute.owner) in twins:
            Attribute(twins[id(attribute.owner)], attribute.name, attribute.at).set(value)


def _want(solution: Solution, use: SizeUse, sizes: Mapping[Atom, int]) -> int | None:
    axis = solution.solver.axis(use.node, use.dim)
    if axis is None:
        return None
    if use.kind == "outer":
        return _rows_left(axis, _value(use.expression, {}), sizes)
    size = left_of(axis, sizes)
    if use.kind in ("size", "compared"):
        return size
    source = solution.solver.axis(use.source, use.dim)
    if source is None:
        return None
    whole = left_of(source, sizes)
    return whole - size if use.kind == "start" else size // max(whole, 1)


def _rows_left(atom: Atom, rows: int, sizes: Mapping[Atom, int]) -> int | None:
    """Return how many of the outermost ``rows`` of an axis are left; None where it isn't read as so many."""
    before, after = 1, 1
    for factor in factors(atom):
        if before == rows:
            break
        before, after = before * factor.size, after * left_of(factor, sizes)
    return after if before == rows else None


def _attributes(expression: Expression) -> Iterator[Attribute]:
    if isinstance(expression, Attribute):
        yield expression
    elif isinstance(expression, tuple):
        yield from _attributes(expression[1])
        yield from _attributes(expression[2])


def _signs(expression: Expression) -> list[str]:
    return [expression[0], *_signs(expression[1]), *_signs(expression[2])] if isinstance(expression, tuple) else []


def _value(expression: Expression, values: Mapping[Attribute, int]) -> int:
    if isinstance(expression, Attribute):
        return values[expression] if expression in values else expression.get()
    if isinstance(expression, int):
        return expression
    sign, left, right = expression
    one, other = _value(left, values), _value(right, values)
    if sign == "//":
        return one // other if other else 0
    return one * other if sign == "*" else one + other if sign == "+" else one - other


def _solve(expression: Expression, want: int, attribute: Attribute, values: Mapping[Attribute, int]) -> int | None:
    """Return the number up to the old one that makes the expression ``want``; sizes only shrink, so trying them is enough."""
    for candidate in range(attribute.get(), 0, -1):
        if _value(expression, {**values, attribute: candidate}) == want:
            return candidate
    return None


def _twins(model: nn.Module, smaller: nn.Module) -> dict[int, object]:
    """Return, for every module and config of ``model``, what stands in its place in ``smaller``."""
    found: dict[int, object] = {}
    copies = dict(smaller.named_modules())
    for path, module in model.named_modules():
        twin = copies[path]
        found[id(module)] = twin
        for name, value in vars(module).items():
            if hasattr(value, "__dict__") and not isinstance(value, nn.Module):
                found.setdefault(id(value), vars(twin).get(name, value))
    return found
