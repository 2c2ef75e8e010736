"""What does an inference request of the Open Inference Protocol ask for: which tensors, answered in which form, until when?

JSON, or JSON followed by tensors as bytes, whose length ``Inference-Header-Content-Length`` says. No model of pydantic is made:
reading a request takes less than running a small network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunus.core.text import shown
from prunus.serve.refusal import Refusal
from prunus.serve.serve_settings import ClientLimits
from prunus.serve.wire.json_body import parse_body
from prunus.serve.wire.tensor_data import Array, check_named_sizes, check_shape, check_values, from_bytes, from_json
from prunus.serve.wire.tensor_specs import ModelSpec, TensorSpec

__all__ = ["Asked", "parse_infer"]

_MOST_ID = 200


@dataclass(slots=True)
class Asked:
    """The tensors that a request holds, in the model's order, and how it wants to be answered.

    ``outputs`` are places of the model's outputs, and whether each is wanted as bytes. ``timeout_s`` is what the client allows.
    """

    id: str | None
    arrays: list[Array]
    n_examples: int
    n_bytes: int
    outputs: list[tuple[int, bool]]
    timeout_s: float | None = None


def parse_infer(body: bytes, json_bytes: int | None, spec: ModelSpec, limits: ClientLimits) -> Asked:
    """Return what a body asks for.

    Args:
        json_bytes: how much of the body is JSON; None is all of it.

    Raises:
        Refusal: something in it can't be used; it names the field.
    """
    header = "inference-header-content-length"
    if json_bytes is None:
        tree, offset = parse_body(body), len(body)
    else:
        if not 0 <= json_bytes <= len(body):
            raise Refusal(400, f"{header}: expected 0 to {len(body)} bytes, got {json_bytes}", field=header)
        tree, offset = parse_body(memoryview(body)[:json_bytes]), json_bytes
    parameters = _mapping(tree.get("parameters"), "parameters")
    given = tree.get("inputs")
    if type(given) is not list or not given:
        raise Refusal(400, f"inputs: expected a list of tensors, got {shown(given)}", field="inputs")
    if len(given) != len(spec.inputs):
        names = ", ".join(entry.name for entry in spec.inputs)
        raise Refusal(400, f"inputs: the model takes {names}, got {len(given)} tensors", field="inputs")
    arrays: list[Array | None] = [None] * len(spec.inputs)
    for number, tensor in enumerate(given):
        place, array, offset = _input(tensor, f"inputs[{number}]", body, offset, spec, limits)
        if arrays[place] is not None:
            name = spec.inputs[place].name
            raise Refusal(400, f"inputs[{number}].name: {name!r} is there twice", field=f"inputs[{number}].name")
        arrays[place] = array
    if offset != len(body):
        raise Refusal(
            400, f"body: {len(body) - offset} bytes follow the tensors that the JSON part names", field="body"
        )
    made = [array for array in arrays if array is not None]
    if len(made) > 1 or spec.inputs[0].fixed is None:
        check_named_sizes(spec.inputs, [array.shape for array in made])
    return Asked(
        _id(tree.get("id")),
        made,
        made[0].shape[0],
        sum(array.nbytes for array in made),
        _outputs(tree.get("outputs"), spec, parameters.get("binary_data_output") is True),
        _timeout(parameters.get("timeout")),
    )


def _input(
    tensor: Any, field: str, body: bytes, offset: int, spec: ModelSpec, limits: ClientLimits
) -> tuple[int, Array, int]:
    """Return the place of one tensor among the model's inputs, the tensor, and where the bytes of the next one begin."""
    if type(tensor) is not dict:
        raise Refusal(400, f"{field}: expected a tensor, got {shown(tensor)}", field=field)
    name = tensor.get("name")
    place = spec.input_places.get(name) if isinstance(name, str) else None
    if place is None:
        names = ", ".join(spec.input_places)
        raise Refusal(400, f"{field}.name: the model takes {names}, got {shown(name)}", field=f"{field}.name")
    wanted: TensorSpec = spec.inputs[place]
    if tensor.get("datatype") != wanted.datatype:
        raise Refusal(
            400,
            f"{field}.datatype: {wanted.name!r} is {wanted.datatype}, got {shown(tensor.get('datatype'))}",
            field=f"{field}.datatype",
        )
    shape = check_shape(tensor.get("shape"), wanted, f"{field}.shape", limits.examples)
    size = _mapping(tensor.get("parameters"), f"{field}.parameters").get("binary_data_size")
    if size is not None:
        where = f"{field}.parameters.binary_data_size"
        if type(size) is not int or not 0 <= size <= len(body) - offset:
            left = len(body) - offset
            raise Refusal(400, f"{where}: expected 0 to the {left} bytes that are left, got {shown(size)}", field=where)
        if "data" in tensor:
            raise Refusal(400, f"{field}: expected data as JSON or as bytes, got both", field=field)
        array, offset = from_bytes(body, offset, size, wanted, shape, where), offset + size
        field = where
    else:
        field = f"{field}.data"
        array = from_json(tensor.get("data"), wanted, shape, field)
    check_values(array, wanted, field)
    return place, array, offset


def _outputs(given: Any, spec: ModelSpec, binary: bool) -> list[tuple[int, bool]]:
    if given is None or given == []:
        return [(place, binary) for place in range(len(spec.outputs))]
    if type(given) is not list:
        raise Refusal(400, f"outputs: expected a list, got {shown(given)}", field="outputs")
    found: list[tuple[int, bool]] = []
    for number, output in enumerate(given):
        field = f"outputs[{number}]"
        name = _mapping(output, field).get("name")
        place = spec.output_places.get(name) if isinstance(name, str) else None
        if place is None or any(place == other for other, _ in found):
            names = ", ".join(spec.output_places)
            raise Refusal(
                400, f"{field}.name: the model gives {names}, each once, got {shown(name)}", field=f"{field}.name"
            )
        own = _mapping(output.get("parameters"), f"{field}.parameters")
        if "classification" in own or "shared_memory_region" in own:
            raise Refusal(
                400,
                f"{field}.parameters: classification and shared memory aren't served here; /v1/predict gives labels",
                field=f"{field}.parameters",
            )
        found.append((place, own.get("binary_data", binary) is True))
    return found


def _mapping(value: Any, field: str) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise Refusal(400, f"{field}: expected an object, got {shown(value)}", field=field)
    return value


def _id(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if type(value) is not str or len(value) > _MOST_ID or not value.isprintable():
        raise Refusal(400, f"id: expected a text of at most {_MOST_ID} letters, got {shown(value)}", field="id")
    return value


def _timeout(value: Any) -> float | None:
    """Return the microseconds that Triton's clients send, in seconds."""
    if value is None or value == 0:
        return None
    if type(value) is not int or not 0 < value < 2**53:
        field = "parameters.timeout"
        raise Refusal(400, f"{field}: expected whole microseconds above 0, got {shown(value)}", field=field)
    return value / 1e6
