"""Which operations of an exported graph are written otherwise, so that a runtime's fast kernels take them?

What a graph computes stays, number for number. Forms that torch's exporter writes are slow in ONNX Runtime on a processor
(measured: docs/explanation/arithmetic-and-time.md):

* an addition before a layer norm is fused with it into a kernel without vectors, several times slower than both alone; the
  runtime's pattern doesn't know ``Sum``, which is the same of two tensors;
* the keys of an attention are turned through five operations on shapes and two reshapes, at every call, where one transposition of
  the last two dimensions does it, which is then part of the product;
* a mask that hides nothing is spread over all scores of an attention and added, at every layer;
* the weights of an attention are searched for rows that a mask hid as a whole, where there is no mask. (Where scores overflow, such
  a row was zeros and is NaN now, as it is in torch.)
"""

from __future__ import annotations

from typing import Any

from prunus.core.code.extras import require

__all__ = ["use_fast_forms"]


def use_fast_forms(graph: Any) -> None:
    """Rewrite a graph of ``onnx_ir`` in place."""
    for node in list(graph):
        if node.graph is None:  # removed on the way
            continue
        if node.op_type == "LayerNormalization":
            added = _made_by(node.inputs[0], "Add")
            if added is not None:
                added.op_type = "Sum"
        elif node.op_type == "Reshape":
            _transpose_at_once(graph, node)
        elif node.op_type == "Add":
            _drop_empty_mask(graph, node)
        elif node.op_type == "Where":
            _drop_needless_guard(graph, node)


def _transpose_at_once(graph: Any, last: Any) -> None:
    """Put one transposition of the last two dimensions in the place of reshape, transpose, reshape."""
    turned = _made_by(last.inputs[0], "Transpose")
    first = None if turned is None or _perm(turned) != [0, 2, 1] else _made_by(turned.inputs[0], "Reshape")
    if first is None:
        return
    x = first.inputs[0]
    rank = _rank(x)
    if rank is None or rank < 3:
        return
    joined, apart = _sizes(first.inputs[1], x), _sizes(last.inputs[1], x)
    if joined != [-1, "-2", "-1"] or apart != ["before", "-1", "-2"]:
        return
    ir = require("onnx_ir", extra="onnx")
    perm = [*range(rank - 2), rank - 1, rank - 2]
    made = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", perm)], num_outputs=1)
    made.metadata_props.update(last.metadata_props)
    graph.insert_before(last, made)
    new, old = made.outputs[0], last.outputs[0]
    new.shape, new.type, new.name = old.shape, old.type, old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    _remove_unused(graph, last)


def _drop_empty_mask(graph: Any, add: Any) -> None:
    """Leave out the addition of zeros that a mask is which hides nothing, where it doesn't spread what it is added to."""
    for scores, mask in (add.inputs, add.inputs[::-1]):
        if not _hides_nothing(mask):
            continue
        known, wider = _dims(scores), _dims(mask)
        if known is None or wider is None or len(wider) > len(known):
            continue
        if all(own in (1, other) for own, other in zip(wider[::-1], known[::-1], strict=False)):
            _replace(graph, add, scores)
            return


def _hides_nothing(mask: Any) -> bool:
    """Tell whether what is added to scores is zero everywhere, as a constant, or as what a constant condition takes."""
    mask = _unspread(mask)
    chosen = _made_by(mask, "Where")
    if chosen is None:
        return _everywhere(mask, 0)
    return _everywhere(chosen.inputs[1], 0) and _everywhere(_unspread(chosen.inputs[0]), 1)


def _unspread(value: Any) -> Any:
    """Return what a value repeats along dimensions, or the value."""
    node = _made_by(value, "Expand")
    return value if node is None else node.inputs[0]


def _drop_needless_guard(graph: Any, guard: Any) -> None:
    """Leave out the search for NaN in weights whose scores are a product, so that no mask hid a row."""
    looked, weights = _made_by(guard.inputs[0], "IsNaN"), _made_by(guard.inputs[2], "Softmax")
    if looked is None or weights is None or looked.inputs[0] is not guard.inputs[2]:
        return
    if _everywhere(guard.inputs[1], 0) and _made_by(_unscaled(weights.inputs[0]), "MatMul") is not None:
        _replace(graph, guard, guard.inputs[2])


