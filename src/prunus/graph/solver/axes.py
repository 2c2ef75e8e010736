"""What is the same dimension as what?

Every dimension of every tensor is an :class:`Atom`. Operations never assign, they only *unify*: an addition says that two
dimensions are the same atom, a reshape that one is the ordered product of others, a concatenation that one is the sum of its
parts. The atoms that are not bound to parts (leaves) are the axes that can be pruned on their own.

A stack of a thousand slices makes parts of parts a thousand deep, so nothing here recurses into sums of sums.

Convention: products are ordered from the slowest to the fastest index, as in a row-major reshape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TypeVar

__all__ = [
    "Atom",
    "factors",
    "fold",
    "freeze",
    "fresh",
    "leaves",
    "leaves_of_product",
    "product",
    "split_product",
    "sum_of",
    "unify",
]

_SERIAL = count()
V = TypeVar("V")


class Atom:
    """One axis: a leaf, or bound to a ``product`` or a ``sum`` of others. Union-find joins atoms that are the same."""

    __slots__ = ("kind", "parent", "parts", "reason", "serial", "size")

    def __init__(self, size: int, reason: str = "") -> None:
        self.size = size
        self.reason = reason  # not empty: frozen, and why
        self.kind = "leaf"
        self.parts: tuple[Atom, ...] = ()
        self.parent: Atom | None = None
        self.serial = next(_SERIAL)

    def __repr__(self) -> str:
        root = find(self)
        return f"<{root.kind} {root.size} #{root.serial}{' frozen' if root.reason else ''}>"


def fresh(size: int, reason: str = "") -> Atom:
    """Return a new axis; with a ``reason`` it is frozen."""
    return Atom(size, reason)


def find(atom: Atom) -> Atom:
    """Return the representative of everything that is the same as ``atom``."""
    root = atom
    while root.parent is not None:
        root = root.parent
    while atom.parent is not None:
        atom.parent, atom = root, atom.parent
    return root


def leaves(atom: Atom) -> Iterator[Atom]:
    """Yield the leaves of ``atom`` in order, a repeated one as often as it occurs."""
    stack = [find(atom)]
    while stack:
        root = stack.pop()
        if root.kind == "leaf":
            yield root
        else:
            stack.extend(find(part) for part in reversed(root.parts))


def leaves_of_product(atom: Atom) -> list[Atom]:
    """Return the factors of ``atom``, outermost first, where it is a product of leaves at some depth; else nothing.

    >>> heads, width = fresh(4), fresh(8)
    >>> leaves_of_product(sum_of([product([heads, width])] * 3)) == [heads, width]
    True
    """
    stack = [find(atom)]
    while stack:
        root = stack.pop()
        if root.kind == "product":
            return list(leaves(root))
        stack.extend(find(part) for part in reversed(root.parts))
    return []


def fold(atom: Atom, known: Callable[[Atom], V | None], combine: Callable[[Atom, list[V]], V]) -> V:
    """Return a value of ``atom``, combined from the values of its parts, down to where ``known`` gives one (leaves at least)."""
    whole = find(atom)
    values: dict[Atom, V] = {}
    stack = [whole]
    while stack:
        root = stack[-1]
        value = values[root] if root in values else known(root)
        if value is None:
            parts = [find(part) for part in root.parts]
            missing = [part for part in parts if part not in values]
            if missing:
                stack.extend(missing)
                continue
            value = combine(root, [values[part] for part in parts])
        values[root] = value
        stack.pop()
    return values[whole]


def freeze(atom: Atom, reason: str) -> None:
    """Forbid to prune any leaf of ``atom``; the first reason is kept."""
    for leaf in leaves(atom):
        leaf.reason = leaf.reason or reason


def product(parts: Sequence[Atom]) -> Atom:
    """Return the axis that runs through ``parts`` in row-major order."""
    parts = [part for part in parts if part.size != 1]
    if not parts:
        return Atom(1)
    if len(parts) == 1:
        return parts[0]
    size = math.prod(part.size for part in parts)
    return _bound("product", size, parts) if size else Atom(0)


def sum_of(parts: Sequence[Atom]) -> Atom:
    """Return the axis that has ``parts`` one after the other."""
    parts = [part for part in parts if part.size > 0]
    if len(parts) == 1:
        return parts[0]
    return _bound("sum", sum(part.size for part in parts), parts)


def _bound(kind: str, size: int, parts: Sequence[Atom]) -> Atom:
    atom = Atom(size)
    atom.kind, atom.parts = kind, tuple(parts)
    return atom


def _bind(leaf: Atom, kind: str, parts: Sequence[Atom]) -> None:
    """Give a leaf its parts; what was frozen stays frozen."""
    assert leaf.kind == "leaf", leaf
    assert leaf.parent is None, leaf
    reason, leaf.reason = leaf.reason, ""
    leaf.kind, leaf.parts = kind, tuple(parts)
    if reason:
        for part in parts:
            freeze(part, reason)


def unify(one: Atom, other: Atom) -> bool:
    """Say that two axes are the same; return whether their structures could be brought together.

    Where they can't, both are frozen: the worst case is an axis that can't be pruned.
    """
    one, other = find(one), find(other)
    if one is other:
        return True
    assert one.size == other.size, (one, other)
    if one.size == 1:
        return True
    if one.kind == "leaf" or other.kind == "leaf":
        leaf, kept = (one, other) if one.kind == "leaf" else (other, one)
        if leaf in set(leaves(kept)):  # an axis can't be a part of itself
            return False
        if leaf.reason:
            freeze(kept, leaf.reason)
        leaf.parent = kept
        if kept.kind == "leaf":
            kept.serial = min(kept.serial, leaf.serial)
        return True
    if one.kind == other.kind == "product":
        fits = _align_products(factors(one), factors(other))
    elif one.kind == other.kind == "sum":
        fits = _align_sums(_terms(one), _terms(other))
    else:
        total, prod = (one, other) if one.kind == "sum" else (other, one)
        fits = _align_sum_with_product(total, prod)
    if not fits:
        reason = f"two ways to read {one.size} positions meet that don't fit together"
        freeze(one, reason)
        freeze(other, reason)
        return False
    one, other = find(one), find(other)
    if one is not other:
        other.parent = one
    return True


def factors(atom: Atom) -> list[Atom]:
    """Return the factors of nested products in order; a sum inside is one factor."""
    return _flat(atom, "product")


def _terms(atom: Atom) -> list[Atom]:
    """Return the parts of nested sums in order; a product inside is one part."""
    return _flat(atom, "sum")


def _flat(atom: Atom, kind: str) -> list[Atom]:
    found: list[Atom] = []
    stack = [find(atom)]
    while stack:
        root = stack.pop()
        if root.kind == kind:
            stack.extend(find(part) for part in reversed(root.parts))
        else:
            found.append(root)
    return found


def _align_products(left: list[Atom], right: list[Atom]) -> bool:
    """Unify two row-major products, refining the larger factor at each step."""
    left, right = left[::-1], right[::-1]
    while left and right:
        a, b = find(left.pop()), find(right.pop())
        if a.kind == "product" or b.kind == "product":
            left.extend(reversed(factors(a)))
            right.extend(reversed(factors(b)))
            continue
        if a.size == b.size:
            if not unify(a, b):
                return False
            continue
        (small, pending), (large, others) = ((a, left), (b, right)) if a.size < b.size else ((b, right), (a, left))
        halves = split_product(large, small.size)
        if halves is None or not unify(small, halves[0]):
            return False
        others.append(halves[1])
        del pending
    return not left and not right


def split_product(atom: Atom, leading: int) -> tuple[Atom, Atom] | None:
    """Return the two factors of ``atom`` whose first has the size ``leading``, refining it; None where that can't be."""
    atom = find(atom)
    halves: tuple[Atom, Atom] | None
    if leading == 1:
        return Atom(1), atom
    if leading == atom.size:
        return atom, Atom(1)
    if atom.size % leading:
        return None
    if atom.kind == "leaf":
        halves = Atom(leading), Atom(atom.size // leading)
        _bind(atom, "product", halves)
        return halves
    if atom.kind == "sum":
        return _split_even_sum(atom, leading)
    taken: list[Atom] = []
    rest = factors(atom)
    size = 1
    while size < leading:
        factor = rest.pop(0)
        if leading % (size * factor.size) == 0:
            taken.append(factor)
            size *= factor.size
            continue
        if (leading // size) and leading % size == 0 and factor.size % (leading // size) == 0:
            halves = split_product(factor, leading // size)
            if halves is None:
                return None
            taken.append(halves[0])
            rest.insert(0, halves[1])
            size = leading
            continue
        return None
    return product(taken), product(rest)


def _split_even_sum(atom: Atom, leading: int) -> tuple[Atom, Atom] | None:
    """Read a sum as ``leading`` x each, which couples its parts: every part is rows of the same columns."""
    each = atom.size // leading
    parts = _terms(atom)
    if any(part.size % each for part in parts):
        # A row lies across parts: cut them where rows end.
        pieces = cut(atom, [each] * leading)
        if pieces is None:
            return None
        parts = [find(piece) for piece in pieces]
    rows: list[Atom] = []
    columns: list[Atom] = []
    for part in parts:
        halves = split_product(part, part.size // each)
        if halves is None:
            return None
        rows.append(halves[0])
        columns.append(halves[1])
    for other in columns[1:]:
        if not unify(columns[0], other):
            return None
    single = all(row.size == 1 for row in rows)
    outer = Atom(leading, "these parts lie side by side and are read as a grid") if single else sum_of(rows)
    if find(atom) is atom:
        atom.kind, atom.parts = "product", (outer, find(columns[0]))
    return outer, find(columns[0])


def _align_sums(left: list[Atom], right: list[Atom]) -> bool:
    """Unify two sums part by part, cutting the longer part at each step."""
    left, right = left[::-1], right[::-1]
    while left and right:
        a, b = find(left.pop()), find(right.pop())
        if a is b:
            continue
        if a.kind == b.kind == "sum":
            left.extend(reversed(_terms(a)))
            right.extend(reversed(_terms(b)))
            continue
        if a.size == b.size:
            if not unify(a, b):
                return False
            continue
        small, long, others = (a, b, right) if a.size < b.size else (b, a, left)
        pieces = cut(long, [small.size, long.size - small.size])
        if pieces is None or not unify(small, pieces[0]):
            return False
        others.append(pieces[1])
    return not left and not right


def cut(atom: Atom, sizes: Sequence[int]) -> list[Atom] | None:
    """Return consecutive pieces of ``atom`` of the given sizes, refining it into a sum; None where that can't be."""
    atom = find(atom)
    sizes = [size for size in sizes if size]
    if len(sizes) == 1:
        return [atom]
    if atom.kind == "leaf":
        pieces = [Atom(size) for size in sizes]
        _bind(atom, "sum", pieces)
        return pieces
    if atom.kind == "product":
        return _cut_product(atom, sizes)
    pieces, pending = [], _terms(atom)[::-1]
    flat: list[Atom] = []
    for size in sizes:
        taken: list[Atom] = []
        need = size
        while need:
            part = find(pending.pop())
            if part.kind == "sum":  # cut just now, as another place of the same axis
                pending.extend(reversed(_terms(part)))
                continue
            if part.size > need:
                halves = cut(part, [need, part.size - need])
                if halves is None:
                    return None
                pending.append(halves[1])
                part = halves[0]
            taken.append(part)
            need -= part.size
        flat.extend(taken)
        pieces.append(sum_of(taken))
    atom.parts = tuple(flat)
    return pieces


def _cut_product(atom: Atom, sizes: Sequence[int]) -> list[Atom] | None:
    """Cut along the slowest factor: ``3 x n`` into n, n, n, or ``h x d`` into stretches of whole ``d``."""
    parts = factors(atom)
    inner = atom.size // parts[0].size
    if any(size % inner for size in sizes):
        return None
    outer = cut(parts[0], [size // inner for size in sizes])
    if outer is None:
        return None
    return [product([piece, *parts[1:]]) for piece in outer]


def _align_sum_with_product(total: Atom, prod: Atom) -> bool:
    """Bring a sum and a product together: cut the product like the sum, or read equal parts as a grid."""
    pending = [(total, prod)]
    while pending:
        total, prod = map(find, pending.pop())
        if (total.kind, prod.kind) != ("sum", "product"):
            if not unify(total, prod):
                return False
            continue
        sizes = [part.size for part in total.parts]
        grid = len(set(sizes)) == 1 and len(sizes) == factors(prod)[0].size
        pieces = None if grid else _cut_product(prod, sizes)
        if pieces is not None:
            pending.extend(zip(reversed(total.parts), reversed(pieces), strict=True))
            continue
        halves = split_product(total, factors(prod)[0].size)
        if halves is None or not _align_products([halves[0], *factors(halves[1])], factors(prod)):
            return False
    return True
