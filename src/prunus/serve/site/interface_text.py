"""How is inference described in the OpenAPI page, beside what FastAPI describes by itself?"""

from __future__ import annotations

from typing import Any

from prunus.serve.wire.tensor_specs import ModelSpec

__all__ = ["with_inference"]

_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "field": {"type": "string"}},
}
_STATUSES = {
    "400": "The request is wrong; `field` says where.",
    "401": "There is no key that is known.",
    "413": "The body is larger than allowed.",
    "422": "The model has no finite answer to these inputs.",
    "429": "Too many requests wait; `Retry-After` says when to come again.",
    "504": "There was no answer in time.",
}


def with_inference(document: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Return the OpenAPI document with the inference paths of a model in it."""
    tensor = {"type": "object", "required": ["name", "shape", "datatype"], "properties": _tensor()}
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        },
        "example": {"inputs": [_example(entry.name, entry.datatype, entry.shape) for entry in spec.inputs]},
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": tensor},
        },
    }
    problem = {"application/json": {"schema": _PROBLEM}}
    operation = {
        "tags": ["inference"],
        "summary": "Ask the model",
        "description": "JSON, or JSON followed by tensors as bytes, whose length `Inference-Header-Content-Length` says.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": request},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": {"description": "The model's answer.", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": words, "content": problem} for status, words in _STATUSES.items()},
        },
    }
    path = f"/v2/models/{spec.name}"
    paths = {f"{path}/infer": {"post": operation}, f"{path}/versions/{spec.version}/infer": {"post": operation}}
    security = {"key": {"type": "http", "scheme": "bearer"}}
    components = {**document.get("components", {}), "securitySchemes": security}
    return {
        **document,
        "paths": {**document["paths"], **paths},
        "components": components,
        "security": [{"key": []}, {}],
    }


def _tensor() -> dict[str, Any]:
    return {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    }


def _example(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1 if size == -1 else size for size in shape], "data": []}
