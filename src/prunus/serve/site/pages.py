"""Which pages are there beside inference: health, metadata, metrics, and what the server's interface is?"""

from __future__ import annotations

from typing import Any

from prunus.core.code.extras import require
from prunus.core.runtime import versions
from prunus.serve.refusal import Refusal
from prunus.serve.running.served_model import ServedModel
from prunus.serve.site.interface_text import with_inference
from prunus.serve.site.site_state import Site

__all__ = ["pages"]


def pages(site: Site) -> Any:
    """Return the FastAPI application of everything that is no inference."""
    require("fastapi", extra="serve")
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    from prunus.serve.site.admin_pages import add_admin_pages
    from prunus.serve.site.predict_page import add_predict_page

    version_of_prunus = versions()["prunus"]

    class Described(FastAPI):
        def openapi(self) -> dict[str, Any]:
            """Return the interface, inference included."""
            return with_inference(super().openapi(), site.traffic.primary.spec)

    app = Described(
        title=f"prunus: {site.traffic.name}",
        version=version_of_prunus,
        summary="A pruned model behind the Open Inference Protocol, version 2.",
    )

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> Any:
        """Tell whether the server runs."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> Any:
        """Tell whether requests should be sent here; 503 where the server ends."""
        return JSONResponse({"ready": site.ready}, 200 if site.ready else 503)

    @app.get("/v2", tags=["metadata"])
    async def server() -> Any:
        """Return the server's name and version."""
        return {
            "name": "prunus",
            "version": version_of_prunus,
            "extensions": ["binary_tensor_data", "model_repository"],
        }

    @app.get("/v2/models/{name}/versions/{version}", tags=["metadata"])
    @app.get("/v2/models/{name}", tags=["metadata"])
    async def model(name: str, version: str | None = None) -> Any:
        """Return what a model takes and gives."""
        return metadata(site, site.traffic.model(name, version))

    @app.get("/v2/models/{name}/versions/{version}/ready", tags=["health"])
    @app.get("/v2/models/{name}/ready", tags=["health"])
    async def model_ready(name: str, version: str | None = None) -> Any:
        """Tell whether a model answers."""
        site.traffic.model(name, version)
        return JSONResponse({"ready": site.ready}, 200 if site.ready else 503)

    @app.get("/metrics", tags=["metrics"])
    async def metrics() -> Any:
        """Return the server's numbers for Prometheus."""
        kind, text = site.metrics.page(site.traffic, site.held_bytes)
        return Response(text, media_type=kind)

    add_predict_page(app, site)
    add_admin_pages(app, site)

    @app.exception_handler(Refusal)
    async def refused(_: Any, refusal: Refusal) -> Any:
        headers = {name.decode(): value.decode() for name, value in refusal.headers()}
        return Response(refusal.body(), refusal.status, headers)

    @app.exception_handler(HTTPException)
    async def odd(request: Request, error: HTTPException) -> Any:
        where = f"{request.method} {request.url.path[:200]}"
        said = Refusal(error.status_code, f"{where}: {str(error.detail).lower()}; /openapi.json lists what there is")
        return Response(said.body(), error.status_code, {"content-type": "application/json", **(error.headers or {})})

    return app


def metadata(site: Site, model: ServedModel) -> dict[str, Any]:
    """Return the metadata of the protocol, and how the model runs."""
    spec = model.spec
    return {
        "name": spec.name,
        "versions": [one.spec.version for one in site.traffic.models],
        "platform": spec.platform,
        "inputs": [entry.describe() for entry in spec.inputs],
        "outputs": [entry.describe() for entry in spec.outputs],
        "properties": {
            "task": spec.task,
            "class_names": list(spec.class_names),
            "version": spec.version,
            "sha256": model.manifest.sha256,
            "note": model.engine.note,
            "verified": None if model.found is None else model.found.to_dict() | {"bundle": model.folder.name},
        },
    }