def _replace(graph: Any, node: Any, value: Any) -> None:
    """Let all read a value in the place of what an operation computes."""
    old = node.outputs[0]
    if old.is_graph_output():
        return
    old.replace_all_uses_with(value)
    _remove_unused(graph, node)


def _unscaled(value: Any) -> Any:
    """Return what a value is a multiple of by one number, or the value."""
    scaled = _made_by(value, "Mul") or _made_by(value, "Div")
    factor = None if scaled is None else _held(scaled.inputs[1])
    return value if scaled is None or factor is None or factor.size != 1 else scaled.inputs[0]


def _dims(value: Any) -> list[int | str] | None:
    """Return the sizes of a value, numbers or names; None where one isn't known and doesn't follow from what it is made of."""
    found = None if value.shape is None else [one if isinstance(one, int) else one.value for one in value.shape]
    if found is not None and None not in found:
        return found
    value = _unscaled(value)
    turned, product = _made_by(value, "Transpose"), _made_by(value, "MatMul")
    if turned is not None:
        before = _dims(turned.inputs[0])
        return None if before is None else [before[dim] for dim in _perm(turned)]
    if product is None:
        return None
    left, right = (_dims(one) for one in product.inputs)
    if left is None or right is None or len(left) < 2 or left[:-2] != right[:-2]:
        return None
    return [*left[:-1], right[-1]]


def _everywhere(value: Any, number: int) -> bool:
    """Tell whether a value is a constant that holds one number only."""
    held = _held(value)
    return held is not None and bool((held == number).all())


def _held(value: Any) -> Any:
    """Return a constant as an array."""
    held = value.const_value
    if held is None:
        made = _made_by(value, "Constant")
        held = made.attributes["value"].value if made is not None and "value" in made.attributes else None
    return None if held is None else held.numpy()


def _sizes(value: Any, of: Any) -> list[Any] | None:
    """Return the parts that a list of sizes is put together of, in terms of the shape of ``of``; None where they aren't known."""
    node = _made_by(value, "Concat")
    if node is None:
        return None
    found: list[Any] = []
    for part in node.inputs:
        number = _numbers(part)
        if number is not None:
            found += number
            continue
        cut = _made_by(part, "Slice")
        shape = None if cut is None else _made_by(cut.inputs[0], "Shape")
        if cut is None or shape is None or shape.inputs[0] is not of or not _is_whole(shape) or len(cut.inputs) > 3:
            return None
        found.append(_SLICES.get((_one(cut.inputs[1]), _one(cut.inputs[2]))))
    return found


_START, _END = -(1 << 63), (1 << 63) - 1
_SLICES: dict[tuple[int | None, int | None], str] = {
    (0, -2): "before",
    (_START, -2): "before",
    (-2, -1): "-2",
    (-1, _END): "-1",
}
"""What a slice of a shape holds, by its start and end."""


def _is_whole(shape: Any) -> bool:
    """Tell whether a ``Shape`` gives all sizes."""
    return "end" not in shape.attributes and ("start" not in shape.attributes or shape.attributes["start"].value == 0)


def _one(value: Any) -> int | None:
    numbers = _numbers(value)
    return numbers[0] if numbers is not None and len(numbers) == 1 else None


def _numbers(value: Any) -> list[int] | None:
    """Return the numbers of a constant of whole ones."""
    held = _held(value)
    return None if held is None or held.dtype.name not in ("int64", "int32") else held.reshape(-1).tolist()


def _perm(node: Any) -> list[int]:
    return list(node.attributes["perm"].value) if "perm" in node.attributes else []


def _rank(value: Any) -> int | None:
    if value.shape is not None:
        return len(value.shape)
    made = _made_by(value, "Transpose")
    return None if made is None else len(_perm(made)) or None


def _made_by(value: Any, kind: str) -> Any:
    """Return the operation that computes a value, if it is of that kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind and node.domain == "" else None


def _remove_unused(graph: Any, node: Any) -> None:
    """Remove an operation and all that only it needed."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.graph is None or any(output.uses() or output.is_graph_output() for output in one.outputs):
            continue
        makers = {id(value): value.producer() for value in one.inputs if value is not None}
        graph.remove(one, safe=True)
        waiting += [maker for maker in makers.values() if maker is not None]
