"""What does the model say of an image, a row of a table or a line of text, in words that a person reads?"""

from __future__ import annotations

import asyncio
import secrets
from time import perf_counter
from typing import Any

import torch
from fastapi import FastAPI, Request

from prunus.core.errors import PrunusError
from prunus.serve.refusal import Refusal
from prunus.serve.running.served_model import ServedModel
from prunus.serve.site.raw_inputs import raw_arrays
from prunus.serve.site.request_reading import timeout_of
from prunus.serve.site.site_state import Site
from prunus.serve.wire.tensor_data import Array, check_named_sizes, check_shape, check_values
from prunus.tasks import task_of_options

__all__ = ["add_predict_page"]


def add_predict_page(app: FastAPI, site: Site) -> None:
    """Add the page to an application."""

    @app.post("/v1/predict", tags=["inference"], openapi_extra={"requestBody": _BODY})
    async def predict(request: Request) -> Any:
        """Answer raw inputs: an image, rows of a table, or lines of text, with a label and its probability, or a value."""
        began, limits = perf_counter(), site.settings.limits
        timeout_s = timeout_of({name.lower(): value for name, value in request.headers.raw}, limits)
        body = await request.body()
        model = site.traffic.primary
        if model.manifest.own_task is not None:
            raise Refusal(409, "this bundle's task is Python code that no bundle holds: ask for tensors")
        kind = request.headers.get("content-type", "application/json")
        loop = asyncio.get_running_loop()
        arrays = await loop.run_in_executor(None, raw_arrays, body, kind, model, site.tokenizer, limits.examples)
        _check(arrays, model, limits.examples)
        request_id = secrets.token_hex(8)
        left = max(timeout_s - (perf_counter() - began), 0.0)
        n_bytes = sum(array.nbytes for array in arrays)
        answered, outputs = await site.traffic.answer(model, False, arrays, n_bytes, left, request_id)
        said = await loop.run_in_executor(None, _said, answered, outputs)
        return {"id": request_id, "model_version": answered.spec.version, "predictions": said}


def _check(arrays: list[Array], model: ServedModel, most: int) -> None:
    """Check that what was made of raw inputs is what the model takes, as of tensors that come as such."""
    for array, spec in zip(arrays, model.spec.inputs, strict=True):
        check_shape(list(array.shape), spec, spec.name, most)
        check_values(array, spec, spec.name)
    check_named_sizes(model.spec.inputs, [array.shape for array in arrays])


def _said(model: ServedModel, outputs: list[Array]) -> list[dict[str, Any]]:
    manifest = model.manifest
    task = task_of_options(manifest.task, manifest.task_options, class_names=manifest.class_names)
    given = [torch.from_numpy(output.copy()) for output in outputs]
    try:
        found = task.decode(given[0] if len(given) == 1 else given)
    except PrunusError as error:
        raise Refusal(422, f"the model's answer can't be read: {error}; ask for tensors") from None
    if found.probabilities is None:
        return [{"value": _plain(label)} for label in found.labels]
    best = found.probabilities.max(dim=1).values.tolist()
    return [
        {"label": _plain(label), "probability": round(float(sure), 6)}
        for label, sure in zip(found.labels, best, strict=True)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


_TEXT = {"schema": {"type": "string"}}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "row": {"type": "object"},
                    "rows": {"type": "array", "items": {"type": "object"}},
                    "image": {"type": "string", "format": "byte"},
                    "images": {"type": "array", "items": {"type": "string", "format": "byte"}},
                    "text": {"type": "string"},
                    "texts": {"type": "array", "items": {"type": "string"}},
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "text/csv": _TEXT,
        "text/plain": _TEXT,
    },
}
