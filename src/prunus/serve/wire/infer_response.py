"""How does an answer of a model leave: as JSON, or as JSON followed by bytes?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.serve.wire.infer_request import Asked
from prunus.serve.wire.tensor_specs import ModelSpec

__all__ = ["Headers", "infer_response"]

Headers = list[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]


def infer_response(
    asked: Asked, spec: ModelSpec, arrays: Sequence[np.ndarray[Any, Any]], request_id: str
) -> tuple[Headers, bytes]:
    """Return headers and body of an answer."""
    outputs: list[dict[str, Any]] = []
    parts: list[Any] = []
    for place, binary in asked.outputs:
        array, wanted = arrays[place], spec.outputs[place]
        said: dict[str, Any] = {"name": wanted.name, "datatype": wanted.datatype, "shape": list(array.shape)}
        if binary:
            said["parameters"] = {"binary_data_size": array.nbytes}
            parts.append(np.ascontiguousarray(array, wanted.dtype).data.cast("B") if array.size else b"")
        else:
            said["data"] = array.reshape(-1).tolist()
        outputs.append(said)
    tree = {"model_name": spec.name, "model_version": spec.version, "id": request_id, "outputs": outputs}
    text = json.dumps(tree, separators=(",", ":")).encode()
    if not parts:
        return _JSON, text
    return [
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"%d" % len(text)),
    ], b"".join((text, *parts))
